"""Make bodies once, from fixed seeds and public test sets, and the answers that are checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.protocols import JSON
from benchmarks.peers.codec import ALL_MODELS, Codec, open_codec
from models.graph.train.molecule_data import MUTAG, load_molecules
from models.image.schema import Instance as Picture
from models.image.train.data import FASHION_MNIST
from models.tagging.schema import Instance as Sentence
from models.tagging.train.conllu import read_conllu
from models.tagging.train.data import EWT
from models.training.datasets import find_local, is_local, read

SEED = 7
CHECKED = 64
PICTURES = 64
SENTENCES = 400
MOLECULES = 64
NPY = "application/x-npy"
_PIXELS = "t10k-images-idx3-ubyte"
_EWT_TEST = "en_ewt-ud-test.conllu"
_TEXT = "The old harbour town wakes slowly when fog rolls in and fishing boats return before the market opens"
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkWorkload:
    """One table's requests.

    Attributes:
        key: On the command line.
        title: Of the table.
        model: Who is asked.
        bodies: Sent in turn.
        connections: Kept open, one column of the table each.
        checks: Distinct bodies of one instance, whose answers are compared before anything is timed.
        media_type: Of the bodies.
        unit: What a request holds, where it is not one request's worth.
        units: How many of them, on average.
        is_ours: Whether only Lectern reads such bodies.
    """

    key: str
    title: str
    model: str
    bodies: list[bytes]
    connections: tuple[int, ...]
    checks: list[bytes]
    media_type: str = JSON
    unit: str = ""
    units: float = 1.0
    is_ours: bool = False


def body(*instances: Any) -> bytes:
    """Return a request of Lectern's form."""
    return msgspec.json.encode({"instances": instances})


def viewcount() -> list[BenchmarkWorkload]:
    """Return the card's example, alone and 32 in a request."""
    codec = open_codec("viewcount")
    example = codec.predictor.card.example(codec.predictor.assets)
    checks = [body(instance) for instance in _random(codec, CHECKED)]
    one = BenchmarkWorkload(
        key="viewcount",
        title="viewcount, one instance a request",
        model="viewcount",
        bodies=[body(example)],
        connections=(1, 16, 64, 256),
        checks=checks,
    )
    many = BenchmarkWorkload(
        key="viewcount-32",
        title="viewcount, 32 instances a request",
        model="viewcount",
        bodies=[body(*[example] * 32)],
        connections=(16,),
        checks=[body(*_random(codec, 32))],
        unit="instances",
        units=32,
    )
    return [one, many]


def image() -> list[BenchmarkWorkload]:
    """Pictures of Fashion-MNIST's test set (noise where the data is not here), as JSON and as raw arrays."""
    pictures = _pictures(PICTURES)
    bodies = [body(Picture(pixels=picture.tolist())) for picture in pictures]
    raw = [_npy(picture) for picture in pictures]
    plain = BenchmarkWorkload(
        key="image",
        title="image, one picture of 28 × 28 numbers a request",
        model="image",
        bodies=bodies,
        connections=(1, 16, 64),
        checks=bodies,
    )
    binary = BenchmarkWorkload(
        key="image-npy",
        title="image, one raw array a request (Lectern only)",
        model="image",
        bodies=raw,
        connections=(1, 16, 64),
        checks=raw,
        media_type=NPY,
        is_ours=True,
    )
    return [plain, binary]


def tagging() -> list[BenchmarkWorkload]:
    """Return one sentence of 18 words; the answers are checked on 64 others."""
    return [
        BenchmarkWorkload(
            key="tagging",
            title=f"tagging, one sentence of {len(_WORDS)} words a request",
            model="tagging",
            bodies=[body(Sentence(tokens=_WORDS))],
            connections=(1, 16, 64),
            checks=[body(Sentence(tokens=_WORDS[n % 18 :] + _WORDS[: n // 18 + 1])) for n in range(CHECKED)],
        )
    ]


def sentences() -> list[BenchmarkWorkload]:
    """Real sentences of EWT's test part; none where the data is not here."""
    if find_local(EWT, _EWT_TEST) is None:
        return []
    found = list(islice(read_conllu(read(EWT, _EWT_TEST), _EWT_TEST), SENTENCES))
    bodies = [body(Sentence(tokens=sentence.words)) for sentence in found]
    return [
        BenchmarkWorkload(
            key="sentences",
            title=f"tagging, {SENTENCES} real sentences in turn, one a request",
            model="tagging",
            bodies=bodies,
            connections=(16, 64),
            checks=bodies[:CHECKED],
            unit="tokens",
            units=sum(len(sentence.words) for sentence in found) / len(found),
        )
    ]


MAKERS: dict[str, Callable[[], list[BenchmarkWorkload]]] = {
    "viewcount": viewcount,
    "image": image,
    "tagging": tagging,
    "sentences": sentences,
}
MOLECULE_KEY = "molecules"
KEYS = ("viewcount", "viewcount-32", "image", "image-npy", "tagging", "sentences", MOLECULE_KEY)


def make(keys: Sequence[str]) -> list[BenchmarkWorkload]:
    """Return the workloads asked for, in the tables' order, without those whose data is not here."""
    wanted = [maker for name, maker in MAKERS.items() if any(key.startswith(name) for key in keys)]
    made = [workload for maker in wanted for workload in maker()]
    return [workload for workload in made if workload.key in keys]


def molecules() -> list[bytes]:
    """64 molecules of MUTAG, one a body; none where the data is not here."""
    if not is_local(MUTAG):
        return []
    return [body(molecule) for molecule in load_molecules().molecules[:MOLECULES]]


def examples() -> dict[str, bytes]:
    """Return one valid body per served model."""
    codecs = {model: open_codec(model).predictor for model in ALL_MODELS}
    return {model: body(predictor.card.example(predictor.assets)) for model, predictor in codecs.items()}


def _random(codec: Codec, count: int) -> list[Any]:
    rng = np.random.default_rng(SEED)
    return [codec.predictor.card.random_request(rng, codec.predictor.assets) for _ in range(count)]


def _pictures(count: int) -> NDArray[np.uint8]:
    """``(count, 28, 28)`` grey values."""
    if find_local(FASHION_MNIST, _PIXELS) is None:
        return np.random.default_rng(SEED).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    pixels = np.frombuffer(read(FASHION_MNIST, _PIXELS), np.uint8, offset=16)
    return pixels.reshape(-1, 28, 28)[:count]


def _npy(array: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
