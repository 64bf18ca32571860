"""Triton's own Python client, untouched, against a served process: every model, in JSON and in binary form."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from benchmarks.oip.requests import feeds
from models.runtime.predictor import Predictor
from service.auth.api_keys import line_of, new_key

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

Shipped = Callable[[str], Predictor]
PAYLOADS = {"tagging": "text", "image": "image", "image-vit": "image"}


def address(server: Any) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def client(server: Any) -> Any:
    with triton.InferenceServerClient(address(server)) as found:
        yield found


def as_inputs(tensors: Mapping[str, Any], *, is_binary: bool, kind: Any = triton) -> list[Any]:
    """Tensors as the client takes them."""
    found = []
    for name, values in tensors.items():
        found.append(kind.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        found[-1].set_data_from_numpy(values, binary_data=is_binary)
    return found


def strings(name: str, *elements: bytes) -> dict[str, Any]:
    return {name: np.array(elements, np.object_)}


def draw(predictor: Predictor, count: int) -> list[Any]:
    rng = np.random.default_rng(7)
    return [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]


def v1(server: Any, model: str, instances: list[Any]) -> list[Any]:
    body = msgspec.json.encode({"instances": instances})
    predictions: list[Any] = server.post(model, body).json()["predictions"]
    return predictions


def told(result: Any) -> list[Any]:
    """Return the predictions of an answer."""
    return [json.loads(text) for text in result.as_numpy("prediction").ravel()]


def test_what_there_is(client: Any, model: str) -> None:
    """Live, ready, metadata and configuration, which agree with each other."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    metadata, config = client.get_model_metadata(model), client.get_model_config(model)
    (version,) = metadata["versions"]
    assert client.is_model_ready(model, version)
    assert not client.is_model_ready(model, "0")
    first = 1 if config["max_batch_size"] else 0
    for listed, configured in zip(metadata["inputs"], config["input"], strict=True):
        assert listed["shape"][first:] == configured["dims"]
        assert configured["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES") == listed["datatype"]
    index = client.get_model_repository_index()
    assert {"name": model, "version": version, "state": "READY", "reason": ""} in index


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_answers_are_those_of_v1(client: Any, server: Any, shipped: Shipped, model: str, is_binary: bool) -> None:
    """Raw tensors give the session's outputs; an instance, a text and a picture give /v1's predictions."""
    predictor = shipped(model)
    sent = feeds(predictor, draw(predictor, 3))
    expected = predictor.run(dict(sent), predictor.wanted(explain=False))
    names = [*expected, "prediction"]
    outputs = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in names]
    result = client.infer(model, as_inputs(sent, is_binary=is_binary), outputs=outputs, request_id="r7")
    assert result.get_response()["id"] == "r7"
    for name, values in expected.items():
        np.testing.assert_array_equal(result.as_numpy(name), values)

    instances = draw(predictor, 2)
    encoded = strings("instance", *map(msgspec.json.encode, instances))
    assert told(client.infer(model, as_inputs(encoded, is_binary=is_binary))) == v1(server, model, instances)

    if model in PAYLOADS and (is_binary or model == "tagging"):
        example = predictor.card.example(predictor.assets)
        value = getattr(example, PAYLOADS[model])
        content = strings(PAYLOADS[model], value if isinstance(value, bytes) else value.encode())
        assert told(client.infer(model, as_inputs(content, is_binary=is_binary))) == v1(server, model, [example])


def test_many_at_once(server: Any, client: Any, shipped: Shipped) -> None:
    """``async_infer`` and the asyncio client: fifty pictures under way, each with its own answer."""
    predictor = shipped("image")
    pictures = np.random.default_rng(0).integers(0, 256, (50, 1, 28, 28)).astype(np.uint8)
    expected = [predictor.run({"pixels": picture[None]}, ["scores"])["scores"] for picture in pictures]
    with triton.InferenceServerClient(address(server), concurrency=10) as many:
        asked = [many.async_infer("image", as_inputs({"pixels": one[None]}, is_binary=True)) for one in pictures]
        found = [one.get_result().as_numpy("scores") for one in asked]
    np.testing.assert_array_equal(found, expected)

    async def work() -> list[Any]:
        async with triton_aio.InferenceServerClient(address(server)) as alike:
            inputs = [as_inputs({"pixels": one[None]}, is_binary=True, kind=triton_aio) for one in pictures]
            answers = await asyncio.gather(*(alike.infer("image", one) for one in inputs))
            return [answer.as_numpy("scores") for answer in answers]

    np.testing.assert_array_equal(asyncio.run(work()), expected)


def test_errors_say_why(client: Any) -> None:
    """400, 404 and 504 with a sentence the client shows."""
    views = np.full((1, 56), 100, np.float32)
    for inputs, more, status, words in (
        ({"views": views[:, :55]}, {}, "400", "expected shape [-1, 56], found [1, 55]"),
        ({"views": views.astype(np.float64)}, {}, "400", "expected datatype FP32"),
        ({"views": -views}, {}, "400", "inputs.views[0][0]: expected a whole number from 0"),
        ({"views": views}, {"model_version": "7"}, "404", "version 1."),
        ({"views": views}, {"timeout": 1}, "504", "no answer within the time limit"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            client.infer("viewcount", as_inputs(inputs, is_binary=True), **more)
        assert refused.value.status() == status
        assert words in refused.value.message()
    with pytest.raises(InferenceServerException) as refused:
        client.infer("nobody", as_inputs({"views": views}, is_binary=True))
    assert refused.value.status() == "404"
    with pytest.raises(InferenceServerException, match="must not be compressed"):
        client.infer("viewcount", as_inputs({"views": views}, is_binary=True), request_compression_algorithm="gzip")


def total(server: Any, name: str, **labels: str) -> float:
    """Return one metric's samples with these labels, added up."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def test_statistics_are_true_to_the_metrics(client: Any, server: Any, model: str) -> None:
    """Count and time of every stage, as /metrics has them."""
    (found,) = client.get_inference_statistics(model)["model_stats"]
    stats = found["inference_stats"]
    everything = total(server, "lectern_requests_total", model=model)
    succeeded = total(server, "lectern_requests_total", model=model, outcome="ok")
    assert (stats["success"]["count"], stats["fail"]["count"]) == (succeeded, everything - succeeded)
    assert found["inference_count"] == total(server, "lectern_batch_instances_sum", model=model)
    assert found["execution_count"] == total(server, "lectern_batch_instances_count", model=model)
    stages = {"queue": "queue", "compute_input": "encode", "compute_infer": "infer", "compute_output": "decode"}
    for name, stage in stages.items():
        assert stats[name]["count"] == total(server, "lectern_stage_seconds_count", model=model, stage=stage)
        seconds = total(server, "lectern_stage_seconds_sum", model=model, stage=stage)
        assert stats[name]["ns"] == pytest.approx(1e9 * seconds, rel=1e-6, abs=2)
    assert found["last_inference"] / 1000 <= time.time()


def test_the_repository_in_two_workers(launch: Any) -> None:
    """Unloading takes a model from both workers, loading brings it back; without the admin's key it is refused."""
    admin, caller = new_key(), new_key()
    keys = f"{line_of(admin, 'ops', ('admin',))}; {line_of(caller, 'app', ('predict',))}"
    server = launch(LECTERN_KEYS=keys, LECTERN_WORKERS="2", LECTERN_MODELS="viewcount,molecule")
    operator, user = {"x-api-key": admin}, {"x-api-key": caller}

    def is_ready() -> set[bool]:
        """Return what twenty connections, spread over both workers, are told."""
        found = set()
        for _ in range(20):
            with triton.InferenceServerClient(address(server)) as one:
                found.add(one.is_model_ready("molecule", headers=user))
        return found

    def until(expected: set[bool]) -> None:
        deadline = time.monotonic() + 10
        while is_ready() != expected:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with triton.InferenceServerClient(address(server)) as client:
        assert client.is_server_ready()  # which needs no key
        for ask in (client.unload_model, client.load_model):
            with pytest.raises(InferenceServerException):
                ask("molecule", headers=user)
        client.unload_model("molecule", headers=operator)
        until({False})
        states = {one["name"]: one["state"] for one in client.get_model_repository_index(headers=operator)}
        assert states == {"viewcount": "READY", "molecule": "UNAVAILABLE"}
        client.load_model("molecule", headers=operator)
        until({True})
        instance = as_inputs(strings("instance", b'{"atoms": ["C", "O"], "bonds": [[0, 1]]}'), is_binary=True)
        assert told(client.infer("molecule", instance, headers=user))[0]["label"]
