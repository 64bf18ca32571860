"""Bodies of inference requests in, bodies of answers out, for one model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from models.bodies import Question, from_decoding, to_json
from models.errors import Fault, HttpError, InvalidRequest, MalformedRequest
from models.family import Array, Prediction
from models.keys import keys_of
from models.manifest import Manifest
from models.predictor import MUTE, Predictor
from models.tensors import join
from service.oip.datatypes import read_binary, read_json, write_strings, wrong
from service.oip.head import Head, Input, Output, read_head, split
from service.oip.signature import ANY, INSTANCE, PREDICTION, Port, Signature, is_strings

Values = Array | list[bytes]


class Wanted(NamedTuple):
    """One output that is wanted.

    Attributes:
        port: Which.
        is_binary: Whether in binary form.
        classes: How many of the likeliest classes are wanted instead of the numbers; 0 for the numbers.
    """

    port: Port
    is_binary: bool
    classes: int = 0


class Asked(NamedTuple):
    """What a request asks.

    Attributes:
        question: Its instances, or its samples.
        are_samples: Which of both.
        wanted: The outputs, in order.
        identity: What the caller calls it.
        timeout_seconds: How long an answer is of use; 0 if that is not said.
    """

    question: Question
    are_samples: bool
    wanted: tuple[Wanted, ...]
    identity: str
    timeout_seconds: float


class TensorBodies:
    """Reads the inference requests of one model and writes its answers."""

    def __init__(self, predictor: Predictor, manifest: Manifest, *, max_instances: int) -> None:
        self.signature = Signature(predictor)
        self._card, self._assets, self._attends = predictor.card, predictor.assets, predictor.attends
        self._max_instances = max_instances
        self._decoder = msgspec.json.Decoder(predictor.card.instance)
        self._keys = keys_of(predictor.card.instance)
        self._head = {"model_name": manifest.model, "model_version": manifest.version}
        self._parameters = {"digest": manifest.digest}

    def read(self, body: bytes, head_length: int | None) -> Asked:
        """What a body asks; samples are checked, instances not yet beyond their types.

        Args:
            body: All of it.
            head_length: Bytes of its JSON part; ``None`` for all of it, 0 for a body that is one tensor.

        Raises:
            MalformedRequest: If it is broken.
            InvalidRequest: If it does not suit the model.
        """
        if head_length == 0:
            return self._read_raw(body)
        content, rest = split(body, head_length)
        head = read_head(content)
        wanted = self._wanted(head)
        explain = head.asked.explain or any(part.port in self.signature.attention for part in wanted)
        values = self._values(head.inputs, rest)
        return self._asked(values, explain, wanted, head.id, head.asked.timeout / 1e6)

    def _read_raw(self, body: bytes) -> Asked:
        """A body that is the bytes of the model's one input: one instance of it."""
        tensors, wanted = self.signature.tensors, tuple(Wanted(port, True) for port in self.signature.outputs)
        if len(tensors) != 1:
            port = next(iter(self.signature.payloads.values()))
            return self._asked({port.name: [body]}, False, wanted, "", 0.0)
        (port,) = tensors
        shape = tuple(1 if axis == "batch" else length for axis, length in zip(port.axes, port.shape, strict=True))
        if ANY in shape:
            shape = _fill(shape, len(body) // port.datatype.dtype.itemsize)
        found = read_binary(memoryview(body), port.datatype, math.prod(shape), port.name)
        assert isinstance(found, np.ndarray)  # a session takes no strings
        return self._asked({port.name: found.reshape(shape)}, False, wanted, "", 0.0)

    # Inputs.

    def _values(self, inputs: Sequence[Input], rest: memoryview) -> dict[str, Values]:
        """The inputs by name, each as its port says."""
        names = [part.name for part in inputs]
        ports = self._ports(names)
        values: dict[str, Values] = {}
        start = 0
        for part in inputs:
            size = part.binary_size
            if size is not None and size > len(rest) - start:
                raise wrong(part.name, f"expected {size} bytes in the binary part, found {len(rest) - start}")
            values[part.name] = _read(part, ports[part.name], rest[start : start + (size or 0)])
            start += size or 0
        if start != len(rest):
            raise MalformedRequest(f"the inputs have {start} bytes in the binary part, which has {len(rest)}")
        _check_common_axes(ports, values)
        return values

    def _ports(self, names: Sequence[str]) -> dict[str, Port]:
        tensors = {port.name: port for port in self.signature.tensors}
        if len(names) == 1 and names[0] in self.signature.payloads:
            return self.signature.payloads
        if len(names) == len(tensors) and set(names) == tensors.keys():
            return tensors
        sets = [" and ".join(tensors)] if tensors else []
        expected = ", or ".join([*sets, *self.signature.payloads])
        raise InvalidRequest("a value makes no sense", [Fault(("inputs",), f"expected {expected}, each once")])

    def _asked(
        self, values: Mapping[str, Values], explain: bool, wanted: tuple[Wanted, ...], identity: str, timeout: float
    ) -> Asked:
        (name, first), *_ = values.items()
        if isinstance(first, list):
            self._check_number(len(first), name)
            instances = [self._instance(name, place, content) for place, content in enumerate(first)]
            return Asked(Question(instances, explain), False, wanted, identity, timeout)
        assert self._card.tensors is not None  # or no port would have had a name like that
        if self.signature.is_batched:
            self._check_number(len(first), name)
        tensors = {key: value for key, value in values.items() if not isinstance(value, list)}
        try:
            samples = self._card.tensors.samples(tensors, self._assets)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), [fault.inside("inputs") for fault in error.faults]) from None
        self._check_number(len(samples), name)
        return Asked(Question(samples, explain), True, wanted, identity, timeout)

    def _check_number(self, found: int, name: str) -> None:
        if not 0 < found <= self._max_instances:
            raise wrong(name, f"expected 1 to {self._max_instances} instances, found {found}")

    def _instance(self, name: str, place: int, content: bytes) -> Any:
        try:
            if name == INSTANCE:
                instance = self._decoder.decode(content)
                repeated = self._keys.find_repeated(content, 0)
                if repeated is not None:
                    raise InvalidRequest("a value makes no sense", [repeated.inside("inputs", name, place)])
                return instance
            assert self._card.tensors is not None  # whose payloads these are
            fields = {name: self._card.tensors.payloads[name](content)}
            return msgspec.convert(fields, self._card.instance, builtin_types=(bytes,))
        except UnicodeDecodeError:
            raise wrong(name, f"element {place} is not UTF-8") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _inside(from_decoding(error), name, place) from error

    # Outputs.

    def _wanted(self, head: Head) -> tuple[Wanted, ...]:
        is_binary, known = head.asked.binary_data_output, self.signature.by_name
        if not head.outputs:
            more = self.signature.attention if head.asked.explain else ()
            return tuple(Wanted(port, is_binary) for port in (*self.signature.outputs, *more))
        names = [output.name for output in head.outputs]
        if "attention" in names and not self._attends:
            raise InvalidRequest("a value makes no sense", [Fault(("outputs", names.index("attention")), MUTE)])
        for place, name in enumerate(names):
            if name not in known or names.index(name) != place:
                reason = f"expected outputs among {', '.join(known)}, each once"
                raise InvalidRequest("a value makes no sense", [Fault(("outputs", place), reason)])
        return tuple(self._want(known[output.name], output, is_binary) for output in head.outputs)

    def _want(self, port: Port, output: Output, is_binary: bool) -> Wanted:
        if isinstance(output.parameters, UnsetType):
            return Wanted(port, is_binary)
        own, classes = output.parameters.binary_data, output.parameters.classification
        if classes and not (port.name == "scores" and self.signature.classes):
            raise InvalidRequest("a value makes no sense", [Fault(("outputs", port.name), "it has no classes")])
        return Wanted(port, is_binary if isinstance(own, UnsetType) else own, min(classes, len(self.signature.classes)))

    def write(
        self, asked: Asked, predictions: Sequence[Prediction], parts: Sequence[Mapping[str, Array]]
    ) -> tuple[int | None, bytes]:
        """The answer, and how many bytes of it are JSON; ``None`` for all.

        Args:
            asked: What it answers.
            predictions: Of its instances, in order.
            parts: Of each instance its part of the outputs.
        """
        told: list[dict[str, Any]] = []
        content: list[bytes] = []
        for port, is_binary, classes in asked.wanted:
            shape, values = self._output(port, classes, predictions, parts)
            output: dict[str, Any] = {"name": port.name, "datatype": "BYTES" if classes else port.datatype.name}
            output["shape"] = shape
            if is_binary:
                data = write_strings(values) if isinstance(values, list) else values.tobytes()
                content.append(data)
                output["parameters"] = {"binary_data_size": len(data)}
            else:
                output["data"] = [text.decode() for text in values] if isinstance(values, list) else values.ravel()
            told.append(output)
        identity = {"id": asked.identity} if asked.identity else {}
        head = to_json({**self._head, **identity, "parameters": self._parameters, "outputs": told})
        return (len(head), b"".join([head, *content])) if content else (None, head)

    def _output(
        self, port: Port, classes: int, predictions: Sequence[Prediction], parts: Sequence[Mapping[str, Array]]
    ) -> tuple[list[int], Values]:
        if port.name == PREDICTION:
            return [len(predictions), *port.shape[1:]], [to_json(prediction) for prediction in predictions]
        values = join([part[port.name] for part in parts])
        if not classes:
            return list(values.shape), values
        names = self.signature.classes
        ranks = np.argsort(-values, axis=1, kind="stable")[:, :classes]
        told = [
            f"{values[row, place]:f}:{place}:{names[place]}".encode()
            for row, places in enumerate(ranks.tolist())
            for place in places
        ]
        return list(ranks.shape), told


def _read(part: Input, port: Port, content: memoryview) -> Values:
    """One input's values, in its shape."""
    if part.datatype != port.datatype.name:
        raise wrong(part.name, f"expected datatype {port.datatype.name}")
    if (part.binary_size is None) == (part.data is UNSET):
        raise wrong(part.name, "expected either data or parameters.binary_data_size")
    _check_shape(part, port)
    elements = math.prod(part.shape)
    if part.data is UNSET:
        values = read_binary(content, port.datatype, elements, part.name)
    else:
        values = read_json(part.data, port.datatype, part.shape, elements, part.name)
    return values if isinstance(values, list) else values.reshape(part.shape)


def _check_shape(part: Input, port: Port) -> None:
    shape = part.shape
    if is_strings(port) and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    elif is_strings(port) and len(shape) == 1:
        return
    expected = port.shape[: len(shape)] if is_strings(port) else port.shape
    is_right = len(shape) == len(expected) and all(
        length in (found, ANY) for length, found in zip(expected, shape, strict=True)
    )
    if not is_right:
        raise wrong(part.name, f"expected shape {list(port.shape)}, found {part.shape}")


def _check_common_axes(ports: Mapping[str, Port], values: Mapping[str, Values]) -> None:
    """Tensors that have an axis in common have it with one length."""
    lengths: dict[str, int] = {}
    for name, found in values.items():
        if isinstance(found, list):
            continue
        for axis, length in zip(ports[name].axes, found.shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                raise wrong(name, f"expected {lengths[axis]} {axis} as in the inputs before it, found {length}")


def _fill(shape: tuple[int, ...], elements: int) -> tuple[int, ...]:
    """A shape whose one open axis is as long as there are elements for."""
    known = math.prod(length for length in shape if length != ANY)
    return tuple(elements // known if length == ANY else length for length in shape)


def _inside(error: HttpError, name: str, place: int) -> HttpError:
    """A decoder's error, seen from the request."""
    if isinstance(error, MalformedRequest):
        return wrong(name, f"element {place} is not JSON")
    return InvalidRequest(str(error), [fault.inside("inputs", name, place) for fault in error.faults])
