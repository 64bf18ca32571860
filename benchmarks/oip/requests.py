"""Requests of the Open Inference Protocol, built by the book and independently of the service's own reader."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.card import Array
from models.runtime.predictor import Predictor

DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64", "bool": "BOOL"}
HEAD_LENGTH = "inference-header-content-length"


class Request(NamedTuple):
    """One inference request.

    Attributes:
        head: Its JSON part.
        rest: Its binary part, tensor after tensor; empty without one.
    """

    head: dict[str, Any]
    rest: bytes = b""

    @property
    def body(self) -> bytes:
        """Return all of it."""
        return json.dumps(self.head).encode() + self.rest

    @property
    def headers(self) -> dict[str, str]:
        """Return what has to be said of the body."""
        if not self.rest:
            return {"content-type": "application/json"}
        length = len(json.dumps(self.head).encode())
        return {"content-type": "application/octet-stream", HEAD_LENGTH: str(length)}


def of_tensors(tensors: Mapping[str, Array], *, is_binary: bool, **more: Any) -> Request:
    """Return a request with tensors, and more in its head."""
    inputs, rest = [], b""
    for name, values in tensors.items():
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "datatype": DATATYPES[values.dtype.name]}
        if is_binary:
            data = np.ascontiguousarray(values).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            rest += data
        else:
            entry["data"] = values.ravel().tolist()
        inputs.append(entry)
    if is_binary:
        more = {"parameters": {"binary_data_output": True}, **more}
    return Request({"inputs": inputs, **more}, rest)


def of_strings(name: str, elements: Sequence[bytes], *, is_binary: bool, **more: Any) -> Request:
    """Return a request with one input of byte strings, and more in its head."""
    entry: dict[str, Any] = {"name": name, "shape": [len(elements)], "datatype": "BYTES"}
    if not is_binary:
        return Request({"inputs": [entry | {"data": [element.decode() for element in elements]}], **more})
    rest = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    entry["parameters"] = {"binary_data_size": len(rest)}
    return Request({"inputs": [entry], "parameters": {"binary_data_output": True}, **more}, rest)


def feeds(predictor: Predictor, instances: Sequence[Any]) -> dict[str, Array]:
    """Return what the session is fed of instances."""
    return dict(predictor.card.collate(predictor.encode(instances)))


def of_instances(instances: Sequence[Any], *, is_binary: bool, **more: Any) -> Request:
    """Return a request with instances as `/v1` has them."""
    return of_strings("instance", [msgspec.json.encode(one) for one in instances], is_binary=is_binary, **more)


def read_answer(body: bytes, head_length: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the head of an answer, and its outputs as arrays, or lists of byte strings, by name."""
    head = json.loads(body[:head_length] if head_length is not None else body)
    start, outputs = head_length or 0, {}
    for output in head["outputs"]:
        assert set(output) <= {"name", "datatype", "shape", "data", "parameters"}
        size = output.get("parameters", {}).get("binary_data_size")
        content = None if size is None else body[start : start + size]
        start += size or 0
        outputs[output["name"]] = _read(output, content)
    assert head_length is None or start == len(body)
    return head, outputs


def _read(output: Mapping[str, Any], content: bytes | None) -> Any:
    if output["datatype"] == "BYTES":
        elements = [text.encode() for text in output.get("data", ())]
        while content:
            (length,) = struct.unpack_from("<I", content)
            elements.append(content[4 : 4 + length])
            content = content[4 + length :]
        assert len(elements) == np.prod(output["shape"])
        return elements
    (dtype,) = [name for name, datatype in DATATYPES.items() if datatype == output["datatype"]]
    values = np.array(output["data"], dtype) if content is None else np.frombuffer(content, dtype)
    return values.reshape(output["shape"])
