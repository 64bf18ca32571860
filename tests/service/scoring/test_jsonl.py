"""JSON lines: row i is line i, and its prediction has the bytes of the service's."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from models.errors import DataError

Draw = Callable[..., list[Any]]
Run = Callable[..., Any]
Cut = Callable[[bytes], bytes]
MODELS = ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]


def lines_of(instances: list[Any]) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in instances)


@pytest.mark.parametrize("name", MODELS)
def test_the_bytes_of_the_service(name: str, run: Run, draw: Draw, alone: Any, prediction: Cut) -> None:
    """Every prediction is, byte for byte, that of the row sent alone; the row stands before it, untouched."""
    instances = draw(name, 20)
    job = run(name, "in.jsonl", lines_of(instances), part_rows=7)
    assert [prediction(line) for line in job.output.splitlines()] == alone(name, instances)
    for line, instance in zip(job.output.splitlines(), instances, strict=True):
        assert line.startswith(msgspec.json.encode(instance)[:-1] + b',"prediction":')
    assert job.errors == 0


@pytest.mark.parametrize("part_rows", [1, 3, 7, 1000])
def test_parts_cover_every_line(part_rows: int, run: Run, draw: Draw) -> None:
    """However it is cut, and run row by row or not, the output is one and the same."""
    content = lines_of(draw("tagging", 20))
    whole = run("tagging", "in.jsonl", content)
    cut = run("tagging", "in.jsonl", content, part_rows=part_rows)
    assert len(cut.parts) == -(-20 // part_rows)
    assert cut.output == whole.output
    assert run("tagging", "in.jsonl", content, part_rows=part_rows, alone=True).output == whole.output


BAD = {
    b"": "malformed_request",
    b"nonsense": "malformed_request",
    b'{"text": "cut': "malformed_request",
    b'\xff{"text": "a"}': "malformed_request",
    b'{"text": "\xff"}': "malformed_request",
    b"[" * 50_000: "malformed_request",
    b'{"text":"a"},{"text":"b"}': "malformed_request",
    b'{"text":"a"}],"explain":true,"instances":[{"text":"b"}': "malformed_request",
    b"[]": "invalid_request",
    b'{"text": 5}': "invalid_request",
    b'{"txt": "a"}': "invalid_request",
    b"{}": "invalid_request",
    b'{"text": "a", "text": "b"}': "invalid_request",
    b'{"text": "a", "\\u0074ext": "b"}': "invalid_request",
    b'{"tokens": ["a", ""]}': "invalid_request",
}


@pytest.mark.parametrize("is_alone", [False, True])
def test_bad_lines(is_alone: bool, run: Run, draw: Draw, alone: Any, prediction: Cut) -> None:
    """Among good lines each bad one is an error at its place; the good ones are answered as without it."""
    good = draw("tagging", len(BAD))
    pairs = zip(good, BAD, strict=True)
    content = b"\n".join(line for one, bad in pairs for line in (msgspec.json.encode(one), bad))
    job = run("tagging", "in.jsonl", content, part_rows=4, alone=is_alone)
    assert [prediction(line) for line in job.output.splitlines()[::2]] == alone("tagging", good)
    assert job.codes[1::2] == [*BAD.values()]
    assert job.errors == len(BAD)
    assert all(line["prediction"] is None and line["error_reason"] for line in job.lines[1::2])


def test_a_torn_last_line_is_an_error_row(run: Run) -> None:
    """And a last line that is whole but for its line feed is none; nor does a line feed begin a row."""
    torn = run("tagging", "in.jsonl", b'{"text":"a"}\n{"text":"b"')
    whole = run("tagging", "in.jsonl", b'{"text":"a"}\n{"text":"b"}')
    assert torn.codes == [None, "malformed_request"]
    assert whole.codes == [None, None]
    assert run("tagging", "in.jsonl", b'{"text":"a"}\n{"text":"b"}\n').output == whole.output


@pytest.mark.parametrize("to", ["jsonl", "csv", "parquet", "arrow"])
def test_no_rows(to: str, run: Run) -> None:
    """An empty file has one part, and an output without rows."""
    job = run("tagging", "in.jsonl", b"", to=to)
    assert (len(job.parts), job.errors) == (1, 0)
    assert run("tagging", "in.jsonl", b"", to="parquet").table.num_rows == 0


def test_keys_of_ones_own(run: Run) -> None:
    """A key that the options name travels along; any other is refused as the service refuses it."""
    content = b'{"id": 7, "text": "a", "note": [1, {"x": 1.50}]}\n{"id": "x", "text": "a", "other": 1}\n'
    job = run("tagging", "in.jsonl", content, id="id", keep=("note",))
    assert job.output.startswith(b'{"id": 7, "text": "a", "note": [1, {"x": 1.50}],"prediction":{"tokens":["a"]')
    assert job.codes == [None, "invalid_request"]
    table = run("tagging", "in.jsonl", content, id="id", keep=("note",), to="parquet").table
    assert table.column_names[:3] == ["id", "input", "tokens"]
    assert table["id"].to_pylist() == ["7", "x"]
    assert table["input"].to_pylist() == content.decode().splitlines()


def test_renamed_keys(run: Run, prediction: Cut) -> None:
    """A field may stand under another key."""
    job = run("tagging", "in.jsonl", b'{"body":"I saw"}\n{"body":"I","text":"saw"}\n', columns={"text": "body"})
    assert job.codes == [None, "invalid_request"]


def test_a_key_that_is_taken(run: Run) -> None:
    """What the input calls ``prediction`` keeps its name."""
    job = run("tagging", "in.jsonl", b'{"text":"a","prediction":1}\n', keep=("prediction",))
    assert job.lines[0]["prediction"] == 1
    assert job.lines[0]["prediction_prediction"]["tokens"] == ["a"]


def test_a_line_that_is_too_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is never held in memory, and is one error row among good ones; it is found in pieces of any size."""
    for name in ("cutting", "jsonl"):
        monkeypatch.setattr(f"service.scoring.sources.{name}.MAX_ROW_BYTES", 100)
    long = b'{"text":"' + b"a" * 5000 + b'"}\n'
    for block in (7, 64, 1000, 2**20):
        monkeypatch.setattr("service.scoring.storage.BLOCK_BYTES", block)
        job = run("tagging", "in.jsonl", b'{"text":"a"}\n' * 3 + long + b'{"text":"b"}\n' + long, part_rows=2)
        assert len(job.codes) == 6
        if block < 1000:
            assert job.codes == [None, None, None, "body_too_large", None, "body_too_large"]


def test_an_input_that_is_not_there(run: Run, tmp_path: Any) -> None:
    """Is said before any work."""
    with pytest.raises(DataError, match="found nothing, expected a file that can be read"):
        run("tagging", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="found a folder"):
        run("tagging", tmp_path, input_format="jsonl")
