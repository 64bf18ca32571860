"""Molecules to learn from: MUTAG, or a user's folder in the TU format. Torch-free."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.card import Prediction
from models.errors import DataError
from models.graph.edges import Ints
from models.graph.molecule_schema import MAX_ATOMS, MAX_BONDS, SYMBOLS, Assets, Instance
from models.graph.train.label_names import NO_NAMES, Names, find_names
from models.graph.tu import PARTS, Graphs, files_of, read_graphs, with_test
from models.reading import HeldOut, beside
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
# Cross-validating more of a user's own graphs than these takes hours: --folds asks for it.
MOST_UNASKED = 1000
MAX_DEGREES = 8


class MoleculeOptions(HeldOut, frozen=True, kw_only=True, omit_defaults=True):
    """Describe what the command line may say of a folder of graphs."""

    names: Annotated[
        str,
        Meta(
            description="A file with lines of number and name below 'Node labels' and 'Class labels'.",
            extra={"is_path": True},
        ),
    ] = ""
    test_from: Annotated[
        Literal["", "0", "1"], Meta(description="The first graph's number in a list --test: 1 (default) or 0.")
    ] = ""
    folds: Annotated[
        Literal["", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"],
        Meta(description="How many of ten folds to cross-validate; by default 10, or 0 for more than 1,000 graphs."),
    ] = ""


AS_IT_IS = MoleculeOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoleculeData:
    """Molecules, their class ids ``(N,)`` int64, and the molecules of each split."""

    provenance: Provenance
    assets: Assets
    molecules: list[Instance]
    labels: Ints
    splits: dict[str, Ints]

    @property
    def metric(self) -> ScoreMetric:
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


def load_molecules(
    path: Path | None = None, seed: int = 0, fold: int = 0, options: MoleculeOptions = AS_IT_IS
) -> MoleculeData:
    """Read MUTAG, or a folder with the files ``NAME_A.txt``, ``NAME_graph_indicator.txt`` and so on.

    Args:
        path: ``None`` for MUTAG.
        seed: Of the ten stratified folds.
        fold: The one to test on, unless the test part is given; the next is for validation, the rest for training.
        options: What else is said of a user's own folder.

    Raises:
        DataError: With file, line, what was found and what was expected.
    """
    if path is None:
        name, origin = "MUTAG", provenance(MUTAG)
        numbers, names = read_graphs(name, {part: read(MUTAG, f"MUTAG_{part}.txt") for part in PARTS}), NO_NAMES
        is_test = np.zeros(len(numbers.label), bool)
    else:
        (name, paths), given = files_of(path), beside(path, options.names)
        numbers = read_graphs(name, {part: file.read_bytes() for part, file in zip(PARTS, paths, strict=True)})
        names = find_names(path, name, given)
        numbers, is_test, more = with_test(numbers, beside(path, options.test), int(options.test_from or 1))
        origin = own_provenance(*paths, test=more)
    molecules, labels, assets, kept = _assemble(name, numbers, names, is_named=bool(options.names))
    is_test = is_test[kept]
    rest = np.flatnonzero(~is_test)
    _check_classes(name, labels[rest], int((~kept).sum()))
    folds = np.full(len(labels), -1)
    folds[rest] = fold_of_each(labels[rest], seed)
    held = {"test": is_test if is_test.any() else folds == fold, "validation": folds == (fold + 1) % FOLDS}
    splits = {"train": ~(held["test"] | held["validation"]), **held}
    return MoleculeData(
        provenance=replace(origin, notes=_notes(numbers, kept, names, assets)),
        assets=assets,
        molecules=molecules,
        labels=labels,
        splits={split: np.flatnonzero(mask) for split, mask in splits.items()},
    )


def _notes(numbers: Graphs, kept: NDArray[np.bool_], names: Names, assets: Assets) -> tuple[str, ...]:
    """Return what their owner should know: graphs that were passed over, and where names come from."""
    notes = []
    if not kept.all():
        limits = f"1 to {MAX_ATOMS} atoms and at most {MAX_BONDS} bonds"
        first = int((~kept).argmax()) + 1
        notes.append(f"{(~kept).sum()} of {len(kept)} graphs passed over, the first is graph {first}: not {limits}")
    for what, found in (("atoms", assets.atoms), ("classes", assets.classes)):
        if found and found == names.of(what, np.unique(numbers.kind if what == "atoms" else numbers.label).tolist()):
            notes.append(f"{what} are named by {names.file}: {', '.join(found)}")
    return tuple(notes)


def fold_of_each(labels: Ints, seed: int) -> Ints:
    """Ten folds ``(N,)`` of nearly equal size, each with nearly the same shares of the classes."""
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    folds = np.empty_like(labels)
    # Dealt out like cards, one class after the other: sizes differ by one at most.
    folds[np.concatenate(by_class)] = np.arange(len(labels)) % FOLDS
    return folds


def _assemble(
    name: str, numbers: Graphs, names: Names, *, is_named: bool
) -> tuple[list[Instance], Ints, Assets, NDArray[np.bool_]]:
    """Molecules that a request could hold, their class ids, constants, and which of the graphs they are."""
    values, labels = np.unique(numbers.label, return_inverse=True)
    symbols, symbol_ids = _symbols(name, numbers.kind, names)
    graphs = _cut(symbols, symbol_ids, numbers)
    kept = np.array([1 <= len(one.atoms) <= MAX_ATOMS and len(one.bonds) <= MAX_BONDS for one in graphs], bool)
    molecules = [one for one, is_kept in zip(graphs, kept.tolist(), strict=True) if is_kept]
    most = max((np.bincount(np.ravel(one.bonds).astype(int), minlength=1).max() for one in molecules), default=0)
    known = CLASSES.get(name, [])
    if len(known) != len(values):
        known = names.of("classes", values.tolist()) or [str(value) for value in values.tolist()]
    if is_named and not (names.of("classes", values.tolist()) or names.of("atoms", np.unique(numbers.kind).tolist())):
        expected = "below 'Node labels' or 'Class labels' a line with number and name for each, at most 16 characters"
        raise DataError(names.file, found="no name for each atom or each class", expected=expected)
    assets = Assets(classes=known, atoms=symbols, degrees=min(int(most) + 1, MAX_DEGREES))
    return molecules, labels[kept], assets, kept


def _symbols(name: str, kind: Ints, names: Names) -> tuple[list[str], Ints]:
    """Names of the atoms' kinds, and the place of each atom's; its number stands for an unnamed kind."""
    kinds, positions = np.unique(kind, return_inverse=True)
    known = SYMBOLS.get(name, [])
    if kinds[0] >= 0 and kinds[-1] < len(known):
        return known, kind
    return names.of("atoms", kinds.tolist()) or [str(value) for value in kinds.tolist()], positions


def _check_classes(name: str, labels: Ints, passed: int) -> None:
    if len(labels) < FOLDS or len(np.unique(labels)) < 2:
        found = f"{len(labels)} graphs of {len(np.unique(labels))} classes to learn from"
        found += f" and {passed} that are empty or too large" if passed else ""
        raise DataError(f"{name}_graph_labels.txt", found=found, expected=f"at least {FOLDS} of at least 2")


def _cut(symbols: Sequence[str], symbol_ids: Ints, numbers: Graphs) -> list[Instance]:
    """Return one request per graph: atoms in the file's order, each bond once."""
    bonds, graph, graphs = numbers.bonds, numbers.graph, len(numbers.label)
    atoms: list[list[str]] = [[] for _ in range(graphs)]
    positions = []
    for number, symbol in zip(graph.tolist(), symbol_ids.tolist(), strict=True):
        positions.append(len(atoms[number]))
        atoms[number].append(symbols[symbol])
    pairs: list[set[tuple[int, int]]] = [set() for _ in range(graphs)]
    for u, v in bonds.tolist():
        if u != v:
            pairs[graph[u]].add((min(positions[u], positions[v]), max(positions[u], positions[v])))
    return [Instance(atoms=a, bonds=sorted(b)) for a, b in zip(atoms, pairs, strict=True)]
