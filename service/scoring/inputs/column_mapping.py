"""Map a table's columns to an instance's fields, and its cells to the instance's JSON."""

import base64
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import msgspec
import orjson
from msgspec import inspect

from models.card import AnyCard
from models.errors import DataError, Fault, InvalidRequest
from service.scoring.spec import InputOptions

# As Python's ``float`` and Arrow read them, without their names for what is no number.
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SWAPPED = str.maketrans(".,", ",.")
LARGEST = 2**63 - 1
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBERED = re.compile(r"(.+?)[_.\- \[]?([0-9]+)\]?")


Cells: TypeAlias = Sequence[Any] | Mapping[int, Any]


class Kind(Enum):
    """Describe how a cell of text is read."""

    TEXT = "text"
    NUMBER = "number"
    VECTOR = "vector"
    FILE = "file"
    JSON = "json"


class Field(NamedTuple):
    """One field of an instance, and the columns it is read from; several make a vector."""

    name: str
    kind: Kind
    columns: tuple[int, ...]
    is_vector: bool


def kinds(card: AnyCard) -> dict[str, tuple[Kind, bool, int]]:
    """Of each field of the card's instances: its kind, whether it must be there, how many values it has at least."""
    info: Any = inspect.type_info(card.instance)
    found = {}
    for field in info.fields:
        kind, least = _kind(field.type)
        found[field.encode_name] = kind, field.required, least
    return found


def _kind(kind: Any) -> tuple[Kind, int]:
    if isinstance(kind, inspect.Metadata):
        return _kind(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _kind(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    if isinstance(kind, inspect.ListType):
        item = kind.item_type.type if isinstance(kind.item_type, inspect.Metadata) else kind.item_type
        is_vector = isinstance(item, inspect.FloatType | inspect.IntType)
        return (Kind.VECTOR if is_vector else Kind.JSON), kind.min_length or 0
    simple: dict[Any, Kind] = {inspect.StrType: Kind.TEXT, inspect.BytesType: Kind.FILE}
    simple |= {inspect.IntType: Kind.NUMBER, inspect.FloatType: Kind.NUMBER}
    return simple.get(type(kind), Kind.JSON), 0


def resolve(
    names: Sequence[str], are_numbers: Sequence[bool], card: AnyCard, options: InputOptions, address: str
) -> list[Field]:
    """Return the fields of the card's instances that a table has.

    In this order: the column the options say; the column with the field's name; for a list of numbers, the columns
    ``views_1``, ``views_2`` and so on; for one that must be there, the columns that hold a number in the first row, if
    they are as many as the list has values.

    Args:
        names: The table's columns.
        are_numbers: Which of them hold a number in the first row.
        card: Whose instances.
        options: The run's.
        address: The input's, for errors.

    Raises:
        DataError: If a column is missing.
    """
    known = kinds(card)
    for field in options.columns:
        if field not in known:
            raise DataError(address, found=f"--column {field}=…", expected=f"one of the fields {', '.join(known)}")
    found: list[Field] = []
    for name, (kind, is_required, least) in known.items():
        wanted = options.columns.get(name, name)
        columns = _named(wanted, names) or (_numbered(wanted, names) if kind is Kind.VECTOR else ())
        is_vector = wanted not in names
        if not columns and kind is Kind.VECTOR and is_required and name not in options.columns:
            taken = {options.id, *options.keep, *known}
            free = [step for step, column in enumerate(names) if are_numbers[step] and column not in taken]
            columns = tuple(free) if len(free) == least else ()
        if columns:
            found.append(Field(name, kind, columns, is_vector))
        elif is_required or name in options.columns:
            raise DataError(address, found=f"the columns {_some(names)}", expected=_expected(wanted, kind, least))
    if not found:
        raise DataError(address, found=f"the columns {_some(names)}", expected=f"one of {', '.join(known)}")
    return found


def _named(wanted: str, names: Sequence[str]) -> tuple[int, ...]:
    return (names.index(wanted),) if wanted in names else ()


def _numbered(wanted: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the columns called so with numbers that follow on each other from 0 or 1, by these numbers."""
    found: dict[int, int] = {}
    for step, name in enumerate(names):
        match = _NUMBERED.fullmatch(name)
        if match is not None and match[1] == wanted:
            found.setdefault(int(match[2]), step)
    numbers = sorted(found)
    if not numbers or numbers[0] > 1 or numbers[-1] - numbers[0] != len(numbers) - 1:
        return ()
    return tuple(found[number] for number in numbers)


def _some(names: Sequence[str]) -> str:
    shown = [*names[:8], "…"] if len(names) > 8 else [*names]
    return ", ".join(map(repr, shown)) if shown else "none"


def _expected(wanted: str, kind: Kind, least: int) -> str:
    if kind is not Kind.VECTOR:
        return f"a column {wanted!r} (or --column)"
    return f"a column {wanted!r} with lists, {wanted}_1 and so on, or exactly {least} columns of numbers"


def document(fields: Sequence[Field], cells: Cells, decimal: str = "") -> bytes:
    """Return the instance that a row's cells make, as JSON; an empty cell leaves its field out.

    Args:
        fields: What the columns are to the model.
        cells: The row's.
        decimal: What stands before a fraction in numbers of text, if that can be chosen.

    Raises:
        InvalidRequest: If cells of text are not what their field needs.
    """
    members = []
    for field in fields:
        if field.is_vector:
            text = _vector([cells[column] for column in field.columns], field.name, decimal)
        else:
            cell = cells[field.columns[0]]
            if cell is None or (cell == "" and field.kind is not Kind.TEXT):
                continue
            text = _value(cell, field, decimal)
        members.append(b"%b:%b" % (orjson.dumps(field.name), text))
    return b"{%b}" % b",".join(members)


def _vector(cells: Sequence[Any], name: str, decimal: str) -> bytes:
    """Return the numbers of several cells; every one that is none is told."""
    values: list[bytes] = []
    faults: list[Fault] = []
    for step, cell in enumerate(cells):
        try:
            values.append(_number(cell, decimal, name, step))
        except InvalidRequest as error:
            faults += error.faults
    if faults:
        raise InvalidRequest(faults=faults)
    return b"[%b]" % b",".join(values)


def _value(cell: Any, field: Field, decimal: str) -> bytes:
    if field.kind is Kind.FILE and isinstance(cell, dict):
        cell = cell.get("bytes")  # as Hugging Face's data sets hold a picture, beside its path
        if cell is None:
            raise _refusal("expected the file's content under 'bytes', found none", field.name)
    if isinstance(cell, bytes):
        return orjson.dumps(base64.b64encode(cell).decode())
    if not isinstance(cell, str):
        return _plain(cell, field.name)
    if field.kind is Kind.NUMBER:
        return _number(cell, decimal, field.name)
    if field.kind in (Kind.TEXT, Kind.FILE):
        return msgspec.json.encode(cell)
    try:
        msgspec.json.decode(cell, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise _refusal("expected a list as JSON", field.name) from error
    return cell.encode()


def _plain(cell: Any, *step: str | int) -> bytes:
    try:
        return orjson.dumps(cell, default=_of_decimal)
    except TypeError as error:
        raise _refusal(f"expected numbers, text or lists, found {type(cell).__name__}", *step) from error


def _of_decimal(value: Any) -> int | float:
    """Return a decimal as a number of JSON: warehouses export whole numbers as decimals, too."""
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    return int(value) if value == value.to_integral_value() and abs(value) <= LARGEST else float(value)


def with_point(cell: str, decimal: str) -> str:
    """A number's text with a point before its fraction; where that is a comma, a point is what a comma is elsewhere."""
    text = cell.strip(" \t")
    return text.translate(_SWAPPED) if decimal == "," else text


def _number(cell: Any, decimal: str, *step: str | int) -> bytes:
    if not isinstance(cell, str):
        return _plain(cell, *step)
    text = with_point(cell, decimal)
    if _WHOLE.fullmatch(text):
        return b"%d" % int(text)
    if NUMBER.fullmatch(text):
        return orjson.dumps(float(text))  # out of range: null, which no field takes
    shown = "nothing" if not text else repr(cell.strip(" \t")[:40])
    hint = f" (a decimal {'point needs --decimal .' if decimal == ',' else 'comma needs --decimal ,'})"
    is_other = decimal and NUMBER.fullmatch(text.translate(_SWAPPED))
    raise _refusal(f"expected a number, found {shown}{hint if is_other else ''}", *step)


def _refusal(reason: str, *step: str | int) -> InvalidRequest:
    return InvalidRequest(faults=[Fault(step, reason)])
