"""The table and the pictures of a ladder's results in ``docs/families.md``."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.errors import DataError
from models.training.experiment import ExperimentOutcome, ExperimentPlan, Results, read_results

PAGE = "families.md"
PICTURES = "pictures"
STAMP = "ladder-sha256"
HEAD = ("question", "model", "numbers learned", "train", "validation", "test", "seconds")


def render(ladder: ExperimentPlan, results: Results) -> str:
    """Return the table and the pictures as Markdown."""
    known = [outcome for outcome in results.values() if outcome.trials]
    shown = {section: list(group) for section, group in _sections(known)}
    unit = next((outcome.speed.unit for outcome in known if outcome.speed), None)
    is_rolled = any(_rolling_origin(outcome) for outcome in known)
    head = [
        *HEAD,
        *(["rolling origin"] if is_rolled else []),
        *([f"{unit} per second", "memory in MB"] if unit else []),
    ]
    rows = [
        [
            section if not index else "",
            *_cells(outcome),
            *([_rolling_origin(outcome)] if is_rolled else []),
            *(_speed(outcome) if unit else []),
        ]
        for section, outcomes in shown.items()
        for index, outcome in enumerate(outcomes)
    ]
    lines = [_row(head), _row(["---", "---", *["--:"] * (len(head) - 2)]), *map(_row, rows)]
    name = f"{ladder.metric.name} in {ladder.metric.unit}"
    note = (
        f"{name[0].upper()}{name[1:]}, mean ± standard deviation over several seeds or folds, "
        f"and seconds of one training on one thread. `python -m models.train.experiments {ladder.family}` trains what "
        f"is missing and writes this part of the page from [ladder/{ladder.family}.json](ladder/{ladder.family}.json)."
    )
    pictures = [f"![{picture.caption}]({PICTURES}/{picture.file})" for picture in ladder.pictures]
    return "\n".join([note, "", *lines, *(line for picture in pictures for line in ("", picture))])


def _sections(outcomes: list[ExperimentOutcome]) -> Iterator[tuple[str, Iterator[ExperimentOutcome]]]:
    order = list(dict.fromkeys(outcome.section for outcome in outcomes))
    return groupby(sorted(outcomes, key=lambda o: order.index(o.section)), key=lambda o: o.section)


def _cells(outcome: ExperimentOutcome) -> list[str]:
    seconds = sum(trial.seconds for trial in outcome.trials) / len(outcome.trials)
    return [
        outcome.label,
        f"{outcome.parameters:,}" if outcome.parameters else "",
        *(_score(outcome, split) for split in ("train", "validation", "test")),
        f"{seconds:,.0f}" if outcome.parameters else "",
    ]


def _rolling_origin(outcome: ExperimentOutcome) -> str:
    """The mean error over several ends of the learning time, by which a family chooses, where its learner found it."""
    means = [trial.more["rolling_origin"]["mean"] for trial in outcome.trials if "rolling_origin" in trial.more]
    return f"{means[0]:,.0f}" if means else ""


def _speed(outcome: ExperimentOutcome) -> list[str]:
    if outcome.speed is None:
        return ["", ""]
    return [f"{outcome.speed.per_second:,.0f}", f"{outcome.speed.memory_bytes / 1e6:,.0f}"]


def _score(outcome: ExperimentOutcome, split: str) -> str:
    if not outcome.scores(split):
        return ""
    digits = 2 if outcome.unit == "%" else 0
    spread = outcome.spread(split)
    return f"{outcome.mean(split):,.{digits}f}" + (f" ± {spread:,.{digits}f}" if spread else "")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(ladder: ExperimentPlan, results_path: Path, docs: Path) -> None:
    """Draw the pictures, stamp them with the results' digest, and replace the family's part of the page.

    Raises:
        DataError: If the page has no place for it.
    """
    results = read_results(results_path)
    (docs / PICTURES).mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(results_path.read_bytes()).hexdigest()
    for picture in ladder.pictures:
        path = docs / PICTURES / picture.file
        picture.draw(path, results)
        stamp(path, digest)
    page = docs / PAGE
    text = page.read_text() if page.exists() else "\n".join(_marks(ladder.family))
    before, _, after = split(text, ladder.family, page)
    page.write_text(f"{before}\n{render(ladder, results)}\n{after}")


def _marks(family: str) -> tuple[str, str]:
    return f"<!-- ladder:{family} -->", f"<!-- /ladder:{family} -->"


def split(text: str, family: str, page: Path) -> tuple[str, str, str]:
    """Return the page up to and with the opening mark, the family's part, and the rest from the closing mark on."""
    start, end = _marks(family)
    if text.count(start) != 1 or text.count(end) != 1:
        raise DataError(page, found="no place for the ladder", expected=f"{start} and {end}, once each")
    before, rest = text.split(start)
    part, after = rest.split(end)
    return before + start, part.strip("\n"), end + after


def stamp(path: Path, digest: str) -> None:
    """Write into a PNG file which results it was drawn from."""
    text = PngInfo()
    text.add_text(STAMP, digest)
    with Image.open(path) as picture:
        picture.load()
        picture.save(path, pnginfo=text, optimize=True)


def read_stamp(path: Path) -> str | None:
    """The digest of the results a PNG file was drawn from."""
    with Image.open(path) as picture:
        found = picture.info.get(STAMP)
    return str(found) if found else None
