"""Bodies of inference requests in, bodies of answers out, for one model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from models.artifact.manifest import Manifest
from models.card import Array, Prediction
from models.errors import HttpError, InvalidRequest, MalformedRequest
from models.payload.duplicate_keys import keys_of
from models.payload.json_payload import Question, from_decoding, to_json
from models.runtime.predictor import Predictor
from models.tensors import join
from service.inference.endpoint import Endpoint
from service.oip.datatypes import read_binary, read_json, write_strings, wrong
from service.oip.request_json import split
from service.oip.request_plan import Planner, RequestPlan, TensorSource, WantedOutput
from service.oip.tensor_signature import ANY, INSTANCE, PREDICTION, Port, Signature

Values = Array | list[bytes]


class TensorQuestion(NamedTuple):
    """Describe what a request asks, with its data.

    Attributes:
        plan: How it is to be read and answered.
        question: Its instances, or its samples.
        are_samples: Which of both.
    """

    plan: RequestPlan
    question: Question
    are_samples: bool


def tensor_payloads(endpoint: Endpoint) -> "TensorPayloads":
    """Return what reads and writes an endpoint's inference requests, made when it is first wanted."""
    bodies = _BODIES.get(endpoint)
    if bodies is None:
        limit = endpoint.payloads.max_instances
        bodies = _BODIES[endpoint] = TensorPayloads(endpoint.predictor, endpoint.manifest, max_instances=limit)
    return bodies


class TensorPayloads:
    """Reads the inference requests of one model and writes its answers."""

    def __init__(self, predictor: Predictor, manifest: Manifest, *, max_instances: int) -> None:
        self.signature = Signature(predictor)
        self._planner = Planner(self.signature)
        self._card, self._assets, self._max_instances = predictor.card, predictor.assets, max_instances
        self._decoder = msgspec.json.Decoder(predictor.card.instance)
        self._keys = keys_of(predictor.card.instance)
        self._head = {"model_name": manifest.model, "model_version": manifest.version}
        self._parameters = {"digest": manifest.digest}

    def read(self, body: bytes, head_length: int | None) -> TensorQuestion:
        """Return what a body asks; samples are checked, instances not yet beyond their types.

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
        plan = self._planner.plan(content)
        values: dict[str, Values] = {}
        start = 0
        for source in plan.sources:
            values[source.port.name] = _read(source, rest[start : start + (source.size or 0)])
            start += source.size or 0
        if start != len(rest):
            raise MalformedRequest(f"the inputs have {start} bytes in the binary part, which has {len(rest)}")
        return self._asked(plan._replace(sources=()), values)  # whose data would wait for the answer, too

    def _read_raw(self, body: bytes) -> TensorQuestion:
        """Return a body that is the bytes of the model's one input: one instance of it."""
        tensors, plan = (
            self.signature.tensors,
            RequestPlan((), tuple(WantedOutput(port, True) for port in self.signature.outputs)),
        )
        if len(tensors) != 1:
            port = next(iter(self.signature.payloads.values()))
            return self._asked(plan, {port.name: [body]})
        (port,) = tensors
        shape = tuple(1 if axis == "batch" else length for axis, length in zip(port.axes, port.shape, strict=True))
        if ANY in shape:
            shape = _fill(shape, len(body) // port.datatype.dtype.itemsize)
        found = read_binary(memoryview(body), port.datatype, math.prod(shape), port.name)
        assert isinstance(found, np.ndarray)  # a session takes no strings
        return self._asked(plan, {port.name: found.reshape(shape)})

    def _asked(self, plan: RequestPlan, values: dict[str, Values]) -> TensorQuestion:
        (name, first), *_ = values.items()
        if isinstance(first, list):
            self._check_number(len(first), name)
            instances = [self._instance(name, index, content) for index, content in enumerate(first)]
            return TensorQuestion(plan, Question(instances, plan.explain), False)
        assert self._card.tensors is not None  # or no port would have had a name like that
        if self.signature.is_batched:
            self._check_number(len(first), name)
        tensors = {key: value for key, value in values.items() if not isinstance(value, list)}
        try:
            samples = self._card.tensors.samples(tensors, self._assets)
        except InvalidRequest as error:
            raise InvalidRequest(faults=[fault.inside("inputs") for fault in error.faults]) from None
        self._check_number(len(samples), name)
        return TensorQuestion(plan, Question(samples, plan.explain), True)

    def _check_number(self, found: int, name: str) -> None:
        if not 0 < found <= self._max_instances:
            raise wrong(name, f"expected 1 to {self._max_instances} instances, found {found}")

    def _instance(self, name: str, index: int, content: bytes) -> Any:
        try:
            if name == INSTANCE:
                instance = self._decoder.decode(content)
                repeated = self._keys.find_repeated(content, 0)
                if repeated is not None:
                    raise InvalidRequest(faults=[repeated.inside("inputs", name, index)])
                return instance
            assert self._card.tensors is not None  # whose payloads these are
            fields = {name: self._card.tensors.payloads[name](content)}
            return msgspec.convert(fields, self._card.instance, builtin_types=(bytes,))
        except UnicodeDecodeError:
            raise wrong(name, f"element {index} is not UTF-8") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _inside(from_decoding(error), name, index) from error

    def write(
        self, plan: RequestPlan, predictions: Sequence[Prediction], parts: Sequence[Mapping[str, Array]]
    ) -> tuple[int | None, bytes]:
        """Return the answer, and how many bytes of it are JSON; ``None`` for all.

        Args:
            plan: Of the request.
            predictions: Of its instances, in order.
            parts: Of each instance its part of the outputs.
        """
        told: list[dict[str, Any]] = []
        content: list[bytes] = []
        for port, is_binary, classes in plan.wanted:
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
        identity = {"id": plan.identity} if plan.identity else {}
        head = to_json({**self._head, **identity, "parameters": self._parameters, "outputs": told})
        return (len(head), b"".join([head, *content])) if content else (None, head)

    def _output(
        self, port: Port, classes: int, predictions: Sequence[Prediction], parts: Sequence[Mapping[str, Array]]
    ) -> tuple[Sequence[int], Values]:
        if port.name == PREDICTION:
            return [len(predictions), *port.shape[1:]], [to_json(prediction) for prediction in predictions]
        values = join([part[port.name] for part in parts])
        return _likeliest(values, classes, self.signature.classes) if classes else (values.shape, values)


def _read(source: TensorSource, content: memoryview) -> Values:
    """Return one input's values, in its shape."""
    port, shape, elements, size, data = source
    if size is None:
        values = read_json(data, port.datatype, shape, elements, port.name)
    elif size != len(content):
        raise wrong(port.name, f"expected {size} bytes in the binary part, found {len(content)}")
    else:
        values = read_binary(content, port.datatype, elements, port.name)
    return values if isinstance(values, list) else values.reshape(shape)


def _likeliest(values: Array, classes: int, names: Sequence[str]) -> tuple[list[int], list[bytes]]:
    """Of each row the likeliest classes, the first first: probability, place and name."""
    ranks = np.argsort(-values, axis=1, kind="stable")[:, :classes]
    told = [
        f"{values[row, index]:f}:{index}:{names[index]}".encode()
        for row, positions in enumerate(ranks.tolist())
        for index in positions
    ]
    return list(ranks.shape), told


def _fill(shape: tuple[int, ...], elements: int) -> tuple[int, ...]:
    """Return a shape whose one open axis is as long as there are elements for."""
    known = math.prod(length for length in shape if length != ANY)
    return tuple(elements // known if length == ANY else length for length in shape)


def _inside(error: HttpError, name: str, index: int) -> HttpError:
    """Return a decoder's error, seen from the request."""
    if isinstance(error, MalformedRequest):
        return wrong(name, f"element {index} is not JSON")
    return InvalidRequest(faults=[fault.inside("inputs", name, index) for fault in error.faults])


_BODIES: WeakKeyDictionary[Endpoint, TensorPayloads] = WeakKeyDictionary()
