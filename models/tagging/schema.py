"""Define tagging requests and answers."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from propcache.api import cached_property

from models.card import Array
from models.errors import Fault
from models.narrowing import Narrowing
from models.tagging import spelling
from models.tagging.cutter import WordCutter
from models.tagging.tokeniser import split_words

MAX_CHARACTERS = 20_000
MAX_TOKENS = 512
# An address in EWT's test part has 473.
MAX_TOKEN_CHARACTERS = 512
MAX_FAULTS = 8
# Unicode's category Cc, and surrogates, which no UTF-8 has; running text may have tabs and line ends.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

Text = Annotated[
    str, Meta(max_length=MAX_CHARACTERS, description="Running text in the model's language, of at most 512 words.")
]
Tokens = Annotated[
    list[str],
    Meta(
        description="The words of one sentence, punctuation apart, as in Universal Dependencies.",
        extra_json_schema={
            "maxItems": MAX_TOKENS,
            "items": {"type": "string", "minLength": 1, "maxLength": MAX_TOKEN_CHARACTERS},
        },
    ),
]


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One sentence: either running text or its words."""

    text: Text | UnsetType = UNSET
    tokens: Tokens | UnsetType = UNSET

    def cut(self, assets: "Assets") -> list[str]:
        """Return the words to tag; ``text`` is cut once, and never into more than one word too many."""
        if isinstance(self.tokens, list):
            return self.tokens
        memory = vars(self)
        cutter, words = memory.get("cut_words", (self, list[str]()))
        if cutter is not assets.cutter:  # another version of the model may cut otherwise
            text = self.text if isinstance(self.text, str) else ""
            words = list(islice(assets.split(text), MAX_TOKENS + 1))
            memory["cut_words"] = assets.cutter, words
        found: list[str] = words
        return found


class Prediction(TypedDict):
    """Words, the likeliest tag of each, and that tag's probability, all in order and of one length ``T``.

    ``attention`` has shape ``(layers, heads, T, T)``: how much the word of the row looked at the word of the
    column; each row sums to 1.
    """

    tokens: list[str]
    tags: list[str]
    scores: Array
    attention: NotRequired[Array]


class Assets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Constants of a tagger.

    Attributes:
        words: The known words, lower-cased, in composed form (NFC).
        clues: The known beginnings, endings and shapes, as ``spelling.find_clues`` writes them.
        tags: Tag names in the order of the scores.
        layers: Attention layers.
        heads: Attention heads in a layer.
        cutter: How ``text`` is cut into words; ``None``: it is refused; unset: as English is.
        example: A text or its words for the documentation; unset: an English one.
    """

    words: list[str]
    clues: list[str]
    tags: list[str]
    layers: int = 2
    heads: int = 8
    # Unset fields are not written: artifacts from before there were such things keep their bytes.
    cutter: WordCutter | UnsetType | None = UNSET
    example: str | list[str] | UnsetType = UNSET

    def split(self, text: str) -> Iterator[str]:
        """Return the words of a running text, one after the other."""
        if isinstance(self.cutter, WordCutter):
            return self.cutter.split(text)
        return iter(()) if self.cutter is None else split_words(text)

    @property
    def sizes(self) -> dict[str, int]:
        """Static axes, and the ``rows`` of the embedding table."""
        return {
            "rows": self.rows,
            "features": spelling.FEATURES,
            "tags": len(self.tags),
            "layers": self.layers,
            "heads": self.heads,
        }

    @property
    def rows(self) -> int:
        """Rows of the embedding table; every feature id is below."""
        return spelling.RESERVED + len(self.words) + len(self.clues)

    @cached_property
    def features(self) -> Callable[[str], bytes]:
        """Return the features of a word as the bytes of ``(features,)`` int64; frequent words are remembered."""
        words = {word: index for index, word in enumerate(self.words)}
        clues = {clue: index for index, clue in enumerate(self.clues)}

        # A treebank of 200,000 words has 20,000 different ones; remembering fewer, a corpus read again and again finds
        # none of them remembered.
        @lru_cache(maxsize=32_768)
        def look_up(word: str) -> bytes:
            return np.array(spelling.features(word, words, clues), np.int64).tobytes()

        return look_up


def validate(instance: Instance, assets: Assets) -> Iterator[Fault]:
    """Yield faults: not exactly one of ``text`` and ``tokens``, too many words, words that are none."""
    if isinstance(instance.text, UnsetType) == isinstance(instance.tokens, UnsetType):
        yield Fault((), "expected exactly one of 'text' and 'tokens'")
    elif isinstance(instance.tokens, UnsetType):
        yield from _find_text_faults(instance, assets)
    elif len(instance.tokens) > MAX_TOKENS:
        yield Fault(("tokens",), f"expected at most {MAX_TOKENS} tokens, found {len(instance.tokens)}")
    elif any(map(find_flaw, instance.tokens)):
        flaws = ((index, find_flaw(word)) for index, word in enumerate(instance.tokens))
        faults = (Fault(("tokens", index), flaw.reason) for index, flaw in flaws if flaw is not None)
        yield from islice(faults, MAX_FAULTS)


def _find_text_faults(instance: Instance, assets: Assets) -> Iterator[Fault]:
    if assets.cutter is None:
        yield Fault(("text",), "this model takes tokens only: it has not learned to cut text into words")
        return
    flaw, words = None, instance.cut(assets)
    if isinstance(instance.text, str):
        flaw = _find_control(_CONTROL_IN_TEXT, instance.text)
    if flaw is None and len(words) > MAX_TOKENS:
        flaw = Flaw(f"at most {MAX_TOKENS} words", "more")
    flaw = flaw or next(filter(None, map(find_flaw, words)), None)
    if flaw is not None:
        yield Fault(("text",), flaw.reason)


class Flaw(NamedTuple):
    """Describe what was expected of a text and what was found instead."""

    expected: str
    found: str

    @property
    def reason(self) -> str:
        """Both in a sentence."""
        return f"expected {self.expected}, found {self.found}"


@lru_cache(maxsize=32_768)
def find_flaw(word: str) -> Flaw | None:
    """Return why this cannot be a word, if it cannot."""
    if not word:
        return Flaw("a word", "an empty string")
    if word.isspace():
        return Flaw("a word", "only white space")
    if len(word) > MAX_TOKEN_CHARACTERS:
        return Flaw(f"at most {MAX_TOKEN_CHARACTERS} characters in a word", f"{len(word)}")
    return _find_control(_CONTROL, word)


def has_flaws(words: Sequence[str]) -> bool:
    """Return whether any of these cannot be a word."""
    is_short = max(map(len, words), default=0) <= MAX_TOKEN_CHARACTERS
    is_there = all(words) and not any(map(str.isspace, words))
    return not (is_short and is_there) or _CONTROL.search("".join(words)) is not None


def _find_control(pattern: re.Pattern[str], text: str) -> Flaw | None:
    found = pattern.search(text)
    if found is None:
        return None
    return Flaw("no control characters", f"U+{ord(found[0]):04X} at position {found.start()}")


def narrow(assets: Assets) -> Narrowing:
    """Return its tags, and whether and of what language it takes ``text``."""
    text: dict[str, Any] | None = {}
    if assets.cutter is None:
        text = None
    elif isinstance(assets.cutter, UnsetType):
        text = {"description": f"Running text in English, of at most {MAX_TOKENS} words."}
    return Narrowing({"text": text}, {"tags": {"items": {"type": "string", "enum": assets.tags}}})


def example(assets: Assets) -> Instance:
    """A sentence of the model's own training data; of English, one in which the same word is a verb and a noun."""
    if isinstance(assets.example, list):
        return Instance(tokens=assets.example)
    return Instance(text=assets.example if isinstance(assets.example, str) else "I saw a saw")


def random_request(rng: np.random.Generator, assets: Assets) -> Instance:
    """One to 60 words, now and then 120: known words and random strings, sometimes as text where that is taken."""
    kind = rng.random()
    count = 1 if kind < 0.1 else 120 if kind > 0.9 else int(rng.integers(1, 61))
    tokens = [_random_word(rng, assets) for _ in range(count)]
    is_text = rng.random() < 0.25 and assets.cutter is not None
    return Instance(text=" ".join(tokens)) if is_text else Instance(tokens=tokens)


def _random_word(rng: np.random.Generator, assets: Assets) -> str:
    if assets.words and rng.random() < 0.8:
        return assets.words[rng.integers(len(assets.words))]
    letters = rng.choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789éßд"), rng.integers(1, 12))
    return "".join(letters.tolist())
