"""Hot swap: a model is exchanged again and again under load, and no answer is lost or mixed up."""

import http.client
import json
from collections.abc import Mapping, Sequence
from time import sleep

from benchmarks.torture.ground import Load, Site
from benchmarks.torture.records import Phase, Plan, Report
from benchmarks.torture.verdict import Verdict

TITLE = "hot swap"
CONTROL = ""
RATE, PAUSE_SECONDS = 200.0, 0.2


def activate(site: Site, model: str, version: str, headers: Mapping[str, str]) -> int:
    """The status of the call that makes a version the served one."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    try:
        body = json.dumps({"version": version})
        wanted = {"content-type": "application/json", **headers}
        connection.request("POST", f"/v1/admin/models/{model}/activate", body, wanted)
        return connection.getresponse().status
    finally:
        connection.close()


def swap(
    site: Site, content: bytes, model: str, versions: Sequence[str], times: int, headers: Mapping[str, str]
) -> tuple[Report, list[int]]:
    """What became of one request sent over and over while the versions take turns, and of the calls themselves."""
    plan = Plan(
        port=site.port,
        requests=[content],
        phases=[Phase(rate=RATE, seconds=3 + 3 * times * PAUSE_SECONDS)],
        keeps_answers=True,
    )
    load, statuses = Load(plan), list[int]()
    sleep(1)
    for number in range(times):
        statuses.append(activate(site, model, versions[number % len(versions)], headers))
        sleep(PAUSE_SECONDS)
    return load.report(), statuses


def judge(verdict: Verdict, report: Report, swaps: Sequence[int], references: Mapping[str, str]) -> None:
    """Every answer is a 200 whose digest is known and whose body is that digest's.

    Args:
        verdict: Gets the bars.
        report: Of the load.
        swaps: Statuses of the calls.
        references: Checksum of the body by ``x-model-digest``, asked for one version at a time.
    """
    known = {f"200 {digest} {checksum}" for digest, checksum in references.items()}
    strange = {answer: number for answer, number in report.answers.items() if answer not in known}
    verdict.expect("every swap is a 200", sorted(set(swaps)), set(swaps) == {200})
    verdict.expect("every request is a 200", report.statuses, set(report.statuses) == {"200"})
    verdict.expect("every body is the one of its digest", strange or "so", not strange)
    verdict.expect("every version was seen", len(known & set(report.answers)), known <= set(report.answers))
    verdict.measured = {"swaps": len(swaps), "answers": report.answers}


def reference(report: Report) -> dict[str, str]:
    """The checksum by digest of answers that are all alike.

    Raises:
        ValueError: If they are not.
    """
    ((answer, _),) = report.answers.items()
    _, digest, checksum = answer.split(" ")
    return {digest: checksum}
