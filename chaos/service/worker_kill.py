"""Crashes: a worker is killed or stopped under load, and another takes its place."""

import math
import signal
from time import perf_counter, sleep

import psutil

from chaos.service.arithmetic import percentile
from chaos.service.harness import Harness, Site, start_load, workload
from chaos.service.verdict import ChaosVerdict

TITLE = "killed and stopped workers"
CONTROL = "a service that thinks it is in a container, where dead workers are not replaced"
RATE = 200.0
BACK_SECONDS, MOST_SECONDS = 5.0, 25.0
CALM_SECONDS = 1.5
# A killed process lets go of its connections only once its memory is given back; what they carry till then is lost.
DEATH_SECONDS = 0.3
HANG_SECONDS = 12.0
READY = " ready on "


def run(ground: Harness, workers: tuple[str, ...] = ("1", "2")) -> ChaosVerdict:
    """Thirty kills with one worker and with two, and one worker of two that hangs."""
    verdict = ChaosVerdict(trial="worker_kill")
    for number in workers:
        ground.say(f"kills with {number} workers")
        with ground.serve("viewcount", LECTERN_WORKERS=number) as site:
            _kills(ground, site, f"{number} workers", ground.part(30), verdict)
    ground.say("a worker that hangs")
    with ground.serve("viewcount", LECTERN_WORKERS="2") as site:
        _hang(site, verdict)
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same where nothing replaces a worker."""
    verdict = ChaosVerdict(trial="worker_kill")
    with ground.serve("viewcount", LECTERN_WORKERS="2", BENTOML_CONTAINERIZED="true") as site:
        _kills(ground, site, "2 workers", 1, verdict)
    return verdict


def _kills(ground: Harness, site: Site, name: str, kills: int, verdict: ChaosVerdict) -> None:
    backs, spawns, lost, strays, held = list[float](), list[float](), 0, 0, 0
    for _ in range(kills):
        load = start_load(site, workload("viewcount"), (RATE, CALM_SECONDS + 4.0), patience_seconds=MOST_SECONDS)
        sleep(CALM_SECONDS)
        spawn, back, at = kill(site)
        report = load.report()
        backs.append(back)
        spawns.append(spawn)
        for intended, ended, _ in report.failures:
            is_held = max(intended, ended) <= at - report.began + DEATH_SECONDS
            lost, strays = lost + is_held, strays + (not is_held)
        held = max(held, round(max(group.worst_ms for group in report.phases[0].groups.values())))
    verdict.at_most(f"{name}: p95 until as many workers are ready", percentile(backs, 0.95), BACK_SECONDS, " s")
    verdict.at_most(f"{name}: requests lost that the dead worker did not hold", strays, 0)
    verdict.measured[name] = {
        "kills": kills,
        "lost_in_flight": lost,
        "spawned_s": _spread(spawns),
        "ready_s": _spread(backs),
        "longest_wait_ms": held,
    }


def kill(site: Site) -> tuple[float, float, float]:
    """Seconds until a successor is started and until it is ready, and when the kill was."""
    before, lines = {one.pid for one in site.workers()}, site.log().count(READY)
    at = perf_counter()
    psutil.Process(min(before)).kill()
    spawn = back = math.inf
    while (now := perf_counter() - at) < MOST_SECONDS and back == math.inf:
        if spawn == math.inf and {one.pid for one in site.workers()} - before:
            spawn = now
        if site.log().count(READY) > lines:
            back = now
        sleep(0.02)
    return spawn, back, at


def _hang(site: Site, verdict: ChaosVerdict) -> None:
    """Stop a worker, and report what becomes of its share and whether anybody notices."""
    victim = site.workers()[0]
    deadline = workload("viewcount", x_request_timeout_ms="1000")
    load = start_load(site, deadline, (RATE, HANG_SECONDS), patience_seconds=3)
    sleep(CALM_SECONDS)
    victim.send_signal(signal.SIGSTOP)
    try:
        report = load.report()
        is_there = victim.is_running() and victim.status() == psutil.STATUS_STOPPED
    finally:
        if victim.is_running():
            victim.send_signal(signal.SIGCONT)
    statuses, sent = report.statuses, sum(report.statuses.values())
    unanswered = sent - statuses.get("200", 0)
    verdict.expect(
        "a worker that hangs is replaced within 10 s", "still there" if is_there else "replaced", not is_there
    )
    verdict.at_most("share of requests a hanging worker takes along", unanswered / sent, 0.5 * 5 / HANG_SECONDS)
    verdict.measured["hang"] = {
        "sent": sent,
        "statuses": statuses,
        "p99_ms": round(report.phases[0].groups["200"].p99_ms),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {name: round(percentile(values, share), 2) for name, share in (("p50", 0.5), ("p95", 0.95), ("most", 1.0))}
