"""JSON lines: row ``i`` is line ``i``, and a blank line is a row that cannot be read."""

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from models.bodies import Bodies, from_decoding
from models.errors import BodyTooLarge, Fault, InvalidRequest, MalformedRequest, RequestError
from models.keys import Keys, keys_of
from models.registry import find_card
from service.scoring.source import Cut
from service.scoring.sources.cutting import MAX_ROW_BYTES, Cutter, line_ends, long_row
from service.scoring.spec import Spec
from service.scoring.storage import Pass, Spans

if TYPE_CHECKING:
    import pyarrow as pa

LINE = "input"
_ANY = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Document:
    """Reads the JSON of single instances exactly as the service reads a body with one instance."""

    def __init__(self, spec: Spec) -> None:
        card = find_card(spec.family, spec.task)
        self._bodies = Bodies(card, spec.model, max_instances=1)

    def read(self, document: bytes) -> Any:
        """The instance.

        Raises:
            HttpError: As of the request with this instance alone.
        """
        try:
            return self._bodies.read(b'{"instances":[%b]}' % document).instances[0]
        except RequestError:
            check_json(document)  # brackets that only close around it
            raise


def check_json(text: bytes) -> None:
    """Let pass what is one JSON value.

    Raises:
        MalformedRequest: If it is not.
    """
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest("not JSON") from error


class JsonlSource:
    """A JSON-lines file."""

    def __init__(self, spec: Spec) -> None:
        import pyarrow as pa

        self._spec, self._document = spec, Document(spec)
        self._pass = Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        options = spec.options
        self._mine = frozenset((*options.keep, *((options.id,) if options.id else ())))
        self._keys = _with(keys_of(find_card(spec.family, spec.task).instance), self._mine)
        self._names = {column: field for field, column in options.columns.items()}
        shown = [pa.field(options.id, pa.string())] if options.id else []
        self.schema = pa.schema([*shown, pa.field(LINE, pa.string())])

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def cuts(self) -> Iterator[Cut]:
        """Parts of whole lines."""
        cutter = None
        for block in self._pass.blocks():
            if cutter is None:
                start = len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0
                cutter, block = Cutter(self._spec.options, start), block[start:]
            yield from cutter.add(block, line_ends(block))
        yield from (cutter or Cutter(self._spec.options, 0)).end()

    def read(self, cut: Cut) -> "JsonlRows":
        """The lines of a part."""
        if long_row(cut):
            return JsonlRows(self, [None])
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        lines: list[bytes | None] = [*data.split(b"\n")]
        if len(lines) > cut.rows:
            lines.pop()
        return JsonlRows(self, lines)

    def instance(self, line: bytes) -> Any:
        """What a line asks."""
        return self._document.read(self._without_mine(line) if self._mine or self._names else line)

    def _without_mine(self, line: bytes) -> bytes:
        try:
            members = _ANY.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise from_decoding(error) from error
        repeated = self._keys.find_repeated(line, 0)
        if repeated is not None:
            raise InvalidRequest("a value makes no sense", [repeated])
        kept = {self._names.get(key, key): value for key, value in members.items() if key not in self._mine}
        if len(kept) + len(self._mine & members.keys()) < len(members):
            raise InvalidRequest("a value makes no sense", [Fault((), "two keys stand for one field")])
        return msgspec.json.encode(kept)

    def identity(self, line: bytes | None) -> str | None:
        """The value of the id's key: a string as it is, anything else as JSON."""
        identity = self._spec.options.id
        try:
            found = _ANY.decode(line or b"{}").get(identity or "", msgspec.Raw(b"null"))
            value = msgspec.json.decode(found)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if value is None or isinstance(value, str):
            return value
        return bytes(found).decode()


def _with(keys: Keys, more: frozenset[str]) -> Keys:
    return keys._replace(outer=(*keys.outer, *(msgspec.json.encode(key) for key in sorted(more))))


class JsonlRows:
    """Lines; ``None`` is one that is too long to be read."""

    def __init__(self, source: JsonlSource, lines: list[bytes | None]) -> None:
        self._source, self._lines, self.count = source, lines, len(lines)

    def instance(self, row: int) -> Any:
        """What the line asks."""
        line = self._lines[row]
        if line is None:
            raise BodyTooLarge(f"a line is longer than {MAX_ROW_BYTES} bytes")
        return self._source.instance(line)

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def table(self) -> "pa.Table":
        """The line as it is, after its id where one is asked for."""
        import pyarrow as pa

        source = self._source
        columns: list[Any] = []
        if len(source.schema) > 1:
            columns.append(pa.array([source.identity(line) for line in self._lines], pa.string()))
        texts = [None if line is None else line.removesuffix(b"\r").decode(errors="replace") for line in self._lines]
        return pa.table([*columns, pa.array(texts, pa.string())], schema=source.schema)

    def lines(self) -> list[bytes] | None:
        """The lines."""
        return [b"" if line is None else line.strip() for line in self._lines]
