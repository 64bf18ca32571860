"""Find where rows of CSV end: line ends outside of quotes, by counting quotes with numpy on whole blocks."""

import re

import numpy as np
from numpy.typing import NDArray

from service.scoring.inputs.row_splitting import LINE_END, Places, line_ends

QUOTE, RETURN = 34, 13


class QuoteCounter:
    """The ends of rows in pieces of text that begin with a row.

    A quote opens at the beginning of a cell only, as Python and Arrow read it. Where every quote stands beside a
    delimiter, a line end or another quote, being inside means an odd number of quotes before; anywhere else the text is
    read cell by cell, 50 times slower.
    """

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter[0]
        other = re.escape(delimiter)
        plain, end = rb"[^\n" + other + rb"]*", rb"(?:\n|" + other + rb")"
        # No text matches in two ways: possessive quantifiers match wrongly before Python 3.11.5 (cpython#106052).
        cell = rb'(?:"[^"]*(?:""[^"]*){0,15}"(?!")|(?!"))' + plain
        # Some cells of a row, and the end of one: what is repeated takes memory until the match ends.
        self._cells = re.compile(rb"(?:" + cell + other + rb"){0,255}" + cell + end)
        self._runs, self._rest = re.compile(rb'"+'), re.compile(plain + end)

    def ends(self, text: bytes) -> Places:
        """Places after each row's line end; blank lines belong to the row after them."""
        units: NDArray[np.uint8] = np.frombuffer(text, np.uint8)
        ends = line_ends(text)
        if b'"' in text:
            ends = self._outside(text, units, ends)
        return _without_blanks(text, ends, 0)

    def ends_after(self, rest: bytes, block: bytes) -> Places:
        """Return the same in a block after the beginning of a row, which the block goes on with."""
        rest = rest.lstrip(b"\r\n")  # blank lines belong to no row, however many there are
        if b'"' in block or b'"' in rest:
            return self.ends(rest + block) - len(rest)
        return _without_blanks(block, line_ends(block), -len(rest))

    def _outside(self, text: bytes, units: NDArray[np.uint8], ends: Places) -> Places:
        quotes = np.flatnonzero(units == QUOTE)
        if self._is_strange(units, quotes):
            return self._row_by_row(text)
        outside: Places = ends[np.searchsorted(quotes, ends) % 2 == 0]
        return outside

    def is_plain(self, text: bytes) -> bool:
        """Return whether quotes stand only where a writer of CSV puts them, and all are closed."""
        if b'"' not in text:
            return True
        units: NDArray[np.uint8] = np.frombuffer(text, np.uint8)
        quotes = np.flatnonzero(units == QUOTE)
        return len(quotes) % 2 == 0 and not self._is_strange(units, quotes)

    def _is_strange(self, units: NDArray[np.uint8], quotes: Places) -> bool:
        """Return whether a quote opens or closes in the middle of a cell."""
        opening, closing = quotes[::2], quotes[1::2]
        before = units[opening[opening > 0] - 1]
        after = units[closing[closing < len(units) - 1] + 1]
        return not (self._may_stand_beside(before) and self._may_stand_beside(after, RETURN))

    def _may_stand_beside(self, found: NDArray[np.uint8], *more: int) -> bool:
        return bool(np.isin(found, [QUOTE, self._delimiter, LINE_END, *more]).all())

    def _row_by_row(self, text: bytes) -> Places:
        ends: list[int] = []
        offset = 0
        while (found := self._cells.match(text, offset) or self._long_cell(text, offset)) is not None:
            offset = found.end()
            if text[offset - 1] == LINE_END:
                ends.append(offset)
        return np.array(ends, np.int64)

    def _long_cell(self, text: bytes, start: int) -> re.Match[bytes] | None:
        """Match what follows the quote that closes a cell of many quotes."""
        if text[start : start + 1] != b'"':
            return None
        closing = (run.end() for run in self._runs.finditer(text, start + 1) if len(run[0]) % 2)
        offset = next(closing, None)
        return None if offset is None else self._rest.match(text, offset)

    def is_open(self, row: bytes) -> bool:
        """Return whether a row without its line end is inside a quote where it ends."""
        return b'"' in row and self._row_by_row(row + b"\n").tolist() != [len(row) + 1]


def _without_blanks(text: bytes, ends: Places, start: int) -> Places:
    """Ends of rows without those of blank lines; the first row begins at ``start``."""
    lengths = np.diff(ends, prepend=start)
    if lengths.min(initial=3) > 2:
        return ends
    units = np.frombuffer(text, np.uint8)
    is_blank = (lengths == 1) | ((lengths == 2) & (units[ends - 2] == RETURN))
    is_blank[:1] &= start == 0  # what a block goes on with is no blank line
    found: Places = ends[~is_blank]
    return found
