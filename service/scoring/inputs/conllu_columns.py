"""The lines of a part of CoNLL-U at once: where its words and comments are, by numpy over the bytes.

It reads only what it is sure of; a sentence in which anything is strange is left to whoever reads line by line.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.scoring.inputs.word_columns import NOT_READ, Places, Words, texts

Marks = NDArray[np.bool_]
TAB, LINE_END, RETURN, SPACE, NUMBER_SIGN, ZERO = b"\t\n\r #0"
DELETE = 127
TABS = 9
# Of more words no sentence that is read at once has any.
ID_DIGITS = 3
NO_WORD = re.compile(rb"[0-9]+(-|\.)[0-9]+")


def sentence_ends(text: bytes) -> Places:
    """Places after the blank line that ends each sentence; comments alone belong to the sentence after them."""
    content = np.frombuffer(text, np.uint8)
    # A byte for each byte, not a place for each line: a file may have nothing but line ends.
    is_end = content == LINE_END
    is_start = np.ones(len(text), bool)
    is_start[1:] = is_end[:-1]
    has_words = is_start & (content != NUMBER_SIGN) & ~is_end & (content != RETURN)
    is_blank = is_end & is_start
    is_blank[1:] &= ~is_blank[:-1]
    if b"\r" in text:
        is_blank[1:] |= is_end[1:] & is_start[:-1] & (content[:-1] == RETURN)
    blank = np.flatnonzero(is_blank)
    before = np.searchsorted(np.flatnonzero(has_words), blank)
    found: Places = blank[np.diff(before, prepend=0) > 0] + 1
    return found


def _after(ends: Places) -> Places:
    """Return the beginning of the text, and what follows each line end."""
    return np.concatenate([np.zeros(1, np.int64), ends + 1])


class _Words(NamedTuple):
    """The lines of words: their sentences, what stands in the first column, and where the second is."""

    sentence: Places
    number: Places
    starts: Places
    ends: Places


class ConlluLines:
    """The lines of whole sentences.

    Args:
        text: UTF-8.
        ends: Places after each sentence.
    """

    def __init__(self, text: bytes, ends: Places) -> None:
        self._text, self._sentence_ends, self._count = text, ends, len(ends)
        self._bytes = np.frombuffer(text, np.uint8)
        line_ends = np.flatnonzero(self._bytes == LINE_END)
        self._starts = _after(line_ends)
        self._ends = np.append(line_ends, len(text))
        returns = np.flatnonzero(self._bytes == RETURN)
        if len(returns):
            self._ends[self._line(returns[self._at(returns + 1) == LINE_END])] -= 1
            self._returns = returns[self._at(returns + 1) != LINE_END]
        else:
            self._returns = returns
        self._first = self._at(self._starts)

    def _at(self, offsets: Places) -> NDArray[np.uint8]:
        """Return the bytes at places; line ends after the last."""
        found = self._bytes.take(offsets, mode="clip") if len(self._bytes) else np.zeros(len(offsets), np.uint8)
        found[offsets >= len(self._bytes)] = LINE_END
        return found

    def _line(self, offsets: Places) -> Places:
        """Return the lines in which places are."""
        return np.searchsorted(self._starts, offsets, side="right") - 1

    def _sentence(self, offsets: Places) -> Places:
        """Return the sentences in which places are."""
        return np.searchsorted(self._sentence_ends, offsets, side="right")

    def words(self) -> Words:
        """Return the forms of every sentence; ``NOT_READ`` those in which something is strange."""
        is_strange = np.zeros(self._count, bool)
        is_strange[self._sentence(self._returns)] = True
        found = self._word_lines(is_strange)
        lengths = np.bincount(found.sentence, minlength=self._count)
        starts = lengths.cumsum() - lengths
        is_wrong = found.number != np.arange(len(found.number)) - starts[found.sentence] + 1
        is_strange[found.sentence[is_wrong]] = True
        values = texts(self._text, found.starts, found.ends)
        return Words(values=values, starts=starts, lengths=np.where(is_strange, NOT_READ, lengths))

    def _word_lines(self, is_strange: Marks) -> _Words:
        """The lines that are words'; sentences with lines that are none, nor anything else, are marked as strange."""
        own = np.flatnonzero((self._first != NUMBER_SIGN) & (self._ends > self._starts))
        starts, sentence = self._starts[own], self._sentence(self._starts[own])
        tabs = np.flatnonzero(self._bytes == TAB)
        first = np.searchsorted(tabs, starts)
        is_whole = np.searchsorted(tabs, self._ends[own]) - first == TABS
        is_strange[sentence[~is_whole]] = True
        starts, sentence, first = starts[is_whole], sentence[is_whole], first[is_whole]
        number = self._numbers(starts, tabs[first] - starts)
        for line in np.flatnonzero(number < 0).tolist():
            if NO_WORD.fullmatch(self._text, int(starts[line]), int(tabs[first[line]])) is None:
                is_strange[sentence[line]] = True
        is_word = number >= 0
        forms = first[is_word]
        return _Words(sentence[is_word], number[is_word], tabs[forms] + 1, tabs[forms + 1])

    def _numbers(self, starts: Places, lengths: Places) -> Places:
        """Return the numbers at places, -1 where there is none that is written as an id."""
        number, is_number = np.zeros(len(starts), np.int64), (lengths > 0) & (lengths <= ID_DIGITS)
        for row_index in range(ID_DIGITS):
            digit = self._at(starts + row_index) - np.uint8(ZERO)
            is_inside = row_index < lengths
            is_number &= ~is_inside | (digit <= 9)
            number = np.where(is_inside, number * 10 + digit, number)
        return np.where(is_number & (self._at(starts) != ZERO), number, -1)

    def comments(self, names: Sequence[str]) -> list[pa.StringArray]:
        """Of each name what the last comment with it says in each sentence."""
        lines = np.flatnonzero(self._first == NUMBER_SIGN)
        second, third = self._at(self._starts[lines] + 1), self._at(self._starts[lines] + 2)
        letters = np.array([ord(name[0]) for name in names], np.uint8)
        lines = lines[(second != SPACE) | ~_is_plain(third) | np.isin(third, letters)]
        found = np.full(len(lines), len(names))
        starts, ends = self._starts[lines], self._ends[lines]
        for number, name in enumerate(names):
            prefix = b"# %b = " % name.encode()
            values = self._starts[lines] + len(prefix)
            is_found = self._begin_with(lines, prefix) & (values < ends)
            is_found &= _is_plain(self._at(values)) & _is_plain(self._at(ends - 1))
            found[is_found], starts[is_found] = number, values[is_found]
        for row_index in np.flatnonzero(found == len(names)).tolist():
            name, starts[row_index], ends[row_index] = self._comment(int(starts[row_index]), int(ends[row_index]))
            found[row_index] = names.index(name) if name in names else len(names)
        return [self._column(starts[found == number], ends[found == number]) for number in range(len(names))]

    def _comment(self, start: int, end: int) -> tuple[str, int, int]:
        """Return the name of a comment, and where its value is."""
        key, _, value = self._text[start + 1 : end].decode().partition("=")
        end -= len(value.encode()) - len(value.rstrip().encode())
        return key.strip(), end - len(value.strip().encode()), end

    def _column(self, starts: Places, ends: Places) -> pa.StringArray:
        """Return each sentence's last text among some."""
        last = np.full(self._count, NOT_READ)
        last[self._sentence(starts)] = np.arange(len(starts))
        return texts(self._text, starts, ends).take(pa.array(last, mask=last < 0))

    def _begin_with(self, lines: Places, prefix: bytes) -> Marks:
        """Return which lines begin with some bytes."""
        marks: Marks = np.ones(len(lines), bool)
        for row_index, byte in enumerate(prefix):
            marks &= self._at(self._starts[lines] + row_index) == byte
        return marks


def _is_plain(content: NDArray[np.uint8]) -> Marks:
    """Return which bytes are characters by themselves, and no white space."""
    marks: Marks = (content > SPACE) & (content < DELETE)
    return marks
