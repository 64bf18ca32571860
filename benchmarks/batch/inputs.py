"""The inputs of the batch benchmark, made anew from seeds and public data; never committed."""

import io
import zipfile
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from PIL import Image

from models.graph import LABEL_GRAPH
from models.graph.molecule_schema import SYMBOLS, Assets
from models.image.train.data import FASHION_MNIST
from models.tagging.train.data import EWT
from models.training.datasets import read

DAYS = 56
CHUNK_ROWS = 50_000


def views(path: Path, rows: int, header: bool = True) -> None:
    """Channels with an id and 56 days of views, as CSV."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            level = 10 ** rng.uniform(1, 7, (count, 1))
            weekly = rng.uniform(0.5, 1.5, (count, 7))[:, np.arange(DAYS) % 7]
            found = np.minimum(np.round(level * weekly * rng.lognormal(0, 0.1, (count, DAYS))), 1e9).astype(np.int64)
            columns = {f"views_{day + 1}": found[:, day] for day in range(DAYS)}
            table = pa.table({"channel": [f"c{start + row:07d}" for row in range(count)], **columns})
            options = pc.WriteOptions(include_header=header and start == 0, quoting_style="none")
            pc.write_csv(table, file, options)


def sentences(path: Path, rows: int) -> None:
    """EWT's training part, as it is, the beginning of it, or again and again."""
    content = read(EWT, "en_ewt-ud-train.conllu")
    parts = [part + b"\n\n" for part in content.split(b"\n\n") if part.strip()]
    path.write_bytes(b"".join(islice(cycle(parts), rows)))


def pictures(path: Path, rows: int) -> None:
    """Fashion-MNIST's training pictures as PNG files in a zip archive."""
    content = read(FASHION_MNIST, "train-images-idx3-ubyte")
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)[:rows]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, one in enumerate(pixels):
            file = io.BytesIO()
            Image.fromarray(one).save(file, "PNG")
            archive.writestr(zipfile.ZipInfo(f"{number:05d}.png"), file.getvalue())


def molecules(path: Path, rows: int) -> None:
    """Random molecules as JSON lines."""
    rng, assets = np.random.default_rng(0), Assets(classes=[], atoms=SYMBOLS["MUTAG"])
    found = (LABEL_GRAPH.random_request(rng, assets) for _ in range(rows))
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in found))


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "views.csv": views,
    "sentences.conllu": sentences,
    "corpus.conllu": sentences,
    "pictures.zip": pictures,
    "molecules.jsonl": molecules,
}
