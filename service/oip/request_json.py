"""The JSON part of an inference request, typed, and where the binary part lies."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from models.errors import InvalidRequest, MalformedRequest
from models.payload.duplicate_keys import find_repeated
from models.payload.json_payload import from_decoding
from service.oip.datatypes import MAX_AXES

MAX_TENSORS = 32
MAX_ID = 1024
# No tensor in a body has as many elements along an axis; products of a few stay exact anyway.
Extent = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Size = Annotated[int, Meta(ge=0, le=2**40)]


class InputParameters(Struct, frozen=True):
    """Describe what is said of one input; parameters that nobody here knows are left alone, as the protocol has it."""

    binary_data_size: Size | UnsetType = UNSET


class RequestInput(Struct, frozen=True):
    """One input tensor; its data stands here or in the binary part."""

    name: Name
    shape: Annotated[list[Extent], Meta(max_length=MAX_AXES)]
    datatype: Name
    parameters: InputParameters | UnsetType = UNSET
    data: Any = UNSET

    @property
    def binary_size(self) -> int | None:
        """Bytes of it in the binary part; ``None`` if it has its data here."""
        size = UNSET if isinstance(self.parameters, UnsetType) else self.parameters.binary_data_size
        return None if isinstance(size, UnsetType) else size


class OutputParameters(Struct, frozen=True):
    """Describe how one output is wanted."""

    binary_data: bool | UnsetType = UNSET
    classification: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


class RequestedOutput(Struct, frozen=True):
    """One output that is wanted."""

    name: Name
    parameters: OutputParameters | UnsetType = UNSET


class Parameters(Struct, frozen=True):
    """Describe what is said of the request."""

    binary_data_output: bool = False
    timeout: Annotated[int, Meta(ge=0, le=2**63 - 1, description="Microseconds; 0: none of its own.")] = 0
    priority: Annotated[int, Meta(ge=0)] = 0
    explain: bool = False


class RequestJson(Struct, frozen=True):
    """The JSON part of a request."""

    inputs: Annotated[list[RequestInput], Meta(min_length=1, max_length=MAX_TENSORS)]
    outputs: Annotated[list[RequestedOutput], Meta(max_length=MAX_TENSORS)] = []
    id: Annotated[str, Meta(max_length=MAX_ID)] = ""
    parameters: Parameters | UnsetType = UNSET

    @property
    def asked(self) -> Parameters:
        """``parameters``, or what holds without."""
        return USUAL if isinstance(self.parameters, UnsetType) else self.parameters


USUAL = Parameters()
# Samples are parts of the binary part, and would keep the JSON part in memory until they are answered.
LONG_HEAD_BYTES = 64 * 1024
_decoder = msgspec.json.Decoder(RequestJson)


def split(body: bytes, head_length: int | None) -> tuple[bytes, memoryview]:
    """Return the JSON part and the binary part of a body.

    Raises:
        MalformedRequest: If the body is shorter than its JSON part is said to be.
    """
    if head_length is None:
        return body, memoryview(b"")
    if head_length > len(body):
        raise MalformedRequest(f"inference-header-content-length is {head_length}, the body has {len(body)} bytes")
    if head_length == len(body):
        return body, memoryview(b"")
    if head_length > LONG_HEAD_BYTES:
        return body[:head_length], memoryview(body[head_length:])
    return body[:head_length], memoryview(body)[head_length:]


def read_head(content: bytes) -> RequestJson:
    """Return the JSON part, typed.

    Raises:
        MalformedRequest: If it is no JSON.
        InvalidRequest: If something in it has another type or is out of bounds, or a key is given twice.
    """
    try:
        head = _decoder.decode(content)
        repeated = find_repeated(content) if _may_repeat(content, head) else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise from_decoding(error) from error
    if repeated is not None:
        raise InvalidRequest(faults=[repeated])
    return head


def _may_repeat(content: bytes, head: RequestJson) -> bool:
    """Return whether a key could be given twice: it is there more often than the document that was read has it.

    Nearly always this is settled by counting, in 2 µs; reading the document again takes ten times as long.
    """
    inputs, outputs = head.inputs, head.outputs
    given = [head.parameters, *[part.parameters for part in inputs], *[part.parameters for part in outputs]]
    counts = (
        (b'"name"', len(inputs) + len(outputs)),
        (b'"shape"', len(inputs)),
        (b'"datatype"', len(inputs)),
        (b'"data"', sum(part.data is not UNSET for part in inputs)),
        (b'"parameters"', sum(part is not UNSET for part in given)),
        (b'"binary_data_size"', sum(part.binary_size is not None for part in inputs)),
        (b'"inputs"', 1),
        (b'"outputs"', 1),
        (b'"id"', 1),
    )
    return b"\\u00" in content or any(content.count(key) > most for key, most in counts)
