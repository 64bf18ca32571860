"""The columns that JSON lines become in a table: one per key, of the one type that all its values have.

Which those are is known once all lines have been looked at, before the first is scored: parts are written one by one
and by several processes, and all of them have the same columns. The model's own fields have the types of its
instances; what is none of them in a row that is an error row, stands there as nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, reduce
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, inspect

from models.card import AnyCard
from models.errors import DataError
from service.scoring.inputs.column_mapping import LARGEST, kinds
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

# A kind is the name of one of these, or one with as many brackets before it as its lists are deep.
NULL, BOOL, WHOLE, LONG, NUMBER, TEXT, JSON = "null", "bool", "whole", "long", "number", "text", "json"
LIST = "["
MAX_KEYS = 1000
# Whole numbers up to here are numbers with a fraction, too.
EXACT = 2**53
MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_Int64 = Annotated[int, Meta(ge=-LARGEST - 1, le=LARGEST)]
_PYTHON: Mapping[str, Any] = {NULL: str, BOOL: bool, WHOLE: _Int64, LONG: _Int64, NUMBER: float, TEXT: str}
_FIELDS: Mapping[type, str] = {
    inspect.StrType: TEXT, inspect.BytesType: TEXT, inspect.IntType: LONG, inspect.FloatType: NUMBER,
    inspect.BoolType: BOOL,
}  # fmt: skip


def members(line: bytes | None) -> dict[str, msgspec.Raw]:
    """Return a line's keys and values; none if it is no object."""
    try:
        return MEMBERS.decode(line or b"{}")
    except DAMAGE:
        return {}


def find_keys(address: str, blocks: Iterable[bytes], card: AnyCard, *, is_table: Callable[[str], bool]) -> list[Any]:
    """Return every key of a JSON-lines input with its kind, in the order in which they come.

    Args:
        address: The input.
        blocks: What is in it.
        card: Whose fields have a kind of their own.
        is_table: Which keys matter.

    Raises:
        DataError: If it cannot be read, or there are too many of them.
    """
    fields = {name: _field_kind(field.type) for name, field in _fields(card).items()}
    found: dict[str, str] = {}
    for line in _lines(blocks):
        for key, value in members(line).items():
            if key in fields:
                found.setdefault(key, fields[key])
            elif (known := found.get(key, NULL)) != JSON and is_table(key):
                found[key] = merge(known, kind_of(value))
        if len(found) > MAX_KEYS:
            raise DataError(address, found=f"more than {MAX_KEYS} different keys", expected="fewer: each is a column")
    return [[key, kind] for key, kind in found.items() if is_table(key)]


def _lines(blocks: Iterable[bytes]) -> Iterable[bytes]:
    """Lines; of one that is too long, nothing."""
    rest, is_long = b"", False
    for block in blocks:
        *whole, last = block.split(b"\n")
        if whole:
            if not is_long:
                yield rest + whole[0]
            yield from filter(None, whole[1:])  # blank ones, of which there may be billions, have no keys
            rest, is_long = last, False
        elif not is_long:
            rest += last
        if len(rest) > MAX_ROW_BYTES:
            rest, is_long = b"", True
    yield rest


def _fields(card: AnyCard) -> dict[str, Any]:
    info: Any = inspect.type_info(card.instance)
    assert kinds(card).keys() == {field.encode_name for field in info.fields}
    return {field.encode_name: field for field in info.fields}


def _field_kind(kind: Any) -> str:
    if isinstance(kind, inspect.Metadata):
        return _field_kind(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _field_kind(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    if isinstance(kind, inspect.ListType):
        inner = _field_kind(kind.item_type)
        return JSON if inner == JSON else LIST + inner
    return _FIELDS.get(type(kind), JSON)


def kind_of(value: msgspec.Raw) -> str:
    """Return the kind of one value."""
    text = bytes(value)
    quick = {b'"': TEXT, b"{": JSON, b"n": NULL, b"t": BOOL, b"f": BOOL}.get(text[:1])
    if quick is not None:
        return quick
    try:
        return _kind(msgspec.json.decode(text))
    except DAMAGE:
        return JSON


def _kind(value: Any) -> str:
    if isinstance(value, list):
        inner = reduce(merge, map(_kind, value), NULL)
        return JSON if inner == JSON else LIST + inner
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return WHOLE if abs(value) <= EXACT else LONG if -LARGEST - 1 <= value <= LARGEST else JSON
    return {float: NUMBER, str: TEXT, type(None): NULL}.get(type(value), JSON)


def merge(one: str, other: str) -> str:
    """Return the kind that both fit into."""
    if one == other or other == NULL:
        return one
    if one == NULL:
        return other
    if one[0] == other[0] == LIST:
        inner = merge(one[1:], other[1:])
        return JSON if inner == JSON else LIST + inner
    return {frozenset((WHOLE, NUMBER)): NUMBER, frozenset((WHOLE, LONG)): LONG}.get(frozenset((one, other)), JSON)


def arrow_type(kind: str) -> "pa.DataType":
    """Return the column of a kind."""
    import pyarrow as pa

    if kind[0] == LIST:
        return pa.list_(arrow_type(kind[1:]))
    types = {BOOL: pa.bool_(), WHOLE: pa.int64(), LONG: pa.int64(), NUMBER: pa.float64()}
    return types.get(kind, pa.string())


@cache
def _decoder(kind: str) -> Any:
    depth = kind.count(LIST)
    wanted: Any = _PYTHON[kind[depth:]] | None
    for _ in range(depth):
        wanted = list[wanted] | None
    return msgspec.json.Decoder(wanted)


def cell(value: msgspec.Raw | None, kind: str) -> Any:
    """Return a value as its column has it; nothing where it does not fit into it."""
    if value is None:
        return None
    try:
        return bytes(value).decode() if kind == JSON else _decoder(kind).decode(value)
    except DAMAGE:
        return None
