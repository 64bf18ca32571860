"""The bytes around a prediction: request bodies in, answers out. Torch-free.

The service's hot path, a batch job and whatever else speaks Lectern's form read and write bodies here, so that all of
them accept the same, refuse the same, and print numbers alike.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import orjson
from msgspec import Meta

from models.artifact.drift_profile import Outlier
from models.card import AnyCard, Prediction
from models.errors import Fault, HttpError, InvalidRequest, MalformedRequest
from models.payload.duplicate_keys import keys_of
from models.payload.long_json import LONG_BYTES, LongReader, LongRequest

JSON = "application/json"
_PLACE = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|\[\.\.\.\]|\.([A-Za-z_]\w*)")


class Question(NamedTuple):
    """Describe what a body asks: one prediction per instance, in order, with or without more about each.

    Attributes:
        instances: What to predict on.
        explain: Whether the attention that made each answer is wanted.
        outlier: Whether it is wanted how unusual each instance is.
    """

    instances: Sequence[Any]
    explain: bool
    outlier: bool = False


class JsonPayloads:
    """Reads the request bodies of one model and writes its answers.

    Attributes:
        request: The JSON body's type, for the documentation.
        media_types: Content types that can be read.
    """

    def __init__(self, card: AnyCard, tag: str, *, max_instances: int) -> None:
        self.request = request_type(card, max_instances)
        self.media_types = (JSON, *card.from_media)
        self._decoder = msgspec.json.Decoder(self.request)
        self._keys = keys_of(self.request)
        self._long = LongReader(card.instance, max_instances, from_decoding)
        self._readers, self._tag, self.max_instances = card.from_media, tag, max_instances

    def read(self, body: bytes, media_type: str = JSON) -> Question:
        """Instances of a body and whether an explanation is wanted; not yet validated beyond their types.

        Raises:
            MalformedRequest: If the body is not what its content type says.
            InvalidRequest: If a type or a bound is wrong, or a key is given twice.
        """
        reader = self._readers.get(media_type)
        if reader is not None:
            instances = reader(body)
            if not 0 < len(instances) <= self.max_instances:
                reason = f"expected 1 to {self.max_instances} instances, found {len(instances)}"
                raise InvalidRequest(faults=[Fault(("instances",), reason)])
            return Question(instances, False)
        if len(body) > LONG_BYTES:
            request: LongRequest = self._long.read(body)
            return Question(request.instances, request.explain, request.outlier)
        return self._read_at_once(body)

    def _read_at_once(self, body: bytes) -> Question:
        try:
            request: Any = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise from_decoding(error) from error
        repeated = self._keys.find_repeated(body, len(request.instances))
        if repeated is not None:
            raise InvalidRequest(faults=[repeated])
        return Question(request.instances, request.explain, request.outlier)

    def write(self, predictions: Sequence[Prediction], outliers: Sequence[Outlier] | None = None) -> bytes:
        """The JSON answer: the model's tag, the predictions in order and, if wanted, how unusual each instance is."""
        if outliers is None:
            return to_json({"model": self._tag, "predictions": predictions})
        told = msgspec.to_builtins(outliers)
        return to_json({"model": self._tag, "predictions": predictions, "outliers": told})


def request_type(card: AnyCard, max_instances: int) -> type[msgspec.Struct]:
    """Return the body of ``predict`` for one card; models of one card share the type."""
    return _request_type(f"{card.family}-{card.task}-request", card.instance, max_instances)  # type: ignore[arg-type]


@cache
def _request_type(name: str, instance: Any, max_instances: int) -> type[msgspec.Struct]:
    instances = Annotated[list[instance], Meta(min_length=1, max_length=max_instances)]
    explain = Annotated[bool, Meta(description="Add the attention that made each answer.")]
    outlier = Annotated[bool, Meta(description="Add `outliers`: how unusual each instance is.")]
    fields: list[Any] = [("instances", instances), ("explain", explain, False), ("outlier", outlier, False)]
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, frozen=True)


def to_json(value: Any) -> bytes:
    """JSON of plain values and numpy arrays; float32 numbers are as short as they can be and still be themselves."""
    return orjson.dumps(value, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)


def _contiguous(value: Any) -> Any:
    """What orjson does not write itself: arrays that are not contiguous. Their numbers must look like all others."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} has no place in an answer")
    return np.ascontiguousarray(value)


def from_decoding(error: Exception) -> HttpError:
    """Return the error of a body that a typed decoder refused: 400 for broken syntax, 422 for a wrong type or bound."""
    if isinstance(error, msgspec.ValidationError):
        return InvalidRequest(faults=[_fault(str(error))])
    return MalformedRequest("the body is not JSON")


def _fault(message: str) -> Fault:
    """Take ``Expected `int`, got `str` - at `$.instances[0].horizon``` apart."""
    match = _PLACE.match(message)
    assert match is not None  # the pattern matches every string
    reason = match["reason"]
    if reason.startswith("Object contains unknown field"):
        reason = "unknown field"
    loc: list[str | int] = []
    for index, key in _STEP.findall(match["path"] or ""):
        loc.append(int(index) if index else key) if index or key else None
    return Fault(tuple(loc), reason.replace("`", "").lower())
