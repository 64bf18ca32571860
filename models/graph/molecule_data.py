"""Molecules to learn from: MUTAG, or a user's folder in the TU format. Torch-free."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.datasets import (
    ACCURACY,
    Dataset,
    Metric,
    Provenance,
    RemoteFile,
    own_provenance,
    provenance,
    read,
)
from models.errors import DataError
from models.family import Prediction
from models.graph.edges import Ints
from models.graph.molecule_schema import MAX_ATOMS, MAX_BONDS, SYMBOLS, Assets, Instance

PARTS = ("A", "graph_indicator", "graph_labels", "node_labels")
MUTAG = Dataset(
    name="MUTAG (TUDataset)",
    folder="graph/tu_mutag",
    licence="none stated; redistributed for research",
    attribution="Debnath et al. 1991, J. Med. Chem. 34; Morris et al. 2020, arXiv:2007.08663",
    files={
        f"MUTAG_{part}.txt": RemoteFile(
            sha256=digest,
            url="https://www.chrsmrrs.com/graphkerneldatasets/MUTAG.zip",
            member=f"MUTAG/MUTAG_{part}.txt",
        )
        for part, digest in zip(
            PARTS,
            (
                "d9656ca7493f3445d737c711710bb36fd432dddd1c0ea32e1d4713c86ebd28e2",
                "7d520a4d6c7961c0cdeabe076d8fe27e795b6d373485c9a2b744987e560a2056",
                "a1518ea39ba3426bd42f57396b9c4baffe68e9adc718caeeab0119c6591a5f2c",
                "678f429965490e84dd27713017538c995fc05d1621beac910848b600015ee863",
            ),
            strict=True,
        )
    },
)
CLASSES = {"MUTAG": ["non-mutagenic", "mutagenic"]}
FOLDS = 10
MAX_DEGREES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MoleculeData:
    """Molecules, their class ids ``(N,)`` int64, and the molecules of each split."""

    provenance: Provenance
    assets: Assets
    molecules: list[Instance]
    labels: Ints
    splits: dict[str, Ints]

    @property
    def metric(self) -> Metric:
        """Share of molecules with the right class."""
        return ACCURACY

    def examples(self, split: str) -> Iterator[tuple[Instance, int]]:
        """Molecules with their class ids."""
        for number in self.splits[split].tolist():
            yield self.molecules[number], int(self.labels[number])

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[int]) -> float:
        """Accuracy in %."""
        hits = [p["class_id"] == truth for p, truth in zip(predictions, truths, strict=True)]
        return 100 * float(np.mean(hits))


def load_molecules(path: Path | None = None, seed: int = 0, fold: int = 0) -> MoleculeData:
    """Read MUTAG, or a folder with the files ``NAME_A.txt``, ``NAME_graph_indicator.txt`` and so on.

    Args:
        path: ``None`` for MUTAG.
        seed: Of the ten stratified folds.
        fold: The one to test on; the next is for validation, the rest for training.

    Raises:
        DataError: With file, line, what was found and what was expected.
    """
    if path is None:
        name, origin = "MUTAG", provenance(MUTAG)
        files = {part: read(MUTAG, f"MUTAG_{part}.txt") for part in PARTS}
    else:
        name = _name(path)
        paths = [path / f"{name}_{part}.txt" for part in PARTS]
        origin = own_provenance(*paths)
        files = {part: file.read_bytes() for part, file in zip(PARTS, paths, strict=True)}
    molecules, labels, assets = _assemble(name, files)
    folds = fold_of_each(labels, seed)
    held = {"test": folds == fold, "validation": folds == (fold + 1) % FOLDS}
    splits = {"train": ~(held["test"] | held["validation"]), **held}
    return MoleculeData(
        provenance=origin,
        assets=assets,
        molecules=molecules,
        labels=labels,
        splits={split: np.flatnonzero(mask) for split, mask in splits.items()},
    )


def fold_of_each(labels: Ints, seed: int) -> Ints:
    """Ten folds ``(N,)`` of nearly equal size, each with nearly the same shares of the classes."""
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    folds = np.empty_like(labels)
    # Dealt out like cards, one class after the other: sizes differ by one at most.
    folds[np.concatenate(by_class)] = np.arange(len(labels)) % FOLDS
    return folds


def _name(path: Path) -> str:
    marks = sorted(path.glob("*_graph_indicator.txt"))
    if len(marks) != 1:
        raise DataError(path, found=f"{len(marks)} files NAME_graph_indicator.txt", expected="one")
    name = marks[0].name.removesuffix("_graph_indicator.txt")
    missing = [part for part in PARTS if not (path / f"{name}_{part}.txt").is_file()]
    if missing:
        raise DataError(path, found=f"no {name}_{missing[0]}.txt", expected="the four files of the TU format")
    return name


def read_numbers(content: bytes, file: str, columns: int) -> Ints:
    """The whole numbers of a text file, ``(lines, columns)``, separated by commas.

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


def _assemble(name: str, files: Mapping[str, bytes]) -> tuple[list[Instance], Ints, Assets]:
    numbers = {part: read_numbers(files[part], f"{name}_{part}.txt", 2 if part == "A" else 1) for part in PARTS}
    bonds = numbers.pop("A") - 1
    graph, label, kind = (part[:, 0] for part in numbers.values())
    _check(name, bonds, graph - 1, label, kind)
    values, labels = np.unique(label, return_inverse=True)
    symbols, symbol_ids = _symbols(name, kind)
    molecules = _cut(symbols, symbol_ids, bonds, graph - 1, len(label))
    for number, molecule in enumerate(molecules, start=1):
        if not 1 <= len(molecule.atoms) <= MAX_ATOMS or len(molecule.bonds) > MAX_BONDS:
            found = f"graph {number} with {len(molecule.atoms)} atoms and {len(molecule.bonds)} bonds"
            limits = f"1 to {MAX_ATOMS} atoms and at most {MAX_BONDS} bonds, as in a request"
            raise DataError(f"{name}_graph_indicator.txt", found=found, expected=limits)
    most = max(np.bincount(np.ravel(molecule.bonds).astype(int), minlength=1).max() for molecule in molecules)
    classes = CLASSES.get(name, [])
    assets = Assets(
        classes=classes if len(classes) == len(values) else [str(value) for value in values.tolist()],
        atoms=symbols,
        degrees=min(int(most) + 1, MAX_DEGREES),
    )
    return molecules, labels, assets


def _symbols(name: str, kind: Ints) -> tuple[list[str], Ints]:
    """Names of the atoms' kinds, and the place of each atom's; its number stands for an unnamed kind."""
    kinds, places = np.unique(kind, return_inverse=True)
    known = SYMBOLS.get(name, [])
    if kinds[0] >= 0 and kinds[-1] < len(known):
        return known, kind
    return [str(value) for value in kinds.tolist()], places


def _check(name: str, bonds: Ints, graph: Ints, label: Ints, kind: Ints) -> None:
    """Refuse numbers that do not fit together, naming the line."""
    if len(label) < FOLDS or len(np.unique(label)) < 2:
        found = f"{len(label)} graphs of {len(np.unique(label))} classes"
        raise DataError(f"{name}_graph_labels.txt", found=found, expected=f"at least {FOLDS} of at least 2")
    if len(kind) != len(graph) or not len(kind):
        expected = f"{max(len(graph), 1)}, one per line of {name}_graph_indicator.txt"
        raise DataError(f"{name}_node_labels.txt", found=f"{len(kind)} lines", expected=expected)
    places = (
        ("graph_indicator", graph, len(label), "graph numbers"),
        ("A", bonds[:, 0], len(graph), "atom numbers"),
        ("A", bonds[:, 1], len(graph), "atom numbers"),
    )
    for part, numbers, bound, what in places:
        outside = (numbers < 0) | (numbers >= bound)
        if outside.any():
            row = int(outside.argmax())
            expected = f"{what} from 1 to {bound}"
            raise DataError(f"{name}_{part}.txt", row=row + 1, found=str(numbers[row] + 1), expected=expected)
    apart = graph[bonds[:, 0]] != graph[bonds[:, 1]]
    if apart.any():
        row = int(apart.argmax()) + 1
        raise DataError(f"{name}_A.txt", row=row, found="atoms of two graphs", expected="a bond within one")


def _cut(symbols: Sequence[str], symbol_ids: Ints, bonds: Ints, graph: Ints, graphs: int) -> list[Instance]:
    """One request per graph: atoms in the file's order, each bond once."""
    atoms: list[list[str]] = [[] for _ in range(graphs)]
    places = []
    for number, symbol in zip(graph.tolist(), symbol_ids.tolist(), strict=True):
        places.append(len(atoms[number]))
        atoms[number].append(symbols[symbol])
    pairs: list[set[tuple[int, int]]] = [set() for _ in range(graphs)]
    for u, v in bonds.tolist():
        if u != v:
            pairs[graph[u]].add((min(places[u], places[v]), max(places[u], places[v])))
    return [Instance(atoms=a, bonds=sorted(b)) for a, b in zip(atoms, pairs, strict=True)]
