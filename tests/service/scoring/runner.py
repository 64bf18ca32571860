"""A process that runs a job of ``Doubling``: ``python -m tests.service.scoring.runner FOLDER [options]``."""

from pathlib import Path
from typing import Any

import click

from service.scoring.commands import carry_out
from service.scoring.options import RUN_OPTIONS, having
from tests.service.scoring.stand_in import Doubling


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seconds", default=0.0)
@click.option("--part-rows", default=50)
@click.option("--node-in", type=click.Choice(["log", "answers", "stack"]), default="log")
@having(RUN_OPTIONS)
def main(folder: Path, seconds: float, part_rows: int, node_in: str, **options: Any) -> None:
    """Scores ``in`` into ``out``, and writes down what the workers begin with into ``log``."""
    asked = Doubling(folder / "in", part_rows, seconds=seconds, log=folder / "log", node_in=node_in)
    carry_out(folder / "out", lambda work: asked, **options)


if __name__ == "__main__":
    main()
