"""A table of days and views as a series: which columns, which dates, which numbers, and what is done about the rest.

The one reader of such tables, for training and for scoring. Torch-free.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.card import SeriesReader
from models.errors import DataError
from models.viewcount.cells import CellError, counted_days, parsed_days, whole_number
from models.viewcount.exports import MAX_BYTES, RawTable, TableRow, tables
from models.viewcount.schema import HORIZON_DAYS, MAX_HORIZON_DAYS, WINDOW_DAYS

# Columns by their usual names, the likelier first.
DATES = ("date", "day", "day index", "nth day", "timestamp")
VIEWS = ("views", "pageviews", "page views")
NTH_DAY = "nth day"
MAX_DAYS = 36_600
# Of what stands for the day where a row is one of totals.
LONGEST_TOTAL = 40
# Of a column's name in a note.
LONGEST_NAME = 80
# As much of a file as shows what it is.
HEAD_BYTES = 2**16


class SeriesOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Describe what the command line may say of a table that does not say it itself."""

    date_column: Annotated[str, Meta(description="The column with the days, if not called date or day.")] = ""
    views_column: Annotated[str, Meta(description="The column with the views, if not called views or pageviews.")] = ""
    date_format: Annotated[str, Meta(description="Of the days, as Python's strptime takes it, e.g. %d/%m/%Y.")] = ""
    thousands: Annotated[
        Literal["", ",", ".", "'", "space"], Meta(description="What groups thousands: , . ' or space.")
    ] = ""
    gaps: Annotated[
        Literal["refuse", "zero", "interpolate"],
        Meta(description="What a missing day is: refuse (default), zero or interpolate."),
    ] = "refuse"
    delimiter: Annotated[str, Meta(description="Between cells, or tab; by default what gives most columns.")] = ""
    encoding: Annotated[str, Meta(description="By default UTF-8, or what a byte order mark says.")] = ""
    table: Annotated[str, Meta(description="Which of several tables: its number, or its file in an archive.")] = ""


class ForecastOptions(SeriesOptions, frozen=True, kw_only=True, omit_defaults=True):
    """Describe what the command line may say of a table to forecast from."""

    horizon: Annotated[int, Meta(ge=1, le=MAX_HORIZON_DAYS, description="How many days to forecast.")] = HORIZON_DAYS


class Series(NamedTuple):
    """Views of consecutive days.

    Attributes:
        views: ``(D,)`` float32, whole.
        first_day: Of ``views[0]``.
        notes: What was passed over, put in order or filled in, a line each.
    """

    views: NDArray[np.float32]
    first_day: date
    notes: tuple[str, ...]


class Columns(NamedTuple):
    """Describe where a table's days and views are."""

    date: int
    views: int


class _Day(NamedTuple):
    number: int
    day: date
    views: str


def read_series(content: bytes, file: str, options: SeriesOptions) -> Series:
    """Return the series in a file.

    Args:
        content: Its bytes.
        file: Its name, for errors and notes.
        options: What is said of it.

    Raises:
        DataError: With file, row, what was found and what was expected, and the option that helps.
    """
    found = tables(content, file, delimiter=options.delimiter, encoding=options.encoding)
    chosen = [table for table in found if options.table in ("", table.place)]
    if options.table and not chosen:
        table_names = ", ".join(table.place for table in found)
        raise DataError(file, found=f"--table {options.table}", expected=f"one of {table_names}")
    candidates = [table for table in chosen if find_columns(table, options) is not None]
    if not candidates:
        raise _no_columns(file, chosen, options)
    # Of an archive's tables the one with the fewest columns is the series itself: YouTube Studio's Totals.csv.
    candidates.sort(key=lambda table: len(table.header.cells))
    series = _read_any(candidates, file, options)
    first = series[0][1]
    if any(not _is_same(first, other) for _, other in series[1:]):
        table_names = ", ".join(repr(table.place) for table, _ in series)
        raise DataError(
            file, found=f"different series in the tables {table_names}", expected="--table with one of them"
        )
    return first


def is_series(content: bytes, file: str, options: SeriesOptions) -> bool:
    """Whether a file, or its beginning, is a table of days and views; a list in a cell is a whole request instead."""
    if not content.startswith(b"PK") and content.lstrip()[:1] not in (b"{", b"["):
        content = content if len(content) <= HEAD_BYTES else content[: content.rfind(b"\n", 0, HEAD_BYTES) + 1]
    try:
        found = tables(content, file, delimiter=options.delimiter, encoding=options.encoding, is_strict=False)
    except DataError:
        return False
    for table in found:
        columns = find_columns(table, options)
        if columns is not None and table.rows:
            return not any(cell.lstrip().startswith("[") for cell in table.rows[0].cells)
    return False


def read_days(
    content: bytes, file: str, options: SeriesOptions
) -> tuple[NDArray[np.float64], list[str], tuple[str, ...]]:
    """Return the views of a file, the day of each in ISO 8601, notes; raises as ``read_series``, but quotes no cell."""
    try:
        series = read_series(content, file, options)
    except CellError as error:
        raise error.unquoted from None
    days = [str(series.first_day + timedelta(days=day)) for day in range(len(series.views))]
    return series.views.astype(np.float64), days, series.notes


READER = SeriesReader(
    field="views",
    window=WINDOW_DAYS,
    label="last_day",
    options=ForecastOptions,
    asked=("horizon",),
    recognise=is_series,
    read=read_days,
    most_bytes=MAX_BYTES,
)


def _read_any(candidates: Sequence[RawTable], file: str, options: SeriesOptions) -> list[tuple[RawTable, Series]]:
    """Return the tables that are series; raises the first one's error if none is."""
    series, errors = [], []
    for table in candidates:
        try:
            series.append((table, _read(table, f"{file}, {table.place}" if len(candidates) > 1 else file, options)))
        except DataError as error:
            errors.append(error)
    if not series:
        raise errors[0]
    return series


def _is_same(one: Series, other: Series) -> bool:
    return one.first_day == other.first_day and np.array_equal(one.views, other.views)


def find_columns(table: RawTable, options: SeriesOptions) -> Columns | None:
    """A table's days and views: by the options, by their usual names, or as the only other column beside the days."""
    names = [_plain(name) for name in table.header.cells]
    day = _find(names, options.date_column, DATES)
    if day is None:
        return None
    views = _find(names, options.views_column, VIEWS)
    if views is None and not options.views_column and len(names) == 2:
        views = 1 - day
    return None if views is None or views == day else Columns(day, views)


def _find(names: Sequence[str], wanted: str, usual: Sequence[str]) -> int | None:
    sought = (_plain(wanted),) if wanted else usual
    return next((names.index(name) for name in sought if name in names), None)


def _plain(name: str) -> str:
    return " ".join(name.replace("\ufeff", "").casefold().replace("_", " ").split())


def _no_columns(file: str, chosen: Sequence[RawTable], options: SeriesOptions) -> DataError:
    shown = chosen[0].header if chosen else TableRow(1, [])
    wanted = [options.date_column or "date", options.views_column or "views"]
    expected = f"{' and '.join(wanted)}, or --date-column and --views-column"
    names = ", ".join(map(repr, shown.cells[:8])) or "none"
    return CellError(file, shown.number or None, "the columns", names, expected)


def _read(table: RawTable, file: str, options: SeriesOptions) -> Series:
    columns = find_columns(table, options)
    assert columns is not None
    names = [_plain(name) for name in table.header.cells]
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(file, row=table.header.number, found=f"two columns {name!r}", expected="each name once")
    notes = (
        [] if names[columns.views] in VIEWS else [f"the views are {table.header.cells[columns.views][:LONGEST_NAME]!r}"]
    )
    rows = _days_alone(table, columns, file, notes)
    counted = _by_day(_dated(rows, columns, table, file, options), file, options)
    if [*counted] != sorted(counted):
        notes.append("the days are not in order; they were sorted")
    return _consecutive(counted, file, options, notes)


def _days_alone(table: RawTable, columns: Columns, file: str, notes: list[str]) -> list[TableRow]:
    """Return the rows but for totals: the first or the last, if there is no digit where the others have their day."""
    if len(table.rows) > MAX_DAYS:
        raise DataError(file, found=f"{len(table.rows)} rows", expected=f"one for each day, at most {MAX_DAYS}")
    rows, wanted = [*table.rows], len(table.header.cells)
    for end in (0, -1):
        if rows and _is_total(rows[end].cells[columns.date :][:1]):
            notes.append(f"row {rows.pop(end).number}: a row of totals, passed over")
    for row in rows:
        if len(row.cells) != wanted:
            raise DataError(file, row=row.number, found=f"{len(row.cells)} cells", expected=str(wanted))
    if not rows:
        raise DataError(file, found="no rows", expected="one for each day")
    return rows


def _is_total(cells: list[str]) -> bool:
    return not any(len(cell) > LONGEST_TOTAL or any(letter.isdigit() for letter in cell) for cell in cells)


def _dated(
    rows: Sequence[TableRow], columns: Columns, table: RawTable, file: str, options: SeriesOptions
) -> list[_Day]:
    texts = [row.cells[columns.date].strip() for row in rows]
    numbers = [row.number for row in rows]
    if _plain(table.header.cells[columns.date]) == NTH_DAY and not options.date_format:
        days = counted_days(texts, numbers, table.start, file)
    else:
        days = parsed_days(texts, numbers, file, options.date_format)
    return [_Day(row.number, day, row.cells[columns.views]) for row, day in zip(rows, days, strict=True)]


def _by_day(rows: Sequence[_Day], file: str, options: SeriesOptions) -> dict[date, int | None]:
    """Views by day, in the order of the rows; ``None`` where there is no number."""
    counted: dict[date, int | None] = {}
    for number, day, text in rows:
        if day in counted:
            raise DataError(file, row=number, found=f"{day} a second time", expected="one row per day")
        counted[day] = whole_number(text.strip(), number, file, options.thousands) if text.strip() else None
    if all(count is None for count in counted.values()):
        raise DataError(file, found="no views", expected="a number for each day")
    return counted


def _consecutive(counted: dict[date, int | None], file: str, options: SeriesOptions, notes: list[str]) -> Series:
    """Views in order of time, with every gap filled as the options say."""
    known = {day: count for day, count in counted.items() if count is not None}
    first, last = min(known), max(known)
    outside = sum(not first <= day <= last for day in counted)
    if outside:
        notes.append(f"{outside} days without views at the beginning or the end, left out")
    length = (last - first).days + 1
    if length > MAX_DAYS:
        raise DataError(file, found=f"days from {first} to {last}", expected=f"at most {MAX_DAYS} days")
    views = np.full(length, np.nan)
    for day, count in known.items():
        views[(day - first).days] = count
    missing = np.flatnonzero(np.isnan(views))
    if len(missing):
        gap = first + timedelta(days=int(missing[0]))
        if options.gaps == "refuse":
            found = f"no views for {gap} ({len(missing)} of {length} days are missing)"
            expected = "every day between the first and the last, or --gaps zero or --gaps interpolate"
            raise DataError(file, found=found, expected=expected)
        views[missing] = 0 if options.gaps == "zero" else _between(views, missing)
        notes.append(f"{len(missing)} of {length} days were missing, the first {gap}; --gaps {options.gaps}")
    return Series(views.astype(np.float32), first, tuple(notes))


def _between(views: NDArray[np.float64], missing: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whole views on the straight line between the days before and after a gap."""
    whole = np.flatnonzero(~np.isnan(views))
    filled: NDArray[np.float64] = np.rint(np.interp(missing, whole, views[whole]))
    return filled
