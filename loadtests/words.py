"""A result in sentences."""

from math import ceil

from loadtests.result import Finding, LoadResult
from loadtests.verdict import Exit

WORDS = {
    Exit.PASSED: "Passed",
    Exit.FAILED: "Failed",
    Exit.UNUSABLE: "Not measured",
    Exit.CLIENT_LIMITED: "No verdict",
    Exit.INTERRUPTED: "Interrupted",
}
PROFILES = {
    "smoke": "a light load, to see whether it works",
    "ramp": "a rate that rises steadily",
    "step": "four rising steps",
    "spike": "a quiet load with a sudden spike",
    "soak": "one rate for a long time",
    "overload": "five and ten times what it carries, and what comes after",
    "mixed": "all models at once",
    "replay": "arrivals as a log has them",
    "closed": "users that wait for each answer before they ask again",
    "capacity": "rising and falling rates, in search of the highest that holds",
}


def tested(found: LoadResult) -> str:
    """Return what was done, in a sentence."""
    models = ", ".join(f"{name}:{version}" if version else name for name, version, *_ in found.models)
    if found.users:
        return f"{found.users} users in a closed loop asked {models} for {found.whole.seconds:g} s."
    return (
        f"{PROFILES.get(found.profile, found.profile).capitalize()}, on {models}: {found.whole.offered:,} requests "
        f"counted over {found.whole.seconds:g} s, {found.arrivals} arrivals fixed beforehand, "
        f"latency from when each was due."
    )


def broke_first(found: LoadResult) -> str:
    """Return what went wrong first, and when."""
    if found.finding is not None and found.finding.rate:
        return f"{found.finding.knee} What limited: {found.finding.limit}."
    for moment in found.moments:
        where = f"at {moment.at:.1f} s, with {moment.offered_rate:,.0f} requests/s due ({_phase(found, moment.at)})"
        if moment.failed_rate:
            return f"First, requests failed: {where}."
        if moment.p99_ms is not None and moment.p99_ms > found.objective.p99_ms:
            return f"First, answers became late: {where}, p99 was {moment.p99_ms:,.0f} ms."
    return "Nothing broke."


def _phase(found: LoadResult, at: float) -> str:
    end = 0.0
    for part in found.parts:
        end += part.seconds
        if at < end:
            return part.name
    return found.parts[-1].name


def summary(found: LoadResult, code: Exit) -> str:
    """Return the short form: a line for a log, and one for each thing that failed."""
    whole, latency = found.whole, found.whole.latency_ms
    names = ",".join(model[0] for model in found.models)
    if found.finding is not None:
        return "\n".join(_capacity(found.finding, names, code) + found.verdict)
    figures = ", ".join(f"{name} {latency[name]:,.1f} ms" for name in ("p50", "p99", "p99.9") if name in latency)
    line = (
        f"{WORDS[code]}: {found.profile} of {names}, {whole.offered:,} requests at {whole.offered_rate:,.1f}/s, "
        f"{figures or 'no right answer'}, {whole.failed_share:.2%} failed"
    )
    limit = [f"What limited: {found.client_limit}."] if found.client_limit else []
    return "\n".join([line, *found.verdict, *limit])


def _capacity(finding: Finding, names: str, code: Exit) -> list[str]:
    """Return what a search found, or how far it came."""
    if finding.rate:
        least = "at least " if finding.blocked else ""
        head = f"capacity of {names}: {least}{finding.rate:,.1f} requests/s"
        return [f"{WORDS[code]}: {head}", finding.knee, f"What limited: {finding.limit}."]
    held = (
        f"the highest rate that held was {finding.held_rate:,.1f} requests/s, in one window"
        if finding.held_rate
        else ""
    )
    return [f"{WORDS[code]}: no capacity of {names}; {held or 'no window held'}"]


def plan_capacity(found: LoadResult, target_rate: float | None) -> list[str]:
    """Return what a planner asks, in a line: the rate within the objective, per core, memory, replicas for a target.

    Empty without a confirmed rate.
    """
    if found.finding is None or not found.finding.rate:
        return []
    rate = found.finding.rate
    used = next(window.used for window in reversed(found.windows) if window.is_held and window.rate == rate)
    least = "at least " if found.finding.blocked else ""
    parts = [f"{least}{rate:,.0f} requests/s at p99 ≤ {found.objective.p99_ms:g} ms from this service"]
    if used.server_cores:
        parts.append(f"{rate / used.server_cores:,.0f}/s per core ({used.server_cores:.2f} cores used)")
    if used.server_mb is not None:
        parts.append(f"{used.server_mb:,.0f} MB in {used.server_processes} processes")
    if target_rate:
        replicas = ceil(target_rate / rate)
        most = "at most " if found.finding.blocked else ""
        parts.append(
            f"{target_rate:,.0f} requests/s take {most}{replicas} like it, {replicas + 1} to be able to lose one"
        )
    return [f"Plan: {'; '.join(parts)}."]
