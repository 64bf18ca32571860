"""Citation graphs to learn from: Planetoid's Cora and Citeseer, or a user's own. Torch-free."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.card import Prediction
from models.errors import DataError
from models.graph.citation_schema import Assets, Instance
from models.graph.edges import Ints
from models.graph.train.planetoid_pickle import SparseRows, read_pickle
from models.graph.train.user_graph import read_plain
from models.training.datasets import (
    ACCURACY,
    Dataset,
    Provenance,
    RemoteFile,
    ScoreMetric,
    own_provenance,
    provenance,
    read,
)

PARTS = ("tx", "ty", "allx", "ally", "y", "graph", "test.index")
CLASSES = {
    "cora": [
        "Theory", "Reinforcement_Learning", "Genetic_Algorithms", "Neural_Networks", "Probabilistic_Methods",
        "Case_Based", "Rule_Learning",
    ],
    "citeseer": ["AI", "ML", "IR", "DB", "Agents", "HCI"],
}  # fmt: skip
VALIDATION_NODES = 500
# Of fewer, some part of a drawn split would be empty.
LEAST_LABELLED = 4


def _planetoid(name: str, *digests: str) -> Dataset:
    files = (f"ind.{name}.{part}" for part in PARTS)
    return Dataset(
        name=f"Planetoid {name.title()}",
        folder=f"graph/planetoid_{name}",
        licence="MIT for the files; the citation data state none",
        attribution="Yang, Cohen and Salakhutdinov 2016, arXiv:1603.08861; data of Sen et al. 2008",
        files={
            file: RemoteFile(sha256=digest, url=f"https://github.com/kimiyoung/planetoid/raw/master/data/{file}")
            for file, digest in zip(files, digests, strict=True)
        },
    )


CORA = _planetoid(
    "cora",
    "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
)
CITESEER = _planetoid(
    "citeseer",
    "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
    "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
    "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
    "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CitationData:
    """A graph (in ``assets``), class ids ``(N,)`` int64 (-1 unknown), and the node ids of each split."""

    provenance: Provenance
    assets: Assets
    labels: Ints
    splits: dict[str, Ints]

    @property
    def metric(self) -> ScoreMetric:
        """Share of nodes with the right class."""
        return ACCURACY

    def examples(self, split: str) -> Iterator[tuple[Instance, list[int]]]:
        """Yield one resident node each; the truth is its class id, in a list as the answer's."""
        for node in self.splits[split].tolist():
            yield Instance(node_ids=[node]), [int(self.labels[node])]

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[list[int]]) -> float:
        """Accuracy in % over all nodes of all predictions."""
        hits = [
            found == true
            for prediction, truth in zip(predictions, truths, strict=True)
            for found, true in zip(prediction["class_ids"], truth, strict=True)
        ]
        return 100 * float(np.mean(hits))


def load_citation(path: Path | None = None, seed: int = 0) -> CitationData:
    """Read Cora with its public split, a folder of Planetoid files, or an ``.npz`` file (see ``read_plain``).

    Args:
        path: ``None`` for Cora.
        seed: Decides the split of an ``.npz`` file that brings none: 60, 20 and 20 % of the labelled nodes.

    Raises:
        DataError: With file, what was found and what was expected.
    """
    if path is None:
        return load_public(CORA)
    if path.is_dir():
        return _own_planetoid(path)
    plain = read_plain(path)
    splits = plain.splits or _drawn_split(plain.labels, seed, path)
    assets = Assets(classes=plain.classes, words=plain.words, papers=plain.papers, links=plain.links)
    return CitationData(provenance=own_provenance(path), assets=assets, labels=plain.labels, splits=splits)


def load_public(dataset: Dataset) -> CitationData:
    """Read ``CORA`` or ``CITESEER``: 20 training nodes per class, 500 validation and 1,000 test nodes."""
    files = {part: read(dataset, file) for part, file in zip(PARTS, dataset.files, strict=True)}
    return _assemble(files, dataset.folder.removeprefix("graph/planetoid_"), provenance(dataset))


def _own_planetoid(path: Path) -> CitationData:
    marks = sorted(path.glob("ind.*.test.index"))
    if len(marks) != 1:
        raise DataError(path, found=f"{len(marks)} files ind.NAME.test.index", expected="one")
    name = marks[0].name.removeprefix("ind.").removesuffix(".test.index")
    paths = [path / f"ind.{name}.{part}" for part in PARTS]
    missing = [file.name for file in paths if not file.is_file()]
    if missing:
        raise DataError(path, found=f"no {missing[0]}", expected="the files of Planetoid's format")
    files = {part: file.read_bytes() for part, file in zip(PARTS, paths, strict=True)}
    return _assemble(files, name, own_provenance(*paths))


def _drawn_split(labels: Ints, seed: int, path: Path) -> dict[str, Ints]:
    known = int((labels >= 0).sum())
    if known < LEAST_LABELLED:
        raise DataError(path, found=f"{known} labelled nodes", expected=f"at least {LEAST_LABELLED}, to draw a split")
    nodes = np.random.default_rng(seed).permutation(np.flatnonzero(labels >= 0))
    parts = np.split(nodes, [round(0.6 * len(nodes)), round(0.8 * len(nodes))])
    return {split: np.sort(part) for split, part in zip(("train", "validation", "test"), parts, strict=True)}


def _assemble(files: dict[str, bytes], name: str, origin: Provenance) -> CitationData:
    """Planetoid's parts as one graph: ``allx`` holds the first nodes, ``tx`` those of ``test.index``.

    Citeseer's index leaves out fifteen numbers: nodes without words, links or label.
    """
    test = _test_nodes(files["test.index"], f"ind.{name}.test.index")
    allx, tx = (read_pickle(files[part], f"ind.{name}.{part}", SparseRows) for part in ("allx", "tx"))
    known, asked = (_class_ids(files, name, part, rows) for part, rows in (("ally", allx.rows), ("ty", len(test))))
    if tx.rows != len(test) or tx.columns != allx.columns or test.min() < allx.rows:
        expected = f"{len(test)} rows of {allx.columns} words, numbered from {allx.rows}"
        raise DataError(f"ind.{name}.tx", found=f"{tx.rows} rows of {tx.columns}", expected=expected)
    nodes = int(test.max()) + 1
    labels = np.full(nodes, -1)
    labels[: allx.rows], labels[test] = known, asked
    papers: list[list[int]] = [*_word_lists(allx), *([] for _ in range(nodes - allx.rows))]
    for node, words in zip(test.tolist(), _word_lists(tx), strict=True):
        papers[node] = words
    train = len(read_pickle(files["y"], f"ind.{name}.y", np.ndarray))
    classes = CLASSES.get(name) or [str(number) for number in range(int(labels.max()) + 1)]
    validation = np.arange(train, min(train + VALIDATION_NODES, allx.rows))
    if not train or not len(validation):
        found = f"{train} training and {len(validation)} validation nodes"
        raise DataError(f"ind.{name}.y", found=found, expected=f"rows for some of the {allx.rows} nodes of allx")
    return CitationData(
        provenance=origin,
        assets=Assets(
            classes=classes,
            words=allx.columns,
            papers=papers,
            links=_links(files["graph"], f"ind.{name}.graph", nodes),
        ),
        labels=labels,
        splits={"train": np.arange(train), "validation": validation, "test": np.sort(test)},
    )


def _test_nodes(content: bytes, file: str) -> Ints:
    nodes: list[int] = []
    for row, line in enumerate(content.removeprefix(BOM_UTF8).decode("latin1").splitlines(), start=1):
        if not line.isascii() or not line.isdigit() or int(line) in nodes:
            raise DataError(file, row=row, found=repr(line), expected="a node number, each once")
        nodes.append(int(line))
    if not nodes:
        raise DataError(file, found="no line", expected="a node number per line")
    return np.asarray(nodes)


def _class_ids(files: dict[str, bytes], name: str, part: str, rows: int) -> Ints:
    found: NDArray[np.int64] = read_pickle(files[part], f"ind.{name}.{part}", np.ndarray)
    if found.ndim != 2 or len(found) != rows or found.dtype.kind not in "iuf":
        raise DataError(f"ind.{name}.{part}", found=f"an array {found.shape}", expected=f"{rows} one-hot rows")
    ids: Ints = found.argmax(axis=1)
    return ids


def _word_lists(rows: SparseRows) -> list[list[int]]:
    return [sorted(set(part.tolist())) for part in np.split(rows.indices, rows.indptr[1:-1])]


def _links(content: bytes, file: str, nodes: int) -> list[tuple[int, int]]:
    graph: dict[int, list[int]] = read_pickle(content, file, dict)
    links = set()
    for node, others in graph.items():
        for other in others:
            if not all(isinstance(end, int) and 0 <= end < nodes for end in (node, other)):
                raise DataError(file, found=f"a link {node}, {other}", expected=f"node numbers below {nodes}")
            links.add((min(node, other), max(node, other)))
    return sorted((u, v) for u, v in links if u != v)
