"""CoNLL-U: a sentence is a row. https://universaldependencies.org/format.html.

Multiword tokens (``3-4``) and empty nodes (``5.1``) are passed over: tags are given to words.
"""

import codecs
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from models.errors import DataError, Fault, InvalidRequest, MalformedRequest
from models.registry import find_card
from service.scoring.inputs.column_mapping import kinds
from service.scoring.inputs.conllu_columns import ConlluLines, sentence_ends
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES, RowSplitter
from service.scoring.inputs.storage import Pass, Spans
from service.scoring.inputs.word_columns import Places, Words, is_utf8
from service.scoring.spec import JobSpec

WORDS = "tokens"
COLUMNS = 10
_HAS_WORDS = re.compile(rb"^[^#\r\n]", re.MULTILINE)
_COMMENT = re.compile("^#[^\\n]*", re.MULTILINE)
_NO_WORD = re.compile(r"[0-9]+(-|\.)[0-9]+")
# Longer sentences are read line by line.
_IDS = [*map(str, range(1, 1001))]
COMMENTS = ("sent_id", "text")
_ASCII = bytes([*range(128), *b"?" * 128])


class ConlluSource:
    """A CoNLL-U file."""

    passed_over, notes = 0, ()

    def __init__(self, spec: JobSpec) -> None:
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

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of whole sentences.

        Raises:
            DataError: If a sentence has no end.
        """
        cutter, rest = None, b""
        for block in self._pass.blocks():
            start = 0
            if cutter is None:
                start = len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0
                cutter = RowSplitter(self._spec.options, start)
            rest += block[start:]
            ends = sentence_ends(rest)
            end = int(ends[-1]) if len(ends) else 0
            yield from cutter.add(rest[:end], ends)
            rest = rest[end:]
            if len(rest) > MAX_ROW_BYTES:
                expected = f"sentences of at most {MAX_ROW_BYTES} bytes, with a blank line after each"
                raise DataError(self._spec.source, found="a longer one", expected=expected)
        cutter = cutter or RowSplitter(self._spec.options, 0)
        yield from cutter.add(rest, sentence_ends(b""))
        yield from cutter.end(is_row=lambda tail: _HAS_WORDS.search(tail) is not None)

    def read(self, cut: PartSpec) -> "ConlluRows":
        """Return the sentences of a part."""
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        ends = sentence_ends(data)
        if len(ends) < cut.rows:
            ends = np.append(ends, len(data))
        # Comments after the last sentence are no row.
        return ConlluRows(self, data[: int(ends[-1]) if len(ends) else 0], ends)


class ConlluRows:
    """Sentences: a text, and the places after each of them."""

    def __init__(self, source: ConlluSource, text: bytes, ends: Places) -> None:
        self._source, self._text, self._ends, self.count = source, text, ends, len(ends)

    def _sentence(self, row: int) -> bytes:
        return self._text[int(self._ends[row - 1]) if row else 0 : int(self._ends[row])]

    @cached_property
    def _readable(self) -> tuple[ConlluLines, list[int]]:
        """Return the lines, and the sentences that are not UTF-8, in whose place there is something that is."""
        if is_utf8(self._text):
            return ConlluLines(self._text, self._ends), []
        text, wrong = bytearray(self._text), []
        for row in range(self.count):
            sentence = self._sentence(row)
            if not is_utf8(sentence):
                wrong.append(row)
                start = int(self._ends[row]) - len(sentence)
                text[start : start + len(sentence)] = sentence.translate(_ASCII)
        return ConlluLines(bytes(text), self._ends), wrong

    def words(self, field: str) -> Words | None:
        """Return the forms of all sentences."""
        if field != WORDS:
            return None
        lines, wrong = self._readable
        is_good = np.ones(self.count, bool)
        is_good[wrong] = False
        return lines.words().only(is_good)

    def instance(self, row: int) -> Any:
        """Return the words of a sentence."""
        try:
            text = self._sentence(row).decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest("the sentence is not UTF-8") from error
        found = plain_words(text)
        return msgspec.convert({WORDS: words(text.split("\n")) if found is None else found}, self._source.card.instance)

    def _comments(self, row: int) -> dict[str, str]:
        pairs = (line[1:].partition("=") for line in _COMMENT.findall(self._sentence(row).decode(errors="replace")))
        return {key.strip(): value.strip() for key, _, value in pairs}

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def table(self) -> pa.Table:
        """Return what the comments ``sent_id`` and ``text`` say."""
        lines, wrong = self._readable
        if wrong:
            comments = [self._comments(row) for row in range(self.count)]
            columns = [pa.array([one.get(name) for one in comments], pa.string()) for name in COMMENTS]
        else:
            columns = lines.comments(COMMENTS)
        return pa.table(columns, schema=self._source.schema)

    def lines(self) -> list[bytes] | None:
        """None: a sentence is many lines."""
        return None


def plain_words(text: str) -> list[str] | None:
    """Return the words of a sentence in which nothing is strange; ``None``: line by line it shows what is."""
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
    """Return the forms of a sentence's words.

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
            raise InvalidRequest(faults=[fault])
        found.append(columns[1])
    return found
