"""Long JSON bodies, read instance by instance. Torch-free.

A typed decoder reads a list to its end before it finds it too long, and nothing else runs in the process meanwhile:
15 MB of ``[],`` kept everybody waiting for 3 s. Skipping them takes 30 ms.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from models.errors import Fault, InvalidRequest
from models.payload.duplicate_keys import REASON, KnownKeys, keys_of

# Up to here the typed decoder takes less than 10 ms whatever is in the body.
LONG_BYTES = 2**18
# More than a graph with the most edges and 32 words a node.
MAX_VALUES = 2**18
# More than the most papers in the most instances; a brace in a text counts too.
MAX_OBJECTS = 2**17
# Everything a document says beside its instances is shorter, even if every letter of it is escaped.
MAX_REST_BYTES = 256


class _Skipped(msgspec.Struct):
    """An object of which nothing is looked at."""


class LongRequest(NamedTuple):
    """Describe what a request's type would hold."""

    instances: list[Any]
    explain: bool
    outlier: bool


class LongReader:
    """Reads long request bodies of one type.

    Attributes:
        translate: The error of a body that a decoder refused.
    """

    def __init__(self, instance: Any, max_instances: int, translate: Callable[[Exception], Exception]) -> None:
        skipped: Any = _Skipped if issubclass(instance, msgspec.Struct) else instance
        bounded = Annotated[list[skipped], Meta(min_length=1, max_length=max_instances)]
        self._shape = _decoder(bounded)
        self._parts = _decoder(list[msgspec.Raw])
        self._whole = _decoder(msgspec.Raw)
        self._instance = msgspec.json.Decoder(instance)
        self._keys: KnownKeys = keys_of(instance)
        self._outer = KnownKeys((b'"instances"', b'"explain"', b'"outlier"'), (), is_flat=True)
        self.translate = translate

    def read(self, body: bytes) -> LongRequest:
        """Return the instances of a body.

        Raises:
            MalformedRequest: If it is not JSON.
            InvalidRequest: If a type or a bound is wrong, or a key is given twice.
        """
        if body.count(b"{") > MAX_OBJECTS:
            raise _refusal(Fault(("instances",), f"expected at most {MAX_OBJECTS} objects, found more"))
        try:
            request: Any = self._shape.decode(body)
            self._check_keys(body)
            parts: list[msgspec.Raw] = self._parts.decode(body).instances
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self.translate(error) from error
        instances = [self._read(bytes(part), offset) for offset, part in enumerate(parts)]
        return LongRequest(instances, request.explain, request.outlier)

    def _check_keys(self, body: bytes) -> None:
        """A key of the document itself given twice; where one may be, the instances are cut out first."""
        if not self._outer.may_repeat(body):
            return
        rest = b"".join(body.replace(bytes(self._whole.decode(body).instances), b"0").split())
        repeated = Fault(("instances",), REASON)
        if len(rest) <= MAX_REST_BYTES:
            found = self._outer.find_repeated(rest, 0)
            if found is None:
                return
            repeated = found
        raise _refusal(repeated)

    def _read(self, part: bytes, offset: int) -> Any:
        values = part.count(b",")
        if values > MAX_VALUES:
            raise _refusal(Fault(("instances", offset), f"expected at most {MAX_VALUES} values, found {values}"))
        try:
            instance = self._instance.decode(part)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _inside(self.translate(error), offset) from error
        repeated = self._keys.find_repeated(part, 0)
        if repeated is not None:
            raise _refusal(repeated.inside("instances", offset))
        return instance


def _decoder(instances: Any) -> "msgspec.json.Decoder[Any]":
    fields: list[Any] = [("instances", instances), ("explain", bool, False), ("outlier", bool, False)]
    return msgspec.json.Decoder(msgspec.defstruct("request", fields, forbid_unknown_fields=True))


def _refusal(fault: Fault) -> InvalidRequest:
    return InvalidRequest(faults=[fault])


def _inside(error: Exception, offset: int) -> Exception:
    if isinstance(error, InvalidRequest):
        return InvalidRequest(faults=[fault.inside("instances", offset) for fault in error.faults])
    return error
