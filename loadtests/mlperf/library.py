"""The query sample library: instances ready to be sent, and what their answers are worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from loadtests.mlperf.served import ModelUnderTest
from models.graph.train.citation_data import CORA, load_citation
from models.graph.train.molecule_data import MUTAG, load_molecules
from models.image.train.data import FASHION_MNIST
from models.image.train.data import load as load_pictures
from models.tagging.train.data import EWT
from models.tagging.train.data import load as load_sentences
from models.training.datasets import Data, Dataset, is_local
from models.viewcount.train.data import OTEXTS
from models.viewcount.train.data import load as load_views

RANDOM_SAMPLES = 1024

# Where a task's public test set lies. A user's own data are elsewhere: those models are asked random requests.
TEST_SETS: dict[tuple[str, str], tuple[Dataset, Callable[[], Data]]] = {
    ("viewcount", "forecast"): (OTEXTS, load_views),
    ("tagging", "tag"): (EWT, load_sentences),
    ("image", "classify"): (FASHION_MNIST, load_pictures),
    ("graph", "label_nodes"): (CORA, load_citation),
    ("graph", "label_graph"): (MUTAG, load_molecules),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLibrary:
    """Samples by their number.

    Attributes:
        head: First line and headers of a request, up to the length of its body.
        source: What they are, for people.
        samples: Each instance as JSON.
        costs: Units of the card's budget that each takes.
        truths: What the answers should be; none for random requests.
        data: The judge of the answers, where there are truths.
    """

    head: bytes = field(repr=False)
    source: str
    samples: Sequence[bytes]
    costs: Sequence[int]
    truths: Sequence[Any] = ()
    data: Data | None = field(default=None, repr=False)

    @property
    def is_uneven(self) -> bool:
        """Return whether the inputs cost differently, so that the rules ask for equal issue."""
        return len(set(self.costs)) > 1

    def request(self, numbers: Sequence[int]) -> bytes:
        """Return one whole HTTP request for these samples, on a connection that is kept."""
        body = b'{"instances":[%b]}' % b",".join([self.samples[number] for number in numbers])
        return b"%b%d\r\n\r\n%b" % (self.head, len(body), body)

    def score(self, answers: Sequence[bytes]) -> float | None:
        """Return what the answers to all samples are worth; ``None`` where nobody knows the truth."""
        if self.data is None:
            return None
        return self.data.judge([msgspec.json.decode(answer) for answer in answers], self.truths)


def test_library(served: ModelUnderTest) -> SampleLibrary:
    """The test set the model was certified with, where its files are here; else random requests."""
    known = TEST_SETS.get((served.entry.family, served.entry.task))
    if known is not None and is_local(known[0]):
        data = known[1]()
        instances, truths = zip(*data.examples("test"), strict=True)
        if len(instances) == served.entry.score.instances and served.entry.data.startswith(data.provenance.name):
            return _library(served, f"test set of {served.entry.data}", instances, truths=truths, data=data)
    return random_library(served, RANDOM_SAMPLES, seed=0)


def random_library(served: ModelUnderTest, count: int, seed: int) -> SampleLibrary:
    """Random requests, the same for the same seed."""
    rng = np.random.default_rng(seed)
    instances = [served.card.random_request(rng, served.assets) for _ in range(count)]
    return _library(served, f"{count} random requests, seed {seed}", instances)


def head_of(path: str, headers: Mapping[str, str]) -> bytes:
    """Return what all requests to a path begin with."""
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "content-type: application/json", "content-length: "]).encode("latin-1")


def _library(served: ModelUnderTest, source: str, instances: Sequence[Any], **more: Any) -> SampleLibrary:
    return SampleLibrary(
        head=head_of(served.path, served.address.headers),
        source=source,
        samples=[msgspec.json.encode(instance) for instance in instances],
        costs=[served.cost(instance) for instance in instances],
        **more,
    )
