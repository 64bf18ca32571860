"""Keys of JSON lines: they travel, each as a column of the one type that all its values have."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from models.errors import DataError
from service.scoring.inputs import jsonl_columns, storage
from service.scoring.inputs.jsonl_columns import arrow_type, cell, kind_of, merge

Run = Callable[..., Any]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.just("2026-01-01"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
)  # fmt: skip


def test_keys_travel(run: Run, alone: Any, prediction: Any, shipped: Any) -> None:
    """Keys that are none of the model's stay in their line, and change nothing about its answer."""
    content = b'{"id": 7, "text": "I saw", "note": [1, {"x": 1.50}]}\n{"id":"x","other":1,"text":"I saw"}\n'
    job = run("tagging", "in.jsonl", content)
    assert job.codes == [None, None]
    assert job.output.startswith(b'{"id": 7, "text": "I saw", "note": [1, {"x": 1.50}],"prediction":{"tokens":["I"')
    (expected,) = alone("tagging", [shipped("tagging").card.instance(text="I saw")])
    assert [prediction(line) for line in job.output.splitlines()] == [expected] * 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"text": "a", "texts": "b"}, None),
        ({"text": "a", "tex": "b"}, None),
        ({"text": "a", "token": "b"}, "invalid_request"),
        ({"txt": "a"}, "invalid_request"),
        ({"Text": "a"}, "invalid_request"),
        ({"title": "a"}, "invalid_request"),
        ({"text": "a", "prediction": 1}, None),
        ({"text": "a", "explain": True}, None),
    ],
    ids=str,
)
def test_a_field_misspelt(line: Any, code: str | None, run: Run) -> None:
    """A key that looks like a field which the row lacks is refused, unless the options say that it is none."""
    content = json.dumps(line).encode()
    assert run("tagging", "in.jsonl", content).codes == [code]
    if "token" in line:
        assert run("tagging", "in.jsonl", content, keep=("token",)).codes == [None]


def test_a_misspelt_option_is_no_default(run: Run) -> None:
    """``horizn`` is not passed over with the horizon's default, and what to do is said."""
    views = [7] * 56
    lines = [{"views": views, "horizn": 3}, {"views": views, "horizon": 3}, {"views": views, "channel": 3}]
    job = run("viewcount", "in.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert job.codes == ["invalid_request", None, None]
    assert job.lines[0]["error_reason"] == "horizn: is this the field 'horizon'? If it is none, say so: --keep horizn"
    assert [len(line["prediction"]["forecast"]) for line in job.lines[1:]] == [3, 7]


def test_the_instance_is_as_strict_as_ever(run: Run) -> None:
    """Repeated keys, its own or others, and unknown keys inside of it."""
    lines = [
        b'{"text":"a","x":1,"x":2}', b'{"text":"a","text":"b","x":1}', b'{"text":5,"x":1}', b'{"x":1}',
        b'{"text":"a","x":1}',
    ]  # fmt: skip
    assert run("tagging", "in.jsonl", b"\n".join(lines)).codes == [*["invalid_request"] * 4, None]


LINES = [
    {"id": "a", "n": 1, "x": 1, "is": True, "list": [1, 2], "mixed": 1, "deep": {"a": [1]}, "text": "one"},
    {"id": "b", "n": 2**60, "x": 1.5, "is": None, "list": [], "mixed": "1", "deep": {}, "text": "two"},
    {"id": "c", "n": -3, "list": [1.5], "late": "2026-01-01", "none": None, "text": "three"},
    {"id": "d", "x": 2**60, "text": ""},
]


@pytest.mark.parametrize("part_rows", [1, 3, 100])
@pytest.mark.parametrize("block", [7, 2**20])
def test_typed_columns(part_rows: int, block: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types, the missing values, the order; a row that cannot be read has none of them."""
    monkeypatch.setattr(storage, "BLOCK_BYTES", block)
    content = "\n".join([*map(json.dumps, LINES[:3]), "nonsense", "", json.dumps(LINES[3])]).encode()
    table = run("tagging", "in.jsonl", content, to="parquet", part_rows=part_rows).table
    kinds = {
        "id": "string", "n": "int64", "x": "string", "is": "bool", "list": "list<element: double>",
        "mixed": "string", "deep": "string", "text": "string", "late": "string", "none": "string",
    }  # fmt: skip
    assert {name: str(table.schema.field(name).type) for name in table.column_names[: len(kinds)]} == kinds
    assert [*kinds] == table.column_names[: len(kinds)]
    assert table["x"].to_pylist() == ["1", "1.5", None, None, None, str(2**60)]
    assert table["n"].to_pylist() == [1, 2**60, -3, None, None, None]
    assert table["mixed"].to_pylist()[:2] == ["1", '"1"']
    assert [json.loads(one) for one in table["deep"].to_pylist()[:2]] == [{"a": [1]}, {}]
    assert table["list"].to_pylist()[:3] == [[1.0, 2.0], [], [1.5]]
    assert table["error_code"].to_pylist()[3:5] == ["malformed_request"] * 2
    assert table["tags"].to_pylist()[0] is not None


def test_the_model_s_own_fields(run: Run, draw: Any) -> None:
    """They have the types of its instances, whatever stands in rows that are refused."""
    views = [7] * 56
    lines = [{"views": views}, {"views": "x", "horizon": 2.5}, {"horizon": 3, "views": [*views, 1.0]}]
    content = "\n".join(map(json.dumps, lines)).encode()
    job = run("viewcount", "in.jsonl", content, to="arrow", id="id")
    table = pa.ipc.open_file(job.output).read_all()
    assert table.schema.names[:3] == ["id", "views", "horizon"]
    assert table.schema.field("views").type == pa.list_(pa.float64())
    assert table.schema.field("horizon").type == pa.int64()
    assert table["horizon"].to_pylist() == [None, None, 3]
    assert table["views"].to_pylist() == [views, None, [*views, 1.0]]
    assert table["id"].to_pylist() == [None] * 3


def test_an_id_comes_first(run: Run) -> None:
    """As it is, wherever it stands in the lines."""
    job = run("tagging", "in.jsonl", b'{"text":"a","id":7}\n{"id":8,"text":"b"}\n', to="parquet", id="id")
    assert job.table.column_names[:2] == ["id", "text"]
    assert job.table["id"].to_pylist() == [7, 8]


def test_too_many_keys(run: Run) -> None:
    """A file in which keys are values is refused, before any work; as lines it is as good as any."""
    content = "\n".join(json.dumps({"text": "a", f"key{row}": 1}) for row in range(jsonl_columns.MAX_KEYS + 1)).encode()
    with pytest.raises(DataError, match="different keys"):
        run("tagging", "in.jsonl", content, to="parquet")
    assert run("tagging", "in.jsonl", content).errors == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=5))
def test_any_values(values: list[Any]) -> None:
    """The kind of some values holds them all: none is lost, none is another."""
    raws = [Raw(json.dumps(value).encode()) for value in values]
    kind = jsonl_columns.NULL
    for raw in raws:
        kind = merge(kind, kind_of(raw))
    found = pa.array([cell(raw, kind) for raw in raws], arrow_type(kind)).to_pylist()
    if kind == jsonl_columns.JSON:
        assert found == [bytes(raw).decode() for raw in raws]
    else:
        assert found == values
