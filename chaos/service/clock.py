"""Clock: the wall clock jumps under load, and nobody is told that it is late."""

import mmap
import struct
from time import perf_counter, sleep

from benchmarks.harness.workloads import body
from chaos.service.faults import CLOCK_FILE
from chaos.service.harness import Harness, peak, reconcile, requests, start_load
from chaos.service.overload import long_sentence
from chaos.service.verdict import ChaosVerdict

TITLE = "the clock jumps"
CONTROL = "deadlines counted on the wall clock"
STEPS = (3600.0, -3600.0, 86_400.0, -86_400.0)
ROUNDS = 20
PAUSE_SECONDS = 0.25


def run(ground: Harness, faults: tuple[str, ...] = ()) -> ChaosVerdict:
    """Twenty times: an hour and a day, forth and back."""
    verdict, shown = ChaosVerdict(trial="clock"), ground.folder / f"clock-{perf_counter()}"
    shown.write_bytes(bytes(8))
    steps = STEPS * ground.part(ROUNDS)
    with ground.serve("tagging", faults=["clock", *faults], **{CLOCK_FILE: str(shown)}) as site:
        # Something waits at every moment, or a jump would find nobody to be late.
        bodies = [body(*[long_sentence()] * number) for number in (1, 10)]
        content = requests("tagging", bodies, x_request_timeout_ms="20000")
        rate = 0.8 * peak(site, content, 2, 16)
        before = site.count()
        load = start_load(site, content, (rate, 3 + PAUSE_SECONDS * len(steps)))
        sleep(1.5)
        with shown.open("r+b") as file, mmap.mmap(file.fileno(), 8) as clock:
            for step in steps:
                struct.pack_into("d", clock, 0, struct.unpack_from("d", clock)[0] + step)
                sleep(PAUSE_SECONDS)
        report = load.report()
        verdict.expect("every request is a 200", report.statuses, set(report.statuses) == {"200"})
        reconcile(verdict, report.statuses, before, site.count())
    verdict.measured = {"jumps": len(steps), "statuses": report.statuses}
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.1, say=ground.say), ("wall_clock_deadlines",))
