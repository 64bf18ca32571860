"""Turn a word into what a tagger sees: its identity if known, beginnings and endings, shape. Torch-free."""

from collections.abc import Mapping
from itertools import groupby
from unicodedata import normalize

# Reserved ids; known words follow, then known clues.
ABSENT, UNKNOWN, FIRST = 0, 1, 2
RESERVED = 3
PREFIXES = (1, 2, 3, 4)
SUFFIXES = (1, 2, 3, 4, 5)
LONGEST = 12
CLUES = len(PREFIXES) + len(SUFFIXES) + 3
# The feature that says which word it is, and the one that says whether it opens the sentence.
IDENTITY, PLACE = 0, CLUES + 1
FEATURES = CLUES + 2


def fold(word: str) -> str:
    """Return the word as the vocabulary has it: lower-case and in composed form (NFC)."""
    return normalize("NFC", normalize("NFC", word).lower())


def find_clues(word: str) -> list[str]:
    """Return what the spelling tells, one text per slot with the slot's number in front; empty where there is none.

    In order: the first 1 to 4 and the last 1 to 5 characters, the shape (``Xxxx-ddd``) in short (``Xx-d``)
    and from the left, the length.
    """
    folded = fold(word)
    shape = "".join(map(_kind, normalize("NFC", word)))
    texts = [folded[:size] if len(folded) >= size else "" for size in PREFIXES]
    texts += [folded[-size:] if len(folded) >= size else "" for size in SUFFIXES]
    texts += ["".join(kind for kind, _ in groupby(shape))[:LONGEST], shape[:LONGEST]]
    texts += [str(min(len(folded), LONGEST))]
    return [f"{slot}:{text}" if text else "" for slot, text in enumerate(texts)]


def features(word: str, words: Mapping[str, int], clues: Mapping[str, int]) -> list[int]:
    """``FEATURES`` ids of one word, each below ``RESERVED + len(words) + len(clues)``.

    Which word it is, its clues, and at ``PLACE`` that it does not open the sentence.

    Args:
        word: Any non-empty text; NFC and NFD spellings give the same ids.
        words: Known folded words and their places.
        clues: Known clues and their places.
    """
    feature_id = words.get(fold(word))
    ids = [UNKNOWN if feature_id is None else RESERVED + feature_id]
    for clue in find_clues(word):
        feature_id = clues.get(clue)
        ids.append(ABSENT if not clue else UNKNOWN if feature_id is None else RESERVED + len(words) + feature_id)
    return [*ids, ABSENT]


def _kind(character: str) -> str:
    if character.isupper():
        return "X"
    if character.islower():
        return "x"
    if character.isdecimal():
        return "d"
    return "o" if character.isalpha() else character
