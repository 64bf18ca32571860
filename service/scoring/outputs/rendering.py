"""Render columns of any Arrow type as JSON and CSV hold them: numbers, text, lists and objects.

What JSON has no number for is text as Arrow writes it, whose formatter knows nanoseconds, every digit of a decimal and
years that Python's dates lack. A moment of a time zone is written in UTC: zones' rules differ from machine to machine.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Any, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from models.payload.json_payload import to_json

Leaf: TypeAlias = Callable[[pa.Array], list[Any]]
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_AS_THEY_ARE = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_float64, *_TEXTS)


def json_values(column: pa.ChunkedArray) -> list[Any]:
    """Return each row's value as ``to_json`` writes it; bytes are hexadecimal text, decimals numbers of all digits.

    Raises:
        ArrowNotImplementedError: If JSON has nothing for values of its type: unions and month intervals.
    """
    return _of_chunks(column, lambda chunk: values(chunk, _shown))


def csv_texts(column: pa.ChunkedArray) -> list[str]:
    """Return each row's cell: nothing where it is null, lists and objects as JSON.

    Raises:
        ArrowNotImplementedError: As of ``json_values``.
    """
    return _of_chunks(column, _texts)


def exact_values(column: pa.ChunkedArray) -> list[Any]:
    """Return each row's value as a model reads it: numbers, decimals and bytes as they are, all else as in JSON."""
    return _of_chunks(column, lambda chunk: values(chunk, _exact))


def _of_chunks(column: pa.ChunkedArray, render: Leaf) -> list[Any]:
    return [*chain.from_iterable(map(render, column.chunks))]


def decoded(array: pa.Array) -> pa.Array:
    """Return the values of a dictionary, of runs or of an extension type as a plain array."""
    while True:
        kind = array.type
        if pa.types.is_dictionary(kind):
            array = _without_view(array.dictionary).take(array.indices)
        elif pa.types.is_run_end_encoded(kind):
            array = pc.run_end_decode(array)
        elif isinstance(kind, pa.UuidType):
            array = pa.array([one and str(one) for one in array.to_pylist()], pa.string())
        elif isinstance(kind, pa.BaseExtensionType):
            array = array.storage
        else:
            return array


def _without_view(array: pa.Array) -> pa.Array:
    """Return an array that values can be taken from: Arrow takes none from views yet."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(array.type)
    return array if plain is None else array.cast(plain)


def values(array: pa.Array, leaf: Leaf) -> list[Any]:
    """Return each row's value: lists, objects, and what ``leaf`` makes of single values."""
    array = decoded(array)
    kind = array.type
    if any(is_list(kind) for is_list in _LISTS):
        # Flattened, and not cast: a cast of list views forgets where a slice of them begins.
        inner = iter(values(array.flatten(), leaf))
        return [None if size is None else [*islice(inner, size)] for size in pc.list_value_length(array).to_pylist()]
    if pa.types.is_map(kind):
        return [*_objects(array, leaf)]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        rows: Iterable[Any] = zip(*(values(one, leaf) for one in array.flatten()), strict=True) if names else repeat(())
        return [
            dict(zip(names, row, strict=True)) if is_valid else None
            for row, is_valid in zip(rows, array.is_valid().to_pylist(), strict=False)
        ]
    return leaf(array)


def _objects(array: pa.Array, leaf: Leaf) -> Iterator[Any]:
    """Yield maps as objects; as lists of pairs, where a key is there twice."""
    offsets = array.offsets.to_pylist()
    first, count = offsets[0], offsets[-1] - offsets[0]
    keys = [one if isinstance(one, str) else to_json(one).decode() for one in values(array.keys[first:][:count], leaf)]
    items = values(array.items[first:][:count], leaf)
    is_valid = array.is_valid().to_pylist()
    for start, end, is_there in zip(offsets[:-1], offsets[1:], is_valid, strict=True):
        pairs = [*zip(keys[start - first : end - first], items[start - first : end - first], strict=True)]
        found = dict(pairs)
        yield None if not is_there else found if len(found) == len(pairs) else [[*pair] for pair in pairs]


def _shown(array: pa.Array) -> list[Any]:
    """Return single values as JSON has them."""
    kind = array.type
    if pa.types.is_decimal(kind):
        return [one and orjson.Fragment(one) for one in array.cast(pa.string()).to_pylist()]
    if any(is_bytes(kind) for is_bytes in _BYTES):
        return [None if one is None else one.hex() for one in array.to_pylist()]
    found: list[Any] = (array if any(is_plain(kind) for is_plain in _AS_THEY_ARE) else _converted(array)).to_pylist()
    return found


def _converted(array: pa.Array) -> pa.Array:
    """Return single values that are neither plain nor bytes nor decimals as numbers or text."""
    kind = array.type
    if pa.types.is_duration(kind):
        return array.cast(pa.int64())
    if pa.types.is_floating(kind):  # as short as it can be and still be itself
        return _single(array).cast(pa.string()).cast(pa.float64())
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    return array.cast(pa.string())


def _exact(array: pa.Array) -> list[Any]:
    """Return single values as a model reads them."""
    kind = array.type
    is_exact = pa.types.is_floating(kind) or pa.types.is_decimal(kind) or any(is_bytes(kind) for is_bytes in _BYTES)
    found: list[Any] = array.to_pylist() if is_exact else _shown(array)
    return found


def _single(array: pa.Array) -> pa.Array:
    """Return floating numbers in a width that is written: halves are no narrower than single ones there."""
    return array.cast(pa.float32()) if pa.types.is_float16(array.type) else array


def _texts(array: pa.Array) -> list[str]:
    """Return single values, lists and objects as cells."""
    array = decoded(array)
    kind = array.type
    if pa.types.is_floating(kind):
        return _float_texts(_single(array))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        texts: list[str] = array.cast(pa.string()).fill_null("").to_pylist()
        return texts
    return [_cell(one) for one in values(array, _shown)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value).decode()


def _float_texts(array: pa.Array) -> list[str]:
    """Return floating numbers as JSON writes them, ``1.0`` with its point; those it has none for are Arrow's."""
    if not len(array):
        return []
    texts = to_json(array.fill_null(0).to_numpy(zero_copy_only=False))[1:-1].decode().split(",")
    is_strange = pc.invert(pc.fill_null(pc.is_finite(array), False))
    # Polars, too, reads it so.
    strange = pc.replace_substring(array.filter(is_strange).cast(pa.string()).fill_null(""), "nan", "NaN").to_pylist()
    for row, text in zip(pc.indices_nonzero(is_strange).to_pylist(), strange, strict=True):
        texts[row] = text
    return texts
