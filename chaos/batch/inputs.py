"""One small input per format: 2,000 rows, a few of which make no sense, and the model that scores them."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 2000
WORDS = ["a", "the", "dog", "cat", "saw", "chased", "house", "quickly", "running", "of", "in", "I", "you"]
Draw = np.random.Generator


class Format(NamedTuple):
    """One format's trial.

    Attributes:
        model: Who scores it.
        name: The input's file, or its folder.
        output: The output's ending.
        write: Writes it at a path.
    """

    model: str
    name: str
    output: str
    write: Callable[[Path, Draw], None]


def _views(draw: Draw) -> np.ndarray[Any, np.dtype[np.int64]]:
    found: np.ndarray[Any, np.dtype[np.int64]] = draw.integers(0, 10**6, (ROWS, 56))
    return found


def _csv(path: Path, draw: Draw) -> None:
    lines = ["channel," + ",".join(f"views_{day}" for day in range(1, 57))]
    lines += [f"c{row}," + ",".join(map(str, values)) for row, values in enumerate(_views(draw))]
    lines[77] = "c76,torn"
    path.write_text("\n".join(lines) + "\n")


def _views_table(draw: Draw) -> pa.Table:
    views = [None if row == 123 else values.tolist() for row, values in enumerate(_views(draw))]
    return pa.table({"id": [f"c{row}" for row in range(ROWS)], "views": pa.array(views, pa.list_(pa.float64()))})


def _parquet(path: Path, draw: Draw) -> None:
    pq.write_table(_views_table(draw), path, row_group_size=130)


def _arrow(path: Path, draw: Draw) -> None:
    table = _views_table(draw)
    with path.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=130)


def _sentences(draw: Draw) -> list[list[str]]:
    return [[WORDS[word] for word in draw.integers(0, len(WORDS), draw.integers(1, 30))] for _ in range(ROWS)]


def _jsonl(path: Path, draw: Draw) -> None:
    lines = [json.dumps({"tokens": tokens}) for tokens in _sentences(draw)]
    lines[500] = '{"tokens": ["torn'
    content = "".join(f"{line}\n" for line in lines).encode()
    if path.suffix == ".gz":
        import gzip

        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)


def _conllu(path: Path, draw: Draw) -> None:
    blank = "\t_" * 8
    sentences = ["".join(f"{at}\t{word}{blank}\n" for at, word in enumerate(tokens, 1)) for tokens in _sentences(draw)]
    path.write_text("\n".join(sentences) + "\n")


def _pictures(draw: Draw) -> Mapping[str, bytes]:
    files = {}
    for row, pixels in enumerate(draw.integers(0, 256, (ROWS, 28, 28), dtype=np.uint8)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files[f"{row:04d}.png"] = file.getvalue()[: 200 if row == 321 else None]
    return files


def _folder(path: Path, draw: Draw) -> None:
    path.mkdir()
    for name, content in _pictures(draw).items():
        (path / name).write_bytes(content)


def _zip(path: Path, draw: Draw) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in _pictures(draw).items():
            archive.writestr(name, content)


def _tar(path: Path, draw: Draw) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in _pictures(draw).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _tu(path: Path, draw: Draw) -> None:
    path.mkdir()
    sizes = draw.integers(2, 9, ROWS)
    first = np.concatenate([[1], np.cumsum(sizes)[:-1] + 1])
    chains = [
        (atom, atom + 1) for start, size in zip(first, sizes, strict=True) for atom in range(start, start + size - 1)
    ]
    files = {
        "A": "".join(f"{one}, {other}\n{other}, {one}\n" for one, other in chains),
        "graph_indicator": "".join(f"{graph}\n" * size for graph, size in enumerate(sizes, 1)),
        "node_labels": "".join(f"{label}\n" for label in draw.integers(0, 3, sizes.sum())),
    }
    for name, text in files.items():
        (path / f"MUTAG_{name}.txt").write_text(text)


FORMATS: dict[str, Format] = {
    "csv": Format("viewcount", "in.csv", "parquet", _csv),
    "jsonl": Format("tagging", "in.jsonl", "jsonl", _jsonl),
    "jsonl.gz": Format("tagging", "in.jsonl.gz", "parquet", _jsonl),
    "parquet": Format("viewcount", "in.parquet", "parquet", _parquet),
    "arrow": Format("viewcount", "in.arrow", "csv", _arrow),
    "conllu": Format("tagging", "in.conllu", "arrow", _conllu),
    "folder": Format("image", "in", "parquet", _folder),
    "zip": Format("image", "in.zip", "jsonl", _zip),
    "tar": Format("image", "in.tar", "parquet", _tar),
    "tu": Format("molecule", "in", "parquet", _tu),
}
