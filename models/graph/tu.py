"""Graphs as the TU collection writes them: text files of numbers, checked line by line. Torch-free."""

from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.graph.edges import Ints

PARTS = ("A", "graph_indicator", "graph_labels", "node_labels")


class Graphs(NamedTuple):
    """Graphs as numbers.

    Attributes:
        bonds: Nodes that are joined, ``(B, 2)``, from 0.
        graph: The graph of each node, ``(n,)``, from 0.
        label: The class of each graph, ``(N,)``.
        kind: The label of each node, ``(n,)``.
    """

    bonds: Ints
    graph: Ints
    label: Ints
    kind: Ints


def files_of(path: Path) -> tuple[str, list[Path]]:
    """Return the name of the data set in a folder, and its files in the order of ``PARTS``.

    Raises:
        DataError: If one is missing.
    """
    marks = sorted(path.glob("*_graph_indicator.txt"))
    if len(marks) != 1:
        raise DataError(path, found=f"{len(marks)} files NAME_graph_indicator.txt", expected="one")
    name = marks[0].name.removesuffix("_graph_indicator.txt")
    paths = [path / f"{name}_{part}.txt" for part in PARTS]
    missing = [file.name for file in paths if not file.is_file()]
    if missing:
        raise DataError(path, found=f"no {missing[0]}", expected="the four files of the TU format")
    return name, paths


def read_numbers(content: bytes, file: str, columns: int) -> Ints:
    """Return the whole numbers of a text file, ``(lines, columns)``, separated by commas.

    Raises:
        DataError: Naming the first line, counted from 1, that is anything else.
    """
    rows = []
    for row, line in enumerate(content.removeprefix(BOM_UTF8).decode("latin1").splitlines(), start=1):
        fields = line.split(",")
        try:
            numbers = [int(field) for field in fields]
        except ValueError:
            numbers = []
        if len(numbers) != columns or any(abs(number) >= 2**31 for number in numbers):
            raise DataError(file, row=row, found=repr(line[:40]), expected=f"{columns} whole numbers")
        rows.append(numbers)
    return np.asarray(rows, np.int64).reshape(-1, columns)


def read_graphs(name: str, files: Mapping[str, bytes]) -> Graphs:
    """Return the numbers of a data set's files.

    Raises:
        DataError: Naming the line, where they do not fit together.
    """
    numbers = {part: read_numbers(files[part], f"{name}_{part}.txt", 2 if part == "A" else 1) for part in PARTS}
    bonds = numbers.pop("A") - 1
    graph, label, kind = (part[:, 0] for part in numbers.values())
    graphs = Graphs(bonds, graph - 1, label, kind)
    _check(name, graphs)
    return graphs


def _check(name: str, graphs: Graphs) -> None:
    bonds, graph, label, kind = graphs
    if len(kind) != len(graph) or not len(kind):
        expected = f"{max(len(graph), 1)}, one per line of {name}_graph_indicator.txt"
        raise DataError(f"{name}_node_labels.txt", found=f"{len(kind)} lines", expected=expected)
    checks = (
        ("graph_indicator", graph, len(label), "graph numbers"),
        ("A", bonds[:, 0], len(graph), "atom numbers"),
        ("A", bonds[:, 1], len(graph), "atom numbers"),
    )
    for part, numbers, bound, what in checks:
        outside = (numbers < 0) | (numbers >= bound)
        if outside.any():
            row = int(outside.argmax())
            expected = f"{what} from 1 to {bound}"
            raise DataError(f"{name}_{part}.txt", row=row + 1, found=str(numbers[row] + 1), expected=expected)
    apart = graph[bonds[:, 0]] != graph[bonds[:, 1]]
    if apart.any():
        row = int(apart.argmax()) + 1
        raise DataError(f"{name}_A.txt", row=row, found="atoms of two graphs", expected="a bond within one")


def with_test(graphs: Graphs, test: Path | None, first: int = 1) -> tuple[Graphs, NDArray[np.bool_], list[Path]]:
    """Return the graphs with those that test, which of them do ``(N,)``, and the files these came from.

    Args:
        graphs: All that were read so far.
        test: A folder of further graphs in the same format, or a file with the numbers of some of these graphs, one a
            line; ``None``: none tests.
        first: The number that such a list has for the first graph: 1 as in the format's own files, or 0.

    Raises:
        DataError: If it has other classes or kinds of nodes, or is no list of numbers.
    """
    count = len(graphs.label)
    if test is None:
        return graphs, np.zeros(count, bool), []
    if not test.is_dir():
        return graphs, _marked(test, count, first), [test]
    name, paths = files_of(test)
    more = read_graphs(name, {part: file.read_bytes() for part, file in zip(PARTS, paths, strict=True)})
    for part, known, found in (
        ("graph_labels", graphs.label, more.label),
        ("node_labels", graphs.kind, more.kind),
    ):
        unknown = np.setdiff1d(found, known)
        if len(unknown):
            row = int((found == unknown[0]).argmax()) + 1
            expected = "labels that --data has, too"
            raise DataError(test / f"{name}_{part}.txt", row=row, found=str(unknown[0]), expected=expected)
    joined = Graphs(
        np.concatenate([graphs.bonds, more.bonds + len(graphs.graph)]),
        np.concatenate([graphs.graph, more.graph + count]),
        np.concatenate([graphs.label, more.label]),
        np.concatenate([graphs.kind, more.kind]),
    )
    return joined, np.arange(len(joined.label)) >= count, paths


def _marked(file: Path, count: int, first: int) -> NDArray[np.bool_]:
    numbers = read_numbers(file.read_bytes(), file.name, 1)[:, 0]
    last = count - 1 + first
    other = f"; --test-from {1 - first} for a list that begins with {1 - first}"
    expected = f"graph numbers from {first} to {last}, each once{other}"
    outside = (numbers < first) | (numbers > last)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(file, row=row + 1, found=str(numbers[row]), expected=expected)
    if not len(numbers) or len(np.unique(numbers)) != len(numbers):
        raise DataError(file, found="no number" if not len(numbers) else "a number twice", expected=expected)
    is_test = np.zeros(count, bool)
    is_test[numbers - first] = True
    return is_test
