"""Cells of a table of days and views: dates and whole numbers as people's tools write them. Torch-free."""

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta

from models.errors import DataError
from models.viewcount.schema import MAX_VIEWS_PER_DAY

# ISO 8601 beside these. What reads every date of the column is its format; two that disagree are refused.
FORMATS = (
    "%Y%m%d%H", "%Y/%m/%d", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d-%m-%Y",
    "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y",
)  # fmt: skip
GROUPS = {",": ",", ".": r"\.", "'": "['’]", "space": "[ \u00a0\u202f]"}
_COUNT = re.compile(r"([0-9]{1,18})(?:\.0)?")


class CellError(DataError):
    """The contents of a cell cannot be used.

    Attributes:
        unquoted: The same without what it holds, for whoever must not show that.
    """

    def __init__(self, file: str, row: int | None, what: str, shown: str, expected: str) -> None:
        super().__init__(file, row=row, found=f"{what} {shown}", expected=expected)
        self.unquoted = DataError(file, row=row, found=f"{what} that cannot be read", expected=expected)


def counted_days(texts: Sequence[str], numbers: Sequence[int], start: date | None, file: str) -> list[date]:
    """Days that are counted from a start.

    Raises:
        DataError: If there is no start, or a cell is no number.
    """
    if start is None:
        expected = "a line '# Start date: 20240131' before the table, or --date-column with another column"
        raise DataError(file, found="days by number alone", expected=expected)
    for number, text in zip(numbers, texts, strict=True):
        if not (text.isdecimal() and len(text) <= 5):
            raise CellError(file, number, "day", repr(text), f"its number from {start} on")
    return [start + timedelta(days=int(text)) for text in texts]


def parsed_days(texts: Sequence[str], numbers: Sequence[int], file: str, wanted: str) -> list[date]:
    """Return the days as the one format has them that reads all of them: the wanted one, if it is not empty.

    Raises:
        DataError: If no format does, or two do differently.
    """
    read = {form: [*_days_until_other(texts, form)] for form in ((wanted,) if wanted else ("", *FORMATS))}
    whole = {form: days for form, days in read.items() if len(days) == len(texts)}
    if not whole:
        first_bad = max(len(days) for days in read.values())
        expected = wanted or "YYYY-MM-DD, or another format, in every row the same (or --date-format)"
        raise CellError(file, numbers[first_bad], "date", repr(texts[first_bad][:40]), expected)
    (form, days), *others = whole.items()
    for other, theirs in others:
        if theirs != days:
            expected = f"--date-format {form or '%Y-%m-%d'} or --date-format {other}"
            raise DataError(file, found="dates that can be read in two ways", expected=expected)
    return days


def _days_until_other(texts: Sequence[str], form: str) -> Iterator[date]:
    for text in texts:
        day = _parse(text, form)
        if day is None:
            return
        yield day


def _parse(text: str, form: str) -> date | None:
    try:
        if form == "%Y%m%d%H" and len(text) != 10:
            return None
        return (datetime.strptime(text, form) if form else datetime.fromisoformat(text)).date()
    except ValueError:
        return None


def whole_number(text: str, number: int, file: str, thousands: str) -> int:
    """Return the views that a cell of row ``number`` holds.

    Raises:
        CellError: If that is no whole number within the bounds, grouped as said.
    """
    plain = re.sub(GROUPS[thousands], "", text) if thousands and _is_grouped(text, thousands) else text
    match = _COUNT.fullmatch(plain)
    expected = f"a whole number from 0 to {MAX_VIEWS_PER_DAY}"
    if match is None:
        group = next((name for name in GROUPS if _is_grouped(text, name)), None)
        hint = f" (if thousands are grouped so: --thousands {group})" if group and not thousands else ""
        raise CellError(file, number, "views", repr(text[:40]), expected + hint)
    views = int(match[1])
    if views > MAX_VIEWS_PER_DAY:
        raise CellError(file, number, "views", str(views), expected)
    return views


def _is_grouped(text: str, thousands: str) -> bool:
    return re.fullmatch(rf"[0-9]{{1,3}}(?:{GROUPS[thousands]}[0-9]{{3}})+", text) is not None
