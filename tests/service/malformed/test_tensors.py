"""The Open Inference Protocol, for every shipped model, below ASGI and above it: right requests and wrong ones."""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import REGISTRY

from benchmarks.oip.requests import Request, feeds, of_instances, of_strings, of_tensors, read_answer
from chaos.fuzz import oip_requests
from chaos.fuzz.oip_mutations import make_case
from chaos.fuzz.rest_requests import FuzzFailure
from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY
from models.runtime.predictor import Predictor

MODELS = sorted(path.parent.name for path in REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))
CASES = 60
every_model = pytest.mark.parametrize("model", MODELS)


def post(model: str, request: Request, *headers: str, path: str = "infer") -> bytes:
    """Return a request as it goes over the wire; a header given here takes the place of the request's own."""
    told = {name: f"{name}: {value}" for name, value in request.headers.items()}
    told |= {header.partition(":")[0]: header for header in headers}
    lines = (f"POST /v2/models/{model}/{path} HTTP/1.1", "host: x", f"content-length: {len(request.body)}")
    return "\r\n".join((*lines, *told.values(), "", "")).encode() + request.body


def ask(way: Any, model: str, request: Request, *headers: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and outputs of an answer that must be right."""
    answer = way.raw(post(model, request, *headers), alone=False)
    assert answer.status == 200, answer
    length = answer.headers.get("inference-header-content-length")
    assert answer.headers["content-type"] == f"application/{'json' if length is None else 'octet-stream'}"
    assert answer.headers["x-model-digest"] == way.live.endpoints[model].manifest.digest
    return read_answer(answer.body, None if length is None else int(length))


def refused(way: Any, content: bytes, status: int = 400) -> Any:
    """Return the body of a refusal."""
    answer = way.raw(content)
    assert answer.status == status, answer
    assert isinstance(answer.json["error"], str)
    assert answer.json["error"]
    assert answer.json["status"] == status
    return answer.json


def predictor_of(way: Any, model: str) -> Predictor:
    predictor: Predictor = way.live.endpoints[model].predictor
    return predictor


def draw(predictor: Predictor, count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]


def total(model: str, outcome: str) -> float:
    samples = (sample for metric in REGISTRY.collect() for sample in metric.samples)
    wanted = {"model": model, "outcome": outcome}.items()
    return sum(one.value for one in samples if one.name == "lectern_requests_total" and wanted <= one.labels.items())


@every_model
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("is_binary", [True, False])
def test_tensors_are_answered_with_the_outputs_themselves(way: Any, model: str, count: int, is_binary: bool) -> None:
    """What the session gives for the tensors that were sent, bit for bit, and the predictions they stand for."""
    predictor = predictor_of(way, model)
    sent = feeds(predictor, draw(predictor, count))
    expected = predictor.run(sent, predictor.wanted(explain=False))
    before = total(model, "ok")
    head, outputs = ask(way, model, of_tensors(sent, is_binary=is_binary, id="r/1"))
    assert total(model, "ok") == before + 1
    assert (head["model_name"], head["id"]) == (model, "r/1")
    for name, values in expected.items():
        np.testing.assert_array_equal(outputs[name], values)
        assert outputs[name].dtype == values.dtype
    assert len(outputs["prediction"]) == (1 if model == "citation" else count)
    assert not any(set(output) & {"parameters"} and set(output["parameters"]) != {"binary_data_size"}
                   for output in head["outputs"])  # fmt: skip


@every_model
@pytest.mark.parametrize("is_binary", [True, False])
def test_instances_are_answered_as_by_v1(way: Any, model: str, is_binary: bool) -> None:
    """The same predictions to the last digit."""
    instances = draw(predictor_of(way, model), 3)
    body = msgspec.json.encode({"instances": instances})
    expected = way.ask(model, body).json["predictions"]
    _, outputs = ask(way, model, of_instances(instances, is_binary=is_binary))
    assert [json.loads(text) for text in outputs["prediction"]] == expected
    if "scores" in outputs and "scores" in expected[0] and model != "tagging":
        rows = np.concatenate([np.atleast_2d(np.array(one["scores"], np.float32)) for one in expected])
        np.testing.assert_array_equal(outputs["scores"], rows)


@pytest.mark.parametrize(
    ("model", "name", "element"),
    [("tagging", "text", b"I saw a saw"), ("tagging", "text", "Ça va, naïve?".encode()), ("image", "image", b"")],
)
def test_what_a_user_has_goes_as_bytes(way: Any, model: str, name: str, element: bytes) -> None:
    """Text, and a picture file; one element or several, in either shape."""
    card = predictor_of(way, model).card
    example = card.example(predictor_of(way, model).assets)
    element = element or example.image
    instance = {name: element.decode()} if name == "text" else {name: element}
    expected = way.ask(model, msgspec.json.encode({"instances": [instance]})).json["predictions"][0]
    for count in (1, 2):
        request = of_strings(name, [element] * count, is_binary=True)
        for shape in ([count], [count, 1]):
            request.head["inputs"][0]["shape"] = shape
            _, outputs = ask(way, model, request)
            assert [json.loads(text) for text in outputs["prediction"]] == [expected] * count


@pytest.mark.parametrize("model", ["tagging", "image-vit", "citation", "molecule"])
def test_attention_is_given_to_who_names_it(way: Any, model: str) -> None:
    """The session's own, bit for bit; without its name it is not there."""
    predictor = predictor_of(way, model)
    sent = feeds(predictor, draw(predictor, 1, seed=3))
    expected = predictor.run(sent, predictor.wanted(explain=True))["attention"]
    _, outputs = ask(way, model, of_tensors(sent, is_binary=True, outputs=[{"name": "attention"}]))
    np.testing.assert_array_equal(outputs["attention"], expected)
    explained = of_tensors(sent, is_binary=True, parameters={"explain": True})
    assert "attention" in ask(way, model, explained)[1]
    assert "attention" not in ask(way, model, of_tensors(sent, is_binary=True))[1]


def test_sentences_of_unlike_length_share_one_tensor(way: Any) -> None:
    """Attention of the shorter one is filled up with zeros; its own part is what it is alone."""
    texts = [b"I saw a saw", b"Hello"]
    wanted = [{"name": "attention"}, {"name": "scores"}]
    _, both = ask(way, "tagging", of_strings("text", texts, is_binary=True, outputs=wanted))
    _, alone = ask(way, "tagging", of_strings("text", texts[1:], is_binary=True, outputs=wanted))
    np.testing.assert_array_equal(both["attention"][1:, :, :, :1, :1], alone["attention"])
    assert both["attention"].shape[-2:] == (4, 4)
    assert not both["attention"][1, :, :, 1:].any()
    np.testing.assert_array_equal(both["scores"][4:], alone["scores"])


def test_a_raw_request_is_one_tensor_and_nothing_else(way: Any) -> None:
    """A header of no bytes: 56 numbers, 784 pixels, a text, an instance."""
    views = np.full(56, 100, np.float32)
    _, expected = ask(way, "viewcount", of_tensors({"views": views[None]}, is_binary=True))
    cases = {
        "viewcount": views.tobytes(),
        "image": bytes(784),
        "tagging": b"I saw a saw",
        "molecule": b'{"atoms": ["C", "C"], "bonds": [[0, 1]]}',
    }
    for model, body in cases.items():
        head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        answer = way.raw(f"{head}Inference-Header-Content-Length: 0\r\n\r\n".encode() + body)
        assert answer.status == 200, answer
        _, outputs = read_answer(answer.body, int(answer.headers["inference-header-content-length"]))
        assert len(outputs["prediction"]) == 1
        if model == "viewcount":
            np.testing.assert_array_equal(outputs["forecast"], expected["forecast"])


def test_the_likeliest_classes_by_name(way: Any) -> None:
    """``classification`` gives value, place and name, the likeliest first."""
    sent = {"pixels": np.zeros((2, 1, 28, 28), np.uint8)}
    wanted = [{"name": "scores", "parameters": {"classification": 3}}, {"name": "prediction"}]
    head, outputs = ask(way, "image", of_tensors(sent, is_binary=True, outputs=wanted))
    assert head["outputs"][0]["shape"] == [2, 3]
    prediction = json.loads(outputs["prediction"][0])
    value, position, name = outputs["scores"][0].decode().split(":")
    assert (int(position), name) == (prediction["class_id"], prediction["label"])
    assert float(value) == pytest.approx(prediction["score"], abs=1e-6)


def views(**more: Any) -> dict[str, Any]:
    return {"name": "views", "shape": [1, 56], "datatype": "FP32", "data": [100.0] * 56, **more}


WRONG: dict[str, Any] = {
    "no inputs": {},
    "inputs empty": {"inputs": []},
    "inputs no list": {"inputs": {}},
    "not an object": [],
    "name unknown": {"inputs": [views(name="view")]},
    "name missing": {"inputs": [{key: value for key, value in views().items() if key != "name"}]},
    "twice": {"inputs": [views(), views()]},
    "datatype": {"inputs": [views(datatype="FP64")]},
    "datatype unknown": {"inputs": [views(datatype="FLOAT")]},
    "rank": {"inputs": [views(shape=[56])]},
    "days": {"inputs": [views(shape=[1, 55], data=[1] * 55)]},
    "too few": {"inputs": [views(data=[1])]},
    "too many": {"inputs": [views(data=[1] * 57)]},
    "badly nested": {"inputs": [views(data=[[1] * 55 + [[1]]])]},
    "negative axis": {"inputs": [views(shape=[-1, 56])]},
    "axis that overflows": {"inputs": [views(shape=[2**62, 56])]},
    "axes whose product overflows": {"inputs": [views(shape=[2**31 - 1, 2**31 - 1])]},
    "no row": {"inputs": [views(shape=[0, 56], data=[])]},
    "batch too large": {"inputs": [views(shape=[1025, 56], data=[1] * 56 * 1025)]},
    "string in FP32": {"inputs": [views(data=["1"] * 56)]},
    "bool in FP32": {"inputs": [views(data=[True] * 56)]},
    "null in FP32": {"inputs": [views(data=[None] * 56)]},
    "negative": {"inputs": [views(data=[-1] * 56)]},
    "not whole": {"inputs": [views(data=[0.5] * 56)]},
    "too large": {"inputs": [views(data=[1e10] * 56)]},
    "not finite in float32": {"inputs": [views(data=[1e39] * 56)]},
    "id no string": {"inputs": [views()], "id": 5},
    "priority negative": {"inputs": [views()], "parameters": {"priority": -1}},
    "timeout negative": {"inputs": [views()], "parameters": {"timeout": -1}},
    "timeout a string": {"inputs": [views()], "parameters": {"timeout": "5"}},
    "output unknown": {"inputs": [views()], "outputs": [{"name": "score"}]},
    "output twice": {"inputs": [views()], "outputs": [{"name": "lower"}] * 2},
    "attention it has not": {"inputs": [views()], "outputs": [{"name": "attention"}]},
    "explanation it has not": {"inputs": [views()], "parameters": {"explain": True}},
    "classes it has not": {"inputs": [views()], "outputs": [{"name": "lower", "parameters": {"classification": 1}}]},
    "binary data that is not there": {"inputs": [views(parameters={"binary_data_size": 224})]},
    "data twice": {"inputs": [views(parameters={"binary_data_size": 0})]},
    "no data": {"inputs": [{key: value for key, value in views().items() if key != "data"}]},
    "an instance that is no JSON": {"inputs": [{"name": "instance", "shape": [1], "datatype": "BYTES", "data": ["{"]}]},
    "an instance that is wrong": {
        "inputs": [{"name": "instance", "shape": [1], "datatype": "BYTES", "data": ['{"views": [1]}']}]
    },
    "payload and tensor": {
        "inputs": [views(), {"name": "instance", "shape": [1], "datatype": "BYTES", "data": ["{}"]}]
    },
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_gets_400_and_a_reason(way: Any, case: str) -> None:
    """Where Triton says 500 as well; counted once, as what it is."""
    before = total("viewcount", "invalid_request")
    told = refused(way, post("viewcount", Request(WRONG[case])))
    assert total("viewcount", "invalid_request") == before + 1
    assert told["code"] == "invalid_request"


def test_the_control_of_these_cases_is_right(way: Any) -> None:
    """What the cases were made from is answered, nested or flat, whole numbers or not, unknown parameters or none."""
    for part in (views(), views(data=[[100] * 56]), views(parameters={"content_type": "np"})):
        _, outputs = ask(way, "viewcount", Request({"inputs": [part], "id": "", "parameters": {"sequence_id": 0}}))
        assert outputs["forecast"].shape == (1, 28)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"\xff", b"[" * 3000, b'{"inputs":[],"inputs":[]}', b'{"inputs": NaN}'],
    ids=["empty", "cut off", "null", "no UTF-8", "deep", "key twice", "NaN"],
)
def test_broken_json_gets_400(way: Any, body: bytes) -> None:
    """Never a 500, and nothing of the body comes back."""
    head = f"POST /v2/models/image/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    for more in ("", f"inference-header-content-length: {len(body) or 5}\r\n"):
        refused(way, f"{head}{more}\r\n".encode() + body)


@pytest.mark.parametrize("key", ["name", "data", "shape", "parameters"])
def test_a_key_given_twice_is_refused(way: Any, key: str) -> None:
    """Two readers of one request must not see two requests, however the key is written."""
    text = json.dumps({"inputs": [views(parameters={})]})
    value = json.dumps(views(parameters={})[key])
    for written in (key, "".join(f"\\u{ord(letter):04x}" for letter in key)):
        body = text.replace('[{"name"', f'[{{"{written}": {value}, "name"', 1).encode()
        head = f"POST /v2/models/viewcount/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        assert "more than once" in refused(way, head.encode() + body)["error"]


SIZES = (-1, 0, 223, 225, 2**31, 2**63, 2**64, "224", 224.5, None)


@pytest.mark.parametrize("size", SIZES)
def test_a_size_that_lies_is_refused(way: Any, size: Any) -> None:
    """Of one input, with all its bytes there."""
    request = of_tensors({"views": np.ones((1, 56), np.float32)}, is_binary=True)
    request.head["inputs"][0]["parameters"]["binary_data_size"] = size
    refused(way, post("viewcount", request))


@pytest.mark.parametrize("rest", [b"", bytes(223), bytes(225)])
def test_a_binary_part_that_is_cut_off_or_too_long_is_refused(way: Any, rest: bytes) -> None:
    """The head says 224 bytes."""
    request = of_tensors({"views": np.ones((1, 56), np.float32)}, is_binary=True)
    length = len(request.body) - len(request.rest)
    refused(way, post("viewcount", request._replace(rest=rest), f"inference-header-content-length: {length}"))


@pytest.mark.parametrize("length", ["-1", "1e3", "", "9" * 40, "1000000", "3", "+5"])
def test_a_length_of_the_head_that_lies_is_refused(way: Any, length: str) -> None:
    """No number, or beyond the body, or in its midst."""
    request = of_tensors({"views": np.ones((1, 56), np.float32)}, is_binary=True)
    refused(way, post("viewcount", request, f"inference-header-content-length: {length}"))
    plain = Request({"inputs": [views()]})
    beyond = post("viewcount", plain, f"inference-header-content-length: {len(plain.body) + 1}")
    assert "the body has" in refused(way, beyond)["error"]
    twice = post("viewcount", request, "x: y\r\ninference-header-content-length: 0")
    refused(way, twice)


@pytest.mark.parametrize("element", [struct.pack("<I", 2**32 - 1), struct.pack("<I", 5) + b"a", b"abc", b""])
def test_an_element_whose_length_lies_is_refused(way: Any, element: bytes) -> None:
    """Of byte strings."""
    request = of_strings("text", [b"a"], is_binary=True)
    request.head["inputs"][0]["parameters"]["binary_data_size"] = len(element)
    refused(way, post("tagging", request._replace(rest=element)))


def spoiled(predictor: Predictor, name: str, change: Callable[[Any], Any]) -> Request:
    """Return a request with one tensor changed."""
    sent = feeds(predictor, draw(predictor, 2, seed=5))
    values = sent[name].copy()
    found = change(values)
    sent[name] = values if found is None else found
    return of_tensors(sent, is_binary=True)


def put(position: Any, value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        values[position] = value

    return change


SPOILED: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("viewcount", "views", put((0, 3), np.nan)),
    ("viewcount", "views", put((0, 3), np.inf)),
    ("tagging", "features", put((0, 0), -1)),
    ("tagging", "features", put((0, 0), 2**40)),
    ("tagging", "grid", put((0, 0), -1)),
    ("tagging", "grid", put((0, 0), 2**62)),
    ("tagging", "keep", put((0, 0), False)),
    ("tagging", "back", put(0, 5000)),
    ("tagging", "back", lambda values: values[::-1]),
    ("tagging", "keep", lambda values: np.pad(values, ((0, 0), (0, 1)))),
    ("citation", "features", put(0, -1)),
    ("citation", "features", put(0, 10**6)),
    ("citation", "node_of_feature", put(-1, 2**40)),
    ("citation", "features_of_node", put(0, -1)),
    ("citation", "features_of_node", put(0, 2**62)),
    ("citation", "edges", put((0, 0), -1)),
    ("citation", "edges", put((1, 0), 2**31)),
    ("citation", "edges", lambda values: values[:, ::-1]),
    ("citation", "edges", lambda values: values[:, 1:]),
    ("citation", "edges", lambda values: np.concatenate([values, values[:, -1:]], axis=1)),
    ("citation", "edges", lambda values: np.concatenate([values, values[:1]])),
    ("citation", "edges", lambda values: np.append(values, [[values.max() + 3], [values.max()]], axis=1)),
    ("citation", "edges", lambda values: np.append([[-1], [0]], values, axis=1)),
    ("molecule", "features", put(0, 99)),
    ("molecule", "features_of_node", put(0, 3)),
    ("molecule", "graph_of_node", put(0, 1)),
    ("molecule", "nodes_of_graph", put(0, 0)),
    ("molecule", "nodes_of_graph", put(0, 2**40)),
    ("molecule", "edges", put((0, 0), -1)),
    ("molecule", "edges", put((0, -1), 0)),
]


@pytest.mark.parametrize("case", range(len(SPOILED)))
def test_what_no_device_may_see_is_refused(way: Any, case: int) -> None:
    """Places outside of a table or a graph, which ONNX Runtime wraps or follows, and numbers that are none."""
    model, name, change = SPOILED[case]
    before = total(model, "runner_failed")
    told = refused(way, post(model, spoiled(predictor_of(way, model), name, change)))
    assert told["errors"]
    ask(way, model, spoiled(predictor_of(way, model), name, lambda values: None))
    assert total(model, "runner_failed") == before


def test_bools_are_bytes_of_0_or_1(way: Any) -> None:
    """Anything else would be another number where it is multiplied."""
    request = spoiled(predictor_of(way, "tagging"), "keep", lambda values: None)
    names = [part["name"] for part in request.head["inputs"]]
    start = sum(part["parameters"]["binary_data_size"] for part in request.head["inputs"][: names.index("keep")])
    rest = bytearray(request.rest)
    rest[start] = 2
    refused(way, post("tagging", request._replace(rest=bytes(rest))))


def test_status_of_what_the_headers_say(way: Any) -> None:
    """404 of model and version, 405, 415 of what is compressed or of another type, 504 of what would be too late."""
    request = Request({"inputs": [views()]})
    refused(way, post("nobody", request), 404)
    refused(way, post("viewcount", request, path="versions/9/infer"), 404)
    refused(way, post("viewcount", request).replace(b"POST", b"GET", 1), 405)
    refused(way, post("viewcount", request, "content-encoding: gzip"), 415)
    refused(way, post("viewcount", request, "content-type: application/vnd.bentoml+pickle"), 415)
    told = refused(way, post("viewcount", request, "content-type: text/plain"), 415)["error"]
    assert told.endswith("application/json, application/octet-stream")
    version = way.live.endpoints["viewcount"].manifest.version
    assert way.raw(post("viewcount", request, path=f"versions/{version}/infer")).status == 200
    late = Request({"inputs": [views()], "parameters": {"timeout": 1}})
    assert refused(way, post("viewcount", late), 504)["code"] == "deadline_exceeded"


@every_model
def test_mutations_are_never_answered_with_5xx(way: Any, model: str) -> None:
    """Some hundreds here; ``python -m chaos.fuzz.oip_requests`` asks many thousands."""
    predictor = predictor_of(way, model)
    statuses = set()
    for number in range(CASES):
        case = make_case(Random(f"{model}/{number}"), model, predictor)
        answer = way.raw(case.content, alone=False)
        oip_requests.check(answer.status, answer.headers, answer.body)
        statuses.add(answer.status)
    assert statuses >= {200, 400}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"status":500,"error":"a"}'),
        (422, b'{"status":422,"error":"a"}'),
        (400, b'{"status":400,"error":""}'),
        (400, b'{"status":422,"error":"a"}'),
        (200, b'{"model_name":"a","outputs":[]}'),
        (200, b'{"model_name":"a","outputs":[{"data":[NaN]}]}'),
    ],
)
def test_what_is_a_failure(status: int, body: bytes) -> None:
    """Control: what a broken service would say is seen as broken."""
    oip_requests.check(400, {}, b'{"status":400,"error":"a"}')
    with pytest.raises(FuzzFailure):
        oip_requests.check(status, {}, body)
