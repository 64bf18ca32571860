"""Requests, right and wrong, that Lectern and a real Triton are both asked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.oip.requests import HEAD_LENGTH, Request, feeds, of_tensors
from models.runtime.predictor import Predictor

VIEWS = np.full((1, 56), 100, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCase:
    """One request.

    Attributes:
        name: What it is about.
        model: Who is asked; empty for none.
        path: Below ``/v2/models/{model}``, or below ``/v2``.
        body: ``None`` for a GET.
        headers: Of the request.
        outputs: Names of the outputs it asks for, whose values are compared.
        is_right: Whether both must answer it.
    """

    name: str
    model: str = ""
    path: str = "/infer"
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    is_right: bool = False


def right(predictors: Mapping[str, Predictor]) -> Iterator[ProtocolCase]:
    """Yield what both must answer alike."""
    for path in ("/health/live", "/health/ready", ""):
        yield ProtocolCase(name=f"GET /v2{path}", path=path, is_right=True)
    for model, predictor in predictors.items():
        names = tuple(predictor.wanted(explain=False))
        for path in ("", "/ready", "/config"):
            yield ProtocolCase(name=f"GET {model}{path}", model=model, path=path, is_right=True)
        rng = np.random.default_rng(5)
        for count in (1, 3):
            drawn = [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]
            tensors = feeds(predictor, drawn)
            for is_binary in (True, False):
                wanted = [{"name": name, "parameters": {"binary_data": is_binary}} for name in names]
                request = of_tensors(tensors, is_binary=is_binary, id="r 7", outputs=wanted)
                form = "binary" if is_binary else "JSON"
                yield _infer(f"{model}, {count} instances, {form}", model, request, names, is_right=True)
    yield from _variants()


def _variants() -> Iterator[ProtocolCase]:
    names = ("forecast", "lower", "upper")
    wanted = [{"name": name} for name in names]
    binary = of_tensors({"views": VIEWS}, is_binary=True, outputs=wanted)
    variants = {
        "data nested": _views(data=[[100] * 56]),
        "data as floats": _views(data=[100.0] * 56),
        "an unknown parameter": {**_views(), "parameters": {"mine": "x"}},
        "a sequence's parameters": {**_views(), "parameters": {"sequence_id": 0}},
        "priority 0": {**_views(), "parameters": {"priority": 0}},
        "a long timeout": {**_views(), "parameters": {"timeout": 10_000_000}},
        "timeout 0": {**_views(), "parameters": {"timeout": 0}},
        "id empty": {**_views(), "id": ""},
        "id with quotes": {**_views(), "id": '"ü\\'},
        "an unknown member": {**_views(), "mine": 1},
        "an unknown member of an input": _views(mine=1),
    }
    for name, head in variants.items():
        yield _infer(name, "viewcount", Request({**head, "outputs": wanted}), names, is_right=True)
    yield _infer("one output", "viewcount", Request({**_views(), "outputs": [{"name": "upper"}]}), ("upper",), True)
    mixed = [{"name": "lower", "parameters": {"binary_data": False}}, {"name": "upper"}]
    yield _infer(
        "JSON and binary", "viewcount", binary._replace(head={**binary.head, "outputs": mixed}), names[1:], True
    )
    whole = {"content-type": "application/octet-stream", HEAD_LENGTH: str(len(Request(_views()).body))}
    yield _infer("JSON with the length of the head", "viewcount", Request(_views()), (), True, **whole)
    yield _infer("no content type", "viewcount", Request(_views()), (), True, **{"content-type": ""})
    raw = {HEAD_LENGTH: "0", "content-type": "application/octet-stream"}
    yield ProtocolCase(name="raw", model="viewcount", body=VIEWS.tobytes(), headers=raw, is_right=True)


def wrong(predictors: Mapping[str, Predictor]) -> Iterator[ProtocolCase]:
    """Yield what ought to be refused."""
    yield ProtocolCase(name="unknown model's metadata", model="nobody", path="")
    yield ProtocolCase(name="unknown model's readiness", model="nobody", path="/ready")
    yield ProtocolCase(name="unknown model's configuration", model="nobody", path="/config")
    yield ProtocolCase(name="unknown version", model="viewcount", path="/versions/77/ready")
    yield ProtocolCase(name="unknown path", path="/nothing")
    yield _infer("unknown model", "nobody", Request(_views()))
    for name, head in _heads().items():
        yield _infer(name, "viewcount", Request(head))
    for name, body in {"empty": b"", "no JSON": b"{", "null": b"null", "no UTF-8": b'{"id":"\xff"}'}.items():
        yield ProtocolCase(name=name, model="viewcount", body=body, headers={"content-type": "application/json"})
    yield from _lies()
    yield from _spoiled(predictors)
    # The last one, because Triton does not outlive it.
    yield _infer("axes that overflow", "viewcount", Request(_views(shape=[2**31 - 1, 2**31 - 1])))


def _heads() -> dict[str, Any]:
    return {
        "no inputs": {},
        "inputs empty": {"inputs": []},
        "inputs no list": {"inputs": {}},
        "input unknown": _views(name="view"),
        "input twice": {"inputs": _views()["inputs"] * 2},
        "name missing": {"inputs": [{"shape": [1, 56], "datatype": "FP32", "data": [1] * 56}]},
        "shape missing": {"inputs": [{"name": "views", "datatype": "FP32", "data": [1] * 56}]},
        "datatype missing": {"inputs": [{"name": "views", "shape": [1, 56], "data": [1] * 56}]},
        "another datatype": _views(datatype="FP64"),
        "no datatype": _views(datatype="FLOAT"),
        "too few axes": _views(shape=[56]),
        "too many axes": _views(shape=[1, 56, 1]),
        "an axis too short": _views(shape=[1, 55], data=[1] * 55),
        "too few numbers": _views(data=[1]),
        "too many numbers": _views(data=[1] * 57),
        "negative axis": _views(shape=[-1, 56]),
        "batch too large": _views(shape=[1025, 56], data=[1] * 56 * 1025),
        "a string in FP32": _views(data=["a"] * 56),
        "null in FP32": _views(data=[None] * 56),
        "a bool in FP32": _views(data=[True] * 56),
        "an object in FP32": _views(data=[{}] * 56),
        "id a number": {**_views(), "id": 5},
        "priority negative": {**_views(), "parameters": {"priority": -1}},
        "timeout negative": {**_views(), "parameters": {"timeout": -1}},
        "timeout a string": {**_views(), "parameters": {"timeout": "1"}},
        "parameters a list": {**_views(), "parameters": []},
        "output unknown": {**_views(), "outputs": [{"name": "nothing"}]},
        "output twice": {**_views(), "outputs": [{"name": "lower"}] * 2},
        "outputs no list": {**_views(), "outputs": {}},
        "no binary data": _views(parameters={"binary_data_size": 224}),
        "views below 0": _views(data=[-1] * 56),
        "views not whole": _views(data=[0.5] * 56),
    }


def _lies() -> Iterator[ProtocolCase]:
    request = of_tensors({"views": VIEWS}, is_binary=True)
    good = request.headers
    for size in (-1, 0, 223, 225, 2**40, 2**64, "224"):
        head = json.loads(json.dumps(request.head))
        head["inputs"][0]["parameters"]["binary_data_size"] = size
        lie = request._replace(head=head)
        yield _infer(f"binary_data_size {size}", "viewcount", lie)
    yield _infer("binary part cut off", "viewcount", request._replace(rest=request.rest[:-1]), **good)
    yield _infer("binary part too long", "viewcount", request._replace(rest=request.rest + b"\0"), **good)
    for length in ("-1", "5", "99999", "x"):
        yield _infer(f"head length {length}", "viewcount", request, **{**good, HEAD_LENGTH: length})


def _spoiled(predictors: Mapping[str, Predictor]) -> Iterator[ProtocolCase]:
    """Tensors of the right form whose numbers point nowhere."""
    for model, name, position, value in (
        ("tagging", "features", (0, 0), -1),
        ("tagging", "features", (0, 0), 10**9),
        ("tagging", "grid", (0, 0), 10**6),
        ("molecule", "edges", (0, 0), -1),
        ("molecule", "features", (0,), 10**6),
        ("citation", "edges", (1, 0), 10**6),
    ):
        predictor = predictors[model]
        tensors = feeds(predictor, [predictor.card.random_request(np.random.default_rng(3), predictor.assets)])
        tensors[name] = tensors[name].copy()
        tensors[name][position] = value
        yield _infer(f"{model}: {value} in {name}", model, of_tensors(tensors, is_binary=True))


def _infer(
    name: str, model: str, request: Request, outputs: tuple[str, ...] = (), is_right: bool = False, **headers: str
) -> ProtocolCase:
    told = {key.lower(): value for key, value in (headers or request.headers).items()}
    return ProtocolCase(name=name, model=model, body=request.body, headers=told, outputs=outputs, is_right=is_right)


def _views(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "views", "shape": [1, 56], "datatype": "FP32", "data": [100] * 56, **more}]}
