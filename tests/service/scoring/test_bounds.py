"""Small files that say that they are large: what rows take is known before it is held, and nothing else is lost."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from models.errors import DataError
from service.scoring.inputs.bounds import column_bytes
from service.scoring.inputs.parquet_decoding import plan_decoding
from tests.service.scoring import hostile

Run = Callable[..., Any]
ROW, PART = 2**12, 2**14


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 4 kB and parts of 16 are the most there may be."""
    for name in ("bounds", "parquet_decoding", "table_rows"):
        monkeypatch.setattr(f"service.scoring.inputs.{name}.MAX_ROW_BYTES", ROW)
    for name in ("bounds", "parquet_decoding"):
        monkeypatch.setattr(f"service.scoring.inputs.{name}.MAX_PART_BYTES", PART)


def exact(value: Any) -> int:
    """Return what a value takes, counted one by one."""
    if isinstance(value, list):
        return 8 + sum(map(exact, value))
    if isinstance(value, dict):
        return 8 + sum(map(exact, value.values()))
    return 8 + len(value) if isinstance(value, str | bytes) else 8


VALUES: dict[str, Any] = {
    "text": ["a", "bcd", "", "é" * 9],
    "views of text": pa.array(["a", "bcd", "", "a text of more than twelve"], pa.string_view()),
    "lists": [[1], [], [2, 3], [4]],
    "large lists": pa.array([["a"], [], ["bc", ""], ["d"]], pa.large_list(pa.string())),
    "views of lists": pa.ListViewArray.from_arrays([0, 1, 0, 2], [3, 2, 0, 1], pa.array(["a", "bb", "ccc"])),
    "fixed lists": pa.array([["a", "b"], ["cc", ""], ["", ""], ["d", "eee"]], pa.list_(pa.string(), 2)),
    "structs": [{"a": 1, "b": "x"}, {"a": 2, "b": "yy"}, {"a": 3, "b": ""}, {"a": 4, "b": "zzz"}],
    "lists of lists": [[["a"], ["bb", "c"]], [], [[]], [["d"]]],
    "dictionary": pa.array(["a", "bcd", "a", "bcd"]).dictionary_encode(),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 4], pa.int32()), pa.array(["a", "bcd"])),
    "numbers": [1, 2, 3, 4],
    "truths": [True, False, True, True],
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_sizes(name: str, start: int) -> None:
    """What each row takes is what its values, counted one by one, take, in a slice of a column too."""
    column = pa.array(VALUES[name]) if isinstance(VALUES[name], list) else VALUES[name]
    piece = column.slice(start)
    values = piece.to_pylist()
    texts = [value.encode() if isinstance(value, str) else value for value in values]
    assert column_bytes(piece).tolist() == [*map(exact, texts)]


def test_a_large_row_is_one_error_row(run: Run, tmp_path: Path) -> None:
    """A row above what a row may take has an error of its own, and empty cells; its neighbours are scored."""
    long = hostile.text(ROW + 1)
    for path in (
        hostile.parquet(tmp_path / "in.parquet", pa.table({"id": [1, 2, 3], "text": ["I saw", long, "so"]})),
        hostile.arrow(tmp_path / "in.arrow", pa.record_batch({"id": [1, 2, 3], "text": ["I saw", long, "so"]})),
    ):
        job = run("tagging", path)
        assert job.codes == [None, "body_too_large", None]
        assert [line["id"] for line in job.lines] == [1, 2, 3]
        assert [line["text"] for line in job.lines] == ["I saw", None, "so"]
        assert job.lines[1]["error_reason"] == f"the row is larger than {ROW} bytes"


REFUSED: dict[str, Callable[[Path], Path]] = {
    "a list of zeros": lambda folder: hostile.zeros_in_a_list(folder, 10**6),
    "one text for all": lambda folder: hostile.one_text_for_all(folder, 2000, 400),
    "a text by its beginning": lambda folder: hostile.text_by_its_beginning(folder, 2000, 400),
    "one long text": lambda folder: hostile.one_long_text(folder, 10**6),
    "runs": lambda folder: hostile.runs(folder, 2000, 400),
    "a dictionary": lambda folder: hostile.dictionary(folder, 2000, 400),
    "views": lambda folder: hostile.views(folder, 2000, 400),
    "views of lists": lambda folder: hostile.list_views(folder, 200, 400),
    "lists of nothing": lambda folder: hostile.lists_of_nothing(folder, 200, 400),
    "depth": lambda folder: hostile.deep(folder, 40),
    "depth in Parquet": lambda folder: hostile.deep(folder, 40, "parquet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is refused for its size or depth, with the option that helps if there is one, and no row is unpacked."""
    monkeypatch.setattr("service.scoring.inputs.table_rows.TableRows.instance", None)
    model = "viewcount" if name == "a list of zeros" else "tagging"
    with pytest.raises(DataError, match=r"unpack to \d+ bytes|rows of \d+ bytes|nested deeper than 32") as refused:
        run(model, REFUSED[name](tmp_path), part_bytes=PART // 4)
    assert hostile.TEXT not in str(refused.value)


@pytest.mark.parametrize("name", ["one text for all", "a dictionary", "views"])
def test_smaller_parts_help(name: str, run: Run, tmp_path: Path) -> None:
    """With the --part-rows that the refusal names, all rows are scored."""
    path = REFUSED[name](tmp_path)
    with pytest.raises(DataError, match="--part-rows") as refused:
        run("tagging", path, part_bytes=PART // 4)
    rows = int(str(refused.value).rpartition(" ")[2].rstrip(")"))
    job = run("tagging", path, to="parquet", part_bytes=PART // 4, part_rows=rows)
    assert job.table.num_rows == 400
    assert set(job.table["text"].to_pylist()) == {hostile.text(2000)}


def test_dictionaries_are_read_as_they_are_written(run: Run, tmp_path: Path) -> None:
    """Texts of a dictionary, nothing among them, give the same bytes read as one and one by one."""
    texts = [None if row % 7 == 0 else hostile.text(row % 30) for row in range(3000)]
    table = pa.table({"text": texts, "other": [*map(str, range(3000))]})
    path = hostile.parquet(tmp_path / "in.parquet", table, row_group_size=700)
    read = pa.parquet.ParquetFile(path)
    plan = plan_decoding(read.metadata, read.schema_arrow, "")
    assert (plan.dictionaries, plan.batch_rows) == (["other", "text"], 944)
    found = run("tagging", path, to="parquet", part_rows=100)
    plain = hostile.arrow(tmp_path / "in.arrow", *table.combine_chunks().to_batches())
    assert found.table.equals(run("tagging", plain, to="parquet", part_rows=100).table)


def test_ordinary_files_are_read_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are decoded a thousand rows at a time, whatever their encoding."""
    monkeypatch.undo()
    table = pa.table({f"views_{day}": np.arange(5000) % 7 for day in range(56)})
    read = pa.parquet.ParquetFile(hostile.parquet(tmp_path / "in.parquet", table))
    assert plan_decoding(read.metadata, read.schema_arrow, "") == (1024, [])


def test_archives(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that unpack to more than a row may have are error rows; archives called pictures are no pictures."""
    monkeypatch.setattr("service.scoring.inputs.archives.MAX_ROW_BYTES", 10**5)
    large = hostile.zip_of_large(tmp_path, 10**6, 5)
    assert run("image", large).codes == ["body_too_large"] * 5 + [None]
    assert run("image", hostile.tar_of_large(tmp_path, 10**6)).codes == ["body_too_large", None]
    job = run("image", hostile.nested(tmp_path, 3))
    assert job.codes == ["invalid_request"] * 4 + [None]


@pytest.mark.parametrize("size", [0, 5000])
def test_overlapping_members(size: int, run: Run, tmp_path: Path) -> None:
    """A zip whose members share bytes is refused before one is unpacked; one with a name twice is not."""
    path = hostile.zip_of_one(tmp_path, size, 50)
    with pytest.raises(DataError, match=r"a member that overlaps with another \('00000\.png'\)"):
        run("image", path)
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a.png", hostile.picture())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", hostile.picture())
    assert run("image", twice).codes == [None, None]


def test_long_lines(run: Run, tmp_path: Path) -> None:
    """A line without an end is an error row, and a row after it is scored; a sentence without one is refused."""
    job = run("tagging", hostile.one_long_line(tmp_path, 40 * 2**20))
    assert job.codes == ["body_too_large", None]
    with pytest.raises(DataError, match="sentences of at most"):
        run("tagging", hostile.one_long_sentence(tmp_path, 40 * 2**20))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_blank_lines(end: bytes, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank lines are no rows, as many as a row may be long; more are refused for what they are."""
    monkeypatch.setattr("service.scoring.inputs.csv_source.MAX_ROW_BYTES", 2**21)
    few = hostile.zstd(tmp_path / "few.csv.zst", end * 2**17, 4, b"text" + end, b"I saw" + end)
    assert [line["text"] for line in run("tagging", few).lines] == ["I saw"]
    many = hostile.zstd(tmp_path / "many.csv.zst", end * 2**19, 6, b"text" + end, b"I saw" + end)
    with pytest.raises(DataError, match="more than 2097152 bytes of blank lines"):
        run("tagging", many)


def test_deep_json(run: Run, tmp_path: Path) -> None:
    """Brackets without end are an error row."""
    deep = b'{"text": "a", "deep": ' + b"[" * 10**6 + b"]" * 10**6 + b"}\n"
    job = run("tagging", "in.jsonl", deep + orjson.dumps({"text": "I saw"}) + b"\n", to="parquet")
    assert len(job.codes) == 2
    assert job.codes[1] is None
