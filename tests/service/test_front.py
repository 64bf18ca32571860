"""The outermost layer over real models, driven message by message as an ASGI server would."""

import asyncio
import base64
import logging
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeVar

import httpx
import msgspec
import numpy as np
import orjson
import pytest

from models.runtime.session import Session
from service.inference.endpoint import Endpoint, make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.runners.backends import InProcessRunner
from service.server.context import ServerContext
from service.server.routes import Application
from service.settings import Settings
from service.telemetry.metrics import REQUESTS

T = TypeVar("T")
PROBLEM_KEYS = {"status", "code", "error", "request_id", "retryable", "errors"}
ROUTE = "/v1/models/viewcount/predict"
VIEWS = orjson.dumps({"instances": [{"views": [100.0] * 56}]})
Open = Callable[[str], Session]
MakeFront = Callable[..., Application]


@dataclass
class Answer:
    """Describe what a caller saw, and how often the body was asked for."""

    status: int
    headers: dict[str, str]
    body: bytes
    reads: int
    passed: bool = False

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Inner:
    """BentoML's application: remembers what got past the front."""

    scopes: list[Any] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 299, "headers": []})
            await send({"type": "http.response.body", "body": b"inner"})


@pytest.fixture
def make_front(shipped_session: Open) -> Iterator[MakeFront]:
    """A front over shipped models, with these settings, and this in place of a model's own ``run``."""
    pool = ThreadPoolExecutor(2)

    def make(*names: str, run: Any = None, **settings: Any) -> Application:
        current = Settings(**settings)
        endpoints, lanes = {}, FairScheduler(2)
        for name in names or ("viewcount",):
            session = shipped_session(name)
            runner: Any = SimpleNamespace(run=run) if run else InProcessRunner(pool, session.run)
            endpoints[name] = make_endpoint(session, session.provider, runner, lanes, current)
        context = ServerContext(gateway=InferenceGateway(endpoints=endpoints, settings=current, pool=pool))
        return Application(Inner(), lambda: context)

    yield make
    pool.shutdown()


def with_endpoint(front: Application, name: str = "viewcount", **changes: Any) -> Application:
    """Return the same front with parts of one endpoint exchanged."""
    gateway = front.gateway
    endpoints = {**gateway.endpoints, name: replace(gateway.endpoints[name], **changes)}
    context = ServerContext(gateway=replace(gateway, endpoints=endpoints))
    return Application(front.app, lambda: context)


JSON_TYPE = (b"content-type", b"application/json")


async def call(
    front: Application,
    path: str = ROUTE,
    *parts: bytes,
    method: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = (JSON_TYPE,),
    is_slow: bool = False,
    is_gone: bool = False,
) -> Answer | None:
    """Return one request whose body comes in these parts; then the caller is silent (``is_slow``) or gone."""
    messages = [
        {"type": "http.request", "body": part, "more_body": is_slow or is_gone or number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ] or ([] if is_slow or is_gone else [{"type": "http.request"}])
    sent: list[Any] = []
    reads = 0

    async def receive() -> Any:
        nonlocal reads
        reads += not sent  # who has his answer is only waited for
        if messages:
            return messages.pop(0)
        if is_gone:
            return {"type": "http.disconnect"}
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers), "query_string": b""}
    async with asyncio.timeout(10):
        await front(scope, receive, send)
    if not sent:
        return None
    start, *rest = sent
    assert start["type"] == "http.response.start"
    found = {key.decode(): value.decode() for key, value in start["headers"]}
    body = b"".join(message["body"] for message in rest)
    return Answer(start["status"], found, body, reads, body == b"inner")


def ask(front: Application, *arguments: Any, **options: Any) -> Answer:
    answer = asyncio.run(call(front, *arguments, **options))
    assert answer is not None
    return answer


def check_problem(answer: Answer, status: int, code: str) -> Any:
    """Return a refusal in the documented form; its body, to look further."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    found = answer.json
    assert found.keys() == PROBLEM_KEYS
    assert (answer.status, found["status"], found["code"]) == (status, status, code)
    assert found["request_id"] == answer.headers["x-request-id"]
    return found


def outcome(name: str, model: str = "viewcount") -> float:
    samples = [sample for metric in REQUESTS.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return sum(one.value for one in samples if {"model": model, "outcome": name}.items() <= one.labels.items())


# Answers


@pytest.mark.parametrize("name", ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"])
def test_every_model_answers(name: str, make_front: MakeFront) -> None:
    """The documented example gets the documented answer, and the predictor's, from every shipped model."""
    front = make_front(name)
    endpoint = front.gateway.endpoints[name]
    predictor = endpoint.predictor
    rng = np.random.default_rng(0)
    instances = [predictor.card.example(predictor.assets)]
    instances += [predictor.card.random_request(rng, predictor.assets) for _ in range(10)]
    answer = ask(front, f"/v1/models/{name}/predict", msgspec.json.encode({"instances": instances}))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    expected = orjson.loads(orjson.dumps(predictor.predict(instances), option=orjson.OPT_SERIALIZE_NUMPY))
    assert answer.json == {"model": endpoint.manifest.tag, "predictions": expected}
    page = ask(front, f"/v1/models/{name}", method="GET").json
    assert page["example"]["response"]["predictions"] == expected[:1]
    again = ask(front, f"/v1/models/{name}/predict", orjson.dumps(page["example"]["request"]))
    assert again.json == page["example"]["response"]


def test_through_a_real_client(make_front: MakeFront) -> None:
    """An HTTP client with many requests at once gets each its own answer."""
    front = make_front("viewcount", "tagging")

    async def work() -> None:
        transport = httpx.ASGITransport(app=front)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://lectern") as client:
            bodies = [{"instances": [{"views": [float(n)] * 56, "horizon": 1 + n % 28}]} for n in range(1, 60)]
            answers = await asyncio.gather(*(client.post(ROUTE, json=body) for body in bodies))
            levels = [answer.json()["predictions"][0]["forecast"] for answer in answers]
            assert [len(level) for level in levels] == [1 + n % 28 for n in range(1, 60)]
            # A flat channel's forecast grows with its level: the answers are in their callers' order.
            firsts = [level[0] for level in levels]
            assert firsts == sorted(firsts)
            assert len(set(firsts)) == len(firsts)
            tagged = await client.post("/v1/models/tagging/predict", json={"instances": [{"text": "I saw a saw"}]})
            assert tagged.json()["predictions"][0]["tags"] == ["PRON", "VERB", "DET", "NOUN"]

    asyncio.run(work())


def test_body_in_parts(make_front: MakeFront) -> None:
    """A body in single bytes is the same body."""
    parts = [VIEWS[i : i + 1] for i in range(len(VIEWS))]
    front = make_front()
    assert ask(front, ROUTE, *parts).json == ask(front, ROUTE, VIEWS).json


def test_picture_as_body(make_front: MakeFront) -> None:
    """A PNG as the body, with its content type, is answered as its base64 in JSON; a damaged one is located."""
    front, path = make_front("image"), "/v1/models/image/predict"
    endpoint = front.gateway.endpoints["image"]
    png = endpoint.predictor.card.example(endpoint.predictor.assets).image
    body = orjson.dumps({"instances": [{"image": base64.b64encode(png).decode()}]})
    by_json = ask(front, path, body)
    by_file = ask(front, path, png, headers=[(b"content-type", b"image/png")])
    assert by_file.json == by_json.json
    damaged = ask(front, path, png[:-40], headers=[(b"content-type", b"image/png")])
    assert check_problem(damaged, 422, "invalid_request")["errors"] == [
        {"loc": ["instances", 0, "image"], "reason": "the PNG file is damaged or truncated"}
    ]


def test_explanations(make_front: MakeFront) -> None:
    """``explain`` adds attention where the model attends, and is refused with its place where not."""
    front = make_front("viewcount", "tagging")
    body = orjson.dumps({"instances": [{"text": "I saw a saw"}], "explain": True})
    found = ask(front, "/v1/models/tagging/predict", body).json["predictions"][0]
    np.testing.assert_allclose(np.sum(found["attention"], -1), 1, atol=1e-5)
    refused = ask(front, ROUTE, orjson.dumps({"instances": [{"views": [1] * 56}], "explain": True}))
    assert check_problem(refused, 422, "invalid_request")["errors"][0]["loc"] == ["explain"]


# Bodies


def test_slow_body(make_front: MakeFront) -> None:
    """A body that does not arrive in time is a 408, worth another try, and the connection is closed."""
    before = outcome("request_timeout")
    front = make_front(body_timeout_seconds=0.03)
    for parts in ((), (b"{",)):
        answer = ask(front, ROUTE, *parts, is_slow=True)
        assert check_problem(answer, 408, "request_timeout")["retryable"]
        assert answer.headers["connection"] == "close"
        assert "within 0.03 seconds" in answer.json["error"]
    assert outcome("request_timeout") == before + 2


@pytest.mark.parametrize("length", [1025, 10**9, 10**18])
def test_declared_too_long(length: int, make_front: MakeFront) -> None:
    """A body that says it is too long is refused without reading any of it."""
    front = make_front(max_body_bytes=1024)
    headers = [JSON_TYPE, (b"content-length", b"%d" % length)]
    answer = ask(front, ROUTE, b"x" * 1025, headers=headers)
    check_problem(answer, 413, "body_too_large")
    assert (answer.reads, answer.headers["connection"]) == (0, "close")


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1e3", b"", b"0x10", b"9" * 5000, b"1, 2"])
def test_declared_nonsense(length: bytes, make_front: MakeFront) -> None:
    """A content length that is no number, or a number beyond reason, is the caller's mistake."""
    answer = ask(make_front(), ROUTE, VIEWS, headers=[JSON_TYPE, (b"content-length", length)])
    assert answer.status in (400, 413)
    assert answer.reads == 0


def test_longest_body(make_front: MakeFront) -> None:
    """Control: a body of exactly the limit is read and answered, one byte more is not, however it comes."""
    front = make_front(max_body_bytes=1024)
    fits = VIEWS.ljust(1024)
    assert ask(front, ROUTE, fits, headers=[JSON_TYPE, (b"content-length", b"1024")]).status == 200
    assert ask(front, ROUTE, fits[:500], fits[500:]).status == 200
    check_problem(ask(front, ROUTE, fits + b" "), 413, "body_too_large")


def test_chunked_too_long(make_front: MakeFront) -> None:
    """An undeclared body is refused at the first part too much; the rest is never asked for."""
    answer = ask(make_front(max_body_bytes=1024), ROUTE, *[b"x" * 100] * 50)
    check_problem(answer, 413, "body_too_large")
    assert answer.reads == 11


def test_lying_length(make_front: MakeFront) -> None:
    """A small declared length does not let a large body in."""
    headers = [JSON_TYPE, (b"content-length", b"5")]
    answer = ask(make_front(max_body_bytes=1024), ROUTE, *[b"x" * 600] * 4, headers=headers)
    check_problem(answer, 413, "body_too_large")


def test_disconnect(make_front: MakeFront) -> None:
    """To a caller that is gone nothing is sent, and it is counted as gone."""
    before = outcome("disconnected")
    front = make_front()
    assert asyncio.run(call(front, ROUTE, b"{", is_gone=True)) is None
    assert asyncio.run(call(front, ROUTE, is_gone=True)) is None
    assert outcome("disconnected") == before + 2
    assert ask(front, ROUTE, VIEWS).status == 200


def test_bad_bodies(make_front: MakeFront) -> None:
    """Broken syntax is a 400, a value that makes no sense a 422 with its place."""
    front = make_front()
    check_problem(ask(front, ROUTE, b""), 400, "malformed_request")
    check_problem(ask(front, ROUTE), 400, "malformed_request")
    check_problem(ask(front, ROUTE, b"\xff" * 10), 400, "malformed_request")
    body = orjson.dumps({"instances": [{"views": [1] * 56}, {"views": [0.5] + [1] * 55}]})
    assert check_problem(ask(front, ROUTE, body), 422, "invalid_request")["errors"] == [
        {"loc": ["instances", 1, "views", 0], "reason": "expected a whole number of views, found 0.5"}
    ]
    many = orjson.dumps({"instances": [{"views": [1] * 56}] * 3})
    refused = check_problem(ask(make_front(max_instances=2), ROUTE, many), 422, "invalid_request")
    assert refused["errors"][0]["loc"] == ["instances"]


# Headers


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"image/png")],
        [(b"content-type", b"application/jsonp")],
        [JSON_TYPE, JSON_TYPE],
        [JSON_TYPE, (b"content-type", b"text/plain")],
        [(b"content-type", b"\xff\xfe")],
        [(b"content-type", b"application/json, application/json")],
    ],
)
def test_unsupported_media_type(headers: list[Any], make_front: MakeFront) -> None:
    """A content type that is missing, twice there or not the model's is a 415, before the body is read."""
    answer = ask(make_front(), ROUTE, VIEWS, headers=headers)
    found = check_problem(answer, 415, "unsupported_media_type")
    assert found["error"] == "the content type must be one of application/json, application/x-npy"
    assert answer.reads == 0


@pytest.mark.parametrize("value", [b"application/json; charset=utf-8", b"APPLICATION/JSON", b" application/json ;x"])
def test_media_type_parameters(value: bytes, make_front: MakeFront) -> None:
    """Parameters, case and spaces of a content type do not matter."""
    assert ask(make_front(), ROUTE, VIEWS, headers=[(b"content-type", value)]).status == 200


@pytest.mark.parametrize("given", [b"a", b"req-1.2_3", b"A" * 64, b"00-4bf92f3577b34da6-00"])
def test_harmless_request_id(given: bytes, make_front: MakeFront) -> None:
    """A harmless request id comes back, on answers and refusals."""
    front, headers = make_front(), [JSON_TYPE, (b"x-request-id", given)]
    for body in (VIEWS, b"{"):
        assert ask(front, ROUTE, body, headers=headers).headers["x-request-id"] == given.decode()
    assert ask(front, "/nothing", headers=headers).json["request_id"] == given.decode()


@pytest.mark.parametrize("given", [b"", b"A" * 65, b"a b", b"a\nb", b"a\n", b"<script>", b"\xc3\xa9", b"a;b", b"{}"])
def test_harmful_request_id(given: bytes, make_front: MakeFront) -> None:
    """Any other request id is replaced by a new one, never echoed."""
    front, headers = make_front(), [JSON_TYPE, (b"x-request-id", given)]
    found = [ask(front, ROUTE, b"{", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert len(set(found)) == 2
    assert all(re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", one) for one in found)


# Routes


def test_unknown_paths(make_front: MakeFront) -> None:
    """What is no route is a 404, and never reaches BentoML's application."""
    front = make_front()
    for path in (
        "/predict", "/v1", "/v1/models/", "/v1/models/viewcount/", "/v1/models/viewcount/predict/", "//v1/models",
        "/V1/models", "/v1/models/viewcount/explain", "/static_content/../x.js", "/static_content/x.py",
        "/v1/models/View/predict", "/metrics/", "/healthz/x", "/docs", "/predict_image", "/v1/models/a%20b",
        "/" + "a" * 5000,
    ):  # fmt: skip
        for method in ("GET", "POST"):
            answer = ask(front, path, method=method)
            check_problem(answer, 404, "unknown_route")
            assert path.encode() not in answer.body
    assert front.app.scopes == []  # type: ignore[attr-defined]


def test_unknown_model(make_front: MakeFront) -> None:
    """An unknown model is a 404 that names the served ones, and leaves no trace in the metrics."""
    front = make_front()
    for path, method in (
        ("/v1/models/gpt/predict", "POST"),
        ("/v1/models/gpt", "GET"),
        ("/v1/models/gpt/assets", "GET"),
    ):
        answer = ask(front, path, VIEWS, method=method)
        assert check_problem(answer, 404, "unknown_model")["error"] == "no such model; served are viewcount"
    assert not [sample for metric in REQUESTS.collect() for sample in metric.samples if sample.labels["model"] == "gpt"]


@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/readyz", "/metrics", "/schema.json", "/static_content/swagger-ui.css"]
)
def test_let_through(path: str, make_front: MakeFront) -> None:
    """Health, metrics, schema and static files are BentoML's, to be read only."""
    front = make_front()
    assert ask(front, path, method="GET").passed
    assert ask(front, path, method="HEAD").passed
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"):
        answer = ask(front, path, method=method)
        check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"


def test_other_protocols(make_front: MakeFront) -> None:
    """What is not HTTP, such as the server's start, is BentoML's."""
    front = make_front()
    asyncio.run(front({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert front.app.scopes == [{"type": "lifespan"}]  # type: ignore[attr-defined]


def test_methods(make_front: MakeFront) -> None:
    """Predictions are POSTed, pages are read; the other method is a 405 that says which."""
    front = make_front()
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = ask(front, ROUTE, VIEWS, method=method)
        check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"
    for path in ("/", "/docs.json", "/v1/models", "/v1/models/viewcount", "/v1/models/viewcount/assets"):
        page, head = ask(front, path, method="GET"), ask(front, path, method="HEAD")
        assert (page.status, head.status, head.body) == (200, 200, b"")
        assert page.body
        refused = ask(front, path, method="POST")
        check_problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == "GET, HEAD"


def test_pages(make_front: MakeFront) -> None:
    """The list names every served model; its page has schema, example and certificate; OpenAPI has every route."""
    names = ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]
    front = make_front(*names)
    listed = ask(front, "/v1/models", method="GET").json["models"]
    assert [model["name"] for model in listed] == names
    for name in names:
        page = ask(front, f"/v1/models/{name}", method="GET").json
        assert page["certificate"]["batch_invariance"]["bit_identical"] is True
        assert page["explains"] == (name in ("tagging", "image-vit", "citation", "molecule"))
        assert page["schema"]["request"]["$defs"]
    document = ask(front, "/docs.json", method="GET").json
    assert document["openapi"].startswith("3.1")
    for name in names:
        operation = document["paths"][f"/v1/models/{name}/predict"]["post"]
        content = operation["requestBody"]["content"]
        assert ("image/png" in content) == name.startswith("image")
        example = orjson.dumps(content["application/json"]["example"])
        answered = ask(front, f"/v1/models/{name}/predict", example).json
        assert answered == operation["responses"]["200"]["content"]["application/json"]["example"]
    text = orjson.dumps(document).decode()
    for reference in {part.split('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]


# The inside


SECRET = "/root/secret.key"


def test_internal_error_never_leaks(make_front: MakeFront, caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen error in decoding is a bare 500 for the caller, and told with its traceback in the log."""

    class Broken:
        media_types = ("application/json",)

        def read(self, body: bytes, media_type: str) -> Any:
            raise KeyError(SECRET)

    before = outcome("internal")
    with caplog.at_level(logging.ERROR):
        answer = ask(with_endpoint(make_front(), payloads=Broken()), ROUTE, VIEWS)
    found = check_problem(answer, 500, "internal")
    assert (found["error"], found["errors"], found["retryable"]) == ("internal error", [], False)
    assert SECRET.encode() not in answer.body
    assert SECRET in caplog.text
    assert outcome("internal") == before + 1


def test_broken_page_never_leaks(make_front: MakeFront, caplog: pytest.LogCaptureFixture) -> None:
    """A page that cannot be written is a bare 500 too."""
    answer = ask(with_endpoint(make_front(), manifest=None), "/v1/models", method="GET")
    check_problem(answer, 500, "internal")
    assert b"NoneType" not in answer.body


def test_failing_model(make_front: MakeFront, caplog: pytest.LogCaptureFixture) -> None:
    """A model that fails is a 500 of its own code, without the cause."""

    async def fail(feeds: Any, outputs: Any) -> Any:
        raise OSError(SECRET)

    before = outcome("runner_failed")
    answer = ask(make_front(run=fail), ROUTE, VIEWS)
    found = check_problem(answer, 500, "runner_failed")
    assert found["error"] == "the model failed on this request"
    assert SECRET.encode() not in answer.body
    assert outcome("runner_failed") == before + 1


def never() -> Any:
    async def hang(feeds: Any, outputs: Any) -> Any:
        await asyncio.Event().wait()

    return hang


def test_deadline(make_front: MakeFront) -> None:
    """An answer that takes too long is a 504, worth another try."""
    answer = ask(make_front(run=never(), request_timeout_seconds=0.03), ROUTE, VIEWS)
    assert check_problem(answer, 504, "deadline_exceeded")["retryable"]


def test_overload(make_front: MakeFront) -> None:
    """A request the queue has no room for is a 503 that says when to come again."""
    body = orjson.dumps({"instances": [{"views": [1] * 56}] * 3})
    answer = ask(make_front(queue_limit=2), ROUTE, body)
    assert check_problem(answer, 503, "overloaded")["retryable"]
    assert 1 <= int(answer.headers["retry-after"]) <= 3


def test_answers_without_loss(make_front: MakeFront) -> None:
    """Numbers on the wire are the model's float32 values, not rounded."""
    front = make_front("tagging")
    endpoint: Endpoint = front.gateway.endpoints["tagging"]
    sent = ask(front, "/v1/models/tagging/predict", b'{"instances": [{"text": "I saw a saw"}]}').json
    instance = endpoint.predictor.card.example(endpoint.predictor.assets)
    (made,) = endpoint.predictor.predict([instance])
    assert np.array_equal(np.asarray(sent["predictions"][0]["scores"], np.float32), made["scores"])


def test_outcomes_are_counted(make_front: MakeFront) -> None:
    """Every request to a model counts once, by how it ended."""
    front, names = (
        make_front(),
        ("ok", "malformed_request", "invalid_request", "unsupported_media_type", "method_not_allowed"),
    )
    before = [outcome(name) for name in names]
    ask(front, ROUTE, VIEWS)
    ask(front, ROUTE, b"{")
    ask(front, ROUTE, b"[]")
    ask(front, ROUTE, VIEWS, headers=[])
    ask(front, ROUTE, method="GET")
    assert [outcome(name) - old for name, old in zip(names, before, strict=True)] == [1] * 5


def run_all(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(work())


def test_neighbours_do_not_wait(make_front: MakeFront) -> None:
    """A caller whose body trickles in delays nobody else."""
    front = make_front(body_timeout_seconds=0.2)

    async def work() -> None:
        slow = asyncio.create_task(call(front, ROUTE, b"{", is_slow=True))
        await asyncio.sleep(0)
        for _ in range(5):
            answer = await call(front, ROUTE, VIEWS)
            assert answer is not None
            assert answer.status == 200
        assert not slow.done()
        refused = await slow
        assert refused is not None
        assert refused.status == 408

    run_all(work)
