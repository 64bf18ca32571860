"""JSON lines: row ``i`` is line ``i``, and a blank line is a row that cannot be read."""

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from models.errors import BodyTooLarge, DataError, Fault, InvalidRequest, RequestError
from models.payload.duplicate_keys import KnownKeys, keys_of
from models.payload.json_payload import from_decoding
from models.registry import find_card
from service.scoring.inputs.column_mapping import kinds
from service.scoring.inputs.document import Document
from service.scoring.inputs.interfaces import PartSpec, check_rows
from service.scoring.inputs.jsonl_columns import DAMAGE, MEMBERS, NULL, arrow_type, cell, find_keys, members
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES, RowSplitter, line_ends, long_row
from service.scoring.inputs.storage import Pass, Spans, damage_told, decompressed, open_stored
from service.scoring.spec import JobSpec

if TYPE_CHECKING:
    import pyarrow as pa

# As alike as "txt" and "text" are, or "Horizon" and "horizon".
LIKENESS, MAX_SHOWN = 0.8, 40
_ARRAY = re.compile(rb"\s*\[\s*\{")
# What is added to a line ends like one of these.
ADDED = ("prediction", "error_code", "error_reason", "error_place")


class JsonlSource:
    """A JSON-lines file."""

    passed_over, notes = 0, ()

    def __init__(self, spec: JobSpec) -> None:
        import pyarrow as pa

        self._spec, self._document = spec, Document(spec)
        self._pass = Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        options, card = spec.options, find_card(spec.family, spec.task)
        self._mine = frozenset((*options.keep, *((options.id,) if options.id else ())))
        self._keys = keys_of(card.instance)
        self._fields = frozenset(kinds(card))
        self._names = {column: field for field, column in options.columns.items()}
        self.is_table = _is_table(spec)
        self.columns = spec.keys if self.is_table else ()
        self.schema = pa.schema([pa.field(key, arrow_type(kind)) for key, kind in self.columns])

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of whole lines."""
        cutter = None
        for block in self._pass.blocks():
            if cutter is None:
                start = len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0
                cutter, block = RowSplitter(self._spec.options, start), block[start:]
            yield from cutter.add(block, line_ends(block))
        yield from (cutter or RowSplitter(self._spec.options, 0)).end()

    def read(self, cut: PartSpec) -> "JsonlRows":
        """Return the lines of a part."""
        if long_row(cut):
            return JsonlRows(self, [None])
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        lines: list[bytes | None] = [*data.split(b"\n")]
        if len(lines) > cut.rows:
            lines.pop()
        return JsonlRows(self, lines)

    def instance(self, line: bytes) -> Any:
        """Return what a line asks: its fields are read as the service reads them, all other keys only travel."""
        if not self._mine and not self._names:
            try:
                return self._document.read(line)
            except RequestError:
                if self._fields.issuperset(members(line)):
                    raise
        return self._document.read(self._without_others(line))

    def _without_others(self, line: bytes) -> bytes:
        try:
            found = MEMBERS.decode(line)
        except DAMAGE as error:
            raise from_decoding(error) from error
        others = frozenset(key for key in found if self._is_other(key, found))
        repeated = _with(self._keys, others.union(self._names)).find_repeated(line, 0)
        if repeated is not None:
            raise InvalidRequest(faults=[repeated])
        kept = {self._names.get(key, key): value for key, value in found.items() if key not in others}
        if len(kept) + len(others) < len(found):
            raise InvalidRequest(faults=[Fault((), "two keys stand for one field")])
        return msgspec.json.encode(kept)

    def _is_other(self, key: str, found: Mapping[str, Any]) -> bool:
        """Return whether a key is none of the model's.

        Raises:
            InvalidRequest: If it looks like a field that the row lacks.
        """
        if key in self._mine:
            return True
        if key in self._fields or key in self._names:
            return False
        lacking = [field for field in self._fields if field not in found and field not in self._names.values()]
        alike = get_close_matches(key.lower(), sorted(lacking), 1, LIKENESS)
        if alike:
            reason = f"is this the field {alike[0]!r}? If it is none, say so: --keep {key[:MAX_SHOWN]}"
            raise InvalidRequest(faults=[Fault((key[:MAX_SHOWN],), reason)])
        return True


@lru_cache(maxsize=256)
def _with(keys: KnownKeys, more: frozenset[str]) -> KnownKeys:
    return keys._replace(outer=(*keys.outer, *(msgspec.json.encode(key) for key in sorted(more))))


def _is_table(spec: JobSpec) -> bool:
    return spec.output_format != "jsonl"


def find_columns(spec: JobSpec, most_rows: int | None) -> tuple[tuple[str, str], ...]:
    """Return the keys of an input that its output has as columns; for lines, those that what is added could be called.

    Raises:
        DataError: If the input cannot be read, or is one JSON array.
        JobTooLarge: If it has more rows than these; ``None``: any number.
    """
    check_lines(spec)
    card, identity = find_card(spec.family, spec.task), spec.options.id
    blocks = at_most(most_rows, Pass(spec.source, spec.compression).blocks())
    found = find_keys(spec.source, blocks, card, is_table=(lambda _: True) if _is_table(spec) else _may_be_added)
    if identity is not None and _is_table(spec) and identity not in dict(found):
        found.append([identity, NULL])
    return tuple((key, kind) for key, kind in sorted(found, key=lambda pair: pair[0] != identity))


def at_most(rows: int | None, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blocks of an input of at most so many lines: blank ones are many in few bytes, and each costs time."""
    found = 0
    for block in blocks:
        found += block.count(b"\n")
        check_rows(found, rows)
        yield block


def check_lines(spec: JobSpec) -> None:
    """Refuse a file that is one JSON array of objects, as pandas' ``orient="records"`` and many exports are.

    Raises:
        DataError: If it is.
    """
    with open_stored(spec.source) as stored, damage_told(spec.source, spec.compression):
        inside = decompressed(stored, spec.compression) if spec.compression else stored
        head = inside.read(2**16).removeprefix(codecs.BOM_UTF8)
    if _ARRAY.match(head):
        expected = "JSON lines, one object a line (jq -c '.[]' in.json > out.jsonl; in pandas lines=True)"
        raise DataError(spec.source, found="a JSON array", expected=expected)


def _may_be_added(key: str) -> bool:
    return key.endswith(ADDED)


class JsonlRows:
    """Lines; ``None`` is one that is too long to be read."""

    def __init__(self, source: JsonlSource, lines: list[bytes | None]) -> None:
        self._source, self._lines, self.count = source, lines, len(lines)

    def instance(self, row: int) -> Any:
        """Return what the line asks."""
        line = self._lines[row]
        if line is None:
            raise BodyTooLarge(f"a line is longer than {MAX_ROW_BYTES} bytes")
        return self._source.instance(line)

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def words(self, field: str) -> None:
        """None: these have no lists of words, or are read one by one."""

    def table(self) -> "pa.Table":
        """Return a column for each key, the id's first."""
        import pyarrow as pa

        source = self._source
        rows = [members(line) for line in self._lines]
        columns = [
            pa.array([cell(row.get(key), kind) for row in rows], field.type)
            for (key, kind), field in zip(source.columns, source.schema, strict=True)
        ]
        return pa.table(columns, schema=source.schema) if columns else pa.table({})

    def lines(self) -> list[bytes] | None:
        """Return the lines, for an output of lines."""
        if self._source.is_table:
            return None
        return [b"" if line is None else line.strip() for line in self._lines]
