"""Graphs in the TU format: a folder with ``NAME_A.txt``, ``NAME_graph_indicator.txt`` and ``NAME_node_labels.txt``.

https://chrsmrrs.github.io/datasets/docs/format. It lists all atoms and then all bonds, so it is read whole: 50 bytes
an atom and a bond in memory.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.errors import DataError, InputChanged, InvalidRequest
from models.graph.molecule_schema import SYMBOLS
from models.registry import find_card
from service.scoring.addresses import is_local, local_path
from service.scoring.inputs.column_mapping import document, resolve
from service.scoring.inputs.document import Document
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.spec import JobSpec

PARTS = ("A", "graph_indicator", "node_labels")
GRAPH = "graph"
Ints = NDArray[np.int64]


class _Graphs(NamedTuple):
    """Atoms sorted by graph, and bonds likewise.

    Attributes:
        labels: Each atom's symbol.
        atoms: Where each graph's atoms start, and the last one's end.
        bonds: Both ends of each bond, numbered within the graph.
        links: Where each graph's bonds start, and the last one's end.
    """

    labels: list[str]
    atoms: Ints
    bonds: Ints
    links: Ints


class TuSource:
    """A folder in the TU format."""

    passed_over, notes = 0, ()

    schema = pa.schema([(GRAPH, pa.int64())])

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._document = spec, Document(spec)
        self.fields = resolve(
            ["atoms", "bonds"], [False, False], find_card(spec.family, spec.task), spec.options, spec.source
        )
        if not is_local(spec.source) or not local_path(spec.source).is_dir():
            raise DataError(spec.source, found="no folder", expected="a local folder in the TU format")
        self._folder = local_path(spec.source)
        marks = sorted(self._folder.glob("*_graph_indicator.txt"))
        if len(marks) != 1:
            raise DataError(spec.source, found=f"{len(marks)} files NAME_graph_indicator.txt", expected="one")
        self._name = marks[0].name.removesuffix("_graph_indicator.txt")
        missing = [part for part in PARTS if not self._file(part).is_file()]
        if missing:
            raise DataError(
                spec.source, found=f"no {self._file(missing[0]).name}", expected="the files of the TU format"
            )
        self.digest = ""
        self._graphs: _Graphs | None = None

    def _file(self, part: str) -> Any:
        return self._folder / f"{self._name}_{part}.txt"

    def _load(self) -> tuple[str, _Graphs]:
        contents = {part: self._file(part).read_bytes() for part in PARTS}
        listing = "".join(f"{hashlib.sha256(one).hexdigest()} {part}\n" for part, one in sorted(contents.items()))
        numbers = {part: self._numbers(content, part, 2 if part == "A" else 1) for part, content in contents.items()}
        return hashlib.sha256(listing.encode()).hexdigest(), self._sorted(numbers)

    def _numbers(self, content: bytes, part: str, columns: int) -> Ints:
        """Return the whole numbers of a file, ``(lines, columns)``."""
        lines = content.decode("latin1").splitlines()
        number = re.compile(",".join([r"\s*-?[0-9]{1,18}\s*"] * columns))
        bad = next((row for row, line in enumerate(lines, start=1) if number.fullmatch(line) is None), 0)
        if bad:
            found = repr(lines[bad - 1][:40])
            raise DataError(self._file(part).name, row=bad, found=found, expected=f"{columns} whole numbers")
        return np.array([*map(int, ",".join(lines).split(","))] if lines else [], np.int64).reshape(-1, columns)

    def _sorted(self, numbers: dict[str, Ints]) -> _Graphs:
        graph, kind = numbers["graph_indicator"][:, 0], numbers["node_labels"][:, 0]
        bonds = numbers["A"] - 1
        if len(kind) != len(graph):
            raise DataError(self._file("node_labels").name, found=f"{len(kind)} lines", expected=f"{len(graph)}")
        self._check(graph - 1, bonds, len(graph))
        count = int(graph.max(initial=0))
        order = np.argsort(graph, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(graph, minlength=count + 1)[1:])])
        position = np.empty(len(graph), np.int64)
        position[order] = np.arange(len(graph)) - starts[graph[order] - 1]
        owner = graph[bonds[:, 0]] - 1
        by_graph = np.argsort(owner, kind="stable")
        links = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
        return _Graphs(self._symbols(kind[order]), starts, position[bonds[by_graph]], links)

    def _symbols(self, kind: Ints) -> list[str]:
        """As in training: names where the set's are known, else the numbers."""
        known = SYMBOLS.get(self._name, [])
        if len(kind) and kind.min() >= 0 and kind.max() < len(known):
            return [known[one] for one in kind.tolist()]
        return [*map(str, kind.tolist())]

    def _check(self, graph: Ints, bonds: Ints, atoms: int) -> None:
        if len(graph) and (graph.min() < 0 or graph.max() >= max(1, 2 * len(graph))):
            raise DataError(
                self._file("graph_indicator").name, found="other graph numbers", expected="1 and up, without gaps"
            )
        is_outside = np.any((bonds < 0) | (bonds >= atoms), axis=1)
        ends = graph[np.where(is_outside[:, None], 0, bonds)] if atoms else bonds
        apart = is_outside | (ends[:, 0] != ends[:, 1])
        if apart.any():
            row = int(apart.argmax())
            found = f"{bonds[row, 0] + 1}, {bonds[row, 1] + 1}"
            raise DataError(
                self._file("A").name, row=row + 1, found=found, expected=f"two atoms of one graph, 1 to {atoms}"
            )

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of equally many graphs."""
        digest, self._graphs = self._load()
        total, rows = len(self._graphs.atoms) - 1, self._spec.options.most_rows
        for index, first in enumerate(range(0, max(1, total), rows)):
            yield PartSpec(index=index, first_row=first, rows=min(rows, total - first), digest=digest, place={})
        self.digest = digest

    def read(self, cut: PartSpec) -> "TuRows":
        """Return the graphs of a part, of files that are read and held against the digest once."""
        if self._graphs is None:
            try:
                digest, graphs = self._load()
            except (DataError, OSError) as error:
                raise InputChanged(f"{self._spec.source}: changed since it was cut into parts") from error
            if digest != cut.digest:
                raise InputChanged(f"{self._spec.source}: changed since it was cut into parts")
            self._graphs = graphs
        return TuRows(self, self._graphs, cut)

    def instance(self, atoms: list[str], bonds: list[list[int]]) -> Any:
        """Return what a graph asks."""
        if not atoms:
            raise InvalidRequest("the graph has no atoms")
        return self._document.read(document(self.fields, [atoms, bonds]))


class TuRows:
    """Some graphs."""

    def __init__(self, source: TuSource, graphs: _Graphs, cut: PartSpec) -> None:
        self._source, self._graphs, self._first, self.count = source, graphs, cut.first_row, cut.rows

    def instance(self, row: int) -> Any:
        """Return the graph, each bond once and none from an atom to itself, as in training."""
        labels, atoms, bonds, links = self._graphs
        number = self._first + row
        pairs = np.sort(bonds[links[number] : links[number + 1]], axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        return self._source.instance(labels[atoms[number] : atoms[number + 1]], pairs.tolist())

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def words(self, field: str) -> None:
        """None: these have no lists of words, or are read one by one."""

    def table(self) -> pa.Table:
        """Return the graphs' numbers in the files, from 1."""
        numbers = pa.array(range(self._first + 1, self._first + self.count + 1), pa.int64())
        return pa.table([numbers], schema=self._source.schema)

    def lines(self) -> list[bytes] | None:
        """None: a graph is many lines."""
        return None
