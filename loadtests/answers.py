"""Check answers: their form by the card, their content by the answer to the same question without load."""

import math
from typing import Annotated, Any, NotRequired, get_origin, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta

from loadtests.records import OK
from models.card import AnyCard

BROKEN, WRONG = "broken answer", "wrong answer"


class Checker:
    """Checks the answers of one model.

    Numbers may differ from the reference by twice the card's tolerance, because both answers may be that far from the
    truth; words and counts may not differ at all.
    """

    def __init__(self, card: AnyCard, model: str) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(answer_type(card))
        self._atol, self._rtol = 2 * card.tolerance.atol, 2 * card.tolerance.rtol
        self._prefix, self._arrays = f"{model}:", array_fields(card)

    def check(self, body: bytes, reference: bytes | None) -> str:
        """``"ok"``, or what is wrong with the body of a 200."""
        if body == reference:
            return OK
        try:
            found = self._decoder.decode(body)
            is_numeric = all(_is_numeric(getattr(found.predictions[0], name)) for name in self._arrays)
        except (msgspec.MsgspecError, ValueError):
            return BROKEN
        if not is_numeric or not found.model.startswith(self._prefix):
            return BROKEN
        if reference is None:
            return OK
        known = self._decoder.decode(reference)
        pairs = zip(_values(found), _values(known), strict=True)
        return OK if all(self._is_same(one, other) for one, other in pairs) else WRONG

    def _is_same(self, one: Any, other: Any) -> bool:
        if isinstance(one, int | float) and isinstance(other, float):
            return math.isclose(one, other, rel_tol=self._rtol, abs_tol=self._atol)
        if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            return all(self._is_same(*pair) for pair in zip(one, other, strict=True))
        return bool(one == other)


def answer_type(card: AnyCard) -> type[msgspec.Struct]:
    """Return the answer to one instance of a card, as a type that msgspec can decode."""
    hints = get_type_hints(card.prediction, include_extras=True)
    fields: list[Any] = [
        (name, Any, None) if get_origin(hint) is NotRequired else (name, _decodable(hint))
        for name, hint in hints.items()
    ]
    name = f"{card.family}-{card.task}"
    prediction = msgspec.defstruct(f"{name}-prediction", fields, forbid_unknown_fields=True)
    only: Any = Annotated[list[prediction], Meta(min_length=1, max_length=1)]  # type: ignore[valid-type]
    return msgspec.defstruct(f"{name}-answer", [("model", str), ("predictions", only)], forbid_unknown_fields=True)


def array_fields(card: AnyCard) -> list[str]:
    """Return the fields of a prediction that hold numbers, nested to any depth, and are always there."""
    return [name for name, hint in get_type_hints(card.prediction, include_extras=True).items() if _is_array(hint)]


def _is_array(hint: Any) -> bool:
    return get_origin(hint) is np.ndarray


def _decodable(hint: Any) -> Any:
    return list[Any] if _is_array(hint) else hint


def _values(answer: Any) -> list[Any]:
    prediction = answer.predictions[0]
    return [getattr(prediction, name) for name in prediction.__struct_fields__]


def _is_numeric(value: list[Any]) -> bool:
    """Return whether an array holds finite numbers and nothing else.

    Raises:
        ValueError: If its rows differ in length.
    """
    numbers = np.asarray(value)
    return numbers.dtype.kind in "if" and bool(np.isfinite(numbers).all())
