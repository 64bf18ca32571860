"""Inputs that are small and say that they are large, each as small or as large as a test wants it."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

TEXT = "so it goes "


def parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, compression="zstd", **options)
    return path


def arrow(path: Path, *batches: pa.RecordBatch, compression: str | None = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(path), batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


def zstd(path: Path, piece: bytes, times: int, before: bytes = b"", after: bytes = b"") -> Path:
    """Return the same bytes over and over."""
    with path.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as writer:
        writer.write(before)
        for _ in range(times):
            writer.write(piece)
        writer.write(after)
    return path


def text(size: int) -> str:
    return (TEXT * (size // len(TEXT) + 1))[:size]


def zeros_in_a_list(folder: Path, size: int) -> Path:
    """Return one row of so many numbers in some hundred bytes."""
    values = pa.array(np.zeros(size))
    lists = pa.LargeListArray.from_arrays(pa.array([0, size], pa.int64()), values)
    return parquet(folder / "list.parquet", pa.table({"views": lists}))


def one_text_for_all(folder: Path, size: int, rows: int) -> Path:
    """Return a dictionary of one text."""
    positions = pa.array(np.zeros(rows, np.int32))
    column = pa.DictionaryArray.from_arrays(positions, pa.array([text(size)]))
    table = pa.table({"text": column}).cast(pa.schema([("text", pa.dictionary(pa.int32(), pa.string()))]))
    return parquet(folder / "dictionary.parquet", table, store_schema=False)


def text_by_its_beginning(folder: Path, size: int, rows: int) -> Path:
    """Return each value told by how it differs from the one before: not at all."""
    table = pa.table({"text": [text(size)] * rows})
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    return parquet(folder / "delta.parquet", table, **options)


def one_long_text(folder: Path, size: int) -> Path:
    return parquet(folder / "text.parquet", pa.table({"text": [text(size)]}), use_dictionary=False)


def nulls(folder: Path, rows: int) -> Path:
    """Rows that take no byte."""
    return arrow(folder / "nulls.arrow", pa.record_batch({"text": pa.nulls(rows)}))


def runs(folder: Path, size: int, rows: int) -> Path:
    column = pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), pa.array([text(size)]))
    return arrow(folder / "runs.arrow", pa.record_batch({"text": pa.array(["a"] * rows), "note": column}))


def dictionary(folder: Path, size: int, rows: int) -> Path:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text(size)]))
    return arrow(folder / "dictionary.arrow", pa.record_batch({"text": column}))


def views(folder: Path, size: int, rows: int) -> Path:
    """Views of one text; a file of one row, whose view stands there for all."""
    one = pa.array([text(size)], pa.string_view())
    head = np.frombuffer(one.buffers()[1], np.uint8)[:16].tobytes()
    column = pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(head * rows), *one.buffers()[2:]])
    return arrow(folder / "views.arrow", pa.record_batch({"text": column}))


def list_views(folder: Path, size: int, rows: int) -> Path:
    column = pa.ListViewArray.from_arrays(
        pa.array(np.zeros(rows, np.int32)), pa.array(np.full(rows, size, np.int32)), pa.array(["a"] * size)
    )
    return arrow(folder / "list-views.arrow", pa.record_batch({"tokens": column}))


def lists_of_nothing(folder: Path, size: int, rows: int) -> Path:
    """Lists of a fixed length of nulls: no byte, whatever the length."""
    column = pa.FixedSizeListArray.from_arrays(pa.nulls(size * rows), size)
    return arrow(folder / "nothing.arrow", pa.record_batch({"tokens": column}))


def packed_batch(folder: Path, size: int) -> Path:
    """Return one batch, whose buffers are packed."""
    batch = pa.record_batch({"text": pa.array([text(size // 1000)] * 1000)})
    return arrow(folder / "packed.arrow", batch, compression="zstd")


def deep(folder: Path, depth: int, form: str = "arrow") -> Path:
    """Lists in structs in lists, as Arrow or Parquet."""
    kind: pa.DataType = pa.int64()
    for level in range(depth):
        kind = pa.list_(kind) if level % 2 else pa.struct([("a", kind)])
    batch = pa.record_batch({"tokens": pa.array([["a"]]), "deep": pa.nulls(1, kind)})
    if form == "parquet":
        return parquet(folder / "deep.parquet", pa.table(batch))
    return arrow(folder / "deep.arrow", batch)


def blank_lines(folder: Path, size: int, header: bytes = b"text\n") -> Path:
    block = b"\n" * 2**20
    return zstd(folder / "blank.csv.zst", block, size // len(block), header, b"I saw\n")


def one_long_line(folder: Path, size: int) -> Path:
    block = TEXT.encode() * 10**5
    return zstd(folder / "line.jsonl.zst", block, size // len(block), b'{"text": "', b'"}\n{"text": "I saw"}\n')


def one_long_sentence(folder: Path, size: int) -> Path:
    block = b"".join(b"1\ta" + b"\t_" * 8 + b"\n" for _ in range(10**4))
    return zstd(folder / "sentence.conllu.zst", block, size // len(block), b"", b"\n1\ta" + b"\t_" * 8 + b"\n\n")


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(file, "PNG")
    return file.getvalue()


def zip_of_large(folder: Path, size: int, files: int) -> Path:
    """Members that are nothing but zeros, and one picture."""
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(files):
            archive.writestr(f"{number:05}.png", bytes(size))
        archive.writestr("z.png", picture())
    return path


def zip_of_one(folder: Path, size: int, files: int) -> Path:
    """Many names for one member (David Fifield, "A better zip bomb", with whole overlaps)."""
    path = folder / "overlap.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00000.png", bytes(size))
        archive.filelist *= files
    return path


def nested(folder: Path, depth: int) -> Path:
    """Archives in archives that are called pictures."""
    content, path = picture(), folder / "nested.zip"
    for level in range(depth):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4):
                archive.writestr(f"{number}.{'zip' if level % 2 else 'png'}", content)
            archive.writestr("a.png", picture())
        content = file.getvalue()
    path.write_bytes(content)
    return path


def tar_of_large(folder: Path, size: int) -> Path:
    """Return a member of zeros, packed, and one picture."""
    path = folder / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("a.png", None), ("b.png", picture())):
            member = tarfile.TarInfo(name)
            member.size = size if content is None else len(content)
            archive.addfile(member, _Zeros(size) if content is None else io.BytesIO(content))
    return path


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def read(self, size: int = -1) -> bytes:
        found = min(size, self._left)
        self._left -= found
        return bytes(found)
