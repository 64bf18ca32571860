"""The torture trials: ``python -m chaos.service``.

Each trial starts servers of its own on the first core and attacks them from the last one, then holds the server's
counters against what it saw itself. Results go to ``benchmarks/results``; the exit status is 1 when a bar is missed.
Nothing else should run meanwhile.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import ModuleType

import click

from benchmarks.harness import machine
from benchmarks.serving.__main__ import RESULTS, chosen
from chaos.service import (
    accounting,
    clock,
    deadlines,
    disconnects,
    exhaustion,
    hot_swap,
    overload,
    paths,
    sigterm,
    slow_clients,
    soak,
    worker_kill,
)
from chaos.service.harness import Harness
from chaos.service.report import load, save
from chaos.service.verdict import ChaosVerdict, Trials

TRIALS: dict[str, ModuleType] = {
    "overload": overload,
    "deadlines": deadlines,
    "slow_clients": slow_clients,
    "worker_kill": worker_kill,
    "sigterm": sigterm,
    "hot_swap": hot_swap,
    "soak": soak,
    "paths": paths,
    "clock": clock,
    "scarcity": exhaustion,
    "disconnects": disconnects,
    "truth": accounting,
}
QUICK_SHARE = 0.1
BROKEN = "the trial itself ends well"
# Trials that need nothing of a server but its address on this machine.
AFAR = ("overload", "deadlines", "disconnects")


def hold(name: str, ground: Harness, *, has_control: bool) -> ChaosVerdict:
    """Return one trial, and its control; what breaks it is a bar that is not met."""
    module, began = TRIALS[name], perf_counter()
    verdict = _attempt(name, lambda: module.run(ground))
    if has_control and module.CONTROL:
        planted = _attempt(name, lambda: module.control(ground))
        missed = [f"{bar.promise}: {bar.found}" for bar in planted.bars if not bar.is_met]
        has_failed = bool(missed) and BROKEN not in missed[0]
        verdict.control = f"{module.CONTROL}: {'missed its bars' if has_failed else 'DID NOT MISS ITS BARS'}"
        verdict.expect("the control misses a bar", missed[0] if missed else "none missed", has_failed)
    verdict.title, verdict.seconds = module.TITLE, perf_counter() - began
    verdict.share = ground.share
    return verdict


def _attempt(name: str, run: Callable[[], ChaosVerdict]) -> ChaosVerdict:
    try:
        return run()
    except Exception as error:  # one trial that breaks must not take the others along
        verdict = ChaosVerdict(trial=name)
        verdict.expect(BROKEN, f"{type(error).__name__}: {error}"[:300], is_met=False)
        return verdict


def tell(verdict: ChaosVerdict) -> None:
    """Say what a trial found."""
    for bar in verdict.bars:
        click.echo(f"{'ok ' if bar.is_met else 'RED'} {verdict.trial}: {bar.promise}: {bar.found}")


@click.command(help=__doc__)
@click.option("--only", default="", help=f"Of {','.join(TRIALS)}; all by default.")
@click.option("--quick", is_flag=True, help="A tenth of the size.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), help="Another share of the size.")
@click.option("--controls/--no-controls", default=True, help="Whether faults are planted to see the trials fail.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
@click.option("--url", default="", help=f"Attack this running server of every model; only {', '.join(AFAR)} can.")
def main(only: str, quick: bool, share: float | None, controls: bool, out: Path, url: str) -> None:
    """The command line."""
    names, size = chosen(only, AFAR if url else list(TRIALS)), share or (QUICK_SHARE if quick else 1.0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine.adopt_orphans()
    os.sched_setaffinity(0, machine.CLIENT_CORES)
    found = Trials(date=date.today().isoformat(), machine=machine.describe())
    if (out / "torture.json").exists():
        found.verdicts = load(out / "torture.json").verdicts
    are_met, commit = True, machine.commit()  # before the results change the tree
    try:
        with TemporaryDirectory(prefix="lectern-") as folder:
            ground = Harness(folder=Path(folder), share=size, say=click.echo, url=url)
            for name in names:
                verdict = hold(name, ground, has_control=controls and not url)
                verdict.commit = commit
                are_met = are_met and verdict.is_met
                tell(verdict)
                found.add(verdict)
                save(found, out)
    finally:
        machine.end_descendants()
    if not are_met:
        sys.exit("lectern: not every bar is met")


if __name__ == "__main__":
    main()
