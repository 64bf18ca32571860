"""A file that is one series, such as a table of days and views: a row is a window of it.

By default there is one row, the last window, which asks for what comes next; with ``every_day`` one for each value that
has a whole window.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.card import AnyCard, SeriesReader
from models.errors import DataError, InputChanged
from models.registry import find_card
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.storage import Pass, damage_told, decompressed, open_stored
from service.scoring.spec import JobSpec

# The formats that such a file may look like by its name.
NAMED = frozenset({"csv", "jsonl", "zip"})


def options_of(spec: JobSpec, reader: SeriesReader) -> Any:
    """Return what was said of the series: its own options, and those of every CSV file."""
    shared = {name: getattr(spec.options, name, "") for name in reader.options.__struct_fields__}
    given = {**spec.options.series, **{name: said for name, said in shared.items() if said}}
    return msgspec.convert(given, reader.options, strict=False)


def is_series(spec: JobSpec) -> bool:
    """Return whether the input is a series and not rows: as the options say, else by its beginning.

    Raises:
        DataError: If it cannot be read, or is none though options say something of a series.
    """
    is_one, said = _is_series(spec), [*spec.options.series, *(["every_day"] if spec.options.every_day else [])]
    if said and not is_one:
        option = f"--{said[0].replace('_', '-')}"
        raise DataError(spec.source, found=f"no series that {spec.model} reads", expected=f"one, or no {option}")
    return is_one


def _is_series(spec: JobSpec) -> bool:
    reader = find_card(spec.family, spec.task).series
    if spec.input_format == "series":
        return True
    if reader is None or spec.input_format not in NAMED:
        return False
    if spec.options.series:
        return True
    with open_stored(spec.source) as stored, damage_told(spec.source, spec.compression):
        inside = decompressed(stored, spec.compression) if spec.compression else stored
        head = inside.read(reader.most_bytes)
    return reader.recognise(head, spec.source, options_of(spec, reader))


class SeriesSource:
    """A series."""

    passed_over = 0

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self.card = spec, find_card(spec.family, spec.task)
        if self.card.series is None:
            raise DataError(spec.source, found="a series", expected=f"another format: {spec.model} reads none")
        self.reader: SeriesReader = self.card.series
        self.schema = pa.schema([(self.reader.label, pa.string())])
        self.digest = ""
        self.notes: tuple[str, ...] = ()
        self._options = options_of(spec, self.reader)
        self._asked = {name: getattr(self._options, name) for name in self.reader.asked if name in spec.options.series}
        self._windows: tuple[NDArray[np.float64], list[str]] | None = None

    def _load(self) -> tuple[str, NDArray[np.float64], list[str]]:
        """Return the file's digest, its windows ``(rows, values)``, and what the last value of each is of."""
        content, whole = bytearray(), Pass(self._spec.source, self._spec.compression)
        for block in whole.blocks():
            content += block
            if len(content) > self.reader.most_bytes:
                found = f"more than {self.reader.most_bytes} bytes"
                raise DataError(self._spec.source, found=found, expected="one series")
        values, labels, self.notes = self.reader.read(bytes(content), self._spec.source, self._options)
        window = self.reader.window
        if len(values) < window:
            raise DataError(self._spec.source, found=f"{len(values)} days", expected=f"at least {window}")
        windows, ends = sliding_window_view(values, window), labels[window - 1 :]
        if not self._spec.options.every_day:
            windows, ends = windows[-1:], ends[-1:]
        return whole.digest, windows, ends

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of equally many windows."""
        digest, windows, ends = self._load()
        self._windows = windows, ends
        rows = self._spec.options.most_rows
        for index, first in enumerate(range(0, len(ends), rows)):
            yield PartSpec(index=index, first_row=first, rows=min(rows, len(ends) - first), digest=digest, place={})
        self.digest = digest

    def read(self, cut: PartSpec) -> "SeriesRows":
        """Return the windows of a part, of a file that is read and held against the digest once."""
        if self._windows is None:
            try:
                digest, windows, ends = self._load()
            except DataError as error:
                raise InputChanged(f"{self._spec.source}: changed since it was cut into parts") from error
            if digest != cut.digest:
                raise InputChanged(f"{self._spec.source}: changed since it was cut into parts")
            self._windows = windows, ends
        windows, ends = self._windows
        span = slice(cut.first_row, cut.first_row + cut.rows)
        table = pa.table([ends[span]], schema=self.schema)
        return SeriesRows(self.card, self.reader, windows[span], table, self._asked)


class SeriesRows:
    """Some windows."""

    def __init__(
        self,
        card: AnyCard,
        reader: SeriesReader,
        windows: NDArray[np.float64],
        ends: pa.Table,
        asked: Mapping[str, Any],
    ) -> None:
        self._card, self._reader, self._windows, self._ends, self._asked = card, reader, windows, ends, asked
        self.count = len(windows)

    def instance(self, row: int) -> Any:
        """Return the window."""
        return self._card.instance(**{self._reader.field: self._windows[row].tolist()}, **self._asked)

    def numbers(self, field: str) -> NDArray[np.float64] | None:
        """Return all windows, where nothing else is asked."""
        return self._windows if not self._asked and field == self._reader.field else None

    def words(self, field: str) -> None:
        """None: these have no lists of words."""

    def table(self) -> pa.Table:
        """Return what the last value of each window is of."""
        return self._ends

    def lines(self) -> list[bytes] | None:
        """None: a window is many lines."""
        return None
