"""Own tables of days and views, as people have them: read as they are, or refused with the option that helps."""

import gzip
import io
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from models.errors import DataError
from models.viewcount import exports
from models.viewcount.exports import MAX_BYTES
from models.viewcount.table import Series, SeriesOptions, read_series
from models.viewcount.train.data import LearningOptions, load
from tests.models import view_tables as made


def read(content: str | bytes, **options: Any) -> Series:
    data = content.encode() if isinstance(content, str) else content
    return read_series(data, "views.csv", SeriesOptions(**options))


@pytest.mark.parametrize("name", made.EXPORTS)
def test_exports(name: str, tmp_path: Path) -> None:
    """What each tool writes is the same series, untouched, with no more than the options said."""
    write, options = made.EXPORTS[name]
    path = tmp_path / name
    path.write_bytes(write(250))
    data = load(path, LearningOptions(**options))
    assert data.views.tolist() == made.views(250)
    assert data.first_day == date(2024, 1, 1)


@pytest.mark.parametrize(
    ("write", "helps"),
    [
        (made.universal_analytics, "row 12: found views '1,450', expected a whole number from 0 to 1000000000 "
            "(if thousands are grouped so: --thousands ,)"),
        (made.excel_german, "found bytes that are not utf-8, expected UTF-8, UTF-16 with its mark, or --encoding "
            "(Excel's CSV: --encoding cp1252)"),
    ],
)  # fmt: skip
def test_the_option_that_helps(write: Callable[[int], bytes], helps: str) -> None:
    """An export that cannot be understood by itself is refused with the option that helps."""
    with pytest.raises(DataError) as caught:
        read(write(250))
    assert helps in str(caught.value)


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("Totals.csv", []),
        ("Table data.csv", ["row 2: a row of totals, passed over"]),
        ("pageviews.csv", ["the views are 'Cat (animal)'"]),
        ("Book1.txt", ["the days are not in order; they were sorted"]),
    ],
)
def test_notes(name: str, notes: list[str]) -> None:
    """What was passed over, chosen or put in order is told."""
    write, options = made.EXPORTS[name]
    assert [*read(write(100), **options).notes] == notes


def test_notes_are_kept(tmp_path: Path) -> None:
    """Report and certificate keep the notes, without a path of this machine; without notes nothing is added."""
    for name, write in (("a.csv", made.youtube_table), ("b.csv", made.youtube_totals)):
        (tmp_path / name).write_bytes(write(250))
    assert load(tmp_path / "a.csv").provenance.record()["notes"] == ("row 2: a row of totals, passed over",)
    assert "notes" not in load(tmp_path / "b.csv").provenance.record()


GAP = "date,views\n2024-01-01,10\n2024-01-02,\n2024-01-04,41\n"


@pytest.mark.parametrize(
    ("gaps", "expected"), [("zero", [10, 0, 0, 41]), ("interpolate", [10, 20, 31, 41])]
)  # fmt: skip
def test_gaps(gaps: str, expected: list[int]) -> None:
    """A day without a row, or without a number, is refused, or filled as said and told."""
    with pytest.raises(
        DataError, match=r"no views for 2024-01-02 .2 of 4 days are missing.*--gaps zero or --gaps inter"
    ):
        read(GAP)
    found = read(GAP, gaps=gaps)
    assert found.views.tolist() == expected
    assert found.notes == (f"2 of 4 days were missing, the first 2024-01-02; --gaps {gaps}",)


def test_days_not_yet_counted() -> None:
    """Days without a number before the first and after the last one are no gap; they are left out, and told."""
    found = read("date,views\n2024-01-01,\n2024-01-02,5\n2024-01-03,6\n2024-01-04,\n")
    assert (found.views.tolist(), found.first_day) == ([5, 6], date(2024, 1, 2))
    assert found.notes == ("2 days without views at the beginning or the end, left out",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("date,views\n2023-12-01,2,305\n", ", row 2: found 3 cells, expected 2"),
        ("date,views,likes\n2023-12-01,2,305,7\n", ", row 2: found 4 cells, expected 3"),
        ("date,views\n2023-12-01\n", ", row 2: found 1 cells, expected 2"),
        ("date,views,views\n2023-12-01,2,3\n", ", row 1: found two columns 'views', expected each name once"),
        ("date,views,Views\n2023-12-01,2,3\n", ", row 1: found two columns 'views', expected each name once"),
        ("date,views,a,a\n2023-12-01,2,3,4\n", ", row 1: found two columns 'a', expected each name once"),
        ('date,views\n2024-01-01,1\n2024-01-02,"12', ", row 3: found unexpected end of data"),
        ('date,views\n2024-01-01,"1\n2024-01-02,12\n', ", row 2: found unexpected end of data"),
        ('date,views\n2024-01-01,"1"2\n', ", row 2: found ',' expected after '\"'"),
        ("date,views\n2024-01-01,1\n2024-01-01,2\n", ", row 3: found 2024-01-01 a second time, expected one row per"),
        ("date,views\n2024-01-01,1\nTotal,2\n2024-01-02,2\n", ", row 3: found date 'Total', expected YYYY-MM-DD"),
        ("date,views\n2024-01-01,1.5\n", ", row 2: found views '1.5', expected a whole number"),
        (
            "date,views\n2024-01-01,1.500\n",
            "expected a whole number from 0 to 1000000000 (if thousands are grouped so: --th",
        ),
        ("date,views\n2024-01-01,nan\n", ", row 2: found views 'nan'"),
        ("date,views\n2024-01-01,-1\n", ", row 2: found views '-1'"),
        ("date,views\n2024-01-01,²\n", ", row 2: found views '²'"),
        ("date,views\n2024-01-01,1000000001\n", ", row 2: found views 1000000001"),
        (
            "date,views\n01/02/2024,1\n02/02/2024,1\n",
            ": found dates that can be read in two ways, expected --date-format",
        ),
        ("date,views\n0001-01-01,1\n9999-12-31,1\n", ": found days from 0001-01-01 to 9999-12-31, expected at most"),
        (
            "Tag;Aufrufe;x\n01.01.2024;1;2\n",
            ", row 1: found the columns 'Tag', 'Aufrufe', 'x', expected date and views",
        ),
        ("Nth day,Views\n0000,1\n", ": found days by number alone, expected a line '# Start date"),
        ("# Start date: 20240101\nNth day,Views\n9999999,1\n", "found day '9999999', expected its number from"),
        ('{"items": 5}', ": found other JSON, expected a list of objects, alone or as items"),
        ('{"items": [', ": found no JSON ("),
        (
            '[{"date": "2024-01-01", "views": 1, "views": 2}]',
            ": found no JSON (a name is given twice), expected a whole",
        ),
        ("[" * 100_000, ": found no JSON (maximum recursion depth exceeded"),
        ('[{"date": "2024-01-01", "views": NaN}]', ", row 1: found views 'nan', expected a whole number"),
        ('[{"date": "2024-01-01", "views": 1e400}]', ", row 1: found views 'inf', expected a whole number"),
        ('[{"date": "2024-01-01", "views": [1]}]', ", row 1: found views '[1]', expected a whole number"),
        ("date,views\n", ": found no rows"),
        ("date,views\n2024-01-01,\n", ": found no views, expected a number for each day"),
        ("", ", row 1: found the columns none, expected date and views, or --date-column"),
    ],
)
def test_refused(content: str, message: str) -> None:
    """Rows torn or grouped, names given twice and dates of two minds are never learned from; one line says why."""
    with pytest.raises(DataError) as caught:
        read(content)
    assert message in str(caught.value)


def test_a_table_after_a_blank_line() -> None:
    """A blank line between rows ends no table: what follows is lost only if it begins with names."""
    assert read("date,views\n2024-01-01,1\n\n2024-01-02,2\n\n").views.tolist() == [1, 2]
    assert read('remark,date,views\na,2024-01-01,1\n\n"",2024-01-02,2\n').views.tolist() == [1, 2]


def test_two_series_in_a_file() -> None:
    """Two tables that are different series are refused until one is chosen."""
    content = "date,views\n2024-01-01,1\n\ndate,views\n2024-01-01,2\n"
    with pytest.raises(DataError, match="different series in the tables '1', '2', expected --table with one of them"):
        read(content)
    assert read(content, table="2").views.tolist() == [2]
    with pytest.raises(DataError, match="found --table 3, expected one of 1, 2"):
        read(content, table="3")


@pytest.mark.parametrize(
    ("text", "wanted", "day"),
    [
        ("2024-01-05T00:00:00Z", "", date(2024, 1, 5)),
        ("2024-01-05 00:00:00", "", date(2024, 1, 5)),
        ("2024/01/05", "", date(2024, 1, 5)),
        ("20240105", "", date(2024, 1, 5)),
        ("2024010500", "", date(2024, 1, 5)),
        ("13.1.24", "", date(2024, 1, 13)),
        ("13/1/2024", "", date(2024, 1, 13)),
        ("1/13/24", "", date(2024, 1, 13)),
        ("13-01-2024", "", date(2024, 1, 13)),
        ("5 January 2024", "", date(2024, 1, 5)),
        ("05|2024|01", "%d|%Y|%m", date(2024, 1, 5)),
        ("01/02/2024", "%d/%m/%Y", date(2024, 2, 1)),
    ],
)
def test_dates(text: str, wanted: str, day: date) -> None:
    """Days as tools write them, or as the option says."""
    assert read(f"date;views\n{text};1\n", date_format=wanted).first_day == day


@pytest.mark.parametrize(
    ("text", "thousands", "count"),
    [
        ("305.0", "", 305), ("1.305", ".", 1305), ("1,305", ",", 1305), ("1'305", "'", 1305), ("1’305", "'", 1305),
        ("1\u202f305\u202f007", "space", 1305007), ("12", ",", 12), (" 7 ", "", 7),
    ],
)  # fmt: skip
def test_counts(text: str, thousands: str, count: int) -> None:
    """Whole numbers, grouped as said."""
    assert read(f'date;views\n2024-01-01;"{text}"\n', thousands=thousands).views.tolist() == [count]


@pytest.mark.parametrize("text", ["1,30", "1,3055", "1.305", ",305", "12,34,567"])
def test_groups_of_three(text: str) -> None:
    """What is grouped otherwise than said is refused, not guessed."""
    with pytest.raises(DataError, match="row 2: found views"):
        read(f'date;views\n2024-01-01;"{text}"\n', thousands=",")


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(**{"xl/workbook.xml": b"<x/>"}), "found an Excel workbook, expected its sheet, saved as CSV UTF-8"),
        (zipped(**{"a.png": b"x"}), "found no table in the archive"),
        (zipped(**{"a.csv": b"date,views\n" + b"0" * (MAX_BYTES + 1)}), f"found more than {MAX_BYTES} bytes inside"),
        (zipped(**{"a.csv": b"date,views\n2024-01-01,1\n"})[:-10], "expected a whole zip archive"),
        (gzip.compress(b"0" * (MAX_BYTES + 1)), f"found more than {MAX_BYTES} bytes, expected one row for each day"),
        (gzip.compress(b"date,views\n2024-01-01,1\n")[:-9], "found damaged or cut off gzip"),
        (b"date,views\n" + b"2024-01-01,1\n" * 40_000, "found 40000 rows, expected one for each day"),
    ],
    ids=["workbook", "pictures", "bomb", "torn zip", "gzip bomb", "torn gzip", "many rows"],
)
def test_files_that_are_no_table(content: bytes, message: str) -> None:
    """A workbook, an archive of other things, and what is far too large are refused by name."""
    with pytest.raises(DataError) as caught:
        read(content)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["date,views\n" + "1,1\n" * 9, "[" + "{}," * 8 + "{}]"])
def test_rows_are_bounded(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more rows are held in memory than the largest export has."""
    monkeypatch.setattr(exports, "MAX_ROWS", 8)
    with pytest.raises(DataError, match="found more than 8 rows, expected one row for each day"):
        read(content)


def test_gzip() -> None:
    """A table may lie gzipped."""
    assert read(gzip.compress(made.youtube_totals(60))).views.tolist() == made.views(60)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ";;"}, "found --delimiter ';;', expected one character, or tab"),
        ({"encoding": "klingon"}, "found --encoding klingon"),
        ({"views_column": "seen"}, "expected date and seen, or --date-column and --views-column"),
    ],
)
def test_options_at_fault(options: dict[str, str], message: str) -> None:
    """An option that cannot be meant is told by its name."""
    with pytest.raises(DataError) as caught:
        read("date,views,x\n2024-01-01,1,2\n", **options)
    assert message in str(caught.value)
