"""Check the command line before any request is sent; whatever is wrong ends in one line."""

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from loadtests.hosts import DEFAULT_HOST, Host
from loadtests.objectives import OBJECTIVES
from loadtests.plan import Arrivals
from loadtests.verdict import THRESHOLDS, Exit

Read = TypeVar("Read")


class Finite(click.FloatRange):
    """A range of numbers without infinity and without what is no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; the command ends with a sentence if it is none of the range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


ABOVE_0 = Finite(min=0, min_open=True)
AT_LEAST_0 = Finite(min=0)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class OneLineGroup(click.Group):
    """Commands that end in one line when something is wrong with what they were told."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command; the process ends with its exit code."""
        try:
            sys.exit(super().main(*args, **{**more, "standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            click.echo(f"lectern: {' '.join(error.format_message().split())}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("lectern: interrupted", err=True)
            sys.exit(Exit.INTERRUPTED)


def shared(command: Any) -> Any:
    """Add the options of everything that asks a service."""
    for option in reversed(
        [
            click.option("--host", type=Host(), default=DEFAULT_HOST, show_default=True, help="Of the service."),
            click.option("--models", default="", help="Names, with weights if they differ: viewcount=8,image=2. All."),
            click.option("--data", multiple=True, help="Real instances: tagging=corpus.jsonl. Else random ones."),
            click.option("--key-file", type=FILE, help="With the caller's key."),
            click.option("--p99-ms", type=ABOVE_0, help="The objective, instead of the model's own."),
            click.option("--error-share", type=Finite(0, 1), help="Likewise."),
            click.option("--objectives", type=FILE, default=OBJECTIVES, help="The file with the models' objectives."),
            click.option("--arrivals", type=click.Choice([kind.value for kind in Arrivals]), default="poisson"),
            click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True),
            click.option(
                "--timeout", type=ABOVE_0, default=30.0, show_default=True, help="Seconds to wait for an answer."
            ),
            click.option(
                "--processes",
                type=click.IntRange(1, 256),
                default=1,
                show_default=True,
                help="That make the load, on this machine.",
            ),
            click.option(
                "--expect-workers",
                type=click.IntRange(min=0),
                default=0,
                help="Instead: workers on other machines to wait for.",
            ),
            click.option(
                "--bind-port",
                type=click.IntRange(1, 65535),
                default=5557,
                show_default=True,
                help="Where those workers find this process.",
            ),
            click.option(
                "--out", type=click.Path(dir_okay=False, path_type=Path), help="Of the JSON; the page goes beside it."
            ),
            click.option("--against", type=FILE, help="An earlier JSON."),
            click.option("--thresholds", type=FILE, default=THRESHOLDS, help="The file with all other bounds."),
            click.option("--short", is_flag=True, help="No page, one line."),
        ]
    ):
        command = option(command)
    return command


def readable(read: Callable[..., Read], *arguments: Any) -> Read:
    """Return what a file that the command line names holds.

    Raises:
        click.UsageError: If it holds something else, or cannot be read.
    """
    try:
        return read(*arguments)
    except (ValueError, msgspec.MsgspecError, OSError) as error:
        file = next((f"{one}: " for one in arguments if isinstance(one, Path) and str(one) not in str(error)), "")
        raise click.UsageError(f"{file}{error}") from None


def read_weights(text: str) -> dict[str, float]:
    """Model to its share of the requests, from ``viewcount=8,image=2``.

    Raises:
        click.BadParameter: If a weight is no number above 0, or a model is named twice.
    """
    found: dict[str, float] = {}
    for name, value in _pairs(text.split(","), "models"):
        try:
            weight = float(value) if value else 1.0
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise click.BadParameter(
                f"the weight of {name} must be a number above 0, got {value!r}", param_hint="models"
            )
        found[name] = weight
    return found


def read_data(texts: Iterable[str]) -> dict[str, str]:
    """Model to the file of its instances, from ``tagging=corpus.jsonl``.

    Raises:
        click.BadParameter: If a file is not there, or a model is named twice.
    """
    found = {}
    for name, value in _pairs(texts, "data"):
        if not Path(value).is_file():
            raise click.BadParameter(f"expected MODEL=FILE, and there is no file {value!r}", param_hint="data")
        found[name] = str(Path(value).resolve())
    return found


def _pairs(words: Iterable[str], option: str) -> list[tuple[str, str]]:
    """``name=value`` or bare names."""
    parted = [word.strip().partition("=") for word in words if word.strip()]
    found = [(name.strip(), value.strip()) for name, _, value in parted]
    names = [name for name, _ in found]
    if twice := sorted({name for name in names if names.count(name) > 1 or not name}):
        raise click.BadParameter(f"each model is named once, got {', '.join(map(repr, twice))}", param_hint=option)
    return found
