"""Define requests for the label of a molecule, and their answers."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import numpy as np
from msgspec import Meta
from propcache.api import cached_property

from models.card import Array
from models.errors import Fault
from models.graph.citation_schema import MAX_FAULTS, Id, outside_links
from models.narrowing import Narrowing

MAX_ATOMS = 256
MAX_BONDS = 1024
MAX_SYMBOL = 16
# What the numbers of atoms stand for in known sets of molecules, as their own pages say.
SYMBOLS = {"MUTAG": ["C", "N", "O", "F", "I", "Cl", "Br"]}

Symbol = Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL)]


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A molecule without its hydrogens: atoms, and which of them are bonded."""

    atoms: Annotated[list[Symbol], Meta(min_length=1, max_length=MAX_ATOMS, description="Symbols, e.g. C, N, O.")]
    bonds: Annotated[
        list[tuple[Id, Id]],
        Meta(max_length=MAX_BONDS, description="Pairs of atoms, numbered from 0, in any order."),
    ] = []


class AtomExplanation(TypedDict):
    """The attention of all layers, the heads of the first layer first.

    ``edges`` ``(E, 2)`` are pairs of source and target atom, ``weights`` ``(heads, E)``. For each head the
    weights into one target sum to 1. Every atom also attends to itself; in a model that attends by distance, to
    atoms two bonds away as well.
    """

    edges: Array
    weights: Array


class Prediction(TypedDict):
    """The likeliest class and the probability of each, in the model's class order."""

    label: str
    class_id: int
    score: float
    scores: Array
    attention: NotRequired[AtomExplanation]


class Assets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Constants of a model that labels molecules.

    Attributes:
        classes: Class names in the order of the scores.
        atoms: Known symbols; the place of a symbol is its feature id.
        heads: Attention heads of each layer.
        hops: How far one layer hears: 1, or 2 bonds.
        degrees: Bond counts the model tells apart, 0 to ``degrees - 1``; more bonds count as the last.
    """

    classes: list[str]
    atoms: list[str]
    heads: list[int] = msgspec.field(default_factory=lambda: [4, 4, 4])
    hops: int = 1
    degrees: int = 5

    @property
    def sizes(self) -> dict[str, int]:
        """Static axes and the ``rows`` of features; ``heads`` are all layers', the third end of an edge is its hop."""
        sizes = {"ends": 2 if self.hops == 1 else 3, "classes": len(self.classes), "heads": sum(self.heads)}
        return sizes | {"rows": len(self.atoms) + self.degrees}

    @cached_property
    def symbol_ids(self) -> dict[str, int]:
        """Feature id by symbol."""
        return {symbol: number for number, symbol in enumerate(self.atoms)}


def validate(instance: Instance, assets: Assets) -> Iterator[Fault]:
    """Yield up to eight faults: unknown symbols, and bonds of atoms that are not there."""
    known = f"expected one of {', '.join(assets.atoms)}"
    unknown = (
        Fault(("atoms", number), known)
        for number, symbol in enumerate(instance.atoms)
        if symbol not in assets.symbol_ids
    )
    yield from islice(chain(unknown, outside_links(instance.bonds, len(instance.atoms), "bonds")), MAX_FAULTS)


def narrow(assets: Assets) -> Narrowing:
    """Return its atoms and classes."""
    atoms = {"description": "Symbols of atoms.", "items": {"type": "string", "enum": assets.atoms}}
    ids = {"minimum": 0, "maximum": len(assets.classes) - 1}
    answer: dict[str, dict[str, Any]] = {"label": {"enum": assets.classes}, "class_id": ids}
    return Narrowing({"atoms": atoms}, answer)


def example(assets: Assets) -> Instance:
    """Nitrobenzene where the model knows its atoms; else a ring of six of the first symbol."""
    ring = [(atom, (atom + 1) % 6) for atom in range(6)]
    if not {"C", "N", "O"} <= assets.symbol_ids.keys():
        return Instance(atoms=[assets.atoms[0]] * 6, bonds=ring)
    return Instance(atoms=[*"CCCCCCNOO"], bonds=[*ring, (5, 6), (6, 7), (6, 8)])


def random_request(rng: np.random.Generator, assets: Assets) -> Instance:
    """Return a random tree of one to forty atoms, closed to rings here and there, sometimes with a bond twice."""
    atoms = 1 if rng.random() < 0.1 else int(rng.integers(2, 41))
    symbols = rng.choice(np.asarray(assets.atoms), atoms).tolist()
    bonds = [(atom, int(rng.integers(max(0, atom - 4), atom))) for atom in range(1, atoms)]
    bonds += [(atom, atom - 5) for atom in range(5, atoms) if rng.random() < 0.15]
    if bonds and rng.random() < 0.2:
        bonds += [bonds[0][::-1], (0, 0)]
    return Instance(atoms=symbols, bonds=[bonds[index] for index in rng.permutation(len(bonds))])
