"""Define the command-line options of batch scoring."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from models.errors import printable
from models.reading import DataOption, data_options
from models.registry import CARDS
from service.scoring.addresses import is_local, local_path
from service.scoring.spec import FOLDERS, INPUTS, OUTPUTS, InputOptions
from service.scoring.workers.engines import Engine

Command = Callable[..., Any]


def _or_nothing(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Return an option that is not given is an empty text."""
    return value or ""


# What may be said of a table that is one series; what is said of every CSV file is said there.
SAID = {
    saying.name: saying
    for card in CARDS
    if card.series is not None
    for saying in data_options(card.series.options)
    if saying.name not in InputOptions.__struct_fields__
}


def _saying(saying: DataOption) -> Callable[[Command], Command]:
    """Return the option of the command line for something that may be said of a series."""
    kind = click.Choice(saying.choices) if saying.choices else click.IntRange(*saying.bounds) if saying.bounds else None
    return click.option(saying.option, type=kind, callback=_or_nothing, help=f"Of a series: {saying.text}")


FORMAT_OPTIONS: list[Callable[[Command], Command]] = [
    click.option(
        "--column", "columns", multiple=True, metavar="FIELD=NAME", help="Where a field stands, if elsewhere."
    ),
    click.option("--keep", multiple=True, metavar="KEY", help="A key of a JSON line that is no field misspelt."),
    click.option("--id-column", "id", metavar="NAME", help="A column that the output shows beside each prediction."),
    click.option("--delimiter", default="", help="Between the cells of a CSV file, or tab."),
    click.option(
        "--decimal",
        type=click.Choice([".", ","]),
        default=InputOptions().decimal,
        show_default=True,
        help="Before the fraction in a CSV file's numbers.",
    ),
    click.option("--encoding", default="", help="Of a CSV file, such as latin-1 or cp1252; UTF-8 by default."),
    click.option(
        "--header/--no-header",
        "has_header",
        default=None,
        help="Whether a CSV file's first row names the columns; if not, they are column_1, column_2 and so on.",
    ),
    *map(_saying, SAID.values()),
    click.option("--every-day", is_flag=True, help="Of a series: a row for each day with a whole window before it."),
    click.option("--part-rows", type=click.IntRange(1), help="Of a part; by default as many as suit the model."),
    click.option(
        "--part-bytes", type=click.IntRange(1), default=InputOptions().part_bytes, show_default=True, help="Of a part."
    ),
    click.option(
        "--input-format",
        type=click.Choice(sorted({*INPUTS.values(), *FOLDERS})),
        callback=_or_nothing,
        help="If the input's name does not tell it.",
    ),
    click.option(
        "--output-format",
        type=click.Choice(sorted({*OUTPUTS.values()})),
        callback=_or_nothing,
        help="If the output's name does not tell it.",
    ),
]
WORKERS = click.option(
    "--workers", type=click.IntRange(1, 256), help="Processes; one per core by default, one per GPU."
)
WORK = click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work folder; beside OUT by default, and needed if OUT is not on this machine.",
)
RUN_OPTIONS: list[Callable[[Command], Command]] = [
    WORKERS,
    click.option(
        "--engine",
        type=click.Choice([engine.value for engine in Engine]),
        default=Engine.LOCAL.value,
        show_default=True,
        help="Processes of this machine, or actors of a Ray cluster.",
    ),
    click.option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help="The Ray cluster's; without it, one that lives as long as the command.",
    ),
    WORK,
    click.option(
        "--max-errors", type=click.IntRange(0), help="Stop when there are more error rows; no limit by default."
    ),
    click.option(
        "--max-error-rate",
        type=click.FloatRange(0, 1),
        help="Stop when more error rows are found than this part of all rows, e.g. 0.01.",
    ),
    click.option("--max-rows", type=click.IntRange(1), help="Stop when IN has more rows; no limit by default."),
    click.option(
        "--max-bytes", type=click.IntRange(1), help="Stop when the scored parts have more bytes; no limit by default."
    ),
    click.option(
        "--row-timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds for one row."
    ),
    click.option("--overwrite", "overwrites", is_flag=True, help="Replace a file that is in the place of OUT."),
    click.option(
        "--mix", "mixes", is_flag=True, help="Go on with other versions, or on another CPU, than the job began with."
    ),
    click.option("--quiet", is_flag=True, help="Say nothing but why it stopped."),
    click.option("--progress", type=click.Choice(["bar", "json"]), default="bar", help="For people, or line by line."),
]


class OutputAddress(click.Path):
    """A path of this machine, or the address of something else as it is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or the address."""
        if printable(str(value)) != str(value):
            self.fail(f"{printable(str(value))} is not UTF-8; give the output another name", param, ctx)
        return value if not is_local(str(value)) else super().convert(local_path(str(value)), param, ctx)


OUT = click.argument("out", type=OutputAddress(path_type=Path, dir_okay=False))


def having(options: list[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Several options at once."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
