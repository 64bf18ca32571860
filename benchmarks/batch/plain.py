"""The script people write: pandas, ONNX Runtime with its defaults, batches in the order of the file.

Run as ``python -m benchmarks.batch.plain MODEL INPUT OUTPUT``. No row is checked, and one bad row ends it.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
import pandas as pd
from PIL import Image

from benchmarks.batch.inputs import DAYS
from models.registry import find_card
from models.runtime.session import read_assets
from service.store.catalog import find_models

BATCH = 32
ROWS = 1024


def views(session: Any, source: str) -> pd.DataFrame:
    """Return a table in, a table out."""
    frame = pd.read_csv(source)
    numbers = frame[[f"views_{day + 1}" for day in range(DAYS)]].to_numpy(np.float32)
    found: dict[str, list[Any]] = {"forecast": [], "lower": [], "upper": []}
    for start in range(0, len(numbers), ROWS):
        outputs = session.run([*found], {"views": numbers[start : start + ROWS]})
        for name, values in zip(found, outputs, strict=True):
            found[name].extend(values[:, :7].tolist())
    for name, values in found.items():
        frame[name] = values
    return frame


def pictures(session: Any, source: str, classes: list[str]) -> pd.DataFrame:
    """Return each picture opened, a batch stacked and run."""
    rows = []
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            pixels = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))))[None] for name in some])
            (scores,) = session.run(["scores"], {"pixels": pixels})
            rows += [(name, classes[one.argmax()], one.max()) for name, one in zip(some, scores, strict=True)]
    return pd.DataFrame(rows, columns=["name", "label", "score"])


def instances(session: Any, source: str, card: Any, assets: Any) -> pd.DataFrame:
    """Sentences or molecules: the family's own encoding, batches as they come."""
    text = Path(source).read_text()
    found: list[Any] = []
    if source.endswith(".conllu"):
        for part in text.split("\n\n"):
            words = [line.split("\t")[1] for line in part.split("\n") if line.split("\t")[0].isdigit()]
            found += [card.instance(tokens=words)] if words else []
    else:
        found = [card.instance(**json.loads(line)) for line in text.splitlines()]
    wanted = [spec.name for spec in card.outputs if not spec.is_attention]
    rows: list[Any] = []
    for start in range(0, len(found), BATCH):
        samples = [card.encode(one, assets) for one in found[start : start + BATCH]]
        outputs = dict(zip(wanted, session.run(wanted, card.collate(samples)), strict=True))
        rows += [
            {name: value.tolist() if hasattr(value, "tolist") else value for name, value in one.items()}
            for one in card.decode(outputs, samples, assets)
        ]
    return pd.DataFrame(rows)


@click.command(help=__doc__)
@click.argument("model")
@click.argument("source")
@click.argument("target")
def main(model: str, source: str, target: str) -> None:
    """The command line."""
    (served,) = find_models([model])
    session = ort.InferenceSession(str(served.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    card = find_card(served.manifest.family, served.manifest.task)
    assets: Any = read_assets(session, card, served.manifest)
    if source.endswith(".csv"):
        frame = views(session, source)
    elif source.endswith(".zip"):
        frame = pictures(session, source, assets.classes)
    else:
        frame = instances(session, source, card, assets)
    frame.to_parquet(target)


if __name__ == "__main__":
    main()
