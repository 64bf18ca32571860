"""Every Arrow type as a column beside the model's: it travels to each kind of output, or is refused by its name."""

import csv
import io
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.errors import DataError

Run = Callable[..., Any]
OUTPUTS = ["jsonl", "csv", "parquet", "arrow"]
# A cell of CSV and a value of JSON for each value of a column; ``None``: refused.
Shown = list[Any] | None
TEXT = ["ä,\n\"'", "", None]
STAMP = [0, 1_700_000_000_000_000_001, None]


class Case(NamedTuple):
    """A column, what JSON and CSV show of it, and its type in Parquet and Arrow where that is another."""

    array: pa.Array
    json: Shown
    csv: Shown = None
    parquet: Any = ""
    arrow: Any = ""


def ints(kind: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def stamps(kind: pa.DataType, shown: list[Any]) -> Case:
    return Case(ints(kind, STAMP), shown, [one or "" for one in shown])


def decimals(kind: pa.DataType) -> Case:
    return Case(pa.array([Decimal("1.50"), Decimal("-0.10"), None], kind), [1.5, -0.1, None], ["1.50", "-0.10", ""])


def lists(kind: pa.DataType) -> Case:
    values: list[Any] = [[1, None], [3, 4], None]
    return Case(pa.array(values, kind), values, ["[1,null]", "[3,4]", ""])


def as_text(kind: pa.DataType) -> Case:
    return Case(pa.array(TEXT, kind), TEXT, [one or "" for one in TEXT])


def as_bytes(kind: pa.DataType) -> Case:
    return Case(pa.array([b"\xff\x00", b"ab", None], kind), ["ff00", "6162", None], ["ff00", "6162", ""])


def categories(values: pa.Array, shown: list[Any], parquet: Any = "") -> Case:
    array = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.uint32()), values)
    return Case(array, [shown[1], shown[0], None], None, parquet)


def union(mode: str) -> pa.Array:
    codes, children = pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    if mode == "sparse":
        return pa.UnionArray.from_sparse(codes, children)
    return pa.UnionArray.from_dense(codes, pa.array([0, 1, 2], pa.int32()), children)


NANOS = "2023-11-14 22:13:20.000000001"
FAR = "<value out of range: 1700000000000000001>"  # Arrow's own words
NUMBERS = [1, -2, None]
PLAIN = ["1", "-2", ""]
PAIRS: list[Any] = [[("a", 1), ("b", None)], [("k", 1), ("k", 2)], None]
OBJECTS: list[Any] = [{"a": 1, "b": None}, [["k", 1], ["k", 2]], None]
DIGITS = "12345678901234567890123456789012345.678"
UUID = "30303030-3030-3030-3030-303030303030"
CASES: dict[str, Case] = {
    "null": Case(pa.nulls(3), [None] * 3, [""] * 3),
    "bool": Case(pa.array([True, False, None]), [True, False, None], ["true", "false", ""]),
    **{f"int{bits}": Case(pa.array(NUMBERS, f"int{bits}"), NUMBERS, PLAIN) for bits in (8, 16, 32, 64)},
    **{
        f"uint{bits}": Case(pa.array([2**bits - 1, 0, None], f"uint{bits}"), [2**bits - 1, 0, None])
        for bits in (8, 16, 32, 64)
    },
    "float16": Case(pa.array([1.0, 0.5, None], pa.float16()), [1.0, 0.5, None], ["1.0", "0.5", ""]),
    "float32": Case(pa.array([1.0, 0.1, None], pa.float32()), [1.0, 0.1, None], ["1.0", "0.1", ""]),
    "float64": Case(pa.array([1.0, 1e300, None]), [1.0, 1e300, None], ["1.0", "1e+300", ""]),
    "not finite": Case(pa.array([math.nan, math.inf, -math.inf]), [None] * 3, ["NaN", "inf", "-inf"]),
    "decimal32": decimals(pa.decimal32(5, 2)), "decimal64": decimals(pa.decimal64(10, 2)),
    "decimal128": decimals(pa.decimal128(38, 2)), "decimal256": decimals(pa.decimal256(76, 2)),
    "decimal, all digits": Case(
        pa.array([Decimal(DIGITS), None, None], pa.decimal128(38, 3)), [float(DIGITS), None, None], [DIGITS, "", ""],
    ),
    "string": as_text(pa.string()), "large_string": as_text(pa.large_string()),
    "string_view": as_text(pa.string_view()), "binary": as_bytes(pa.binary()),
    "large_binary": as_bytes(pa.large_binary()), "binary_view": as_bytes(pa.binary_view()),
    "fixed_size_binary": as_bytes(pa.binary(2)),
    "date32": Case(ints(pa.date32(), [19797, -800000, 3000000]),
                   ["2024-03-15", "-0221-09-04", "10183-09-21"]),
    "date64": Case(pa.array([19797, 0, None], pa.date32()).cast(pa.date64()), ["2024-03-15", "1970-01-01", None],
                   parquet=pa.date32()),
    "time32[s]": Case(ints(pa.time32("s"), [1, 86399, None]), ["00:00:01", "23:59:59", None], parquet=pa.time32("ms")),
    "time32[ms]": Case(ints(pa.time32("ms"), [1, 0, None]), ["00:00:00.001", "00:00:00.000", None]),
    "time64[us]": Case(ints(pa.time64("us"), [1, 0, None]), ["00:00:00.000001", "00:00:00.000000", None]),
    "time64[ns]": Case(ints(pa.time64("ns"), [1, 0, None]), ["00:00:00.000000001", "00:00:00.000000000", None]),
    "timestamp[s]": Case(ints(pa.timestamp("s"), [0, 253_402_300_800, None]),
                         ["1970-01-01 00:00:00", "10000-01-01 00:00:00", None], parquet=pa.timestamp("ms")),
    "timestamp[ms]": stamps(pa.timestamp("ms"), ["1970-01-01 00:00:00.000", FAR, None]),
    "timestamp[us]": stamps(pa.timestamp("us"), ["1970-01-01 00:00:00.000000", FAR, None]),
    "timestamp[ns]": stamps(pa.timestamp("ns"), ["1970-01-01 00:00:00.000000000", NANOS, None]),
    "timestamp, UTC": stamps(pa.timestamp("ns", "UTC"), ["1970-01-01 00:00:00.000000000Z", f"{NANOS}Z", None]),
    "timestamp, a zone": stamps(pa.timestamp("ns", "Europe/Berlin"),
                                ["1970-01-01 00:00:00.000000000Z", f"{NANOS}Z", None]),
    "timestamp, a zone nobody knows": stamps(pa.timestamp("ns", "Nowhere/At_All"),
                                             ["1970-01-01 00:00:00.000000000Z", f"{NANOS}Z", None]),
    **{f"duration[{unit}]": Case(ints(pa.duration(unit), STAMP), STAMP) for unit in ("s", "ms", "us", "ns")},
    "interval": Case(pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval()), None, None, None),
    "list": lists(pa.list_(pa.int64())), "large_list": lists(pa.large_list(pa.int64())),
    "fixed_size_list": lists(pa.list_(pa.int64(), 2)), "list_view": lists(pa.list_view(pa.int64())),
    "large_list_view": lists(pa.large_list_view(pa.int64())),
    "list of stamps": Case(pa.array([[1], [], None], pa.list_(pa.timestamp("ns"))),
                           [["1970-01-01 00:00:00.000000001"], [], None]),
    "struct": Case(pa.array([{"a": 1, "b": Decimal("1.5")}, {"a": None, "b": None}, None],
                            pa.struct([("a", pa.int8()), ("b", pa.decimal128(3, 1))])),
                   [{"a": 1, "b": 1.5}, {"a": None, "b": None}, None],
                   ['{"a":1,"b":1.5}', '{"a":null,"b":null}', ""]),
    "empty struct": Case(pa.array([{}, None, {}], pa.struct([])), [{}, None, {}], ["{}", "", "{}"], None),
    "map": Case(pa.array(PAIRS, pa.map_(pa.string(), pa.int64())), OBJECTS,
                ['{"a":1,"b":null}', '[["k",1],["k",2]]', ""]),
    "map of numbers": Case(pa.array([[(1, True)], [], None], pa.map_(pa.int8(), pa.bool_())), [{"1": True}, {}, None]),
    "list of maps": Case(pa.array([[[("a", b"\xff")]], [None], None], pa.list_(pa.map_(pa.string(), pa.binary()))),
                         [[{"a": "ff"}], [None], None]),
    "categories": categories(pa.array(["a", "b"]), ["a", "b"]),
    "categories of views": categories(pa.array(["a", "b"], pa.string_view()), ["a", "b"], pa.string()),
    "categories of bytes": categories(pa.array([b"a", b"b"]), ["61", "62"], ),
    "categories of numbers": categories(pa.array([1.5, 2.0]), [1.5, 2.0], pa.float64()),
    "categories of lists": categories(pa.array([[1], [2]]), [[1], [2]], pa.list_(pa.field("element", pa.int64()))),
    "runs": Case(pc.run_end_encode(pa.array(["a", "a", None])), ["a", "a", None], None, pa.string()),
    "runs of stamps": Case(pc.run_end_encode(pa.array([1, 1, None], pa.timestamp("ns"))),
                           ["1970-01-01 00:00:00.000000001"] * 2 + [None], None, pa.timestamp("ns")),
    "sparse union": Case(union("sparse"), None, None, None), "dense union": Case(union("dense"), None, None, None),
    "list of unions": Case(pa.ListArray.from_arrays([0, 1, 2, 3], union("sparse")), None, None, None),
    "uuid": Case(pa.array([b"0" * 16, None, None], pa.uuid()), [UUID, None, None]),
    "json": Case(pa.array(["[1]", None, None], pa.json_()), ["[1]", None, None]),
    "bool8": Case(pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())), [1, 0, None]),
    "tensor": Case(pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [2]),
                                                  pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2))),
                   [[1, 2], [3, 4], None]),
    "opaque": Case(pa.ExtensionArray.from_storage(pa.opaque(pa.int8(), "other", "other"),
                                                  pa.array([1, 0, None], pa.int8())), [1, 0, None]),
}  # fmt: skip
# More rows than a part has, and not as many as two.
TIMES, PART_ROWS = 3, 4


def write(case: Case, path: Path) -> Path:
    table = pa.table({"text": ["so"] * 3 * TIMES, "x": pa.chunked_array([case.array] * TIMES)})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return path


def in_csv(value: Any) -> str:
    """Return what a cell holds where nothing else is written down for it: as JSON, but text without its quotes."""
    return "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()


def are_equal(found: pa.ChunkedArray, case: Case) -> bool:
    """Return whether a column has the values of a case, over and over, in its type or in another."""
    wanted = pa.chunked_array([case.array] * TIMES)
    if pa.types.is_dictionary(wanted.type) or pa.types.is_run_end_encoded(wanted.type):
        return bool(found.equals(wanted)) or bool(found.to_pylist() == wanted.to_pylist())
    wanted = wanted if found.type == wanted.type else wanted.cast(found.type)
    # Nothing equals what is no number, but it is printed alike.
    is_printed = found.combine_chunks().to_string(window=99) == wanted.combine_chunks().to_string(window=99)
    return bool(found.equals(wanted)) or is_printed


@pytest.mark.parametrize("name", CASES)
def test_a_column_of_any_type(name: str, run: Run, tmp_path: Path) -> None:
    """What travels comes out with all of its values, over parts and slices; what cannot is refused by its name."""
    case = CASES[name]
    path = write(case, tmp_path / "in.arrow")
    refused = {"jsonl": case.json is None, "csv": case.json is None, "parquet": case.parquet is None, "arrow": False}
    for to in OUTPUTS:
        if refused[to]:
            with pytest.raises(DataError, match=r"found the column 'x' of type .* has no place"):
                run("tagging", path, to=to)
            continue
        job = run("tagging", path, to=to, part_rows=PART_ROWS)
        assert job.errors == 0
        CHECKS[to](case, job)


def check_jsonl(case: Case, job: Any) -> None:
    assert case.json is not None
    assert [line["x"] for line in job.lines] == case.json * TIMES


def check_csv(case: Case, job: Any) -> None:
    header, *rows = csv.reader(io.StringIO(job.output.decode(), newline=""))
    assert header[:2] == ["text", "x"]
    assert case.json is not None
    assert [row[1] for row in rows] == (case.csv or [*map(in_csv, case.json)]) * TIMES


def check_parquet(case: Case, job: Any) -> None:
    found = job.table["x"]
    assert found.type == (case.parquet or case.array.type)
    assert are_equal(found, case)


def check_arrow(case: Case, job: Any) -> None:
    found = pa.ipc.open_file(job.output).read_all()["x"]
    assert found.type == case.array.type
    assert are_equal(found, case)


CHECKS: dict[str, Callable[[Case, Any], None]] = {
    "jsonl": check_jsonl, "csv": check_csv, "parquet": check_parquet, "arrow": check_arrow,
}  # fmt: skip


def test_no_type_is_left_out() -> None:
    """The table has every type that Arrow can make, by its own list."""
    ids = {value: name for name, value in vars(pa.lib).items() if name.startswith("Type_")}
    seen = {case.array.type.id for case in CASES.values()}
    # There is no array of months or of days and milliseconds in Python; extensions stand for themselves.
    left = {name for value, name in ids.items() if value not in seen}
    assert left == {"Type_INTERVAL_MONTHS", "Type_INTERVAL_DAY_TIME"} & set(ids.values())


@pytest.mark.parametrize("to", ["csv", "jsonl"])
def test_decimals_keep_every_digit(to: str, run: Run, tmp_path: Path) -> None:
    """A number of 38 digits is written with all of them, in JSON too."""
    output = run("tagging", write(CASES["decimal, all digits"], tmp_path / "in.arrow"), to=to).output
    assert output.count(DIGITS.encode()) == TIMES


def test_csv_that_arrow_reads_back(run: Run, tmp_path: Path) -> None:
    """Numbers, dates, stamps and truth values are found to be what they were, without being told."""
    from pyarrow import csv as arrow_csv

    kinds: dict[str, Any] = {
        "n": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "day": pa.date32(),
        "ns": pa.timestamp("ns"), "utc": pa.timestamp("ns", "UTC"),
    }  # fmt: skip
    columns = {"n": [1, 2], "f": [1.0, 2.0], "b": [True, False], "day": [1, 2],
               "ns": [7, 10**18 + 1], "utc": [8, 9]}  # fmt: skip
    table = pa.table({"text": ["a", "b"], **{name: pa.array(columns[name], kinds[name]) for name in kinds}})
    pq.write_table(table, tmp_path / "in.parquet")
    output = run("tagging", tmp_path / "in.parquet", to="csv").output
    found = arrow_csv.read_csv(pa.BufferReader(output)).select(table.column_names)
    assert {name: found[name].type for name in kinds} == kinds
    assert all(found[name].cast(kinds[name]).equals(table[name]) for name in kinds)


@pytest.mark.parametrize("to", OUTPUTS)
def test_dictionaries_of_each_piece(to: str, run: Run, tmp_path: Path) -> None:
    """Categories of Parquet and of an Arrow stream are other ones in each piece; every row keeps its own."""
    pieces = [pa.array([f"{position}", None, "same"]).dictionary_encode() for position in range(4)]
    wanted = [one for piece in pieces for one in piece.to_pylist()]
    schema = pa.schema([("text", pa.string()), ("x", pieces[0].type)])
    batches = [pa.record_batch([pa.array(["so"] * 3), piece], schema=schema) for piece in pieces]
    with pa.ipc.new_stream(str(tmp_path / "in.arrows"), schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    with pq.ParquetWriter(tmp_path / "in.parquet", schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    for source in ("in.arrows", "in.parquet"):
        job = run("tagging", tmp_path / source, to=to, part_rows=5)
        if to == "jsonl":
            assert [line["x"] for line in job.lines] == wanted
        elif to == "csv":
            assert [row.split(",")[1] or None for row in job.output.decode().splitlines()[1:]] == wanted
        else:
            table = job.table if to == "parquet" else pa.ipc.open_file(job.output).read_all()
            assert table["x"].to_pylist() == wanted


def test_no_half_is_split(run: Run, tmp_path: Path) -> None:
    """Halves are stored plainly in Parquet: DuckDB refuses a file that has them byte by byte of one rank."""
    output = run("tagging", write(CASES["float16"], tmp_path / "in.arrow"), to="parquet").output
    column = pq.ParquetFile(io.BytesIO(output)).metadata.row_group(0).column(1)
    assert column.path_in_schema == "x"
    assert "BYTE_STREAM_SPLIT" not in column.encodings


def test_nothing_that_python_cannot_hold_is_read(run: Run, tmp_path: Path) -> None:
    """A column of nanoseconds that the model is to read is its rows' error, and not the end of the job."""
    table = pa.table({"text": pa.array([1, 10**18 + 1], pa.duration("ns"))})
    pq.write_table(table, tmp_path / "in.parquet")
    assert run("tagging", tmp_path / "in.parquet").codes == ["invalid_request"] * 2


WHOLE = [[Decimal(row * 1000 + day) for day in range(56)] for row in range(3)]


@pytest.mark.parametrize("kind", [pa.decimal32(9, 0), pa.decimal64(18, 2), pa.decimal128(38, 0), pa.decimal256(76, 0)])
@pytest.mark.parametrize("form", ["lists", "large lists", "columns"])
def test_whole_decimals_are_whole_numbers(kind: Any, form: str, run: Run, tmp_path: Path) -> None:
    """Warehouses export whole numbers as decimals: the answer is that of the numbers."""
    numbers = np.array(WHOLE, np.int64)
    if form == "columns":
        both = (kind, [*zip(*WHOLE, strict=True)]), (pa.int64(), numbers.T.tolist())
        tables = [
            pa.table({f"views_{day}": pa.array(cells, one) for day, cells in enumerate(columns)})
            for one, columns in both
        ]
    else:
        to_list = pa.list_ if form == "lists" else pa.large_list
        tables = [pa.table({"views": pa.array(rows, to_list(one))})
                  for one, rows in ((kind, WHOLE), (pa.int64(), numbers.tolist()))]  # fmt: skip
    answers = []
    for position, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{position}.parquet")
        for alone in (False, True):
            job = run("viewcount", tmp_path / f"{position}.parquet", alone=alone)
            assert job.errors == 0
            answers.append([json.dumps(line["prediction"]) for line in job.lines])
    assert answers.count(answers[0]) == 4


def test_decimals_with_a_fraction(run: Run, tmp_path: Path) -> None:
    """A decimal with a fraction is the number that JSON has for its digits: the model says the same of both."""
    rows = [[Decimal("0.1") + day for day in range(56)]]
    pq.write_table(pa.table({"views": pa.array(rows, pa.list_(pa.decimal128(20, 1)))}), tmp_path / "in.parquet")
    line = json.dumps({"views": [float(one) for one in rows[0]]}).encode() + b"\n"
    given: list[tuple[Any, ...]] = [(tmp_path / "in.parquet",), ("in.jsonl", line)]
    reasons = [run("viewcount", *one).lines[0]["error_reason"] for one in given]
    assert reasons[0] == reasons[1]
    assert "found 0.1" in reasons[0]


def test_pictures_as_hugging_face_has_them(run: Run, draw: Any, alone: Any, prediction: Any, tmp_path: Path) -> None:
    """A struct of a picture's bytes and its path is the picture; one without bytes is an error row."""
    instances = [one for one in draw("image", 20) if isinstance(one.image, bytes)][:3]
    pictures: list[Any] = [{"bytes": one.image, "path": "a.png"} for one in instances]
    pictures += [{"bytes": None, "path": "b.png"}, None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(pictures, kind)}), tmp_path / "in.parquet")
    job = run("image", tmp_path / "in.parquet")
    assert job.codes == [None] * 3 + ["invalid_request"] * 2
    assert [prediction(line) for line in job.output.splitlines()[:3]] == alone("image", instances)
    assert job.lines[3]["error_reason"] == "image: expected the file's content under 'bytes', found none"
