"""Overload: requests arrive at fixed times, at one to ten times what the server can do."""

from collections.abc import Sequence

from benchmarks.harness.workloads import body
from chaos.service.harness import Harness, Site, offer, peak, reconcile, requests, workload
from chaos.service.records import OutcomeCounts
from chaos.service.verdict import ChaosVerdict
from models.tagging.schema import Instance as Sentence

TITLE = "overload"
CONTROL = "an event loop that stands still for 120 ms ten times a second"
DEADLINE_MS = 1000
# What a deployment sets that minds its slowest answers; one second by default.
PATIENCE_SECONDS = "0.1"
FACTORS = (1, 2, 5, 10)
CODES = {"200", "429", "503", "504"}
AFTER_SECONDS = 10.0
LONG_TOKENS = 400
# So few that none of them misses its deadline.
CONNECTIONS = {"image": 64, "tagging": 64, "long tagging": 4}


def long_sentence() -> Sentence:
    """Return one that takes hundreds of times as long to tag as to refuse."""
    return Sentence(tokens=[f"word{number % 97}" for number in range(LONG_TOKENS)])


def contents() -> dict[str, tuple[str, list[bytes]]]:
    """Return what is asked: the model and the requests."""
    deadline = {"x_request_timeout_ms": str(DEADLINE_MS)}
    return {
        "image": ("image", workload("image", **deadline)),
        "tagging": ("tagging", workload("tagging", **deadline)),
        "long tagging": ("tagging", requests("tagging", body(long_sentence()), **deadline)),
    }


def run(ground: Harness, kinds: Sequence[str] = ("image", "tagging", "long tagging")) -> ChaosVerdict:
    """Return every kind of request at every factor."""
    verdict = ChaosVerdict(trial="overload")
    found = contents()
    for kind in kinds:
        model, content = found[kind]
        ground.say(f"overload: {kind}")
        with ground.serve(model, LECTERN_QUEUE_SECONDS=PATIENCE_SECONDS) as site:
            _try(ground, site, kind, content, verdict)
    verdict.notes.append(
        "viewcount is left out: ten times its peak is more than a client on one core can offer. "
        "Refusing takes the same core as answering: at 10 times the peak, answering 1 in 10 in 0.4 ms each leaves "
        "0.04 ms for each refusal before nothing is answered at all."
    )
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    verdict = ChaosVerdict(trial="overload")
    with ground.serve("tagging", faults=["stalls"], LECTERN_QUEUE_SECONDS=PATIENCE_SECONDS) as site:
        _try(ground, site, "long tagging", contents()["long tagging"][1], verdict)
    return verdict


def _try(ground: Harness, site: Site, kind: str, content: list[bytes], verdict: ChaosVerdict) -> None:
    seconds = ground.seconds(60)
    patient = [one.replace(b"x-request-timeout-ms: %d\r\n" % DEADLINE_MS, b"") for one in content]
    most = peak(site, patient, min(seconds, 5), CONNECTIONS[kind])
    before, statuses = site.count(), dict[str, int]()
    calm = offer(site, content, (0.8 * most, seconds)).phases[0]
    _add(statuses, calm)
    usual = calm.groups["200"].p99_ms
    figures: dict[str, object] = {
        "peak_per_second": round(most),
        "p50_ms_at_80": _ms(calm, 0.5),
        "p99_ms_at_80": round(usual, 1),
    }
    for factor in FACTORS:
        report = offer(site, content, (factor * most, seconds), (0.5 * most, AFTER_SECONDS))
        _add(statuses, *report.phases)
        figures[f"at {factor}×"] = _judge(verdict, f"{kind} at {factor}×", report.phases[0], most, usual)
        _judge_after(verdict, f"{kind} after {factor}×", report.phases[1])
    verdict.measured[kind] = figures
    reconcile(verdict, statuses, before, site.count())


def _judge(verdict: ChaosVerdict, name: str, tally: OutcomeCounts, most: float, usual: float) -> dict[str, object]:
    good = tally.groups.get("200")
    p99 = good.p99_ms if good else float("inf")
    verdict.at_least(f"{name}: goodput over own peak", tally.goodput / most, 0.95)
    strange = {status: number for status, number in tally.statuses.items() if status not in CODES}
    verdict.expect(f"{name}: only 200, 429, 503, 504, no resets", strange or "only those", not strange)
    verdict.at_most(f"{name}: p99 of the accepted", p99, min(2 * usual, DEADLINE_MS), " ms")
    verdict.at_most(f"{name}: p99 of refusals", tally.refusals_p99_ms, 50, " ms")
    verdict.at_most(f"{name}: refusals without Retry-After", tally.without_retry_after, 0)
    return {
        "offered_per_second": round(tally.offered / tally.seconds),
        "client_late_p99_ms": round(tally.late_p99_ms, 1),
        "goodput_ratio": round(tally.goodput / most, 3),
        "statuses": tally.statuses,
        "p50_ms": _ms(tally, 0.5),
        "p99_ms": round(p99, 1),
        "refusal_p99_ms": round(tally.refusals_p99_ms, 1),
        "late_504_p99_ms": round(tally.groups["504"].p99_ms, 1) if "504" in tally.groups else None,
    }


def _judge_after(verdict: ChaosVerdict, name: str, tally: OutcomeCounts) -> None:
    """At half the peak, nothing may be refused once five seconds have gone by."""
    verdict.at_most(f"{name}: refusals more than 5 s later", tally.late_refusals, 0)


def _add(statuses: dict[str, int], *tallies: OutcomeCounts) -> None:
    for tally in tallies:
        for status, number in tally.statuses.items():
            statuses[status] = statuses.get(status, 0) + number


def _ms(tally: OutcomeCounts, share: float) -> float:
    good = tally.groups.get("200")
    return round(good.p50_ms if share == 0.5 else good.p99_ms, 1) if good else 0.0
