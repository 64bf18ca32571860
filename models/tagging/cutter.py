"""Running text to words as a treebank writes them: rules that were learned from its spacing. No numpy, no torch."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec
from propcache.api import cached_property

# What stands outside a chunk, which has no spaces; as many as the widest window looks to one side.
EDGE = " "
REACH = 5
# A chunk longer than this is cut anew each time, so that remembered ones take little room.
REMEMBERED = 64
# Pages' and people's addresses are words in every treebank, and too rare in most to be learned: seen as letters only.
_ADDRESS = re.compile(
    r"""(?:https?://|ftp://|www\.)[^\s<>"]*[^\s<>"'.,;:!?)\]}]|[^\s@<>()\[\]"',;:]{1,64}@[a-z0-9][a-z0-9._-]{0,252}(?<=[a-z0-9])""",
    re.IGNORECASE,
)


class Side(NamedTuple):
    """So many characters beside a place, seen as themselves (folded), as shapes (``a0``), or as kinds (``a0!``)."""

    view: int
    size: int


FOLDED, SHAPES, KINDS = 0, 1, 2
# What is seen to the left and to the right of a place between two characters, from general to specific: the most
# specific window whose content has a rule decides.
WINDOWS = tuple(
    (Side(*left), Side(*right))
    for left, right in (
        ((KINDS, 1), (KINDS, 1)),
        ((SHAPES, 1), (SHAPES, 1)),
        ((SHAPES, 2), (SHAPES, 2)),
        ((FOLDED, 1), (SHAPES, 1)),
        ((SHAPES, 1), (FOLDED, 1)),
        ((SHAPES, 3), (SHAPES, 3)),
        ((FOLDED, 2), (SHAPES, 1)),
        ((SHAPES, 1), (FOLDED, 2)),
        ((FOLDED, 3), (SHAPES, 1)),
        ((SHAPES, 1), (FOLDED, 3)),
        ((FOLDED, 2), (FOLDED, 2)),
        ((FOLDED, 4), (SHAPES, 1)),
        ((SHAPES, 1), (FOLDED, 4)),
        ((FOLDED, 3), (FOLDED, 3)),
        ((FOLDED, 5), (FOLDED, 2)),
        ((FOLDED, 2), (FOLDED, 5)),
        ((FOLDED, 5), (FOLDED, 5)),
    )
)


class WordCutter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Describe what a treebank's spacing taught.

    Attributes:
        rules: Of each of ``WINDOWS``, by what is seen in it, ``left`` and ``right`` joined: whether a word ends there.
        parts: The words that a piece of text stands for, by the folded piece: ``du`` is ``de`` and ``le``.
    """

    rules: list[dict[str, bool]]
    parts: dict[str, list[str]]

    def split(self, text: str) -> Iterator[str]:
        """Yield the words of a text in composed form (NFC), one after the other; in time linear in the text."""
        for chunk in unicodedata.normalize("NFC", text).split():
            yield from self._remembered(chunk) if len(chunk) <= REMEMBERED else self._words(chunk)

    @cached_property
    def _remembered(self) -> Callable[[str], tuple[str, ...]]:
        return lru_cache(maxsize=32_768)(lambda chunk: tuple(self._words(chunk)))

    def _words(self, chunk: str) -> Iterator[str]:
        start = 0
        for cut_at in (*self._cuts(chunk), len(chunk)):
            piece = chunk[start:cut_at]
            start = cut_at
            parts = self.parts.get(fold(piece))
            yield from [piece] if parts is None else like(piece, parts)

    def _cuts(self, chunk: str) -> Iterator[int]:
        """Yield the places ``1 .. len(chunk) - 1`` at which a word ends."""
        views = look(chunk)
        kinds, cuttable = views[KINDS], self._cuttable
        for cut_at in range(1, len(chunk)):
            at = cut_at + REACH
            if kinds[at - 1 : at + 1] in cuttable and self._is_cut(views, at):
                yield cut_at

    def _is_cut(self, views: tuple[str, str, str], at: int) -> bool:
        for (left, right), rules in self._specific_first:
            seen = views[left.view][at - left.size : at] + views[right.view][at : at + right.size]
            decision = rules.get(seen)
            if decision is not None:
                return decision
        return False

    @cached_property
    def _specific_first(self) -> list[tuple[tuple[Side, Side], dict[str, bool]]]:
        return [(window, rules) for window, rules in zip(WINDOWS, self.rules, strict=True) if rules][::-1]

    @cached_property
    def _cuttable(self) -> frozenset[str]:
        """The kinds of two neighbours between which any rule ends a word: most places are between two letters."""
        return frozenset(
            "".join(map(_kind, seen[left.size - 1 : left.size + 1]))
            for (left, _), rules in zip(WINDOWS, self.rules, strict=True)
            for seen, is_cut in rules.items()
            if is_cut
        )


def look(chunk: str) -> tuple[str, str, str]:
    """Return a chunk folded, as shapes and as kinds, each with ``REACH`` edges on both sides."""
    edges = EDGE * REACH
    chunk = _ADDRESS.sub(lambda address: "a" * len(address[0]), chunk)
    shapes = "".join(map(_shape, chunk))
    views = fold(chunk), shapes, "".join(map(_kind, shapes))
    return edges + views[0] + edges, edges + views[1] + edges, edges + views[2] + edges


def like(piece: str, parts: list[str]) -> list[str]:
    """Return the words in the piece's case: ``Du`` is ``De`` and ``le``, ``DU`` is ``DE`` and ``LE``."""
    if len(piece) > 1 and piece.isupper():
        return [part.upper() for part in parts]
    if piece[:1].isupper():
        return [parts[0][:1].upper() + parts[0][1:], *parts[1:]]
    return parts


@lru_cache(maxsize=4096)
def _fold(character: str) -> str:
    lower = "'" if character == "’" else character.lower()
    return lower if len(lower) == 1 else character


def fold(text: str) -> str:
    """Lower case, of the same length; the curved apostrophe is the straight one, whichever the treebank has."""
    return "".join(map(_fold, text))


@lru_cache(maxsize=4096)
def _shape(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in "LM" or category == "Cf":
        return "a"
    return "0" if category[0] == "N" else _fold(character)


def _kind(shape: str) -> str:
    return shape if shape in ("a", "0", EDGE) else "a" if shape.isalpha() else "0" if shape.isnumeric() else "!"
