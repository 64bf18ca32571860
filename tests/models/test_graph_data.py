"""Citation graphs and molecules as files: what is read, and what is refused."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import DataError
from models.graph.train.citation_data import CITESEER, CORA, load_citation, load_public
from models.graph.train.molecule_data import FOLDS, MUTAG, fold_of_each, load_molecules
from models.graph.train.planetoid_pickle import SparseRows, read_pickle
from models.graph.tu import read_numbers
from models.training.datasets import data_root

has_planetoid = pytest.mark.data(CORA, CITESEER)
has_mutag = pytest.mark.data(MUTAG)


class Attack:
    """Unpickled carelessly, it runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/lectern-was-here",)


@pytest.mark.parametrize("name", ["cora", "citeseer"])
@has_planetoid
def test_planetoid_is_what_others_read(name: str) -> None:
    """The pickles hold the graph of the plain file made from them by another program."""
    found = load_public(CORA if name == "cora" else CITESEER)
    folder = data_root() / f"graph/planetoid_{name}"
    plain = load_citation(folder / f"{name}_plain.npz")
    assert found.assets.papers == plain.assets.papers
    assert found.assets.links == plain.assets.links
    assert (found.labels == plain.labels).all()
    assert all((found.splits[split] == plain.splits[split]).all() for split in plain.splits)
    assert load_citation(folder).assets == found.assets
    wanted = (2708, 5278, 7, 1433) if name == "cora" else (3327, 4552, 6, 3703)
    assets = found.assets
    assert (len(assets.papers), len(assets.links), len(assets.classes), assets.words) == wanted


@has_planetoid
def test_cora_examples() -> None:
    """A thousand test nodes, one request each, judged one by one."""
    data = load_citation()
    requests, truths = zip(*data.examples("test"), strict=True)
    assert len(requests) == 1000
    assert requests[0].node_ids == [1708]
    right: list[dict[str, Any]] = [{"class_ids": truth} for truth in truths]
    assert data.judge(right, truths) == 100
    assert data.judge([{"class_ids": [-1]}, *right[1:]], truths) == pytest.approx(99.9)


@has_mutag
def test_mutag_by_heart() -> None:
    """188 molecules of 3,371 atoms and 3,721 bonds, 125 of them mutagenic; the first is a nitro compound."""
    data = load_molecules()
    assert np.bincount(data.labels).tolist() == [63, 125]
    assert data.assets.classes == ["non-mutagenic", "mutagenic"]
    assert sum(len(molecule.atoms) for molecule in data.molecules) == 3371
    assert sum(len(molecule.bonds) for molecule in data.molecules) == 3721
    assert data.molecules[0].atoms == [*"CCCCCCCCCCCCCCNOO"]
    assert data.assets.degrees == 5
    assert sorted(np.concatenate(list(data.splits.values())).tolist()) == list(range(188))
    again = load_molecules(data_root() / "graph/tu_mutag")
    assert (again.assets, again.molecules) == (data.assets, data.molecules)


def test_folds_are_stratified() -> None:
    """Ten folds differ by one molecule at most, and so do their counts of each class."""
    labels = np.repeat([0, 1, 2], [63, 125, 11])
    folds = fold_of_each(labels, seed=3)
    for part in (folds, *(folds[labels == label] for label in range(3))):
        counts = np.bincount(part, minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert (folds != fold_of_each(labels, seed=4)).any()


def test_pickles_run_nothing() -> None:
    """A pickle that asks for a function is refused before the function is looked up."""
    for protocol in (0, 2, 5):
        content = pickle.dumps(Attack(), protocol)
        with pytest.raises(DataError, match=r"x: found a use of (posix|nt)\.system, expected arrays"):
            read_pickle(content, "x", dict)
    assert not Path("/tmp/lectern-was-here").exists()


@has_planetoid
def test_damaged_pickles() -> None:
    """Cut or altered anywhere, a pickle is read or refused, never a crash."""
    content = (data_root() / "graph/planetoid_cora/ind.cora.x").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(len(content))] if rng.random() < 0.5 else content)
        for position in rng.integers(0, len(damaged), 3) if damaged else ():
            damaged[position] = rng.integers(256)
        try:
            found = read_pickle(bytes(damaged), "x", SparseRows)
        except DataError:
            continue
        assert len(found.indptr) == found.rows + 1


GRAPH: dict[str, Any] = {
    "indptr": np.array([0, 2, 3, 3, 4, 5]),
    "indices": np.array([2, 0, 1, 1, 2]),
    "shape": np.array([5, 3]),
    "labels": np.array([0, 1, 1, 0, -1]),
    "edges": np.array([[1, 0], [0, 1], [2, 2], [3, 4]]),
    "train": np.array([0, 1]),
    "val": np.array([2]),
    "test": np.array([3]),
}


def save(folder: Path, **changes: Any) -> Path:
    """Return an ``.npz`` file of the little graph with some arrays replaced, or left out where ``None``."""
    arrays = {name: array for name, array in (GRAPH | changes).items() if array is not None}
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def test_plain_file(tmp_path: Path) -> None:
    """Words are sorted, links cleaned, classes named by number."""
    data = load_citation(save(tmp_path))
    assert data.assets.papers == [[0, 2], [1], [], [1], [2]]
    assert data.assets.links == [(0, 1), (3, 4)]
    assert data.assets.classes == ["0", "1"]
    assert [nodes.tolist() for nodes in data.splits.values()] == [[0, 1], [2], [3]]
    assert list(data.provenance.sha256) == ["own.npz"]


def test_plain_file_without_split(tmp_path: Path) -> None:
    """Labelled nodes are drawn 60 : 20 : 20; the same seed draws the same."""
    path = save(tmp_path, train=None, val=None, test=None, classes=np.array(["theory", "rules"]))
    data = load_citation(path, seed=1)
    assert data.assets.classes == ["theory", "rules"]
    assert [len(nodes) for nodes in data.splits.values()] == [2, 1, 1]
    assert sorted(np.concatenate(list(data.splits.values())).tolist()) == [0, 1, 2, 3]
    assert all((load_citation(path, seed=1).splits[name] == data.splits[name]).all() for name in data.splits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"edges": np.array([[0, 1], [0, 5]])},
            "own.npz: edges, row 1: found [0, 5], expected numbers from 0, below 5",
        ),
        (
            {"edges": np.array([0, 1])},
            "own.npz: edges: found int64 (2,), expected whole numbers, any rows of 2",
        ),
        (
            {"indices": np.array([2, 0, 1, 3, 2])},
            "own.npz: indices, row 3: found 3, expected numbers from 0, below 3",
        ),
        (
            {"indices": np.array([1.0] * 5)},
            "own.npz: indices: found float64 (5,), expected whole numbers, any rows",
        ),
        (
            {"indptr": np.array([0, 2, 1, 3, 4, 5])},
            "own.npz: indptr: found other numbers, expected rising from 0 to 5",
        ),
        ({"labels": np.array([0, 1])}, "own.npz: labels: found int64 (2,), expected whole numbers, 5 rows"),
        ({"labels": np.array([0, 0, 0, 0, 0])}, "own.npz: labels: found 1 classes, expected at least 2"),
        (
            {"train": np.array([4])},
            "own.npz: train: found node 4, which has no label, expected labelled nodes",
        ),
        ({"train": np.array([], int)}, "own.npz: train: found no node, expected at least one"),
        ({"val": np.zeros(5, bool)}, "own.npz: val: found no node, expected at least one"),
        ({"train": np.array([0, 5])}, "own.npz: train, row 1: found 5, expected numbers from 0, below 5"),
        ({"train": np.array([-1, 0])}, "own.npz: train, row 0: found -1, expected numbers from 0, below 5"),
        (
            {"train": np.array([0, 1, 0])},
            "own.npz: train: found node 0 a second time, expected each node once, or a mask of 0 and 1 for all 5",
        ),
        (
            {"train": np.array([1, 1, 0, 0])},
            "own.npz: train: found node 0 a second time, expected each node once, or a mask of 0 and 1 for all 5",
        ),
        (
            {"test": np.array([2, 3])},
            "own.npz: test: found node 2, which is in val, too, expected each node in one of the three",
        ),
        (
            {"test": np.array([0.0, 0.5, 0, 0, 0])},
            "own.npz: test: found float64 (5,), expected whole numbers, any rows, or a mask of 0 and 1 for all 5 nodes",
        ),
        (
            {"test": np.ones((5, 10), bool)},
            "own.npz: test: found bool (5, 10), expected whole numbers, any rows, or a mask of 0 and 1 for all 5 nodes",
        ),
        ({"test": np.ones(4, bool)}, "own.npz: test: found bool (4,), expected whole numbers, any rows, or a mask"),
        ({"train_mask": np.ones(5, bool)}, "own.npz: found train and train_mask, expected one of them"),
        (
            {"train": None, "val": None, "test": None, "labels": np.array([0, 1, 1, -1, -1])},
            "own.npz: found 3 labelled nodes, expected at least 4, to draw a split",
        ),
        (
            {"train": None},
            "own.npz: found only edges, indices, indptr, labels, shape, test, val, expected an array 'train'",
        ),
        ({"classes": np.array(["a", "a"])}, "own.npz: classes: found ['a', 'a'], expected 2 different names"),
        ({"labels": np.array([0, "x"], object)}, "found Object arrays cannot be loaded"),
    ],
)
def test_bad_plain_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Each wrong array is named with its row, what was found and what was expected."""
    with pytest.raises(DataError) as caught:
        load_citation(save(tmp_path, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_masks(tmp_path: Path, dtype: Any, suffix: str) -> None:
    """Masks over all nodes, as DGL and PyTorch Geometric have them, are the nodes they mark; not the nodes 0 and 1."""
    names = {"train": [0, 1], "val": [2], "test": [3]}
    masks: dict[str, Any] = dict.fromkeys(names)
    masks |= {f"{name}{suffix}": np.isin(np.arange(5), nodes).astype(dtype) for name, nodes in names.items()}
    data = load_citation(save(tmp_path, **masks))
    assert [nodes.tolist() for nodes in data.splits.values()] == [[0, 1], [2], [3]]


def test_two_ids_are_no_mask(tmp_path: Path) -> None:
    """Of a graph of two nodes, 0 and 1 once each are ids."""
    from models.graph.train.user_graph import _is_mask

    assert not _is_mask(np.array([0, 1]), 2)
    assert _is_mask(np.array([0, 1, 1]), 3)
    assert not _is_mask(np.array([0, 2, 1]), 3)


def test_marks_are_read_over() -> None:
    """A byte order mark before numbers is no number, and no fault."""
    assert read_numbers(b"\xef\xbb\xbf1, 2\n3, 4\n", "x", 2).tolist() == [[1, 2], [3, 4]]


def test_no_archive(tmp_path: Path) -> None:
    """A text file, a missing file, an empty folder: all are data errors."""
    (tmp_path / "own.npz").write_text("0 1 2")
    for path in (tmp_path / "own.npz", tmp_path / "none.npz", tmp_path):
        with pytest.raises(DataError, match="expected"):
            load_citation(path)
    with pytest.raises(DataError, match=r"0 files NAME_graph_indicator\.txt, expected one"):
        load_molecules(tmp_path)


def write_molecules(folder: Path, **changes: str) -> Path:
    """Twenty molecules of two atoms, in class 3 when they are alike, in the TU format."""
    kinds = [(number % 2, number % 3 % 2) for number in range(20)]
    files = {
        "A": "".join(f"{2 * n + 1}, {2 * n + 2}\n{2 * n + 2}, {2 * n + 1}\n" for n in range(20)),
        "graph_indicator": "".join(f"{n + 1}\n{n + 1}\n" for n in range(20)),
        "graph_labels": "".join(f"{3 if a == b else 7}\n" for a, b in kinds),
        "node_labels": "".join(f"{a}\n{b}\n" for a, b in kinds),
    }
    for name, text in (files | changes).items():
        (folder / f"OWN_{name}.txt").write_text(text)
    return folder


def test_own_molecules(tmp_path: Path) -> None:
    """Labels and atoms without names are called by their numbers; each bond is there once."""
    data = load_molecules(write_molecules(tmp_path), fold=9)
    assert data.assets.classes == ["3", "7"]
    assert data.assets.atoms == ["0", "1"]
    assert data.molecules[1].atoms == ["1", "1"]
    assert data.molecules[1].bonds == [(0, 1)]
    assert {split: len(numbers) for split, numbers in data.splits.items()} == {
        "train": 16,
        "test": 2,
        "validation": 2,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": "1, 2\n1; 2\n"}, "OWN_A.txt, row 2: found '1; 2', expected 2 whole numbers"),
        ({"A": "1, 2\n2, 41\n"}, "OWN_A.txt, row 2: found 41, expected atom numbers from 1 to 40"),
        ({"A": "1, 2\n0, 1\n"}, "OWN_A.txt, row 2: found 0, expected atom numbers from 1 to 40"),
        ({"A": "1, 2\n2, 3\n"}, "OWN_A.txt, row 2: found atoms of two graphs, expected a bond within one"),
        ({"graph_indicator": "1\n" * 39 + "21\n"}, "row 40: found 21, expected graph numbers from 1 to 20"),
        (
            {"graph_indicator": "1\n" * 40},
            "found 1 graphs of 1 classes to learn from and 19 that are empty or too large, expected at least 10",
        ),
        (
            {"node_labels": "0\n" * 39},
            "OWN_node_labels.txt: found 39 lines, expected 40, one per line of OWN_graph_",
        ),
        ({"node_labels": "0\nC\n"}, "OWN_node_labels.txt, row 2: found 'C', expected 1 whole numbers"),
        ({"graph_labels": "1\n" * 20}, "found 20 graphs of 1 classes to learn from, expected at least 10"),
    ],
)
def test_bad_molecules(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    """Each wrong line is named with its number, what was found and what was expected."""
    with pytest.raises(DataError) as caught:
        load_molecules(write_molecules(tmp_path, **changes))
    assert message in str(caught.value)


def test_numbers_in_text() -> None:
    """Spaces and signs are fine, a number too large for anything is not."""
    assert read_numbers(b"1, -2\r\n3,4", "x", 2).tolist() == [[1, -2], [3, 4]]
    with pytest.raises(DataError, match="x, row 1"):
        read_numbers(b"99999999999", "x", 1)
