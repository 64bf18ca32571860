"""CSV: quoted line ends, and every kind of row that cannot be read."""

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DataError
from service.scoring.sources.quotes import Quotes

Run = Callable[..., Any]
TOKENS = b"id,tokens\n"


def views(rows: int, *, more: bytes = b"") -> bytes:
    rng = np.random.default_rng(0)
    header = b"channel," + b",".join(b"views_%d" % day for day in range(1, 57)) + more + b"\n"
    lines = [b"c%d,%b%b\n" % (row, b",".join(b"%d" % one for one in rng.integers(0, 10**6, 56)), b"," * bool(more))
             for row in range(rows)]  # fmt: skip
    return header + b"".join(lines)


def test_numbered_columns(run: Run, alone: Any, prediction: Any, shipped: Any) -> None:
    """``views_1`` and so on are one list, oldest first; the answer is the service's, the row untouched before it."""
    content = views(20)
    instances = [
        shipped("viewcount").card.instance(views=[float(cell) for cell in line.split(b",")[1:]])
        for line in content.splitlines()[1:]
    ]
    job = run("viewcount", "in.csv", content, part_rows=6)
    assert [prediction(line) for line in job.output.splitlines()] == alone("viewcount", instances)
    assert job.lines[3]["channel"] == "c3"
    assert job.lines[3]["views_2"] == instances[3].views[1]
    out = run("viewcount", "in.csv", content, to="csv", part_rows=6).output
    for before, after in zip(content.splitlines(), out.splitlines(), strict=True):
        assert after.startswith(before + b",")
    header = out.splitlines()[0].split(b",")
    assert header[57:] == [b"forecast", b"lower", b"upper", b"error_code", b"error_reason", b"error_place"]


def test_every_number_column(run: Run) -> None:
    """Columns of any name, if as many hold numbers as the model needs; and not with one more or less."""
    content = views(3).replace(b"views_", b"2026-")
    assert run("viewcount", "in.csv", content).errors == 0
    assert run("viewcount", "in.csv", content.replace(b"c", b""), id="hannel").errors == 0
    with pytest.raises(DataError, match="or exactly 56 columns of numbers"):
        run("viewcount", "in.csv", content.replace(b"c", b""))


def test_quotes(run: Run) -> None:
    """A quoted cell may hold delimiters, line ends and quotes; a blank line is no row."""
    content = b'id,text\r\n"1\r\n2","I ""saw"",\nso"\r\n\r\n2,"a saw"\n\n'
    job = run("tagging", "in.csv", content, part_rows=1)
    assert [line["id"] for line in job.lines] == ["1\r\n2", "2"]
    assert job.lines[0]["prediction"]["tokens"] == ["I", '"', "saw", '"', ",", "so"]
    out = [*csv.reader(io.StringIO(run("tagging", "in.csv", content, to="csv").output.decode(), newline=""))]
    assert [row[:2] for row in out] == [["id", "text"], ["1\r\n2", 'I "saw",\nso'], ["2", "a saw"]]


BAD = [
    (b"1", "expected 2 cells, found 1"),
    (b"1,a,b", "expected 2 cells, found 3"),
    (b"1,\xff", "the row is not UTF-8"),
    (b"1,a\0b", "the row holds a NUL byte"),
    (b"1,a\rb", "the row holds a carriage return outside of quotes"),
    (b"1,", "text"),
    (b"1,a\x07b", "text: expected no control characters, found U+0007 at position 1"),
    (b'"1","a', "a quote is never closed"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD[:5] + BAD[6:7])
@pytest.mark.parametrize("to", ["csv", "jsonl", "parquet"])
def test_bad_rows(bad: bytes, reason: str, to: str, run: Run) -> None:
    """Each is an error row at its place, with as many cells as the header has columns."""
    job = run("tagging", "in.csv", b"id,text\n0,a\n%b\n2,c\n" % bad, to=to)
    assert job.errors == 1
    if to == "csv":
        rows = [*csv.reader(io.StringIO(job.output.decode(errors="replace"), newline=""))]
        assert {len(row) for row in rows} == {len(rows[0])}
        assert [row[0] for row in rows] == ["id", "0", "1", "2"]
        assert rows[2][6] == reason
    else:
        assert [code is not None for code in job.codes] == [False, True, False]


def test_a_torn_last_row(run: Run) -> None:
    """A quote left open in the last line is an error row; one left open over lines leaves no rows to tell apart."""
    assert run("tagging", "in.csv", b'id,text\n0,a\n1,"b').codes == [None, "malformed_request"]
    with pytest.raises(DataError, match="row 2: found a quote that is never closed"):
        run("tagging", "in.csv", b'id,text\n0,a\n1,"b\n2,c\n3,d\n')


def test_numbers(run: Run) -> None:
    """A cell that is no number is an error that says which, and empty in a table; spaces around one do not matter."""
    cells = [b"1,234", b"", b"nan", b"inf", b"1e400", b"0x10", b"1_0", b"12a", b"-1", b"1.5"]
    cells += [b" 7 ", b"7.0", b"7e2", b"+7", b"07"]
    row = views(1).splitlines()[1].split(b",")
    lines = [b",".join([row[0], b'"%b"' % cell, *row[2:]]) for cell in cells]
    job = run("viewcount", "in.csv", views(0) + b"\n".join(lines), to="parquet")
    assert job.codes == ["invalid_request"] * 10 + [None] * 5
    table = job.table
    assert table["views_1"].to_pylist()[6:] == [None, None, -1.0, 1.5, 7.0, 7.0, 700.0, 7.0, 7.0]
    assert table["error_reason"][0].as_py() == "views[0]: expected a number, found '1,234'"
    assert table["error_place"][0].as_py() == '["views",0]'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,id,text\n", "found two columns 'id', expected each name once"),
        (b"", "found no header"),
        (b"a,b\n1,2\n", "found the columns 'a', 'b', expected one of text, tokens"),
        (b'"a,text\n1,2\n', "found the header: a quote is never closed"),
    ],
)
def test_no_table_at_all(content: bytes, words: str, run: Run) -> None:
    """An input that makes no sense as a whole is said before any work."""
    with pytest.raises(DataError, match=words):
        run("tagging", "in.csv", content)


def test_other_delimiters(run: Run) -> None:
    """Tabs by the name, others if asked for; and a byte order mark is no part of the first name."""
    assert run("tagging", "in.tsv", b"id\ttext\n1\ta,b\n").errors == 0
    assert run("tagging", "in.csv", b"\xef\xbb\xbfid;text\n1;a,b\n", delimiter=";").lines[0]["id"] == "1"
    assert run("tagging", "in.csv", b'\xef\xbb\xbf"i\nd","text"\n1,a\n').lines[0]["i\nd"] == "1"


CELLS = st.text(alphabet=['"', ",", "\n", "\r", "a"], max_size=6)


@settings(max_examples=400, deadline=None)
@given(text=st.text(alphabet=['"', ",", "\n", "a"], max_size=40), size=st.integers(1, 9))
def test_rows_end_where_python_says(text: str, size: int) -> None:
    """Python's own reader finds the same rows in any text of quotes, commas and line feeds, however it is cut."""
    quotes, data, rest, rows = Quotes(b","), text.encode(), b"", []
    for start in range(0, len(data), size):
        block, begin = data[start : start + size], 0
        for end in quotes.ends_after(rest, block).tolist():
            rows.append(rest + block[begin:end])
            rest, begin = b"", end
        rest += block[begin:]
    found = [next(csv.reader([row.decode().lstrip("\n")])) for row in rows]
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if rest.strip(b"\n"):
        expected.pop()
    assert found == expected


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_blank_lines_wherever_a_block_ends(line_end: bytes) -> None:
    """A line end is blank or not by what stands before it, also in the block before."""
    data = b"a" + line_end * 3 + b"b\r" + line_end + b'"c"' + line_end + line_end + b"d" + line_end
    for size in range(1, len(data)):
        quotes, rest, rows = Quotes(b","), b"", 0
        for start in range(0, len(data), size):
            block = data[start : start + size]
            ends = quotes.ends_after(rest, block)
            rows += len(ends)
            rest = block[int(ends[-1]) :] if len(ends) else rest + block
        assert rows == 4
    assert Quotes(b",").ends_after(b"a", b"\nb\r").tolist() == [1]


@settings(max_examples=200, deadline=None)
@given(cells=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6))
def test_rows_that_python_wrote(cells: list[list[str]]) -> None:
    """Counting quotes is enough for what a writer of CSV makes, and gives the rows that were written."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(cells)
    data = text.getvalue().encode()
    ends = Quotes(b",").ends(data).tolist()
    assert [next(csv.reader([data[s:e].decode()])) for s, e in zip([0, *ends], ends, strict=False)] == cells
