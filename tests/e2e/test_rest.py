"""The REST API of a served process, with its runners embedded and in processes of their own."""

import base64
import json
import math
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

import bentoml
import httpx
import msgspec
import numpy as np
import orjson
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from models.runtime.predictor import Predictor

pytestmark = pytest.mark.e2e

Open = Callable[[str], Predictor]
PROBLEM_KEYS = {"status", "code", "error", "request_id", "retryable", "errors"}
MARKER = "Qx7Zanzibar"
MAX_BODY_BYTES = 16 * 2**20
ATTENDING = ("tagging", "image-vit", "citation", "molecule")


def draw(predictor: Predictor, count: int, seed: int) -> list[Any]:
    """Random valid instances as plain JSON values."""
    rng = np.random.default_rng(seed)
    instances = [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]
    return [json.loads(msgspec.json.encode(instance)) for instance in instances]


def expected(predictor: Predictor, instance: Any) -> Any:
    """Return what the same artifact answers here, one instance alone, without service or batch."""
    decoded = msgspec.convert(instance, predictor.card.instance)
    answer = predictor.predict([decoded])[0]
    dumped = orjson.dumps(answer, default=lambda array: array.tolist(), option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.loads(dumped)


def differences(ones: list[Any], others: list[Any]) -> list[int]:
    """Places at which two lists of answers are not the same JSON."""
    return [n for n, (a, b) in enumerate(zip(ones, others, strict=True)) if json.dumps(a) != json.dumps(b)]


def file_of(pixels: Any, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def grey(seed: int = 5) -> list[list[int]]:
    found: list[list[int]] = np.random.default_rng(seed).integers(0, 256, (28, 28)).tolist()
    return found


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def samples_of(server: Any) -> dict[str, dict[tuple[str, ...], float]]:
    """Return every series of ``/metrics``: sample name to label values to value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value  # type: ignore[index]
    return found


def request_counts(server: Any) -> Counter[tuple[str, str]]:
    """``lectern_requests_total`` by model and outcome."""
    series = samples_of(server)["lectern_requests_total"]
    found = Counter[tuple[str, str]]()
    for labels, value in series.items():
        named = dict(labels)  # type: ignore[call-overload]
        found[named["model"], named["outcome"]] += int(value)
    return found


def check_problem(answer: httpx.Response, status: int, code: str, locs: list[list[Any]]) -> None:
    """The answer is the documented problem, all of it and nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == PROBLEM_KEYS
    assert (body["status"], body["code"], body["retryable"]) == (status, code, False)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert [fault["loc"] for fault in body["errors"]] == locs
    assert all(set(fault) == {"loc", "reason"} and fault["reason"] for fault in body["errors"])
    assert body["error"]
    said = (answer.text + str(answer.headers)).lower()
    assert MARKER.lower() not in said
    assert not re.search(r"traceback|\.py\b|/work|/tmp|site-packages", said)


# --- right answers ---


def test_the_documented_example_gives_the_documented_answer(placed: Any, model: str) -> None:
    """Posting example.request of a model's page gives example.response, character by character."""
    page = placed.page(f"/v1/models/{model}")
    answer = placed.post(model, page["example"]["request"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.dumps(answer.json()) == json.dumps(page["example"]["response"])


def test_every_shipped_model_is_listed(placed: Any, shipped: Open, model: str) -> None:
    """GET /v1/models names each with its score; its page names the certificate of the shipped file."""
    listed = {one["name"]: one for one in placed.page("/v1/models")["models"]}
    assert listed[model]["provider"] == "CPUExecutionProvider"
    page = placed.page(f"/v1/models/{model}")
    assert page["certificate"]["score"]["onnx"] == listed[model]["score"]["test"]
    assert page["explains"] is (model in ATTENDING)
    assert set(page["schema"]) == {"request", "prediction"}


def test_i_saw_a_saw(placed: Any) -> None:
    """The same word is a verb, then a noun."""
    answer = placed.predict("tagging", {"text": "I saw a saw"}, {"tokens": ["I", "saw", "a", "saw"]})
    assert answer[0]["tokens"] == ["I", "saw", "a", "saw"]
    assert answer[0]["tags"] == ["PRON", "VERB", "DET", "NOUN"]
    assert answer[1] == answer[0]


def test_fifty_instances_are_answered_in_order_as_if_alone(placed: Any, shipped: Open, model: str) -> None:
    """A mixed batch over HTTP, each alone over HTTP, each alone here: three times the same JSON, in order."""
    instances = draw(shipped(model), 50, seed=11)
    together = placed.predict(model, *instances)
    alone = [placed.predict(model, instance)[0] for instance in instances]
    assert len({json.dumps(one) for one in alone}) > 25  # else the order could not be seen
    assert differences(together, alone) == []
    assert differences(alone, [expected(shipped(model), instance) for instance in instances]) == []


@pytest.mark.parametrize("attending", ATTENDING)
def test_explained_instances_are_answered_as_if_alone(placed: Any, shipped: Open, attending: str) -> None:
    """Attention in company is attention alone, and the rest of the answer is the unexplained one."""
    instances = draw(shipped(attending), 20, seed=12)
    plain = placed.predict(attending, *instances)
    together = placed.predict(attending, *instances, explain=True)
    alone = [placed.predict(attending, instance, explain=True)[0] for instance in instances]
    assert differences(together, alone) == []
    assert all(one.pop("attention") for one in together)
    assert differences(together, plain) == []


def test_explained_words_sum_to_one(placed: Any) -> None:
    """Tagging: for each layer, head and word, the weights over all words."""
    (answer,) = placed.predict("tagging", {"text": "The quick brown fox jumps"}, explain=True)
    attention = np.array(answer["attention"])
    assert attention.ndim == 4
    assert attention.shape[2:] == (5, 5)
    assert attention.min() >= 0
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)


def test_explained_patches_sum_to_one(placed: Any) -> None:
    """image-vit: for each head, the weights over all 49 patches."""
    (answer,) = placed.predict("image-vit", {"pixels": grey()}, explain=True)
    attention = np.array(answer["attention"])
    assert attention.ndim == 2
    assert attention.shape[1] == 49
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("graph_model", "instance", "targets"),
    [
        ("citation", {"node_ids": [3, 100, 3]}, {3, 100}),
        ("citation", {"new": [{"words": [5, 9], "cites": [1, 2]}, {"words": [7]}]}, {-1, -2}),
        ("citation", {"words": [[1], [2], [3]], "edges": [[0, 1]]}, {0, 1, 2}),
        ("molecule", {"atoms": ["C", "C", "O"], "bonds": [[0, 1], [1, 2]]}, {0, 1, 2}),
    ],
)
def test_explained_edges_sum_to_one(placed: Any, graph_model: str, instance: Any, targets: set[int]) -> None:
    """Graph: for each head and labelled node, the weights of the edges into it."""
    (answer,) = placed.predict(graph_model, instance, explain=True)
    edges, weights = np.array(answer["attention"]["edges"]), np.array(answer["attention"]["weights"])
    assert weights.shape[1] == len(edges)
    assert set(edges[:, 1].tolist()) == targets
    for target in targets:
        assert [target, target] in edges.tolist()
        np.testing.assert_allclose(weights[:, edges[:, 1] == target].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("blind", ["viewcount", "image"])
def test_a_model_without_attention_does_not_explain(placed: Any, blind: str) -> None:
    """``explain`` is refused where it stands."""
    body = placed.page(f"/v1/models/{blind}")["example"]["request"] | {"explain": True}
    check_problem(placed.post(blind, body), 422, "invalid_request", [["explain"]])


@pytest.mark.parametrize("picture_model", ["image", "image-vit"])
def test_one_picture_in_every_form_has_one_answer(placed: Any, picture_model: str) -> None:
    """A 28x28 grey picture as pixels, as base64 and as the body itself."""
    (plain,) = placed.predict(picture_model, {"pixels": grey()})
    files = {
        "image/png": file_of(grey(), "PNG"),
        "image/webp": file_of(grey(), "WEBP", lossless=True),
    }
    for media_type, content in files.items():
        raw = placed.post(picture_model, content, content_type=media_type)
        assert raw.status_code == 200, raw.text
        assert raw.json()["predictions"] == placed.predict(picture_model, {"image": base64_of(content)}) == [plain]
    assert plain["score"] == pytest.approx(max(plain["scores"]))
    assert plain["class_id"] == int(np.argmax(plain["scores"]))
    assert sum(plain["scores"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("picture_model", ["image", "image-vit"])
def test_a_jpeg_is_what_it_decodes_to(placed: Any, picture_model: str) -> None:
    """JPEG loses, but the answer is that of its own decoded pixels, and differs from another picture's."""
    content = file_of(grey(), "JPEG", quality=60)
    pixels = np.asarray(Image.open(BytesIO(content))).tolist()
    raw = placed.post(picture_model, content, content_type="image/jpeg").json()["predictions"]
    assert raw == placed.predict(picture_model, {"pixels": pixels})
    assert raw == placed.predict(picture_model, {"image": base64_of(content)})
    assert raw != placed.predict(picture_model, {"pixels": grey(6)})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA"])
def test_any_size_and_colour_mode_is_answered(server: Any, mode: str) -> None:
    """A 90x41 picture of any mode gets ten scores."""
    noise = np.random.default_rng(1).integers(0, 256, (41, 90, 3)).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "PNG")
    (answer,) = server.post("image", buffer.getvalue(), content_type="image/png").json()["predictions"]
    assert len(answer["scores"]) == 10


def test_the_resident_graph_is_the_same_graph_when_sent(server: Any) -> None:
    """All of Cora sent as words and edges is labelled as its node ids are, and a new paper as one more node."""
    assets = server.page("/v1/models/citation/assets")
    papers, links = assets["papers"], assets["links"]
    new = {"words": papers[10][:8], "cites": [10, 500, 2000]}
    (resident,) = server.predict("citation", {"node_ids": list(range(len(papers)))})
    (sent,) = server.predict("citation", {"words": papers, "edges": links})
    assert sent["labels"] == resident["labels"]
    assert len(set(sent["labels"])) == 7
    np.testing.assert_allclose(sent["scores"], resident["scores"], atol=1e-5)
    (alone,) = server.predict("citation", {"new": [new]})
    more = [*links, *([len(papers), cited] for cited in new["cites"])]
    (grown,) = server.predict("citation", {"words": [*papers, new["words"]], "edges": more})
    assert alone["labels"] == grown["labels"][-1:]
    np.testing.assert_allclose(alone["scores"], grown["scores"][-1:], atol=1e-5)


@pytest.mark.parametrize("horizon", [1, 28])
def test_a_forecast_has_its_horizon_and_a_sound_interval(placed: Any, horizon: int) -> None:
    """As many days as asked, lower <= forecast <= upper, and a longer one begins as a shorter one."""
    views = [1000 + 10 * day for day in range(56)]
    answer, longer = placed.predict("viewcount", {"views": views, "horizon": horizon}, {"views": views, "horizon": 28})
    assert [len(answer[key]) for key in ("forecast", "lower", "upper")] == [horizon] * 3
    triples = zip(answer["lower"], answer["forecast"], answer["upper"], strict=True)
    assert all(0 <= low <= middle <= high for low, middle, high in triples)
    assert answer["forecast"] == longer["forecast"][:horizon]


BAD: list[tuple[str, bytes, str, str]] = [
    ("tagging", b"{", "application/json", "malformed_request"),
    ("tagging", b'{"instances":[{"text":1}]}', "application/json", "invalid_request"),
    ("image", b"not a picture", "image/png", "invalid_request"),
    ("image", b"{}", "text/plain", "unsupported_media_type"),
    ("molecule", b'{"instances":[{"atoms":["Xx"]}]}', "application/json", "invalid_request"),
    ("viewcount", b'{"instances":[{"views":[1]}]}', "application/json", "invalid_request"),
    ("citation", b'{"instances":[{"node_ids":[99999]}]}', "application/json", "invalid_request"),
]


def concurrent_requests(shipped: Open, count: int) -> Iterator[tuple[str, bytes, str, Any]]:
    """Mixed requests of all models, one in five bad: model, body, content type and what must come back."""
    names = ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]
    pools = {name: draw(shipped(name), count // 4, seed=13) for name in names}
    known = {name: [expected(shipped(name), instance) for instance in pool] for name, pool in pools.items()}
    rng = np.random.default_rng(14)
    for number in range(count):
        if number % 5 == 4:
            yield BAD[number % len(BAD)]
            continue
        name = names[number % len(names)]
        chosen = rng.integers(0, len(pools[name]), rng.integers(1, 4)).tolist()
        body = orjson.dumps({"instances": [pools[name][position] for position in chosen]})
        yield name, body, "application/json", [known[name][position] for position in chosen]


@pytest.mark.timeout(180)
def test_concurrent_callers_get_their_own_answers_and_are_counted(placed: Any, shipped: Open) -> None:
    """300 requests over 16 threads, bad ones among them: each its own answer; /metrics agrees with our own ledger."""
    work = list(concurrent_requests(shipped, 300))
    before = request_counts(placed)

    def ask(job: tuple[str, bytes, str, Any]) -> tuple[str, str, bool]:
        name, body, media_type, wanted = job
        answer = placed.post(name, body, content_type=media_type)
        found = answer.json()
        if isinstance(wanted, str):
            return name, found["code"], found["code"] == wanted
        is_right = answer.status_code == 200 and differences(found["predictions"], wanted) == []
        return name, "ok" if answer.status_code == 200 else found["code"], is_right

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(ask, work))
    assert [n for n, (_, _, is_right) in enumerate(results) if not is_right] == []
    ledger = Counter((name, outcome) for name, outcome, _ in results)
    after = request_counts(placed)
    assert {pair: count - before[pair] for pair, count in after.items() if count != before[pair]} == dict(ledger)


def test_latency_and_batches_are_counted(server: Any) -> None:
    """One request of three instances is one latency and three batched instances more."""
    model = {"model": "molecule"}.items()

    def total(name: str) -> float:
        return sum(value for labels, value in samples_of(server)[name].items() if model <= dict(labels).items())  # type: ignore[call-overload]

    names = ("lectern_request_seconds_count", "lectern_batch_instances_sum")
    before = [total(name) for name in names]
    server.predict("molecule", *[{"atoms": ["C", "O"], "bonds": [[0, 1]]}] * 3)
    assert [total(name) - old for name, old in zip(names, before, strict=True)] == [1, 3]


# --- errors ---


def predict(
    model: str, content: bytes, locs: list[list[Any]], *, status: int = 422, media: str = "application/json"
) -> Any:
    """Return one row of the error table: a POST of a body to a model."""
    code = {400: "malformed_request", 415: "unsupported_media_type", 422: "invalid_request"}[status]
    return pytest.param(
        model, content, media, status, code, locs, id=f"{model}-{status}-{content[:48].decode('latin-1')}"
    )


def one(instance: str) -> bytes:
    return f'{{"instances":[{instance}]}}'.encode()


DAYS = ",".join(["5"] * 55)
ROWS = json.dumps(grey())
AT = ["instances", 0]
ERRORS = [
    predict("tagging", b"", [], status=400),
    predict("tagging", b'{"instances":[{"text":"' + MARKER.encode(), [], status=400),
    predict("tagging", MARKER.encode(), [], status=400),
    predict("tagging", b'{"instances":[{"text":"' + MARKER.encode() + b'\xff"}]}', [], status=400),
    predict("tagging", b'{"instances":' + b"[" * 100_000, [AT]),
    predict("viewcount", one(f'{{"views":[NaN,{DAYS}]}}'), [], status=400),
    predict("viewcount", one(f'{{"views":[Infinity,{DAYS}]}}'), [], status=400),
    predict("viewcount", one(f'{{"views":[-Infinity,{DAYS}]}}'), [], status=400),
    predict("image", one('{"pixels":[[NaN]]}'), [], status=400),
    predict("citation", one('{"node_ids":[Infinity]}'), [], status=400),
    predict("tagging", b"{}", [], status=415, media="text/plain"),
    predict("tagging", b"{}", [], status=415, media=""),
    predict("tagging", b"{}", [], status=415, media=f"application/{MARKER}"),
    predict("tagging", b"{}", [], status=415, media="application/x-www-form-urlencoded"),
    predict("tagging", file_of(grey(), "PNG"), [], status=415, media="image/png"),
    predict("image", file_of(grey(), "PNG"), [], status=415, media="image/gif"),
    predict("tagging", b"[]", [[]]),
    predict("tagging", b"{}", [[]]),
    predict("tagging", b'{"instances":[]}', [["instances"]]),
    predict("tagging", b'{"instances":{}}', [["instances"]]),
    predict("tagging", b'{"instances":[{"text":"a"}],"' + MARKER.encode() + b'":1}', [[]]),
    predict("tagging", b'{"instances":[{"text":"a"}],"explain":"' + MARKER.encode() + b'"}', [["explain"]]),
    predict("tagging", one(f'{{"{MARKER}":1}}'), [AT]),
    predict("tagging", one(f'{{"text":"{MARKER}","tokens":["{MARKER}"]}}'), [AT]),
    predict("tagging", one("{}"), [AT]),
    predict("tagging", one("7"), [AT]),
    predict("tagging", one(f'{{"tokens":["{MARKER}",5]}}'), [[*AT, "tokens", 1]]),
    predict("tagging", one(f'{{"tokens":["{MARKER}","","ok"," "]}}'), [[*AT, "tokens", 1], [*AT, "tokens", 3]]),
    predict("tagging", one(f'{{"tokens":["{MARKER}\\u0000"]}}'), [[*AT, "tokens", 0]]),
    predict("tagging", one(f'{{"text":"{"a " * 513}{MARKER}"}}'), [[*AT, "text"]]),
    predict("tagging", one(f'{{"text":"{MARKER * 2000}"}}'), [[*AT, "text"]]),
    predict("tagging", b'{"instances":[{"text":"a"},{"text":5}]}', [["instances", 1, "text"]]),
    predict("viewcount", one(f'{{"views":[{DAYS}]}}'), [[*AT, "views"]]),
    predict("viewcount", one(f'{{"views":[-1,{DAYS}]}}'), [[*AT, "views", 0]]),
    predict("viewcount", one(f'{{"views":["{MARKER}",{DAYS}]}}'), [[*AT, "views", 0]]),
    predict("viewcount", one(f'{{"views":[0.5,{DAYS}]}}'), [[*AT, "views", 0]]),
    predict("viewcount", one(f'{{"views":[1e400,{DAYS}]}}'), [[*AT, "views", 0]]),
    predict("viewcount", one(f'{{"views":[5,{DAYS}],"horizon":0}}'), [[*AT, "horizon"]]),
    predict("viewcount", one(f'{{"views":[5,{DAYS}],"horizon":29}}'), [[*AT, "horizon"]]),
    predict("viewcount", one(f'{{"views":[5,{DAYS}],"horizon":1.5}}'), [[*AT, "horizon"]]),
    predict("image", one("{}"), [AT]),
    predict("image", one(f'{{"image":"{MARKER}!"}}'), [[*AT, "image"]]),
    predict("image", one(f'{{"image":"{base64_of(MARKER.encode())}"}}'), [[*AT, "image"]]),
    predict("image", one(f'{{"image":"{base64_of(file_of(grey(), "PNG")[:200])}"}}'), [[*AT, "image"]]),
    predict("image", one(f'{{"image":"{base64_of(file_of(grey(), "BMP"))}"}}'), [[*AT, "image"]]),
    predict("image", MARKER.encode(), [[*AT, "image"]], media="image/png"),
    predict("image", b"", [[*AT, "image"]], media="image/jpeg"),
    predict("image", one(f'{{"pixels":{ROWS[:-1]},[1]]}}'), [[*AT, "pixels"]]),
    predict("image", one('{"pixels":[[256]]}'), [[*AT, "pixels", 0, 0]]),
    predict("image", one(f'{{"pixels":{json.dumps([*grey()[:27], [1]])}}}'), [[*AT, "pixels", 27]]),
    predict("image-vit", one('{"pixels":[[-1]]}'), [[*AT, "pixels", 0, 0]]),
    predict("citation", one("{}"), [AT]),
    predict("citation", one('{"node_ids":[1],"words":[[1]]}'), [AT]),
    predict("citation", one('{"node_ids":[]}'), [[*AT, "node_ids"]]),
    predict("citation", one('{"node_ids":[0,2708]}'), [[*AT, "node_ids", 1]]),
    predict("citation", one('{"node_ids":[-1]}'), [[*AT, "node_ids", 0]]),
    predict("citation", one('{"node_ids":[9223372036854775808]}'), [[*AT, "node_ids", 0]]),
    predict("citation", one('{"node_ids":[1],"edges":[]}'), [[*AT, "edges"]]),
    predict("citation", one('{"words":[[1]],"edges":[[0,1]]}'), [[*AT, "edges", 0]]),
    predict("citation", one('{"words":[[1]],"edges":[[0]]}'), [[*AT, "edges", 0]]),
    predict("citation", one('{"words":[[1],[1433]]}'), [[*AT, "words", 1, 0]]),
    predict("citation", one('{"new":[{"words":[1],"cites":[5,2708]}]}'), [[*AT, "new", 0, "cites", 1]]),
    predict("citation", one(f'{{"new":[{{"words":[1],"{MARKER}":[]}}]}}'), [[*AT, "new", 0]]),
    predict("molecule", one('{"atoms":[]}'), [[*AT, "atoms"]]),
    predict("molecule", one(f'{{"atoms":["C","{MARKER}"]}}'), [[*AT, "atoms", 1]]),
    predict("molecule", one('{"atoms":["C"],"bonds":[[0,1]]}'), [[*AT, "bonds", 0]]),
    predict("molecule", one('{"atoms":["C"],"bonds":[[0,0,0]]}'), [[*AT, "bonds", 0]]),
]


@pytest.mark.parametrize(("asked", "content", "media", "status", "code", "locs"), ERRORS)
def test_a_bad_body_has_its_exact_answer(
    server: Any, asked: str, content: bytes, media: str, status: int, code: str, locs: list[list[Any]]
) -> None:
    """Status, code and the place of each fault; nothing of the input comes back."""
    headers = {"content-type": media} if media else {}
    answer = server.client.post(f"/v1/models/{asked}/predict", content=content, headers=headers)
    check_problem(answer, status, code, locs)


def test_a_missing_and_a_doubled_content_type_are_415(server: Any) -> None:
    """The body is not looked at."""
    doubled = [("content-type", "application/json"), ("content-type", "application/json")]
    for headers in ([], doubled):
        request = httpx.Request("POST", f"{server.url}/v1/models/tagging/predict", content=b"{}", headers=headers)
        check_problem(server.client.send(request), 415, "unsupported_media_type", [])


def test_a_charset_beside_the_content_type_is_fine(server: Any) -> None:
    """Parameters and case of the content type do not matter."""
    body = {"instances": [{"text": "a"}]}
    assert server.post("tagging", body, content_type="Application/JSON; charset=utf-8").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allowed"),
    [
        ("POST", f"/v1/models/{MARKER.lower()}/predict", 404, "unknown_model", None),
        ("GET", f"/v1/models/{MARKER.lower()}", 404, "unknown_model", None),
        ("GET", f"/{MARKER}", 404, "unknown_route", None),
        ("GET", f"/v1/models/{MARKER}", 404, "unknown_route", None),
        ("POST", "/v1/models/tagging/predict/", 404, "unknown_route", None),
        ("POST", "/v3/models/tagging/infer", 404, "unknown_route", None),
        ("POST", f"/v2/models/{MARKER.lower()}/infer", 404, "unknown_model", None),
        ("GET", f"/v2/{MARKER}", 404, "unknown_route", None),
        ("GET", "/v2/models/tagging/infer", 405, "method_not_allowed", {"POST"}),
        ("POST", "/v2/models/tagging", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("GET", f"/v1/models/{MARKER.lower()}/assets", 404, "unknown_model", None),
        ("GET", "/v1/models/../models", 404, "unknown_route", None),
        ("GET", "/static_content/../../service/app.py", 404, "unknown_route", None),
        ("GET", "/v1/models/tagging/predict", 405, "method_not_allowed", {"POST"}),
        ("PUT", "/v1/models/tagging/predict", 405, "method_not_allowed", {"POST"}),
        ("POST", "/v1/models/tagging", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("POST", "/v1/models/tagging/assets", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("DELETE", "/v1/models", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("POST", "/", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("POST", "/docs.json", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("POST", "/healthz", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("POST", "/metrics", 405, "method_not_allowed", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_path_or_method_has_its_exact_answer(
    server: Any, method: str, path: str, status: int, code: str, allowed: set[str] | None
) -> None:
    """404 for models and routes, 405 with ``Allow``; the path does not come back."""
    # The path as it stands: a client would resolve the dots.
    extensions = {"target": path.encode()}
    content = b"{}" if method in ("POST", "PUT") else b""
    headers = {"content-type": "application/json"}
    answer = server.client.request(method, "/", content=content, headers=headers, extensions=extensions)
    check_problem(answer, status, code, [])
    assert ({*answer.headers["allow"].split(", ")} if allowed else answer.headers.get("allow")) == allowed


def test_head_is_get_without_a_body(server: Any) -> None:
    """HEAD of a page has its headers and no body."""
    head, get = server.client.head("/v1/models"), server.get("/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_a_body_that_says_it_is_too_long_is_413_before_it_is_sent(server: Any) -> None:
    """The answer comes though not one byte of the body was sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(
            b"POST /v1/models/tagging/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
        )
        answer = HTTPResponse(line)
        answer.begin()
        assert (answer.status, json.load(answer)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("attempt", range(3))
def test_a_chunked_body_over_the_limit_is_413(server: Any, attempt: int) -> None:
    """Its length is not declared; it is counted as it comes."""

    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b" " * 65536

    answer = server.client.post(
        "/v1/models/tagging/predict", content=chunks(), headers={"content-type": "application/json"}
    )
    check_problem(answer, 413, "body_too_large", [])
    assert server.predict("tagging", {"text": "a"})


def test_a_body_at_the_limit_is_read(server: Any) -> None:
    """Sixteen MiB exactly, most of them white space, are answered; one byte more is not."""
    body = orjson.dumps({"instances": [{"text": "I saw a saw"}]})
    assert server.post("tagging", body.ljust(MAX_BODY_BYTES)).status_code == 200
    check_problem(server.post("tagging", body.ljust(MAX_BODY_BYTES + 1)), 413, "body_too_large", [])


def test_too_many_instances_are_422(server: Any) -> None:
    """1,024 are answered, 1,025 are refused."""
    instance = {"atoms": ["C"], "bonds": []}
    assert len(server.predict("molecule", *[instance] * 1024)) == 1024
    check_problem(server.post("molecule", {"instances": [instance] * 1025}), 422, "invalid_request", [["instances"]])


def test_too_long_a_sentence_is_tagged_but_not_explained(server: Any, shipped: Open) -> None:
    """Attention grows with the square; the card says up to where."""
    limit = shipped("tagging").card.budget.explained
    for count, status in ((limit, 200), (limit + 1, 422)):
        body = {"instances": [{"tokens": ["a"] * count}], "explain": True}
        answer = server.post("tagging", body)
        assert answer.status_code == status
    check_problem(answer, 422, "invalid_request", [["instances", 0]])
    assert len(server.predict("tagging", {"tokens": ["a"] * (limit + 1)})[0]["tags"]) == limit + 1


def test_every_bad_instance_is_named_at_once(placed: Any) -> None:
    """Faults of several instances come together, each with its place."""
    bodies = [{"atoms": ["C"]}, {"atoms": [MARKER]}, {"atoms": ["C"], "bonds": [[0, 3]]}]
    check_problem(
        placed.post("molecule", {"instances": bodies}),
        422,
        "invalid_request",
        [["instances", 1, "atoms", 0], ["instances", 2, "bonds", 0]],
    )


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/docs.json", "/"])
def test_a_request_id_is_echoed(server: Any, path: str) -> None:
    """On pages and errors; without one, each answer has its own."""
    assert server.client.get(path, headers={"x-request-id": "abc-1.2_X"}).headers["x-request-id"] == "abc-1.2_X"
    assert server.get(path).headers["x-request-id"] != server.get(path).headers["x-request-id"]


def test_a_request_id_is_echoed_by_predictions(placed: Any) -> None:
    """In the header of an answer, in header and body of an error."""
    assert placed.post("tagging", {"instances": [{"text": "a"}]}, x_request_id="r-1").headers["x-request-id"] == "r-1"
    refused = placed.post("tagging", b"{", x_request_id="r-2")
    assert (refused.headers["x-request-id"], refused.json()["request_id"]) == ("r-2", "r-2")


@pytest.mark.parametrize("given", ["a b", "x" * 65, "<script>", "a;b"])
def test_a_harmful_request_id_is_replaced(server: Any, given: str) -> None:
    """It does not come back, in header or body."""
    answer = server.post("tagging", b"{", x_request_id=given)
    assert given not in answer.text
    assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", answer.headers["x-request-id"])


# --- pages ---


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/metrics"])
def test_a_health_page_is_200(placed: Any, path: str) -> None:
    """For load balancers and Prometheus."""
    assert placed.get(path).status_code == 200


def test_unknown_paths_make_no_series(placed: Any) -> None:
    """Whatever is asked for, /metrics has as many series as before."""

    def series() -> set[str]:
        lines = placed.get("/metrics").text.splitlines()
        return {line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")}

    for path in ("/healthz", "/livez", "/readyz", "/metrics", "/metrics", "/schema.json"):
        placed.get(path)
    before = series()
    assert len(before) > 100
    for number in range(20):
        for path in (
            f"/x{number}",
            f"/v1/models/m{number}",
            f"/v1/models/m{number}/predict",
            f"/static_content/s{number}.js",
        ):
            placed.get(path)
            placed.client.post(path, content=b"{}")
            placed.client.request(f"BREW{number}", path)
    assert series() == before


def references(document: Any) -> Iterator[str]:
    """Yield every ``$ref`` in a document."""
    if isinstance(document, dict):
        yield from ([document["$ref"]] if isinstance(document.get("$ref"), str) else [])
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from references(part)


def resolve(document: Any, reference: str) -> Any:
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def test_openapi_names_every_route_and_resolves(placed: Any) -> None:
    """An OpenAPI 3.1 document: every reference resolves, every route of ours is in it, operation ids are unique."""
    document = placed.page("/docs.json")
    assert document["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(document["info"])
    found = set(references(document))
    assert len(found) > 5
    assert all(isinstance(resolve(document, reference), dict) for reference in found)
    served = [one["name"] for one in placed.page("/v1/models")["models"]]
    wanted = {f"/v1/models/{name}{more}" for name in served for more in ("", "/predict", "/assets")}
    assert wanted | {"/v1/models", "/healthz", "/livez", "/readyz", "/metrics"} == set(document["paths"])
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["responses"] and operation["summary"] for operation in operations)
    names = [operation["operationId"] for operation in operations if "operationId" in operation]
    assert len(set(names)) == len(names) == len(served)
    for path, methods in document["paths"].items():
        if "get" in methods:
            assert placed.get(path).status_code == 200


def test_every_openapi_example_works(placed: Any, model: str) -> None:
    """The documented request gives the documented answer, and its schema names the request's fields."""
    document = placed.page("/docs.json")
    operation = document["paths"][f"/v1/models/{model}/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    answer = placed.post(model, content["example"])
    assert answer.json() == operation["responses"]["200"]["content"]["application/json"]["example"]
    schema = content["schema"]
    schema = resolve(document, schema["$ref"]) if "$ref" in schema else schema
    assert set(schema["properties"]) == {"instances", "explain", "outlier"}
    instance = resolve(document, schema["properties"]["instances"]["items"]["$ref"])
    assert set(content["example"]["instances"][0]) <= set(instance["properties"])
    statuses = {"200", "400", "404", "413", "415", "422", "503", "504"}
    assert statuses <= set(operation["responses"])


def test_the_schemas_of_a_model_resolve(server: Any, model: str) -> None:
    """The page of a model stands on its own."""
    for schema in server.page(f"/v1/models/{model}")["schema"].values():
        assert all(isinstance(resolve(schema, reference), dict) for reference in references(schema))


def test_the_index_page_loads_nothing_from_other_hosts(server: Any) -> None:
    """No address of another host in it, and everything it names is here."""
    page = server.get("/").text
    assert not re.search(r"https?://|src=\"//|href=\"//", page)
    named = re.findall(r"(?:src|href|url)[=:] ?\"\.(/[^\"]+)\"", page)
    assert len(named) >= 3
    assert [path for path in named if server.get(path).status_code != 200] == []


@pytest.mark.timeout(180)
def test_bentoml_s_own_client_asks_every_model(placed: Any, model: str) -> None:
    """The client builds its methods from the service's schema; answers are those of REST."""
    example = placed.page(f"/v1/models/{model}")["example"]
    with bentoml.SyncHTTPClient(placed.url) as client:
        answer = getattr(client, f"predict_{model.replace('-', '_')}")(instances=example["request"]["instances"])
    assert answer == example["response"]


def test_numbers_are_finite(placed: Any, shipped: Open, model: str) -> None:
    """Extreme but valid inputs give strict JSON."""
    extremes = {
        "viewcount": [
            {"views": [0] * 56},
            {"views": [10**9] * 56},
            {"views": [0] * 55 + [10**9]},
            {"views": [1] * 3660},
        ],
        "tagging": [{"text": ""}, {"tokens": []}, {"tokens": ["x" * 512] * 512}],
        "image": [{"pixels": [[0] * 28] * 28}, {"pixels": [[255] * 28] * 28}],
        "image-vit": [{"pixels": [[0] * 28] * 28}, {"pixels": [[255] * 28] * 28}],
        "citation": [
            {"words": [[]]},
            {"new": [{"words": []}]},
            {"words": [[1]] * 300, "edges": [[0, n] for n in range(300)]},
        ],
        "molecule": [{"atoms": ["Br"]}, {"atoms": ["C"] * 256, "bonds": [[0, n] for n in range(256)]}],
    }
    answers = placed.predict(model, *extremes[model])
    assert len(answers) == len(extremes[model])
    text = json.dumps(answers, allow_nan=False)
    assert math.isfinite(sum(map(float, re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text))))
