"""CoNLL-U: a sentence is a row. https://universaldependencies.org/format.html.

Multiword tokens (``3-4``) and empty nodes (``5.1``) are passed over: tags are given to words.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from models.errors import DataError, Fault, InvalidRequest, MalformedRequest
from models.registry import find_card
from service.scoring.source import Cut
from service.scoring.sources.columns import kinds
from service.scoring.sources.cutting import MAX_ROW_BYTES, Cutter, Places
from service.scoring.spec import Spec
from service.scoring.storage import Pass, Spans

WORDS = "tokens"
COLUMNS = 10
_BLANK = re.compile(rb"\n\r?\n")
_HAS_WORDS = re.compile(rb"^[^#\r\n]", re.MULTILINE)
_COMMENT = re.compile("^#[^\\n]*", re.MULTILINE)
_NO_WORD = re.compile(r"[0-9]+(-|\.)[0-9]+")
# Longer sentences are read line by line.
_IDS = [*map(str, range(1, 1001))]
COMMENTS = ("sent_id", "text")


def sentence_ends(text: bytes) -> Places:
    """Places after the blank line that ends each sentence; comments alone belong to the sentence after them."""
    ends, start = [], 0
    for blank in _BLANK.finditer(text):
        if _HAS_WORDS.search(text, start, blank.start() + 1) is not None:
            ends.append(blank.end())
            start = blank.end()
    return np.array(ends, np.int64)


class ConlluSource:
    """A CoNLL-U file."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self.card = spec, find_card(spec.family, spec.task)
        if WORDS not in kinds(self.card):
            raise DataError(spec.source, found="CoNLL-U", expected=f"another format: {spec.model} does not read words")
        self._pass = Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        self.schema = pa.schema([(name, pa.string()) for name in COMMENTS])

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def cuts(self) -> Iterator[Cut]:
        """Parts of whole sentences.

        Raises:
            DataError: If a sentence has no end.
        """
        cutter, rest = None, b""
        for block in self._pass.blocks():
            start = 0
            if cutter is None:
                start = len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0
                cutter = Cutter(self._spec.options, start)
            rest += block[start:]
            ends = sentence_ends(rest)
            end = int(ends[-1]) if len(ends) else 0
            yield from cutter.add(rest[:end], ends)
            rest = rest[end:]
            if len(rest) > MAX_ROW_BYTES:
                expected = f"sentences of at most {MAX_ROW_BYTES} bytes, with a blank line after each"
                raise DataError(self._spec.source, found="a longer one", expected=expected)
        cutter = cutter or Cutter(self._spec.options, 0)
        yield from cutter.add(rest, sentence_ends(b""))
        yield from cutter.end(is_row=lambda tail: _HAS_WORDS.search(tail) is not None)

    def read(self, cut: Cut) -> "ConlluRows":
        """The sentences of a part."""
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        ends = sentence_ends(data).tolist()
        sentences = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        if len(sentences) < cut.rows:
            sentences.append(data[ends[-1] if ends else 0 :])
        return ConlluRows(self, sentences)


class ConlluRows:
    """Sentences."""

    def __init__(self, source: ConlluSource, sentences: list[bytes]) -> None:
        self._source, self._sentences, self.count = source, sentences, len(sentences)

    def instance(self, row: int) -> Any:
        """The words of a sentence."""
        try:
            text = self._sentences[row].decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest("the sentence is not UTF-8") from error
        found = plain_words(text)
        return msgspec.convert({WORDS: words(text.split("\n")) if found is None else found}, self._source.card.instance)

    def _comments(self, row: int) -> dict[str, str]:
        pairs = (line[1:].partition("=") for line in _COMMENT.findall(self._sentences[row].decode(errors="replace")))
        return {key.strip(): value.strip() for key, _, value in pairs}

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def table(self) -> pa.Table:
        """What the comments ``sent_id`` and ``text`` say."""
        comments = [self._comments(row) for row in range(self.count)]
        columns = [pa.array([one.get(name) for one in comments], pa.string()) for name in COMMENTS]
        return pa.table(columns, schema=self._source.schema)

    def lines(self) -> list[bytes] | None:
        """None: a sentence is many lines."""
        return None


def plain_words(text: str) -> list[str] | None:
    """The words of a sentence in which nothing is strange; ``None``: line by line it shows what is."""
    lines = [line for line in text.split("\n") if line and line[0] != "#"]
    if "\r" in text or any(line.count("\t") != COLUMNS - 1 for line in lines):
        return None
    rows = [line.split("\t", 2) for line in lines]
    if [row[0] for row in rows] != _IDS[: len(rows)]:
        rows = [row for row in rows if _NO_WORD.fullmatch(row[0]) is None]
        if [row[0] for row in rows] != _IDS[: len(rows)]:
            return None
    return [row[1] for row in rows]


def words(lines: list[str]) -> list[str]:
    """The forms of a sentence's words.

    Raises:
        MalformedRequest: If a line is not CoNLL-U.
    """
    found: list[str] = []
    for line in lines:
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != COLUMNS:
            raise MalformedRequest(f"word {len(found) + 1}: expected {COLUMNS} columns, found {len(columns)}")
        if _NO_WORD.fullmatch(columns[0]) is not None:
            continue
        if columns[0] != str(len(found) + 1):
            fault = Fault((WORDS, len(found)), f"expected the id {len(found) + 1}, found {columns[0][:20]!r}")
            raise InvalidRequest("a value makes no sense", [fault])
        found.append(columns[1])
    return found
