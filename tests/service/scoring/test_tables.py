"""Parquet and Arrow: typed columns as instances, and parts that do not follow row groups or batches."""

import base64
import gc
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from models.errors import DataError, InputChanged
from service.scoring.inputs.parquet_source import ParquetSource
from service.scoring.outputs.assembly import PartAssembly
from service.scoring.spec import InputOptions, JobSpec

Run = Callable[..., Any]
MODELS = ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]


def write(table: pa.Table, path: Path, rows: int) -> Path:
    """Parquet, an Arrow file or an Arrow stream, by the name."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows)
        return path
    kind = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with path.open("wb") as file, kind(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def table_of(instances: list[Any]) -> pa.Table:
    rows = [msgspec.to_builtins(one, builtin_types=(bytes,)) for one in instances]
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: pa.array([row.get(key) for row in rows]) for key in keys})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows"])
def test_the_bytes_of_the_service(
    name: str, suffix: str, run: Run, draw: Any, alone: Any, prediction: Any, tmp_path: Path
) -> None:
    """A table with the instances' fields as columns gets the answers of the instances, of any family."""
    instances = draw(name, 20)
    path = write(table_of(instances), tmp_path / f"in.{suffix}", 6)
    job = run(name, path, part_rows=7)
    assert [prediction(line) for line in job.output.splitlines()] == alone(name, instances)
    assert run(name, path, part_rows=7, alone=True).output == job.output


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows"])
@pytest.mark.parametrize(("group", "part"), [(1, 3), (5, 2), (100, 7), (7, 100), (4, 4)])
def test_columns_travel(suffix: str, group: int, part: int, run: Run, tmp_path: Path) -> None:
    """Every column comes out as it went in, in its order and type, however the rows are grouped."""
    table = pa.table(
        {
            "when": pa.array(range(20), pa.timestamp("us")),
            "text": [f"so {row}" for row in range(20)],
            "key": pa.array([f"k{row % 3}" for row in range(20)]).dictionary_encode(),
            "deep": [[{"a": row}] if row % 4 else None for row in range(20)],
        }
    )
    job = run("tagging", write(table, tmp_path / f"in.{suffix}", group), to="parquet", part_rows=part)
    assert job.errors == 0
    found = job.table.select(table.column_names)
    assert found.to_pylist() == table.to_pylist()
    assert found.schema.field("when").type == pa.timestamp("us")
    assert job.table["tokens"].to_pylist()[3] == ["so", "3"]


def test_typed_numbers(run: Run, tmp_path: Path) -> None:
    """Numbered columns of any numeric type; a null or NaN is an error row."""
    columns: dict[str, Any] = {f"views_{day}": np.arange(4) * 10 + day for day in range(1, 57)}
    columns["views_2"] = pa.array([1.0, float("nan"), None, 2.0])
    columns["views_3"] = pa.array([1, 2, 3, 4], pa.int16())
    job = run("viewcount", write(pa.table(columns), tmp_path / "in.parquet", 9), to="parquet")
    assert job.codes == [None, "invalid_request", "invalid_request", None]
    assert job.table["error_place"].to_pylist()[1] == '["views",1]'


def test_names_that_are_taken(run: Run, tmp_path: Path) -> None:
    """A column of the input keeps its name; the prediction's gets a prefix."""
    table = pa.table({"tokens": [["I", "saw"]], "error_code": ["mine"]})
    found = run("tagging", write(table, tmp_path / "in.parquet", 1), to="parquet").table
    assert found.column_names == [
        "tokens", "error_code", "prediction_tokens", "tags", "scores",
        "prediction_error_code", "error_reason", "error_place",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows"])
def test_torn(suffix: str, run: Run, tmp_path: Path) -> None:
    """A file without its end is refused as a whole, before any work."""
    path = write(pa.table({"text": ["a"] * 5000}), tmp_path / f"in.{suffix}", 10)
    whole = path.read_bytes()
    for keep in (0, 5, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="torn end"):
            run("tagging", path)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows", "csv", "jsonl"])
def test_changed(suffix: str, run: Run, tmp_path: Path) -> None:
    """Any byte of a part that changed since it was cut is found when the part is read."""
    texts = [f'"text {row}"' for row in range(4000)]
    path = tmp_path / f"in.{suffix}"
    if suffix == "csv":
        path.write_text("text\n" + "\n".join(texts))
    elif suffix == "jsonl":
        path.write_text("".join(f'{{"text": {text}}}\n' for text in texts))
    else:
        write(pa.table({"text": texts}), path, 500)
    scorer = run("tagging", path, part_rows=1000).scorer
    cuts = [*scorer.source.cuts()]
    whole, source = path.read_bytes(), scorer.source
    source.read(cuts[0])
    source.read(cuts[2])
    for position in (len(whole) // 2 + 1000, len(whole) // 2 + 2000):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        found = 0
        for cut in cuts:
            try:
                type(source)(scorer.spec).read(cut)
            except (InputChanged, DataError):
                found += 1
        assert found >= 1
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises((InputChanged, DataError)):
        type(source)(scorer.spec).read(cuts[-1])
    path.write_bytes(whole)
    rows = type(source)(scorer.spec).read(cuts[-1])  # lines travel as lines
    assert len(rows.lines() if suffix == "jsonl" else rows.table()) == cuts[-1].rows


def test_digest(run: Run, tmp_path: Path) -> None:
    """The input's digest is that of its bytes."""
    import hashlib

    path = write(pa.table({"text": ["a"] * 50}), tmp_path / "in.parquet", 10)
    assert run("tagging", path).scorer.source.digest == hashlib.sha256(path.read_bytes()).hexdigest()


class Keys(pe.KmsClient):
    """Wraps keys in nothing."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("is_footer_plain", [True, False])
def test_encrypted(is_footer_plain: bool, tmp_path: Path) -> None:
    """An encrypted file is refused as one, and any encrypted column makes it one, whatever can be read of the rest."""
    asked = pe.EncryptionConfiguration("footer", column_keys={"key": ["other"]}, plaintext_footer=is_footer_plain)
    factory = pe.CryptoFactory(lambda _: Keys())
    table = pa.table({"text": ["so"] * 40, "other": ["we"] * 40})
    encryption = factory.file_encryption_properties(pe.KmsConnectionConfig(), asked)
    with pq.ParquetWriter(tmp_path / "in.parquet", table.schema, encryption_properties=encryption) as writer:
        writer.write_table(table, row_group_size=10)
    # In a process of its own: Arrow ends the one that asks it about such a column.
    program = "import sys; from tests.service.scoring.test_tables import cut; cut(sys.argv[1])"
    found = subprocess.run([sys.executable, "-c", program, tmp_path / "in.parquet"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert "found an encrypted Parquet file, expected one that is not: decrypt it first" in found.stdout


def cut(path: str) -> None:
    """Print why a file cannot be cut."""
    try:
        [*ParquetSource(make_tagging_spec(path)).cuts()]
    except DataError as error:
        sys.stdout.write(str(error))


def make_tagging_spec(path: str) -> JobSpec:
    options = {"model": "tagging:1", "manifest_digest": "", "family": "tagging", "task": "tag"}
    return JobSpec(
        **options, source=path, input_format="parquet", compression="", output_format="parquet", options=InputOptions()
    )


def test_an_abandoned_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun of an output of Parquet and is not wanted any more says nothing when it is forgotten."""
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    table, part = pa.table({"text": ["so"]}), BytesIO()
    with pa.ipc.new_stream(part, table.schema) as stream:
        stream.write_table(table)
    spec = msgspec.structs.replace(make_tagging_spec(""), options=InputOptions(part_rows=1))
    with (tmp_path / "out").open("wb") as file:
        assembly = PartAssembly(spec, file)
        assembly.add(BytesIO(part.getvalue()))
    del assembly
    gc.collect()
    assert not said
