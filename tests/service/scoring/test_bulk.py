"""A million rows of numbers at once: the very bytes of rows read one by one, whatever stands in a cell."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import DataError
from models.registry import CARDS
from models.runtime.device import Device
from service.scoring.inputs.csv_rows import CsvReader, CsvRows
from service.scoring.parts.scorer import ModelScorer
from service.scoring.spec import InputOptions, make_spec

Run = Callable[..., Any]
DAYS = 56
ODD = [
    "7\t",
    "", " ", "0", "-0", "-0.0", "+0", "1.5", "1e3", "1E3", ".5", "5.", "1e", "e1", "1e400", "-1", "1e9", "1000000001",
    "999999999.9", "nan", "NaN", "-nan", "inf", "Infinity", "null", "NA", "None", "0x10", "1_0", "1,0", "٣", "  7",
    "007", "1 2", "true", '"7"', '"', "\0", "\x07", "12345678901234567890", "123456789012345678901234567890", "1e-400",
    "9007199254740993", "\r", "7\r", "1f", "1d3", "1e+2", "--1", "+-1", "∞", "1.0.0", "''",
]  # fmt: skip
CELL = st.sampled_from(ODD) | st.text(alphabet="0123456789+-.eE nai_\t", max_size=6)
QUOTED = [
    '"a,b"',
    '"a\r\nb"',
    '"a ""b"""',
    '""',
    'a"b',
    '"a"b',
    '"7"',
    '" 7"',
    '"-0"',
    "é",
    "a\u2028b",
    "\ufeff",
    "x" * 3000,
]
Part = tuple[bytes, int]


class Both:
    """A part scored at once and one by one."""

    def __init__(self, shipped: Any, manifest: Any, path: Path) -> None:
        self.predictor, self.manifest, self.path = shipped("viewcount"), manifest, path

    def part(self, to: str, *, at_once: bool) -> Part | str:
        """Return its bytes and how many errors; or what is wrong with the input."""
        predictor = self.predictor
        with pytest.MonkeyPatch.context() as patch:
            if not at_once:
                predictor = replace(predictor, card=replace(predictor.card, bulk=None))
                patch.setattr(CsvReader, "at_once", lambda *_: None)
            spec = make_spec(self.manifest, str(self.path), f"out.{to}", InputOptions(part_rows=1000))
            try:
                scorer, file = ModelScorer(spec, Device.CPU, predictor=predictor), BytesIO()
                (cut,) = scorer.source.cuts()
                scored = scorer.score(cut)
                scored.write(file)
            except DataError as error:
                return str(error)
        return file.getvalue(), scored.errors

    def agree(self, rows: list[list[str]], line_end: str, forms: Sequence[str] = ("jsonl", "csv", "arrow")) -> None:
        """Write the rows, and compare every output."""
        header = ",".join(["name", *(f"views_{day}" for day in range(1, DAYS + 1))])
        self.path.write_text(line_end.join([header, *(",".join(row) for row in rows), ""]), newline="")
        for to in forms:
            assert self.part(to, at_once=True) == self.part(to, at_once=False)


def plain_rows(count: int) -> list[list[str]]:
    return [[f"n{row}", *(str(row * 100 + day) for day in range(DAYS))] for row in range(count)]


@pytest.fixture
def both(shipped: Any, shipped_session: Any, tmp_path: Path) -> Both:
    return Both(shipped, shipped_session("viewcount").manifest, tmp_path / "in.csv")


@pytest.mark.parametrize("text", [*ODD, *QUOTED])
def test_any_cell(text: str, both: Both) -> None:
    """A text as the only strange one of its part, where a number or a name is expected."""
    for position in (0, 1, DAYS):
        rows = plain_rows(4)
        rows[2][position] = text
        both.agree(rows, "\r\n" if position else "\n")


def test_a_part_that_begins_like_a_file(both: Both) -> None:
    """A byte order mark is one only where the file begins."""
    rows = plain_rows(4)
    rows[0][0] = "\ufeffa"
    both.agree(rows, "\n")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cells(data: Any, both: Both) -> None:
    """Any texts together, and rows of any length."""
    rows = plain_rows(5)
    for row in rows:
        if data.draw(st.booleans()):
            row[data.draw(st.sampled_from([0, 1, 7, DAYS]))] = data.draw(CELL | st.sampled_from(QUOTED))
    if data.draw(st.booleans()):
        rows[3] = rows[3][: data.draw(st.integers(1, DAYS + 1))]
    both.agree(rows, data.draw(st.sampled_from(["\n", "\r\n"])))


def test_most_rows_are_answered_at_once(run: Run, shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of good rows none is read by itself, and among bad ones no good one is: the control of the test above."""
    header = b",".join(b"views_%d" % day for day in range(1, DAYS + 1))
    line = b",".join(b"%d" % day for day in range(DAYS))
    read: list[int] = []
    instance = CsvRows.instance
    monkeypatch.setattr(CsvRows, "instance", lambda self, row: (read.append(row), instance(self, row))[1])
    run("viewcount", "in.csv", b"\n".join([header, *[line] * 100]))
    assert read == []
    bad = line.replace(b"5", b"x", 1)
    job = run("viewcount", "in.csv", b"\n".join([header, *[line] * 50, bad, *[line] * 50]))
    assert read == [50]
    assert [row for row, code in enumerate(job.codes) if code] == [50]


@pytest.mark.parametrize("form", ["lists", "columns", "ints", "ragged", "nulls", "floats"])
def test_typed_columns(form: str, run: Run, tmp_path: Path) -> None:
    """Lists and columns of numbers of any type, too."""
    rng = np.random.default_rng(0)
    views = rng.integers(0, 10**6, (30, DAYS)).astype(np.float64)
    views[3, 4], views[5, 6], views[7, 8] = 0.5, -0.0, np.nan
    lists: list[Any] = views.tolist()
    if form == "ragged":
        lists[9] = [*lists[9], 5.0]
    if form == "nulls":
        lists[9], lists[11] = None, [None, *lists[11][1:]]
    if form in ("columns", "ints", "floats"):
        kind = {"columns": pa.float64(), "ints": pa.int32(), "floats": pa.float32()}[form]
        values = np.nan_to_num(views)
        table = pa.table({f"views_{day + 1}": pa.array(values[:, day]).cast(kind, safe=False) for day in range(DAYS)})
    else:
        table = pa.table({"views": pa.array(lists, pa.list_(pa.float64()))})
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, row_group_size=11)
    fast = run("viewcount", path, part_rows=13)
    assert fast.output == run("viewcount", path, part_rows=13, one_by_one=True).output
    assert fast.errors >= (form != "ints")


def test_a_failing_batch(run: Run, shipped: Any) -> None:
    """A row without a finite answer costs only itself, also among rows that are run together."""
    predictor = shipped("viewcount")

    def fail(feeds: Any, names: list[str]) -> Any:
        outputs = predictor.run(feeds, names)
        return {name: np.where(feeds["views"][:, :1] == 13, np.nan, values) for name, values in outputs.items()}

    header = b",".join(b"views_%d" % day for day in range(1, DAYS + 1))
    lines = [b",".join([b"%d" % row, *[b"7"] * (DAYS - 1)]) for row in range(200)]
    content = b"\n".join([header, *lines])
    job = run("viewcount", "in.csv", content, predictor=replace(predictor, run=fail))
    assert [(row, code) for row, code in enumerate(job.codes) if code] == [(13, "runner_failed")]
    good = run("viewcount", "in.csv", content)
    assert job.output.splitlines()[:13] == good.output.splitlines()[:13]


@pytest.mark.parametrize("card", [card for card in CARDS if card.bulk], ids=lambda card: card.family)
def test_the_verbs_for_many_are_those_for_one(card: Any, shipped: Any) -> None:
    """Rows that are accepted have no fault, and get the feeds and answers of the verbs for one, bit for bit."""
    predictor, bulk, rng = shipped(card.family), card.bulk, np.random.default_rng(0)
    for width in (DAYS - 1, DAYS, DAYS + 7):
        numbers = np.round(10 ** rng.uniform(0, 9, (200, width)))
        numbers[rng.random(numbers.shape) < 0.002] = np.nan
        numbers[rng.random(numbers.shape) < 0.002] += 0.5
        numbers[rng.random(numbers.shape) < 0.002] *= -1
        is_good = bulk.accept(numbers, predictor.assets)
        assert is_good.any() == (width >= DAYS)
        instances = [card.instance(**{bulk.field: row.tolist()}) for row in numbers[is_good]]
        if not instances:
            continue
        samples = predictor.encode(instances)
        feeds, expected = bulk.feeds(numbers[is_good], predictor.assets), card.collate(samples)
        assert {name: feed.tobytes() for name, feed in feeds.items()} == {n: f.tobytes() for n, f in expected.items()}
        outputs = predictor.run(feeds, predictor.wanted(explain=False))
        answers = bulk.answers(outputs, predictor.assets)
        for row, prediction in enumerate(predictor.decode(outputs, samples)):
            assert prediction.keys() == answers.keys()
            assert all(np.array_equal(answers[name][row], value) for name, value in prediction.items())
