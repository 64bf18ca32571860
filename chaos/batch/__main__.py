"""Batch jobs killed at random instants and run again: ``python -m chaos.batch``.

For each format a job of 2,000 rows in parts of 50 is killed at a uniform instant (its runner, one of its workers, or
all of them), a tenth of the trials once more while it resumes, and run to its end. The output must be that of the
undisturbed run, and no worker's death may cost more than one part; the exit status is 1 where that is not so.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import click
import numpy as np

from chaos.batch.inputs import FORMATS, Format
from chaos.batch.kills import KillCounts, Telling, hold
from models.artifact.manifest import read_artifact
from models.paths import REPOSITORY
from models.runtime.device import Device
from service.scoring.spec import InputOptions, make_spec

FULL, PART_ROWS = 500, 50


def prepare(chosen: Format, folder: Path) -> Telling:
    """Return the input in a folder, and what is asked of it."""
    source = folder / chosen.name
    chosen.write(source, np.random.default_rng(0))
    artifact = next((REPOSITORY / "models").glob(f"*/trained/{chosen.model}"))
    manifest, _ = read_artifact(artifact)
    spec = make_spec(manifest, str(source), f"out.{chosen.output}", InputOptions(part_rows=PART_ROWS))
    return Telling(asked=spec, folder=artifact, device=Device.CPU)


def hold_all(names: list[str], trials: int, seed: int) -> Iterator[tuple[str, KillCounts, float]]:
    """Yield each format's tally, and how long it took."""
    for name in names:
        began = perf_counter()
        with TemporaryDirectory(prefix="lectern-") as folder:
            asked = prepare(FORMATS[name], Path(folder))
            tally = hold(asked, Path(folder), f"out.{FORMATS[name].output}", trials=trials, seed=seed)
        yield name, tally, perf_counter() - began


@click.command(help=__doc__)
@click.option("--only", default=",".join(FORMATS), show_default=True, help="Formats.")
@click.option("--trials", default=FULL, show_default=True, help="Of each format.")
@click.option("--seed", default=0, show_default=True)
def main(only: str, trials: int, seed: int) -> None:
    """The command line."""
    is_met = True
    for name, tally, seconds in hold_all(only.split(","), trials, seed):
        is_met = is_met and tally.is_met
        click.echo(
            f"{'ok ' if tally.is_met else 'RED'} {name}: {tally.trials} trials, {tally.kills} runners killed, "
            f"{tally.twice} trials killed again, {tally.workers_killed} workers killed; "
            f"{tally.differences} differences, {tally.failed} failed, {tally.partial} partial, {tally.left} untidy; "
            f"{tally.repeated} parts begun again, too many in {tally.too_often} trials; {seconds:.0f} s"
        )
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
