"""Parts that are Parquet files of their own become one file, as it would have been written at once."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from service.scoring.outputs import parquet_concat
from service.scoring.outputs.parquet import GROUP_ROWS, open_writer
from service.scoring.outputs.parquet_concat import RowGroups

Run = Callable[..., Any]
DAYS = 56
DEEP = pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]))


def table(rng: np.random.Generator, rows: int) -> pa.Table:
    """Columns of many kinds, missing cells among them."""
    names = [None if one < 0.1 else f"n{one:.2f}" for one in rng.random(rows)]
    lists = [None if not size else rng.random(size).tolist() for size in rng.integers(0, 4, rows)]
    return pa.table(
        {
            "name": pa.array(names, pa.string()),
            "number": rng.random(rows),
            "count": rng.integers(0, 9, rows),
            "is_odd": rng.random(rows) < 0.5,
            "when": pa.array(rng.integers(0, 10**9, rows), pa.timestamp("us", "UTC")),
            "lists": pa.array(lists, pa.list_(pa.float64())),
            "deep": pa.array([[{"a": one, "b": [str(one)]}] for one in range(rows)], DEEP),
            "nothing": pa.nulls(rows, pa.string()),
        }
    )


def packed(one: pa.Table, **options: Any) -> BytesIO:
    """Return a part's file."""
    file = BytesIO()
    pq.write_table(one, file, **options)
    return file


def joined(parts: list[BytesIO]) -> bytes:
    """Return the parts as one file."""
    out = BytesIO()
    found = RowGroups(out)
    for part in parts:
        found.add(part)
    found.close()
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "use_dictionary": False},
        {"write_page_index": True},
        {"write_statistics": False, "data_page_version": "2.0"},
        {"row_group_size": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("sizes", [[5], [3, 0, 40], [0, 0], [20] * 40, [1, 5000]], ids=str)
def test_the_same_table(sizes: list[int], options: dict[str, Any]) -> None:
    """Whatever the parts are like: each row group, its statistics, and what only reads some of them."""
    rng = np.random.default_rng(0)
    tables = [table(rng, size) for size in sizes]
    file = joined([packed(one, **options) for one in tables])
    expected = pa.concat_tables(tables)
    opened = pq.ParquetFile(BytesIO(file))
    assert opened.read().equals(expected)
    assert opened.metadata.num_rows == expected.num_rows
    groups = [part.metadata.row_group(n) for part in map(pq.ParquetFile, [packed(one, **options) for one in tables])
              for n in range(part.metadata.num_row_groups)]  # fmt: skip
    assert opened.num_row_groups == len(groups)
    for number, group in enumerate(groups):
        found = opened.metadata.row_group(number)
        assert (found.num_rows, found.total_byte_size) == (group.num_rows, group.total_byte_size)
        assert found.column(2).statistics == group.column(2).statistics
    few = ds.field("count") == 3
    assert pq.read_table(BytesIO(file), filters=few).equals(expected.filter(few))


def test_as_jobs_write_it() -> None:
    """With the options of a job, one part alone is that part, but for nothing."""
    part, one = BytesIO(), table(np.random.default_rng(0), 300)
    with open_writer(part, one.schema) as writer:
        writer.write_table(one, row_group_size=300)
    assert joined([part]) == part.getvalue()


def test_a_place_that_is_not_moved_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: one field of the footer forgotten, and the second part cannot be read."""
    tables = [table(np.random.default_rng(seed), 30) for seed in range(2)]
    for field in (9, 11):
        forgetful = {key: what for key, what in parquet_concat._COLUMN.items() if key != field}
        monkeypatch.setattr(parquet_concat, "_GROUP", {1: {**parquet_concat._CHUNK, 3: forgetful}})
        file = joined([packed(one) for one in tables])
        try:
            found = pq.read_table(BytesIO(file))
        except OSError:
            continue
        assert not found.equals(pa.concat_tables(tables))


@pytest.mark.parametrize("rows", [0, 3, GROUP_ROWS, 2 * GROUP_ROWS + 5])
def test_a_job(rows: int, run: Run) -> None:
    """A job whose parts are row groups has the rows of one whose parts are not."""
    header = ",".join(["channel", *(f"views_{day + 1}" for day in range(DAYS))])
    lines = [",".join([f"c{row}", *(str(row + day) for day in range(DAYS))]) for row in range(rows)]
    if rows > 2:
        lines[2] = lines[2].replace("c2,2,", "c2,x,")
    content = "\n".join([header, *lines, ""]).encode()
    whole, split = (run("viewcount", "in.csv", content, to="parquet", part_rows=n) for n in (GROUP_ROWS, 500))
    assert whole.table.equals(split.table)
    assert whole.table.num_rows == rows
    assert whole.errors == (rows > 2)
    assert whole.parts[0][:4] == b"PAR1" != split.parts[0][:4]
