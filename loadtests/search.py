"""The search for a capacity: the highest arrival rate at which the objective holds, by a rule that is written down.

1. Climb: the rate doubles until it does not hold.
2. Close in: geometric halving between the highest rate that held and the lowest that did not, until they are 2 % apart.
   A rate that does not hold is tried again, and two windows of three decide, so that one hiccup of a shared machine
   does not; a window that a fifth of the requests missed decides alone.
3. Challenge: the lowest rate that did not hold is tried once more, longer. If it holds now, the search had been misled
   by hiccups and climbs on from there.
4. Confirm: at the highest rate that held, three longer windows hold before two do not. Of the requests of all of these
   together no more failed than the objective allows, and the 95 % upper bound (Clopper and Pearson, 1934) of the share
   that failed or came too late is at most 1 %. Otherwise the rate goes down, by the closeness first and then by more
   each time, and is confirmed again.

A window holds when at least 99 of 100 requests were answered rightly within the bound, from when they were due, no more
failed than the objective allows, and the second half was not slower than the bound either (a queue that has just begun
to grow). A window that did not hold and in which the generator itself was busy, or other processes on its machine, says
nothing about the service and is repeated. After three of them in a row the rate is taken for one that cannot be offered
from here, and what is confirmed below it is reported as a lower bound. Where service and generator together fill the
machine, a window that did not hold counts: that is what this machine carries.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple

from scipy.special import betaincinv

from loadtests.bottleneck import BUSY_MACHINE, MACHINE, cores_taken, find_bottleneck
from loadtests.result import Finding, ModelResult, TimeWindow, Used
from loadtests.task import CapacitySearch, Objective, Patience

CONFIRMATIONS, TRIES, MOST_VOID = 3, 3, 3
MOST_STEPS_DOWN, MOST_ROUNDS = 5, 3
P99_SHARE, DECISIVE_SHARE = 0.01, 0.2
CONFIDENCE = 0.95
BUSY_CORE, BUSY_NETWORK = 0.85, 0.8


class SearchStep(NamedTuple):
    """A window to be tried."""

    rate: float
    seconds: float
    stage: str


Windows = Generator[SearchStep, TimeWindow, Finding]


def search(hunt: CapacitySearch, objective: Objective) -> Windows:
    """Yield the windows to try, one after the other; each is answered by sending what it gave."""
    low, start = 0.0, hunt.start
    for _ in range(MOST_ROUNDS):
        low, high, last = yield from _climb(hunt, start, low)
        if not low:
            return _nothing(high, last, f"{start:,.0f}")
        low, high, last = yield from _close_in(hunt, low, high, last)
        if high is None or _blocked(last):
            break
        holds_too, window = yield from _majority(SearchStep(high, hunt.confirm_seconds, "challenge"))
        if not holds_too or window.is_void:
            break
        start = high
    return (yield from _confirmed(hunt, objective, low, high, last))


def _close_in(
    hunt: CapacitySearch, low: float, high: float | None, last: TimeWindow | None
) -> Generator[SearchStep, TimeWindow, tuple[float, float | None, TimeWindow | None]]:
    """Yield the same bracket as it comes, closer."""
    while high is not None and high / low > hunt.closeness:
        rate = (low * high) ** 0.5
        held, window = yield from _majority(SearchStep(rate, hunt.seconds, "close in"))
        low, high, last = (rate, high, last) if held else (low, rate, window)
    return low, high, last


def _confirmed(
    hunt: CapacitySearch, objective: Objective, low: float, high: float | None, last: TimeWindow | None
) -> Windows:
    """Yield what held, or something below it, held three times over."""
    rate = low
    for number in range(1, MOST_STEPS_DOWN + 1):
        tried = yield from _confirm(SearchStep(rate, hunt.confirm_seconds, "confirm"))
        offered = sum(window.part.offered for window in tried)
        bound = upper_share(_count(tried, "missed_share"), offered)
        is_within = _count(tried, "failed_share") <= objective.error_share * offered
        if tried[-1].is_held and bound <= P99_SHARE and is_within:
            return _found(rate, high, bound, tried, last)
        missed = next((one for one in tried if not one.is_held), None)
        last, high, rate = missed or last, rate, rate / hunt.closeness**number
    return _nothing(high, last, f"{high:,.1f}")


def _nothing(high: float | None, last: TimeWindow | None, slowest: str) -> Finding:
    """Return the end without a rate."""
    refused = f"No rate was found at which the objective holds; the slowest tried was {slowest} requests/s."
    blocked = _blocked(last)
    if last is not None and blocked:
        refused = (
            f"No capacity is reported, because the client was the bottleneck ({blocked}): "
            f"at {last.rate:,.0f} requests/s {last.why}."
        )
    return Finding(
        rate=None,
        failed_rate=None if blocked else high,
        upper_missed_share=None,
        knee="",
        limit=blocked or _limit(last),
        refused=refused,
        blocked=blocked,
    )


def _blocked(last: TimeWindow | None) -> str:
    """Return what, other than the service, ended the search."""
    return last.blame if last is not None and last.is_void else ""


def _climb(
    hunt: CapacitySearch, start: float, low: float
) -> Generator[SearchStep, TimeWindow, tuple[float, float | None, TimeWindow | None]]:
    """Yield the highest rate that held (0 if none), the lowest that did not, and the window in which it did not."""
    rate = start
    while rate <= hunt.most:
        held, window = yield from _majority(SearchStep(rate, hunt.climb_seconds, "climb"))
        if not held:
            return low, rate, window
        rate, low = 2 * rate, rate
    return low, None, None


def _valid(trial: SearchStep) -> Generator[SearchStep, TimeWindow, TimeWindow]:
    """Yield the first window that says something about the service, or the last of some that do not."""
    for _ in range(MOST_VOID):
        window = yield trial
        if not window.is_void:
            break
    return window


def _majority(trial: SearchStep) -> Generator[SearchStep, TimeWindow, tuple[bool, TimeWindow]]:
    """Yield whether two windows of three held, and the last that did not, or the last; a void one counts as missed."""
    held: list[TimeWindow] = []
    failed: list[TimeWindow] = []
    while max(len(held), len(failed)) <= TRIES // 2:
        window = yield from _valid(trial)
        if window.is_void:
            return False, window
        (held if window.is_held else failed).append(window)
        is_first = len(held) + len(failed) == 1
        if is_first and (window.is_held or window.part.missed_share > DECISIVE_SHARE):
            return window.is_held, window  # what held is confirmed later, by longer windows
    return len(held) > len(failed), (failed or held)[-1]


def _confirm(trial: SearchStep) -> Generator[SearchStep, TimeWindow, list[TimeWindow]]:
    """Yield the windows until three held, the last of them too, or two did not, or the generator was what limited."""
    tried: list[TimeWindow] = []
    while True:
        tried.append((yield from _valid(trial)))
        held = sum(window.is_held for window in tried)
        if held == CONFIRMATIONS or len(tried) - held > 1 or tried[-1].is_void:
            return tried


def _count(windows: Sequence[TimeWindow], share: str) -> int:
    return sum(round(getattr(window.part, share) * window.part.offered) for window in windows)


def upper_share(missed: int, offered: int) -> float:
    """Return the 95 % upper bound of a share, exactly (Clopper and Pearson)."""
    return 1.0 if missed >= offered else float(betaincinv(missed + 1, offered - missed, CONFIDENCE))


def _found(
    low: float, high: float | None, bound: float, tried: Sequence[TimeWindow], failed: TimeWindow | None
) -> Finding:
    middle = sorted(window.part.latency_ms["p99"] for window in tried)[len(tried) // 2]
    knee = f"The objective holds at {low:,.1f} requests/s (p99 {middle:.1f} ms in the middle window)"
    blocked = _blocked(failed)
    if failed and blocked:
        knee += f"; it may carry more, but at {failed.rate:,.1f} {failed.why}."
    elif high and failed:
        knee += f" and no longer at {high:,.1f}: {failed.why}."
    else:
        knee += ", which is as far as was tried; it may carry more."
    limit = blocked or _limit(failed)
    failed_rate = None if blocked else high
    return Finding(rate=low, failed_rate=failed_rate, upper_missed_share=bound, knee=knee, limit=limit, blocked=blocked)


def interrupted(windows: Sequence[TimeWindow]) -> Finding:
    """Return what is known of a search that was ended before its time."""
    failed = [window for window in windows if not (window.is_held or window.is_void)]
    return Finding(
        rate=None,
        failed_rate=min((window.rate for window in failed), default=None),
        upper_missed_share=None,
        knee="",
        limit="the one who interrupted the search",
        refused="No capacity is reported: the search was interrupted before a rate was confirmed.",
        held_rate=highest_held(windows),
    )


def highest_held(windows: Sequence[TimeWindow]) -> float | None:
    """Return the highest rate at which a window held."""
    return max((window.rate for window in windows if window.is_held), default=None)


def judge(
    trial: SearchStep, part: ModelResult, later: ModelResult, used: Used, objective: Objective, patience: Patience
) -> TimeWindow:
    """Return what a window says: it held, it did not and why, or it is void.

    Args:
        trial: What was tried.
        part: The figures of the window.
        later: Of its second half.
        used: By server and client meanwhile.
        objective: What is promised.
        patience: From when on the generator limits.
    """
    why = miss(part, objective)
    if not why and later.missed_share > 0.02:
        why = f"in the second half {later.missed_share:.1%} of the requests were late or failed: a queue grows"
    late = find_bottleneck(part, used, objective, patience)
    # What held in spite of a late generator held. A machine that service and generator fill together is full at this
    # rate: another try would find it so again.
    is_void = bool(why and late and late.what != MACHINE)
    return TimeWindow(
        rate=trial.rate,
        stage=trial.stage,
        part=part,
        used=used,
        is_held=not why,
        is_void=is_void,
        why=late.why if late and is_void else why,
        blame=late.what if late and why else "",
    )


def miss(part: ModelResult, objective: Objective) -> str:
    """Return how the objective was missed; empty when it was held."""
    if part.failed_share > objective.error_share:
        worst = max((reason for reason in part.outcomes if reason != "ok"), key=lambda reason: part.outcomes[reason])
        return f"{part.failed_share:.2%} of the requests failed, most by “{worst}”; {objective.error_share:.2%} may"
    if part.missed_share > P99_SHARE:
        return f"{part.missed_share:.1%} of the requests took longer than {objective.p99_ms:g} ms; 1 % may"
    return ""


def _limit(window: TimeWindow | None) -> str:
    """Return what limited, by what was used in the window that did not hold."""
    if window is None:
        return "nothing that was reached"
    used, reasons = window.used, []
    if used.busiest_process is not None and used.busiest_process > BUSY_CORE:
        reasons.append(f"the server's CPU: its busiest process used {used.busiest_process:.0%} of a core")
    if used.machine_share > BUSY_MACHINE:
        reasons.append(f"the machine's CPU: {cores_taken(used)}; with the load from another machine it may carry more")
    if used.network_limit_mb and used.network_mb > BUSY_NETWORK * used.network_limit_mb:
        reasons.append(f"the network: {used.network_mb:.0f} of {used.network_limit_mb:.0f} MB/s")
    if used.stolen_share > 0.05:
        reasons.append(f"other machines, which took {used.stolen_share:.0%} of the cores")
    if reasons:
        return "; ".join(reasons)
    seen = (
        "its processes cannot be seen from here"
        if used.server_cores is None
        else f"its processes ({used.server_processes}) used {used.server_cores:.2f} cores"
    )
    return f"the service itself, neither CPU nor network nor client: {seen} ({window.why})"
