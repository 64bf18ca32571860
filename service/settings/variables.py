"""Read environment variables into the fields of a struct, and say in plain words whatever does not fit, all at once."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

# Kubernetes puts these of every Service of the namespace into each pod: a Service named lectern, or lectern-anything,
# gives names that begin like ours. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_LINK = re.compile(r"(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)")
_LINK_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")


def is_service_link(name: str, value: str) -> bool:
    """Return whether a variable, named without its prefix, describes a Service of Kubernetes."""
    is_address = (name == "PORT" or name.endswith("_PORT")) and _LINK_ADDRESS.match(value) is not None
    return is_address or _LINK.fullmatch(name) is not None


def read_variables(
    struct: type[msgspec.Struct], prefix: str, environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Convert variables to the fields they set; one sentence for each that does not fit.

    An empty variable leaves a field that may be ``None`` at its default. The value of an unknown variable is not
    quoted: it may be a key.
    """
    fields: dict[str, Any] = {}
    faults = []
    known = {prefix + field.name.upper(): field for field in msgspec.structs.fields(struct)}
    for variable, value in environment.items():
        if not variable.startswith(prefix) or is_service_link(variable.removeprefix(prefix), value):
            continue
        if variable not in known:
            faults.append(_unknown(variable, prefix, [*known]))
            continue
        field = known[variable]
        if not value and field.default is None:
            continue
        try:
            fields[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError:
            faults.append(f"{variable} must be {_allowed(inspect.type_info(field.type))}, got {value!r}")
    return fields, faults


def describe(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each variable's name, and what it means with its default."""
    for field in msgspec.structs.fields(struct):
        kind = inspect.type_info(field.type)
        meaning = (kind.extra_json_schema or {})["description"] if isinstance(kind, inspect.Metadata) else ""
        default = "empty" if field.default in (None, "") else str(field.default).lower()
        yield prefix + field.name.upper(), f"{meaning}  [{default}]"


def _unknown(variable: str, prefix: str, known: list[str]) -> str:
    names = [name.removeprefix(prefix) for name in known]  # what they all begin with makes none of them alike
    close = get_close_matches(variable.removeprefix(prefix), names, n=1)
    hint = f"did you mean {prefix}{close[0]}?" if close else f"known are {', '.join(known)}"
    return f"unknown setting {variable}; {hint}"


def _allowed(kind: inspect.Type) -> str:
    """Return what a value may be, in words."""
    match kind:
        case inspect.Metadata():
            return _allowed(kind.type)
        case inspect.UnionType():
            return ", or ".join(map(_allowed, kind.types))
        case inspect.EnumType():
            *members, last = (str(member.value) for member in kind.cls)
            return f"{', '.join(members)} or {last}"
        case inspect.IntType():
            return f"a whole number{_bounds(kind)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind)}"
    return {inspect.BoolType: "true or false", inspect.NoneType: "empty"}.get(type(kind), "a text")


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f" above {kind.gt:g}"
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge:.12g} to {kind.le:.12g}"
    return "" if kind.ge is None else f" of at least {kind.ge:.12g}"
