"""A user's own citation graph in one ``.npz`` file, checked row by row. Torch-free, pickle-free."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.graph.edges import Ints

SPLITS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserGraph:
    """Describe what the file holds.

    Attributes:
        classes: Class names.
        words: How many word ids there are.
        papers: Word ids of each paper, ascending.
        links: ``u < v``, each once.
        labels: Class ids ``(N,)``, -1 unknown.
        splits: Node ids by split, if the file has them.
    """

    classes: list[str]
    words: int
    papers: list[list[int]]
    links: list[tuple[int, int]]
    labels: Ints
    splits: dict[str, Ints] | None


def read_plain(path: Path) -> UserGraph:
    """Read a graph and its labels.

    The file has ``indptr``, ``indices`` and ``shape`` (binary words, CSR), ``labels`` (-1 unknown) and
    ``edges`` ``(E, 2)``; ``classes`` (names) may be there too, and ``train``, ``val`` and ``test`` (node ids, or masks;
    also called ``train_mask`` and so on).

    Raises:
        DataError: With file, row, what was found and what was expected.
    """
    arrays = _arrays(path)
    file = path.name
    nodes, words = _shape(arrays, file)
    starts = _whole(arrays, "indptr", file, length=nodes + 1)
    indices = _within(_whole(arrays, "indices", file), 0, words, f"{file}: indices")
    if starts[0] != 0 or starts[-1] != len(indices) or (np.diff(starts) < 0).any():
        raise DataError(f"{file}: indptr", found="other numbers", expected=f"rising from 0 to {len(indices)}")
    labels = _within(_whole(arrays, "labels", file, length=nodes), -1, None, f"{file}: labels")
    edges = _within(_whole(arrays, "edges", file, columns=2), 0, nodes, f"{file}: edges")
    ends = np.unique(np.sort(edges, axis=1), axis=0).tolist()
    return UserGraph(
        classes=_classes(arrays, labels, file),
        words=words,
        papers=[sorted(set(part.tolist())) for part in np.split(indices, starts[1:-1])],
        links=[(u, v) for u, v in ends if u != v],
        labels=labels,
        splits=_splits(arrays, labels, file),
    )


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        expected = "an .npz file of arrays without pickles, or a folder of Planetoid files"
        raise DataError(path, found=str(error) or "damage", expected=expected) from error


def _shape(arrays: Mapping[str, NDArray[Any]], file: str) -> tuple[int, int]:
    shape = _whole(arrays, "shape", file, length=2)
    if shape.min() < 1:
        raise DataError(f"{file}: shape", found=str(shape.tolist()), expected="at least one node and one word")
    return int(shape[0]), int(shape[1])


def _whole(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    file: str,
    *,
    length: int | None = None,
    columns: int | None = None,
    or_mask: int | None = None,
) -> Ints:
    """Return an array of whole numbers of the expected form."""
    if name not in arrays:
        raise DataError(file, found=f"only {', '.join(sorted(arrays))}", expected=f"an array {name!r}")
    found = arrays[name]
    fits = found.ndim == (2 if columns else 1) and (columns is None or found.shape[1] == columns)
    if found.dtype.kind not in "iu" or not fits or length not in (None, len(found)):
        rows = "any" if length is None else length
        expected = f"whole numbers, {rows} rows" + (f" of {columns}" if columns else "")
        expected += "" if or_mask is None else f", or a mask of 0 and 1 for all {or_mask} nodes"
        raise DataError(f"{file}: {name}", found=f"{found.dtype} {found.shape}", expected=expected)
    return found.astype(np.int64)


def _within(found: Ints, low: int, high: int | None, location: str) -> Ints:
    """Return the same array, or an error naming its first row outside ``low .. high - 1``."""
    outside = (found < low) | (found >= (np.inf if high is None else high))
    if outside.any():
        row = int(np.argwhere(outside)[0, 0])
        expected = f"numbers from {low}" + ("" if high is None else f", below {high}")
        raise DataError(location, row=row, found=str(found[row].tolist()), expected=expected)
    return found


def _classes(arrays: Mapping[str, NDArray[Any]], labels: Ints, file: str) -> list[str]:
    count = int(labels.max(initial=-1)) + 1
    if count < 2:
        raise DataError(f"{file}: labels", found=f"{max(count, 0)} classes", expected="at least 2")
    if "classes" not in arrays:
        return [str(number) for number in range(count)]
    names: list[str] = arrays["classes"].astype(str).tolist()
    if arrays["classes"].ndim != 1 or len(set(names)) < count or len(set(names)) != len(names):
        raise DataError(f"{file}: classes", found=str(names), expected=f"{count} different names")
    return names


def _splits(arrays: Mapping[str, NDArray[Any]], labels: Ints, file: str) -> dict[str, Ints] | None:
    given = {name: _split_name(arrays, name, file) for name in SPLITS.values()}
    if not any(given.values()):
        return None
    splits: dict[str, Ints] = {}
    for split, name in SPLITS.items():
        array = given[name] or name
        splits[split] = ids = _node_ids(arrays, array, labels, file)
        for other, before in splits.items():
            if other != split and (shared := np.intersect1d(ids, before)).size:
                found = f"node {shared[0]}, which is in {given[SPLITS[other]]}, too"
                raise DataError(f"{file}: {array}", found=found, expected="each node in one of the three")
    return splits


def _split_name(arrays: Mapping[str, NDArray[Any]], name: str, file: str) -> str | None:
    """Return the array with a split, as this format or as PyTorch Geometric and DGL call it."""
    found = [called for called in (name, f"{name}_mask") if called in arrays]
    if len(found) > 1:
        raise DataError(file, found=" and ".join(found), expected="one of them")
    return found[0] if found else None


def _node_ids(arrays: Mapping[str, NDArray[Any]], name: str, labels: Ints, file: str) -> Ints:
    """Return the nodes of a split, given by their ids or by a mask over all nodes."""
    location = f"{file}: {name}"
    if name in arrays and _is_mask(arrays[name], len(labels)):
        ids: Ints = np.flatnonzero(arrays[name])
    else:
        ids = _within(_whole(arrays, name, file, or_mask=len(labels)), 0, len(labels), location)
    if not len(ids):
        raise DataError(location, found="no node", expected="at least one")
    nodes, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        expected = f"each node once, or a mask of 0 and 1 for all {len(labels)} nodes"
        raise DataError(location, found=f"node {nodes[counts > 1][0]} a second time", expected=expected)
    if (labels[ids] < 0).any():
        raise DataError(
            location, found=f"node {ids[labels[ids] < 0][0]}, which has no label", expected="labelled nodes"
        )
    return ids


def _is_mask(found: NDArray[Any], nodes: int) -> bool:
    """Whether it says of every node if it is in: by booleans, or by numbers 0 and 1 that are no list of two ids."""
    if found.shape != (nodes,) or found.dtype.kind not in "biuf":
        return False
    if found.dtype.kind == "b":
        return True
    return bool(np.isin(found, (0, 1)).all()) and (found.dtype.kind == "f" or len(np.unique(found)) < nodes)
