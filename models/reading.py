"""What the command line may say of how own data are to be read, from the fields of a struct. Torch-free."""

from typing import Literal, NamedTuple, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import fields


class Saying(NamedTuple):
    """One thing that may be said.

    Attributes:
        name: The struct's field.
        option: The command line's, e.g. ``--date-column``.
        text: What it means.
        choices: What it may be; ``None`` for any text.
    """

    name: str
    option: str
    text: str
    choices: tuple[str, ...] | None


def sayings(options: type[Struct]) -> list[Saying]:
    """All that may be said: each field is annotated with its type, text or a ``Literal``, and a description."""
    found = []
    for field in fields(options):
        kind, extra = get_args(field.type)
        assert isinstance(extra, Meta)
        choices = tuple(choice for choice in get_args(kind) if choice) if get_origin(kind) is Literal else None
        found.append(Saying(field.name, f"--{field.name.replace('_', '-')}", extra.description or "", choices))
    return found
