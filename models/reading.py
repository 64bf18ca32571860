"""Turn the fields of a struct into command-line options for own data. Torch-free."""

import os
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import fields


class DataOption(NamedTuple):
    """One thing that may be said.

    Attributes:
        name: The struct's field.
        option: The command line's, e.g. ``--date-column``.
        text: What it means.
        choices: What it may be; ``None`` for any text.
        bounds: Of a whole number, the least and the most; ``None`` for any other.
        is_path: Whether it is a file or folder; kept by its place beside the data.
    """

    name: str
    option: str
    text: str
    choices: tuple[str, ...] | None
    bounds: tuple[int, int] | None
    is_path: bool = False


def data_options(options: type[Struct]) -> list[DataOption]:
    """All that may be said: each field has its type (text, a ``Literal``, a bounded ``int``) and a description."""
    found = []
    for field in fields(options):
        kind, extra = get_args(field.type)
        assert isinstance(extra, Meta)
        choices = tuple(choice for choice in get_args(kind) if choice) if get_origin(kind) is Literal else None
        bounds = (int(extra.ge or 0), int(extra.le or 0)) if kind is int else None
        option, is_path = f"--{field.name.replace('_', '-')}", bool((extra.extra or {}).get("is_path"))
        found.append(DataOption(field.name, option, extra.description or "", choices, bounds, is_path))
    return found


TestPart: TypeAlias = Annotated[
    str,
    Meta(
        description="A file or folder like --data that tests, so that all of --data learns and validates.",
        extra={"is_path": True},
    ),
]


class HeldOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Describe what the command line may say of data whose owner has cut them."""

    test: TestPart = ""


def beside(data: Path, option_name: str) -> Path | None:
    """Return the file or folder at a place relative to the data; ``None`` if none was said."""
    return Path(os.path.normpath(data / option_name)) if option_name else None
