"""Measure how fast this machine could be at most: each step alone, on all cores, in one process.

Run as ``python -m benchmarks.batch.limit MODEL INPUT OUTPUT``; prints the seconds of each step at its best as JSON, by
the clock and of computing. Nothing is copied to another process, checked, or kept safe from a crash.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple, TypeAlias

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from benchmarks.batch.inputs import DAYS
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact
from service.scoring.inputs.registry import open_source
from service.scoring.spec import make_spec
from service.store.catalog import find_models

CORES = len(os.sched_getaffinity(0))
ROUNDS = 2


class Seconds(NamedTuple):
    """By the clock, and of all threads' computing."""

    clock: float
    cpu: float


Steps: TypeAlias = dict[str, Seconds]


def seconds(work: Callable[[], Any]) -> Seconds:
    """Return the best of some rounds."""
    times = []
    for _ in range(ROUNDS):
        started, computed = perf_counter(), process_time()
        work()
        times.append(Seconds(perf_counter() - started, process_time() - computed))
    return min(times)


def on_every_core(work: Callable[[Any], Any], pieces: Sequence[Any]) -> None:
    """The pieces, shared out among threads."""
    with ThreadPoolExecutor(CORES) as pool:
        for _ in pool.map(work, pieces):
            pass


def views(predictor: Predictor, source: Path, target: Path) -> Steps:
    """Parse by Arrow, run the engine with the batch it likes best, write Parquet with what is quickest."""
    columns = [f"views_{day + 1}" for day in range(DAYS)]
    kinds = {name: pa.float64() for name in columns}
    pa.set_cpu_count(CORES)

    def parse() -> pa.Table:
        return pc.read_csv(source, convert_options=pc.ConvertOptions(column_types=kinds))

    table = parse()
    numbers = np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.float32)
    wanted = predictor.wanted(explain=False)

    def run(size: int) -> None:
        feeds = [{"views": numbers[start : start + size]} for start in range(0, len(numbers), size)]
        on_every_core(lambda feed: predictor.run(feed, wanted), feeds)

    engine = min(seconds(lambda size=size: run(size)) for size in (64, 256, 1024))  # type: ignore[misc]
    answers = pa.FixedSizeListArray.from_arrays(np.zeros(len(numbers) * 7, np.float32), 7)
    for name in ("forecast", "lower", "upper"):
        table = table.append_column(name, answers)
    half = -(-len(numbers) // CORES)
    pieces = [(number, table.slice(number * half, half)) for number in range(CORES)]

    def write(piece: tuple[int, pa.Table]) -> None:
        options: dict[str, Any] = {"compression": "snappy", "use_dictionary": False, "use_byte_stream_split": columns}
        pq.write_table(piece[1], f"{target}.{piece[0]}", **options)

    return {"parse": seconds(parse), "engine": engine, "write": seconds(lambda: on_every_core(write, pieces))}


def engine_alone(predictor: Predictor, source: Path, model: Any) -> Steps:
    """Return the engine on everything, encoded, sorted by length, packed and collated before the clock starts."""
    opened = open_source(make_spec(model, str(source), "x.parquet"))
    samples = []
    for cut in [*opened.cuts()]:
        rows = opened.read(cut)
        samples += predictor.encode([rows.instance(row) for row in range(rows.count)])
    card = predictor.card
    samples.sort(key=card.cost)
    wanted = predictor.wanted(explain=False)

    def rate(scale: float) -> Seconds:
        feeds = [card.collate(batch) for batch in _batches(predictor, samples, scale)]
        return seconds(lambda: on_every_core(lambda feed: predictor.run(feed, wanted), feeds))

    return {"engine": min(rate(scale) for scale in (1, 2, 4))}


def _batches(predictor: Predictor, samples: list[Any], scale: float) -> list[list[Any]]:
    """Micro-batches of the card's budget, or of some times as much."""
    found, start = [], 0
    costs = [predictor.card.cost(sample) for sample in samples]
    budget = predictor.card.budget
    largest = int(budget.batch * scale)
    while start < len(samples):
        end = start + 1
        while end < len(samples) and budget.units(costs[start : end + 1]) <= largest:
            end += 1
        found.append(samples[start:end])
        start = end
    return found


@click.command(help=__doc__)
@click.argument("model")
@click.argument("source")
@click.argument("target")
def main(model: str, source: str, target: str) -> None:
    """The command line."""
    (served,) = find_models([model])
    predictor = open_predictor(open_artifact(served.folder))
    if source.endswith(".csv"):
        found = views(predictor, Path(source), Path(target))
    else:
        found = engine_alone(predictor, Path(source), served.manifest)
    print(json.dumps(found))  # noqa: T201  what the caller reads


if __name__ == "__main__":
    main()
