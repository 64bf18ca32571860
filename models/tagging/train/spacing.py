"""Learn from a treebank's own spacing how its text is cut into words. Torch-free."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple
from unicodedata import normalize

from models.tagging.cutter import REACH, WINDOWS, WordCutter, fold, look

# A rule for fewer places than this is one for a misprint.
MIN_GAIN = 2
_CUT = "\x1f"


class Surface(NamedTuple):
    """A token as it is written: its form, the words it stands for, and whether a space follows."""

    form: str
    words: Sequence[str]
    is_spaced: bool

    @property
    def pieces(self) -> Sequence[str]:
        """Return its words where they are parts of it (``do|n't``), else itself (``du``)."""
        return self.words if "".join(self.words) == self.form else [self.form]


class _WordPosition(NamedTuple):
    """A place inside a chunk, its views, whether a word ends there, and in how many chunks."""

    views: tuple[str, str, str]
    at: int
    is_cut: bool
    chunks: int


def text_of(surfaces: Iterable[Surface]) -> str:
    """Return the running text of a sentence."""
    return "".join(f"{surface.form} " if surface.is_spaced else surface.form for surface in surfaces).strip()


def respaced(surfaces: Sequence[Surface], text: str) -> Sequence[Surface]:
    """The same tokens with the spaces of the text, where it is theirs: many files have it without ``SpaceAfter=No``."""
    found, end = [], 0
    for surface in surfaces:
        if not text.startswith(surface.form, end):
            return surfaces
        end += len(surface.form)
        rest = text[end:].lstrip()
        found.append(surface._replace(is_spaced=len(rest) < len(text) - end or not rest))
        end = len(text) - len(rest)
    return found if end == len(text) else surfaces


def learn(sentences: Iterable[Sequence[Surface]]) -> WordCutter | None:
    """Rules for the places at which words end without a space; ``None`` where no word does, so nothing is known.

    From general to specific, each window adds the rules that put more places right than those before.
    """
    sentences = list(sentences)
    chunks = Counter(chain_chunks(sentences))
    if not any(_CUT in chunk for chunk in chunks):
        return None
    positions = [position for chunk, count in chunks.items() for position in _places(chunk, count)]
    decisions = [False] * len(positions)
    rules = []
    for left, right in WINDOWS:
        seen = [
            position.views[left.view][position.at - left.size : position.at]
            + position.views[right.view][position.at : position.at + right.size]
            for position in positions
        ]
        added = _better_rules(seen, positions, decisions)
        decisions = [added.get(content, decision) for content, decision in zip(seen, decisions, strict=True)]
        rules.append(dict(sorted(added.items())))
    return WordCutter(rules=rules, parts=_parts(sentences))


def chain_chunks(sentences: Iterable[Sequence[Surface]]) -> Iterator[str]:
    """Yield what stands between spaces, with a mark where words meet in it."""
    for surfaces in sentences:
        marked = "".join(_CUT.join(surface.pieces) + (" " if surface.is_spaced else _CUT) for surface in surfaces)
        yield from (chunk.strip(_CUT) for chunk in normalize("NFC", marked).split(" ") if chunk.strip(_CUT))


def _places(marked: str, count: int) -> Iterator[_WordPosition]:
    pieces = marked.split(_CUT)
    ends = {sum(map(len, pieces[: number + 1])) for number in range(len(pieces))}
    views = look("".join(pieces))
    for position in range(1, max(ends)):
        yield _WordPosition(views, position + REACH, position in ends, count)


def _better_rules(
    seen: Sequence[str], positions: Sequence[_WordPosition], decisions: Sequence[bool]
) -> dict[str, bool]:
    """The contents of a window whose majority puts at least ``MIN_GAIN`` more places right than the decisions do."""
    cut: defaultdict[str, int] = defaultdict(int)
    whole: defaultdict[str, int] = defaultdict(int)
    right: defaultdict[str, int] = defaultdict(int)
    for content, position, decision in zip(seen, positions, decisions, strict=True):
        (cut if position.is_cut else whole)[content] += position.chunks
        if decision == position.is_cut:
            right[content] += position.chunks
    return {
        content: cut[content] > whole[content]
        for content in sorted({*cut, *whole})
        if max(cut[content], whole[content]) - right[content] >= MIN_GAIN
    }


def _parts(sentences: Iterable[Sequence[Surface]]) -> dict[str, list[str]]:
    """Of pieces that mostly stand for words which are no parts of them, these words."""
    counts: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for surface in (surface for surfaces in sentences for surface in surfaces):
        pieces = surface.pieces
        words = tuple(surface.words) if pieces[0] == surface.form else ()
        counts[fold(surface.form)][_lowered(words) if len(words) > 1 else ()] += 1
    likeliest = {piece: found.most_common(1)[0][0] for piece, found in sorted(counts.items())}
    return {piece: list(words) for piece, words in likeliest.items() if words}


def _lowered(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.lower() if word.isupper() else word[:1].lower() + word[1:] for word in words)


def aligned(found: Sequence[str], true: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of words that both have, in order: no word of either twice."""
    for block in SequenceMatcher(None, found, true, autojunk=False).get_matching_blocks():
        yield from zip(range(block.a, block.a + block.size), range(block.b, block.b + block.size), strict=True)


def f1(hits: int, found: int, true: int) -> float:
    """Harmonic mean of precision and recall in %."""
    return 100 * 2 * hits / max(1, found + true)
