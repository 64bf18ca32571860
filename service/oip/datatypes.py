"""The protocol's types of tensors, as bytes and as JSON."""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from models.card import Array
from models.errors import Fault, InvalidRequest

BYTES = "BYTES"
MAX_AXES = 8
_LENGTH = struct.Struct("<I")


class Datatype(NamedTuple):
    """One of the protocol's types of tensors.

    Attributes:
        name: As requests have it.
        config: As a model's configuration has it.
        dtype: As numpy has it, little-endian.
        kinds: Types of the JSON values that fit.
        bounds: Least and largest whole number; ``None`` where any number will do.
    """

    name: str
    config: str
    dtype: np.dtype[Any]
    kinds: frozenset[type]
    bounds: tuple[int, int] | None = None


_WHOLE = frozenset((int,))
DATATYPES = {
    "float32": Datatype("FP32", "TYPE_FP32", np.dtype("<f4"), frozenset((int, float))),
    "uint8": Datatype("UINT8", "TYPE_UINT8", np.dtype("u1"), _WHOLE, (0, 255)),
    "int64": Datatype("INT64", "TYPE_INT64", np.dtype("<i8"), _WHOLE, (-(2**63), 2**63 - 1)),
    "bool": Datatype("BOOL", "TYPE_BOOL", np.dtype("?"), frozenset((bool,))),
    "object": Datatype(BYTES, "TYPE_STRING", np.dtype("O"), frozenset((str,))),
}


def wrong(name: str, reason: str) -> InvalidRequest:
    """Return the refusal of an input."""
    return InvalidRequest(faults=[Fault(("inputs", name), reason)])


def read_binary(content: memoryview, datatype: Datatype, count: int, name: str) -> Array | list[bytes]:
    """Return the elements of a tensor in their binary form, without copying numbers.

    Args:
        content: All of its bytes.
        datatype: Its type.
        count: How many elements its shape has.
        name: Of the input.

    Returns:
        ``(count,)``; a list of byte strings for ``BYTES``.

    Raises:
        InvalidRequest: If the bytes are not so many elements.
    """
    if datatype.name == BYTES:
        return _read_strings(content, count, name)
    if len(content) != count * datatype.dtype.itemsize:
        expected = f"{count * datatype.dtype.itemsize} bytes of {datatype.name}"
        raise wrong(name, f"expected {expected} by its shape, found {len(content)}")
    found = np.frombuffer(content, datatype.dtype)
    if datatype.name == "BOOL" and content.nbytes and found.view(np.uint8).max() > 1:
        raise wrong(name, "expected bytes that are 0 or 1")
    return found


def _read_strings(content: memoryview, count: int, name: str) -> list[bytes]:
    if count * _LENGTH.size > len(content):
        raise wrong(name, f"expected {count} elements by its shape, found {len(content)} bytes")
    found, start = [], 0
    for _ in range(count):
        if start + _LENGTH.size > len(content):
            raise wrong(name, "an element's length is cut off")
        (length,) = _LENGTH.unpack_from(content, start)
        start += _LENGTH.size
        if length > len(content) - start:
            raise wrong(name, f"an element says it has {length} bytes, {len(content) - start} are left")
        found.append(bytes(content[start : start + length]))
        start += length
    if start != len(content):
        raise wrong(name, f"expected {start} bytes of elements, found {len(content)}")
    return found


def read_json(data: Any, datatype: Datatype, shape: Sequence[int], count: int, name: str) -> Array | list[bytes]:
    """Return the elements of a tensor in JSON, flat or nested as its shape says.

    Raises:
        InvalidRequest: If they are not so many elements of the type.
    """
    flat = _flatten(data, shape, name)
    if len(flat) != count:
        raise wrong(name, f"expected {count} elements by its shape, found {len(flat)}")
    if not set(map(type, flat)) <= datatype.kinds:
        raise wrong(name, f"expected elements of {datatype.name}")
    if datatype.name == BYTES:
        return [_encoded(text, name) for text in flat]
    if datatype.bounds is not None and flat:
        least, most = datatype.bounds
        if min(flat) < least or max(flat) > most:
            raise wrong(name, f"expected whole numbers from {least} to {most}")
    with np.errstate(over="ignore"):
        try:
            return np.array(flat, datatype.dtype)
        except OverflowError:
            raise wrong(name, f"a number is too large for {datatype.name}") from None


def _flatten(data: Any, shape: Sequence[int], name: str) -> list[Any]:
    """``data`` without its nesting, which has to be that of the shape or none."""
    if not isinstance(data, list):
        raise wrong(name, "expected data as a list")
    for length in shape[1:]:
        if not data or type(data[0]) is not list:
            break
        if not all(type(part) is list and len(part) == length for part in data):
            raise wrong(name, f"expected data nested as its shape {list(shape)} says, or flat")
        data = [*chain.from_iterable(data)]
    flat: list[Any] = data
    return flat


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise wrong(name, "expected text, found half a surrogate pair") from None


def write_strings(strings: Sequence[bytes]) -> bytes:
    """Elements of ``BYTES`` in their binary form."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in strings))
