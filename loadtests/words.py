"""A result in sentences."""

from loadtests.result import Result
from loadtests.verdict import Exit

WORDS = {
    Exit.PASSED: "Passed",
    Exit.FAILED: "Failed",
    Exit.UNUSABLE: "Not measured",
    Exit.CLIENT_LIMITED: "No verdict: the load generator was what limited",
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


def tested(found: Result) -> str:
    """What was done, in a sentence."""
    models = ", ".join(f"{name}:{version}" if version else name for name, version, *_ in found.models)
    if found.users:
        return f"{found.users} users in a closed loop asked {models} for {found.whole.seconds:g} s."
    return (
        f"{PROFILES.get(found.profile, found.profile).capitalize()}, on {models}: {found.whole.offered:,} requests "
        f"counted over {found.whole.seconds:g} s, {found.arrivals} arrivals fixed beforehand, "
        f"latency from when each was due."
    )


def broke_first(found: Result) -> str:
    """What went wrong first, and when."""
    if found.finding is not None and found.finding.rate:
        return f"{found.finding.knee} What limited: {found.finding.limit}."
    for moment in found.moments:
        where = f"at {moment.at:.1f} s, with {moment.offered_rate:,.0f} requests/s due ({_phase(found, moment.at)})"
        if moment.failed_rate:
            return f"First, requests failed: {where}."
        if moment.p99_ms is not None and moment.p99_ms > found.objective.p99_ms:
            return f"First, answers became late: {where}, p99 was {moment.p99_ms:,.0f} ms."
    return "Nothing broke."


def _phase(found: Result, at: float) -> str:
    end = 0.0
    for part in found.parts:
        end += part.seconds
        if at < end:
            return part.name
    return found.parts[-1].name


def summary(found: Result, code: Exit) -> str:
    """The short form: a line for a log, and one for each thing that failed."""
    whole, latency = found.whole, found.whole.latency_ms
    names = ",".join(model[0] for model in found.models)
    if found.finding is not None and found.finding.rate:
        head = f"capacity of {names}: {found.finding.rate:,.1f} requests/s"
        lines = [f"{WORDS[code]}: {head}", found.finding.knee, f"What limited: {found.finding.limit}."]
        return "\n".join([*lines, *found.verdict])
    figures = ", ".join(f"{name} {latency[name]:,.1f} ms" for name in ("p50", "p99", "p99.9") if name in latency)
    line = (
        f"{WORDS[code]}: {found.profile} of {names}, {whole.offered:,} requests at {whole.offered_rate:,.1f}/s, "
        f"{figures or 'no right answer'}, {whole.failed_share:.2%} failed"
    )
    limit = [f"The load generator was what limited: {found.client_limit}."] if found.client_limit else []
    return "\n".join([line, *found.verdict, *limit])
