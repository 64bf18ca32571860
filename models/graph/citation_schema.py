"""Define requests for the labels of nodes, and their answers."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from propcache.api import cached_property

from models.card import Array
from models.errors import Fault
from models.graph.edges import Ints, Neighbours, by_target, canonical, count_walks
from models.narrowing import Narrowing

MAX_NODES = 4096
MAX_EDGES = 65_536
MAX_WORDS = 4096
MAX_NEW = 32
MAX_CITES = 256
# Of two links, in a request to a model that attends by distance: at most so many edges, 8 heads of 8 in 256 MiB.
MAX_WALKS = 2**20
MAX_FAULTS = 8

# The upper bound keeps every number inside int64; the model's own bounds are checked in ``validate``.
Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Words = Annotated[
    list[Id],
    Meta(max_length=MAX_WORDS, description="Ids of the words in the paper, in any order; repeats count once."),
]


class NewPaper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A paper that is not in the resident graph, and the papers of the graph it cites."""

    words: Words
    cites: Annotated[
        list[Id], Meta(max_length=MAX_CITES, description="Ids of resident papers; the links count both ways.")
    ] = []


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of: a graph of one's own (``words``, ``edges``), ``new`` papers, resident ``node_ids``."""

    words: (
        Annotated[list[Words], Meta(min_length=1, max_length=MAX_NODES, description="The words of each node.")]
        | UnsetType
    ) = UNSET
    edges: (
        Annotated[
            list[tuple[Id, Id]],
            Meta(max_length=MAX_EDGES, description="Undirected links between nodes, numbered from 0."),
        ]
        | UnsetType
    ) = UNSET
    new: (
        Annotated[
            list[NewPaper],
            Meta(min_length=1, max_length=MAX_NEW, description="Papers to label, each without the others."),
        ]
        | UnsetType
    ) = UNSET
    node_ids: (
        Annotated[
            list[Id],
            Meta(min_length=1, max_length=MAX_NODES, description="Resident papers to label; may repeat."),
        ]
        | UnsetType
    ) = UNSET


class Explanation(TypedDict):
    """The attention on the edges into the labelled nodes.

    ``edges`` ``(E, 2)`` are pairs of source and target: nodes of the request's own graph, resident ids; the
    new paper number ``i`` is ``-1 - i``. ``weights`` ``(heads, E)``, the heads of the first layer first. For
    each head the weights into one target sum to 1. Every node also attends to itself; one that attends by
    distance, to nodes two links away as well.
    """

    edges: Array
    weights: Array


class Prediction(TypedDict):
    """One entry per labelled node: the likeliest class, and the probability of each ``(nodes, classes)``."""

    labels: list[str]
    class_ids: list[int]
    scores: Array
    attention: NotRequired[Explanation]


class Assets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Constants of a model that labels nodes.

    Attributes:
        classes: Class names in the order of the scores.
        words: How many word ids there are.
        heads: Attention heads of each layer.
        hops: How far one layer hears: 1, or 2 links.
        papers: Word ids of each resident paper, ascending; empty without a resident graph.
        links: Resident links ``u < v``, each once.
    """

    classes: list[str]
    words: int
    heads: list[int] = msgspec.field(default_factory=lambda: [8, 1])
    hops: int = 1
    papers: list[list[int]] = []
    links: list[tuple[int, int]] = []

    @property
    def sizes(self) -> dict[str, int]:
        """Static axes and the ``rows`` of features; ``heads`` are all layers', the third end of an edge is its hop."""
        sizes = {"ends": 2 if self.hops == 1 else 3, "classes": len(self.classes), "heads": sum(self.heads)}
        return sizes | {"rows": self.words}

    @cached_property
    def edges(self) -> Ints:
        """Return the resident graph's canonical edges, ``(2, E)``."""
        return canonical(self.links, len(self.papers))

    @cached_property
    def neighbours(self) -> Neighbours:
        """Return the resident graph by target."""
        return by_target(self.edges, len(self.papers))

    @cached_property
    def walks(self) -> int:
        """Walks of two edges in the resident graph."""
        return count_walks(self.edges)

    @cached_property
    def bags(self) -> tuple[Ints, Ints]:
        """Return the resident papers' words end to end, and where each paper's start (and the last one's end)."""
        starts = np.cumsum([0, *map(len, self.papers)])
        return starts, np.fromiter(chain.from_iterable(self.papers), np.int64, starts[-1])


def validate(instance: Instance, assets: Assets) -> Iterator[Fault]:
    """Yield up to eight faults: not exactly one kind of request, a number outside the model or the graph."""
    faults = list(islice(_faults(instance, assets), MAX_FAULTS))
    yield from faults
    if not faults and assets.hops > 1 and (walks := _count_walks(instance, assets)) > MAX_WALKS:
        yield Fault((), f"expected at most {MAX_WALKS} walks of two links, found up to {walks}")


def _count_walks(instance: Instance, assets: Assets) -> int:
    """Return an upper bound: a new paper may be near to the whole resident graph, and brings its citations together."""
    if not isinstance(instance.new, UnsetType):
        counts = np.diff(assets.neighbours.starts)
        walks = 0
        for paper in instance.new:
            cited = np.unique(np.asarray(paper.cites, np.int64))
            walks += assets.walks + int((2 * counts[cited] + 1).sum()) + (len(cited) + 1) ** 2
        return walks
    if isinstance(instance.words, UnsetType):
        return 0
    links = [] if isinstance(instance.edges, UnsetType) else instance.edges
    return count_walks(canonical(links, len(instance.words)))


def _faults(instance: Instance, assets: Assets) -> Iterator[Fault]:
    given = [name for name in ("words", "new", "node_ids") if not isinstance(getattr(instance, name), UnsetType)]
    if len(given) != 1:
        yield Fault((), "expected exactly one of 'words', 'new' and 'node_ids'")
    elif not assets.papers and "words" not in given:
        yield Fault((given[0],), "this model has no resident graph; send 'words' and 'edges'")
    elif not isinstance(instance.words, UnsetType):
        yield from _own_graph(instance.words, [] if isinstance(instance.edges, UnsetType) else instance.edges, assets)
    elif not isinstance(instance.edges, UnsetType):
        yield Fault(("edges",), f"expected only with 'words', found with '{given[0]}'")
    elif not isinstance(instance.new, UnsetType):
        for number, paper in enumerate(instance.new):
            yield from _outside(paper.words, assets.words, "word ids", "new", number, "words")
            yield from _outside(paper.cites, len(assets.papers), "node ids", "new", number, "cites")
    elif not isinstance(instance.node_ids, UnsetType):
        yield from _outside(instance.node_ids, len(assets.papers), "node ids", "node_ids")


def _own_graph(words: Sequence[Sequence[int]], edges: Sequence[tuple[int, int]], assets: Assets) -> Iterator[Fault]:
    for node, bag in enumerate(words):
        yield from _outside(bag, assets.words, "word ids", "words", node)
    yield from outside_links(edges, len(words), "edges")


def outside_links(links: Sequence[tuple[int, int]], nodes: int, *step: str | int) -> Iterator[Fault]:
    """Yield a fault for every link with an end that is no node's number."""
    for number, link in enumerate(links):
        for end in link:
            if not 0 <= end < nodes:
                yield Fault((*step, number), f"expected node numbers below {nodes}, found {end}")
                break


def _outside(ids: Sequence[int], bound: int, what: str, *step: str | int) -> Iterator[Fault]:
    for number, found in enumerate(ids):
        if not 0 <= found < bound:
            yield Fault((*step, number), f"expected {what} below {bound}, found {found}")


def narrow(assets: Assets) -> Narrowing:
    """Return its classes and its numbers of words and nodes; without a resident graph only graphs of one's own."""
    words = {"type": "array", "maxItems": MAX_WORDS, "items": _below(assets.words)}
    instance: dict[str, dict[str, Any] | None] = {"words": {"items": words}}
    if assets.papers:
        instance["node_ids"] = {"items": _below(len(assets.papers))}
    else:
        instance |= {"new": None, "node_ids": None}
    classes = {"type": "string", "enum": assets.classes}
    return Narrowing(instance, {"labels": {"items": classes}, "class_ids": {"items": _below(len(assets.classes))}})


def _below(count: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": count - 1}


def example(assets: Assets) -> Instance:
    """Three papers of one's own, or, with a resident graph, a new one that cites two of it."""
    bags = [[word % assets.words for word in bag] for bag in ((19, 81, 146, 315), (81, 315, 774), (19,))]
    if assets.papers:
        return Instance(new=[NewPaper(words=bags[0], cites=[0, len(assets.papers) - 1])])
    return Instance(words=bags, edges=[(0, 1), (1, 2)])


def random_request(rng: np.random.Generator, assets: Assets) -> Instance:
    """Half of them graphs of one node to forty, the rest on the resident graph if there is one."""
    kind = rng.integers(4)
    if not assets.papers or kind >= 2:
        nodes = 1 if rng.random() < 0.1 else int(rng.integers(2, 40))
        edges: Any = random_links(rng, nodes)
        return Instance(words=[_random_bag(rng, assets.words) for _ in range(nodes)], edges=edges)
    if kind == 0:
        return Instance(node_ids=rng.integers(0, len(assets.papers), rng.integers(1, 8)).tolist())
    papers = [
        NewPaper(
            words=_random_bag(rng, assets.words),
            cites=rng.integers(0, len(assets.papers), rng.integers(0, 6)).tolist(),
        )
        for _ in range(rng.integers(1, 4))
    ]
    return Instance(new=papers)


def _random_bag(rng: np.random.Generator, words: int) -> list[int]:
    """None to thirty words, sometimes one twice."""
    bag: list[int] = rng.integers(0, words, rng.integers(0, 30)).tolist()
    return bag


def random_links(rng: np.random.Generator, nodes: int) -> list[tuple[int, int]]:
    """None, or up to two links per node, with self-links and repeats; sometimes a hub linked to all."""
    links = rng.integers(0, nodes, (rng.integers(0, 2 * nodes + 1), 2))
    if rng.random() < 0.2:
        links = np.concatenate([links, [(0, node) for node in range(nodes)]])
    return [(int(u), int(v)) for u, v in links]
