"""Narrow a card's requests and answers to those of one model. Standard library only."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Narrowing(NamedTuple):
    """JSON Schema of a model's own requests and answers, beyond what its card says of all models.

    Attributes:
        instance: Keywords by field of an instance; ``None`` for a field that this model does not take.
        prediction: Keywords by field of a prediction.
    """

    instance: Mapping[str, Mapping[str, Any] | None]
    prediction: Mapping[str, Mapping[str, Any]]


def narrow_nothing(_: Any) -> Narrowing:
    """For cards whose models all take and give the same."""
    return Narrowing({}, {})
