"""The report for a person who was not there: what was tested, on what, whether it passed, what broke first."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtests import pictures
from loadtests.result import LoadResult
from loadtests.verdict import Exit, ReportComparison
from loadtests.words import WORDS, broke_first, tested

TEMPLATE = "report.html"


def render(
    found: LoadResult,
    code: Exit,
    earlier: LoadResult | None,
    comparisons: Sequence[ReportComparison],
    unlike: Sequence[str],
) -> str:
    """Return the page, which needs nothing from anywhere else."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    drawn = {
        "throughput": pictures.throughput(found.windows, found),
        "over_time": pictures.over_time(found) if found.moments else "",
        "percentiles": pictures.percentiles(found, earlier),
        "errors": pictures.errors(found),
        "stages": pictures.stages(found.metrics),
    }
    return environment.get_template(TEMPLATE).render(
        found=found,
        code=int(code),
        word=WORDS[code],
        tested=tested(found),
        broke=broke_first(found),
        pictures={name: Markup(svg) for name, svg in drawn.items()},  # noqa: S704  drawn here, from numbers
        earlier=earlier,
        comparisons=comparisons,
        unlike=unlike,
    )
