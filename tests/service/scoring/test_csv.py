"""CSV: quoted line ends, and every kind of row that cannot be read."""

import csv
import io
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.errors import DataError
from service.scoring.inputs.csv_boundaries import QuoteCounter

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
    (b"1,\xff", "the row is not UTF-8 (--encoding, such as cp1252)"),
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
    assert table["error_reason"][0].as_py() == (
        "views[0]: expected a number, found '1,234' (a decimal comma needs --decimal ,)"
    )
    assert table["error_place"][0].as_py() == '["views",0]'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,id,text\n", "found the same name in columns 1 and 2, expected each name once; --no-header, if"),
        (b"", "found no header"),
        (
            b"a,b\n1,2\n",
            r"nothing that the model reads among the columns \(2\), expected one of text, tokens; --no-h",
        ),
        (b'"a,text\n1,2\n', "found the first row: a quote is never closed"),
        (b"\xff\xfea\0", "found text in UTF-16, expected UTF-8"),
        (b"te\xdfxt,b\n1,2\n", "found the first row: the row is not UTF-8 .--encoding"),
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
@example(text='a","\na', size=1)
@example(text='a",' + '"' + 'b"",\n' * 40 + '"",a\n' + '"b"\n' * 2, size=7)
@example(text='a",' + '"b",' * 600 + '\na",\n', size=9)
def test_rows_end_where_python_says(text: str, size: int) -> None:
    """Python's own reader finds the same rows in any text of quotes, commas and line feeds, however it is cut."""
    quotes, data, rest, rows = QuoteCounter(b","), text.encode(), b"", []
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
        quotes, rest, rows = QuoteCounter(b","), b"", 0
        for start in range(0, len(data), size):
            block = data[start : start + size]
            ends = quotes.ends_after(rest, block)
            rows += len(ends)
            rest = block[int(ends[-1]) :] if len(ends) else rest + block
        assert rows == 4
    assert QuoteCounter(b",").ends_after(b"a", b"\nb\r").tolist() == [1]


@settings(max_examples=200, deadline=None)
@given(cells=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6))
def test_rows_that_python_wrote(cells: list[list[str]]) -> None:
    """Counting quotes is enough for what a writer of CSV makes, and gives the rows that were written."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(cells)
    data = text.getvalue().encode()
    ends = QuoteCounter(b",").ends(data).tolist()
    assert [next(csv.reader([data[s:e].decode()])) for s, e in zip([0, *ends], ends, strict=False)] == cells


def test_no_content_in_a_refusal(run: Run) -> None:
    """The first row may be somebody's data: it is not quoted, however it is refused."""
    for content in (b"Ann,Smith\n", b"Ann,Ann\n", b'"Ann,Smith\nAnn,"', b"Ann\xff,Smith\n", b"Ann;Smith\n"):
        with pytest.raises(DataError) as refused:
            run("tagging", "in.csv", content)
        assert "Ann" not in str(refused.value)


@pytest.mark.parametrize("delimiter", [b";", b"\t", b"|"])
def test_a_delimiter_that_was_not_said(delimiter: bytes, run: Run) -> None:
    """Where another delimiter would make the model's columns, it is named as a shell takes it; and it reads them."""
    content = views(3).replace(b",", delimiter)
    with pytest.raises(DataError) as refused:
        run("viewcount", "in.csv", content)
    option, said = shlex.split(str(refused.value).partition("; ")[2].removesuffix(" finds it"))
    assert option == "--delimiter"
    assert run("viewcount", "in.csv", content, delimiter=said).errors == 0


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_line_that_excel_writes(line_end: bytes, mark: bytes, run: Run) -> None:
    """A first line ``sep=;`` says the delimiter, of the output too, and is no row."""
    content = mark + b"sep=;" + line_end + b"id;text" + line_end + b"1;a" + line_end + b"2;b" + line_end
    assert [line["id"] for line in run("tagging", "in.csv", content).lines] == ["1", "2"]
    header, *rows = run("tagging", "in.csv", content, to="csv").output.decode().splitlines()
    assert header.startswith("id;text;tokens;")
    assert [row[:4] for row in rows] == ["1;a;", "2;b;"]


def test_tabs_stay_tabs(run: Run) -> None:
    """The cells that are added to a row stand apart as its own do."""
    rows = run("tagging", "in.tsv", b"id\ttext\n1\ta\n", to="csv").output.decode().splitlines()
    assert [len(row.split("\t")) for row in rows] == [8, 8]


@pytest.mark.parametrize("to", ["csv", "jsonl", "parquet"])
def test_other_encodings(to: str, run: Run) -> None:
    """Text in another encoding is read if it is said, a part at a time, and written in UTF-8; so are the names."""
    content = "größe,text\nä€,so\nö,Größe\n".encode("cp1252") + b"\x81,so\n"
    with pytest.raises(DataError, match="--encoding"):
        run("tagging", "in.csv", content, to=to)
    job = run("tagging", "in.csv", content, to=to, encoding="cp1252", part_rows=1)
    assert job.errors == 1
    if to == "csv":
        rows = [*csv.reader(io.StringIO(job.output.decode()))]
        assert [row[:2] for row in rows[:3]] == [["größe", "text"], ["ä€", "so"], ["ö", "Größe"]]
        assert rows[3][-2] == "the row is not cp1252 (--encoding, such as cp1252)"
    elif to == "jsonl":
        assert [line["größe"] for line in job.lines[:2]] == ["ä€", "ö"]
        assert job.lines[1]["prediction"]["tokens"] == ["Größe"]
    else:
        assert job.table["größe"].to_pylist()[:2] == ["ä€", "ö"]


@pytest.mark.parametrize("name", ["utf-16", "utf-7", "rot13", "unicode_escape", "none"])
def test_encodings_that_cannot_be_cut(name: str, run: Run) -> None:
    """An encoding in which rows cannot be found is refused by its name."""
    with pytest.raises(DataError, match=f"found the encoding '{name}', expected one in which ASCII is itself"):
        run("tagging", "in.csv", b"text\na\n", encoding=name)


@pytest.mark.parametrize("bad", [b"", b"x;"])
def test_decimal_commas(bad: bytes, run: Run, prediction: Any) -> None:
    """Numbers with a comma before their fraction are read if it is said, at once or one by one; else it is advised."""
    point = views(4).replace(b",", b";").replace(b"\n", b".0\n", 9).replace(b"views_56.0", b"views_56")
    comma = point.replace(b".", b",")
    job = run("viewcount", "in.csv", comma, delimiter=";")
    assert job.errors == 4
    assert job.lines[0]["error_reason"].endswith(",0' (a decimal comma needs --decimal ,)")
    assert job.lines[0]["views_56"].endswith(",0")
    wanted = run("viewcount", "in.csv", point, delimiter=";")
    assert wanted.errors == 0
    job = run("viewcount", "in.csv", comma + bad, delimiter=";", decimal=",")
    assert job.errors == bool(bad)
    assert [*map(prediction, job.output.splitlines()[:4])] == [*map(prediction, wanted.output.splitlines())]
    assert [line["views_56"] for line in job.lines[:4]] == [line["views_56"] for line in wanted.lines]
    job = run("viewcount", "in.csv", point, delimiter=";", decimal=",")
    assert job.errors == 4
    assert job.lines[0]["error_reason"].endswith(".0' (a decimal point needs --decimal .)")
    with pytest.raises(DataError, match="found ',' between cells and in numbers"):
        run("viewcount", "in.csv", comma, decimal=",")


def test_no_header(run: Run, prediction: Any) -> None:
    """A first row of numbers is refused, and read if it is said that it is data; the columns get names."""
    content = views(4)
    without = content[content.index(b"\n") + 1 :]
    with pytest.raises(DataError, match=r"it looks like data, expected the columns' names \(--no-header"):
        run("viewcount", "in.csv", without)
    job, wanted = run("viewcount", "in.csv", without, has_header=False), run("viewcount", "in.csv", content)
    assert [*map(prediction, job.output.splitlines())] == [*map(prediction, wanted.output.splitlines())]
    assert job.lines[0]["column_1"] == "c0"
    assert run("viewcount", "in.csv", without, has_header=True).scorer.source.schema.names[0] == "c0"
    header, first, *_ = run("viewcount", "in.csv", without, to="csv", has_header=False).output.splitlines()
    assert header.startswith(b"column_1,column_2,")
    assert first.startswith(without.splitlines()[0] + b",")


def test_no_header_and_a_column(run: Run) -> None:
    """Text without a header: which column it is, has to be said, and how is."""
    with pytest.raises(DataError, match="--column FIELD=column_1"):
        run("tagging", "in.csv", b"1,so\n2,we\n", has_header=False)
    job = run("tagging", "in.csv", b"1,so\n2,we\n", has_header=False, columns={"text": "column_2"})
    assert [line["prediction"]["tokens"] for line in job.lines] == [["so"], ["we"]]


@pytest.mark.parametrize("names", [range(56), range(1970, 2026)])
def test_numbers_that_are_names(names: range, run: Run) -> None:
    """Columns that are counted, or years, have numbers for names."""
    content = views(3)
    header = b"channel," + b",".join(b"%d" % one for one in names)
    assert run("viewcount", "in.csv", header + content[content.index(b"\n") :]).errors == 0


def test_cells_that_are_no_number_are_shown(run: Run) -> None:
    """What stood in the cells of an error row is in the output: in their place, and in a table in the reason."""
    row = views(2).splitlines()
    cells = row[1].split(b",")
    bad = b",".join([cells[0], b'"1,090"', b"", b"many", *cells[4:]])
    content = b"\n".join([row[0], bad, row[2]])
    line, good = run("viewcount", "in.csv", content).lines
    assert (line["views_1"], line["views_2"], line["views_3"]) == ("1,090", None, "many")
    assert line["views_4"] == float(cells[4])
    assert good["views_1"] == float(row[2].split(b",")[1])
    for to in ("parquet", "csv"):
        output = run("viewcount", "in.csv", content, to=to).output
        reasons = (
            pq.read_table(io.BytesIO(output))["error_reason"].to_pylist() if to == "parquet" else [output.decode()]
        )
        assert all(shown in reasons[0] for shown in ("views[0]: expected a number, found '1,090'", "found 'many'"))
        assert "views[1]: expected a number, found nothing" in reasons[0]
