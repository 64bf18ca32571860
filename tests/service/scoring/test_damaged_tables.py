"""Parquet and Arrow whose bytes are not what their format promises: rows at fault, or the file refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import DataError

Run = Callable[..., Any]
# Nothing checks text where it is written.
WRONG = pa.array([b"I saw", b"\xff bad", b"fine", None], pa.binary()).view(pa.string())
OTHER = pa.array([b"1", b"2", b"\xfe", b"4"], pa.binary()).view(pa.string())


def write(table: pa.Table, path: Path) -> Path:
    """Parquet, or an Arrow file."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("to", ["jsonl", "csv", "parquet"])
def test_text_that_is_none(suffix: str, to: str, run: Run, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 in any column of text make their row an error row, and no other."""
    path = write(pa.table({"text": WRONG, "other": OTHER}), tmp_path / f"in.{suffix}")
    job = run("tagging", path, to=to)
    assert job.errors == 3
    if to == "csv":
        assert job.output.decode().count("UTF-8") == 2
        return
    assert job.codes == [None, "malformed_request", "malformed_request", "invalid_request"]
    assert run("tagging", path, to=to, alone=True).output == job.output
    if to == "parquet":
        assert job.table["text"].to_pylist() == ["I saw", "\ufffd bad", "fine", None]
        assert job.table["error_reason"].to_pylist()[1] == "column 'text' is not UTF-8"


def test_numbers_beside_text_that_is_none(run: Run, tmp_path: Path) -> None:
    """Rows of numbers that are scored together are so too."""
    columns = {f"views_{day}": list(range(day, day + 4)) for day in range(1, 57)}
    job = run("viewcount", write(pa.table({**columns, "note": OTHER}), tmp_path / "in.parquet"), to="parquet")
    assert job.codes == [None, None, "malformed_request", None]


def test_places_outside_of_the_file(run: Run, tmp_path: Path) -> None:
    """An Arrow file whose text lies beyond its end is refused, with the rows: reading it would end the process."""
    path = write(pa.table({"text": ["a" * 40] * 1000}), tmp_path / "in.arrow")
    content = bytearray(path.read_bytes())
    position = content.index((40).to_bytes(4, "little") + (80).to_bytes(4, "little"))
    content[position + 4 : position + 8] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged data in rows 1 to 1000"):
        run("tagging", path)


def test_a_damaged_page(run: Run, tmp_path: Path) -> None:
    """A Parquet file with a damaged page never was another: it is not said to have changed."""
    path = write(pa.table({"text": [f"so {row}" for row in range(1000)]}), tmp_path / "in.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes(40) + content[60:])
    with pytest.raises(DataError, match="damaged data"):
        run("tagging", path)
