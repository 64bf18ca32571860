"""Keys that a JSON document gives twice, which typed decoders do not see: the last one wins. Torch-free.

RFC 8259 leaves it open what such an object means, so two readers of one request may see two different requests.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from models.errors import Fault

REASON = "given more than once"
# Letters and underscores, of which our keys are made, have no other escapes than these in JSON.
ESCAPED_LETTERS = (b"\\u005", b"\\u006", b"\\u007")
# Up to so many quotes it is quicker to cut the body at them than to search it for each key.
FEW_QUOTES = 8


class KnownKeys(NamedTuple):
    """The keys that the objects of one type of document may have, in quotes as they stand in a body.

    Attributes:
        outer: Of the document itself.
        inner: Of the objects inside it, whatever their depth.
        is_flat: Whether objects stand in the document only, not in each other.
    """

    outer: tuple[bytes, ...]
    inner: tuple[bytes, ...]
    is_flat: bool

    def find_repeated(self, body: bytes, objects: int) -> Fault | None:
        """Return the first key given twice in one object of a document that has been decoded and holds no unknown key.

        Nearly always a look at the strings proves that there is none: in 0.7 µs for the views of 56 days.

        Args:
            body: The document.
            objects: How many objects stand in it, where they do not stand in each other.
        """
        return find_repeated(body) if self.may_repeat(body, objects) else None

    def may_repeat(self, body: bytes, objects: int = 0) -> bool:
        """Return whether a look at the strings leaves it open; a document without repetition rarely does."""
        if b"\\" in body:
            if any(escape in body for escape in ESCAPED_LETTERS):
                return True
        else:
            parts = body.split(b'"', FEW_QUOTES + 1)
            if len(parts) <= FEW_QUOTES + 1 and len(set(parts[1::2])) == len(parts) // 2:
                return False
        return self._repeats_strings(body, objects)

    def _repeats_strings(self, body: bytes, objects: int) -> bool:
        for key in self.outer:
            if body.count(key) > 1:
                return True
        several = [key for key in self.inner if body.count(key) > 1]
        if not several:
            return False
        if not self.is_flat or body.count(b"{") != 1 + objects:  # a brace in a text
            return True
        parts = body.split(b"{")
        return any(part.count(key) > 1 for key in several for part in parts)


def keys_of(document: type) -> KnownKeys:
    """Return the keys of a struct and of the structs in it."""
    outer = msgspec.inspect.type_info(document)
    inner: dict[bytes, None] = {}
    is_flat, nested = True, _structs(outer)
    while nested:
        struct = nested.pop()
        inner |= dict.fromkeys(_names(struct))
        deeper = _structs(struct)
        is_flat = is_flat and not deeper
        nested += deeper
    return KnownKeys(tuple(_names(outer)), tuple(inner), is_flat)


def _names(struct: Any) -> list[bytes]:
    return [b'"%b"' % field.encode_name.encode() for field in getattr(struct, "fields", ())]


def _structs(kind: Any) -> list[Any]:
    """Return the structs in a struct's fields, a list or a union."""
    parts: Iterable[Any] = ()
    if isinstance(kind, msgspec.inspect.StructType):
        parts = [field.type for field in kind.fields]
    elif isinstance(kind, msgspec.inspect.ListType):
        parts = [kind.item_type]
    elif isinstance(kind, msgspec.inspect.UnionType):
        parts = kind.types
    elif isinstance(kind, msgspec.inspect.Metadata):
        return _structs_of(kind.type)
    return [struct for part in parts for struct in _structs_of(part)]


def _structs_of(kind: Any) -> list[Any]:
    return [kind] if isinstance(kind, msgspec.inspect.StructType) else _structs(kind)


class _Repeated(NamedTuple):
    key: str


def find_repeated(body: bytes) -> Fault | None:
    """Return the first key given twice in one object of a JSON document, whatever its keys."""
    # Numbers do not matter here, and Python refuses to read thousands of digits as an ``int``.
    return _locate(json.loads(body, object_pairs_hook=_pairs, parse_int=float), ())


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return _Repeated(key)
        found[key] = value
    return found


def _locate(value: Any, json_path: tuple[str | int, ...]) -> Fault | None:
    if isinstance(value, _Repeated):
        return Fault((*json_path, value.key), REASON)
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for step, member in members:
        if isinstance(member, dict | list | _Repeated) and (fault := _locate(member, (*json_path, step))) is not None:
            return fault
    return None
