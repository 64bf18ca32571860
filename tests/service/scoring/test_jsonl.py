"""JSON lines: row i is line i, and its prediction has the bytes of the service's."""

import csv
import gzip
import hashlib
import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard

from models.errors import DataError, InputChanged
from models.paths import REPOSITORY
from service.scoring.inputs.interfaces import RowError

Draw = Callable[..., list[Any]]
Run = Callable[..., Any]
PartSpec = Callable[[bytes], bytes]
MODELS = ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]


def lines_of(instances: list[Any]) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in instances)


@pytest.mark.parametrize("name", MODELS)
def test_the_bytes_of_the_service(name: str, run: Run, draw: Draw, alone: Any, prediction: PartSpec) -> None:
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
def test_bad_lines(is_alone: bool, run: Run, draw: Draw, alone: Any, prediction: PartSpec) -> None:
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


def test_renamed_keys(run: Run, prediction: PartSpec) -> None:
    """A field may stand under another key."""
    job = run("tagging", "in.jsonl", b'{"body":"I saw"}\n{"body":"I","text":"saw"}\n', columns={"text": "body"})
    assert job.codes == [None, "invalid_request"]


def test_a_key_that_is_taken(run: Run) -> None:
    """What the input calls ``prediction`` keeps its name."""
    job = run("tagging", "in.jsonl", b'{"text":"a","prediction":1}\n')
    assert job.lines[0]["prediction"] == 1
    assert job.lines[0]["prediction_prediction"]["tokens"] == ["a"]


def test_a_line_that_is_too_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is never held in memory, and is one error row among good ones; it is found in pieces of any size."""
    for name in ("row_splitting", "jsonl_source"):
        monkeypatch.setattr(f"service.scoring.inputs.{name}.MAX_ROW_BYTES", 100)
    long = b'{"text":"' + b"a" * 5000 + b'"}\n'
    for block in (7, 64, 1000, 2**20):
        monkeypatch.setattr("service.scoring.inputs.storage.BLOCK_BYTES", block)
        job = run("tagging", "in.jsonl", b'{"text":"a"}\n' * 3 + long + b'{"text":"b"}\n' + long, part_rows=2)
        assert len(job.codes) == 6
        if block < 1000:
            assert job.codes == [None, None, None, "body_too_large", None, "body_too_large"]


def test_an_input_that_is_not_there(run: Run, tmp_path: Any) -> None:
    """Is said before any work."""
    with pytest.raises(DataError, match="found nothing, expected a file or a folder that can be read"):
        run("tagging", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="found a folder"):
        run("tagging", tmp_path, input_format="jsonl")


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_failing_model(is_alone: bool, run: Run, shipped: Any) -> None:
    """A row that the model fails on costs only itself."""
    predictor = shipped("viewcount")

    def fail(feeds: Any, names: list[str]) -> Any:
        outputs = predictor.run(feeds, names)
        return {name: np.where(feeds["views"][:, :1] == 13, np.nan, values) for name, values in outputs.items()}

    content = b"".join(msgspec.json.encode({"views": [float(first)] + [100.0] * 55}) + b"\n" for first in range(30))
    bad = run("viewcount", "in.jsonl", content, predictor=replace(predictor, run=fail), alone=is_alone)
    assert [number for number, code in enumerate(bad.codes) if code] == [13]
    assert bad.codes[13] == "runner_failed"
    good = run("viewcount", "in.jsonl", content)
    assert [*bad.output.splitlines()[:13]] == [*good.output.splitlines()[:13]]


def test_known_errors_and_the_beginning_of_rows(run: Run, shipped: Any) -> None:
    """A row with a known error is not run; run alone, each of the others is announced, bad ones too."""
    scorer = run("tagging", "in.jsonl", b'{"text":"a"}\nbad\n{"text":"c"}\n{"text":"d"}\n').scorer
    (cut,) = scorer.source.cuts()
    known = {2: RowError(code="runner_timed_out", reason="too slow")}
    begun: list[int] = []
    scored, out = scorer.score(cut, known=known, alone=True, begin=begun.append), io.BytesIO()
    scored.write(out)
    assert begun == [0, 1, 3]
    assert (scored.rows, scored.errors) == (4, 2)
    assert b'"error_code":"runner_timed_out","error_reason":"too slow"' in out.getvalue().splitlines()[2]
    together = io.BytesIO()
    scorer.score(cut, known=known).write(together)
    assert together.getvalue() == out.getvalue()


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed(suffix: str, run: Run, draw: Draw, tmp_path: Any) -> None:
    """The same rows, read in any order; several frames on end are one; the digest is that of the stored bytes."""
    content = lines_of(draw("tagging", 40))
    pack = gzip.compress if suffix == "gz" else zstandard.ZstdCompressor().compress
    stored = pack(content[:2000]) + pack(content[2000:])
    job = run("tagging", f"in.jsonl.{suffix}", stored, part_rows=7)
    assert job.output == run("tagging", "in.jsonl", content, part_rows=7).output
    source = job.scorer.source
    assert source.digest == hashlib.sha256(stored).hexdigest()
    cuts = [*source.cuts()]
    rows = {cut.index: source.read(cut).lines() for cut in reversed(cuts)}
    assert [line for index in sorted(rows) for line in rows[index]] == content.splitlines()
    for keep in (5, len(stored) // 3, len(stored) - 3):
        with pytest.raises(DataError, match="damaged or cut off"):
            run("tagging", f"torn.jsonl.{suffix}", stored[:keep])
    damaged = bytearray(stored)
    damaged[len(damaged) // 2] ^= 255
    with pytest.raises((DataError, AssertionError)):
        assert run("tagging", f"bad.jsonl.{suffix}", bytes(damaged)).output == job.output
    (tmp_path / f"in.jsonl.{suffix}").write_bytes(pack(content.replace(b"a", b"b")))
    with pytest.raises(InputChanged):
        type(source)(job.scorer.spec).read(cuts[3])


SCORED_ALONE = """
import json, sys, time
from io import BytesIO
from pathlib import Path
from models.runtime.device import Device
from models.runtime.predictor import open_predictor
from models.runtime.session import open_artifact
from service.scoring.parts.scorer import ModelScorer
from service.scoring.inputs.registry import complete
from service.scoring.spec import InputOptions, make_spec

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])

session = open_artifact(Path(sys.argv[1]))
spec = complete(make_spec(session.manifest, sys.argv[2], "out.jsonl", InputOptions()))
scorer, out = ModelScorer(spec, Device.CPU, predictor=open_predictor(session)), BytesIO()
before = peak()
for cut in [*scorer.source.cuts()]:
    scorer.score(cut, alone=False).write(out)
rows = [json.loads(line) for line in out.getvalue().splitlines()]
print(json.dumps([[row.get("error_code") for row in rows], peak() - before, time.process_time()]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_bomb(suffix: str, tmp_path: Path, shipped_folder: Any) -> None:
    """300 MB of nothing in a small file is one row that is too long, in little memory, of a process of its own."""
    packer = zlib.compressobj(9, wbits=31) if suffix == "gz" else zstandard.ZstdCompressor().compressobj()
    stored = b"".join(packer.compress(bytes(2**20)) for _ in range(300)) + packer.flush()
    (tmp_path / f"in.jsonl.{suffix}").write_bytes(stored)
    program = [sys.executable, "-c", SCORED_ALONE, shipped_folder("tagging"), tmp_path / f"in.jsonl.{suffix}"]
    done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes, kilobytes, seconds = msgspec.json.decode(done.stdout)
    assert codes == ["body_too_large"]
    assert kilobytes < 100_000
    assert seconds < 20


@pytest.mark.parametrize("content", [b'[{"text":"a"}]', b'\xef\xbb\xbf\n[\n {"text": "a"},\n {"text": "b"}\n]\n'])
@pytest.mark.parametrize("to", ["jsonl", "csv"])
def test_one_array(content: bytes, to: str, run: Run) -> None:
    """A file that is one JSON array is refused with how it becomes lines; a line that is an array is an error row."""
    with pytest.raises(DataError, match="found a JSON array, expected JSON lines, one object a line"):
        run("tagging", "in.jsonl", content, to=to)
    assert run("tagging", "in.jsonl", b'[1, 2]\n{"text": "a"}\n', to=to).errors == 1


@pytest.mark.parametrize("content", [b"x\n", b"{}\n\n", b'{"text": NaN}\n{"text": NaN}'])
@pytest.mark.parametrize("to", ["csv", "parquet", "arrow"])
def test_no_keys_to_a_table(content: bytes, to: str, run: Run) -> None:
    """Lines without a single key between them are error rows of a table without columns of its own."""
    job = run("tagging", "in.jsonl", content, to=to)
    assert job.errors == len(content.strip(b"\n").split(b"\n")) + content.count(b"\n\n")
    if to == "csv":
        header, *rows = csv.reader(io.StringIO(job.output.decode()))
        assert header[0] == "tokens"
        assert {len(row) for row in rows} == {len(header)}
        assert len(rows) == job.errors
