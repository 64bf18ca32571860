"""The parts of a job through Ray Data: ``python -m benchmarks.batch.ray_data viewcount IN FOLDER``.

Scores each part into FOLDER by the station that ``--engine ray`` uses, and says how long it took, how many parts were
begun, and how many came. ``docs/decisions`` has what was decided by it. Kill a node meanwhile to see what that costs.
"""

from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import click
import msgspec

from service.scoring.execution.interfaces import Workload
from service.scoring.execution.workspace import Workspace
from service.scoring.file_assignment import ask
from service.scoring.spec import InputOptions
from service.scoring.workers.remote_worker import READ_TOLD, RemoteTask, RemoteWorker
from service.scoring.workers.worker import Stopped

ROW_SECONDS = 60.0


class RayStage:
    """A station as Ray Data wants it."""

    def __init__(self, assignment: Workload, log: str) -> None:
        self._station, self._log = RemoteWorker(assignment, ROW_SECONDS, uuid4().hex), Path(log)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what is said of each part."""
        told = []
        for task in batch["task"]:
            with self._log.open("ab", buffering=0) as log:
                log.write(b"1\n")
            told.append(self._station.score(task))
        return {"told": told}


@click.command()
@click.argument("model")
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--workers", default=4)
@click.option("--part-rows", type=int)
@click.option("--ray-address", envvar="RAY_ADDRESS", required=True)
def main(model: str, source: str, folder: Path, workers: int, part_rows: int | None, ray_address: str) -> None:
    """Score every part of IN into FOLDER."""
    import ray

    began = perf_counter()
    asked = ask(model, source, "out.parquet", InputOptions(part_rows=part_rows), input_format="", output_format="")
    (folder / "parts").mkdir(parents=True)
    workspace = Workspace(folder, None)  # type: ignore[arg-type]  # nothing is written by it
    cuts = [*asked.source().cuts()]
    tasks = [RemoteTask(cut=cut, aside=str(workspace.aside(cut.index, "bench")), known={}) for cut in cuts]
    ray.init(address=ray_address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"task": msgspec.msgpack.encode(task)} for task in tasks]
    stage = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        RayStage,
        fn_constructor_args=(asked, str(folder / "log")),
        batch_size=1,
        concurrency=workers,
        num_cpus=1,
        # Without it all of them are on one node, as long as it has cores.
        scheduling_strategy="SPREAD",
    )
    first, came = None, set[int]()
    for row in stage.iter_rows():
        first = first or perf_counter() - began
        told = READ_TOLD.decode(row["told"])
        if isinstance(told, Stopped):
            raise SystemExit(told.reason)
        came.add(told.done.number)
    begun = len((folder / "log").read_text().split())
    click.echo(f"{perf_counter() - began:.1f} s, first part after {first:.1f} s; {len(came)} parts, {begun} begun")


if __name__ == "__main__":
    main()
