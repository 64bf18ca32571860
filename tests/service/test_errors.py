"""Errors on the wire: one body for all, located faults, nothing of the input or the inside."""

from collections.abc import Callable, Iterator

import msgspec
import orjson
import pytest

from models import errors
from models.card import AnyCard
from models.errors import (
    DeadlineExceeded,
    Fault,
    HttpError,
    InvalidRequest,
    LecternError,
    MalformedRequest,
    Overloaded,
    RequestError,
    RunnerFailed,
    UnknownModel,
)
from models.graph import LABEL_GRAPH, LABEL_NODES
from models.image import CLASSIFY
from models.payload.json_payload import from_decoding, request_type
from models.registry import CARDS
from models.runtime.predictor import Predictor
from models.tagging import TAG
from models.viewcount import FORECAST
from service.messages.problem import problem
from service.telemetry.metrics import OUTCOMES

DECODERS = {card.task: msgspec.json.Decoder(request_type(card, 4)) for card in CARDS}


def descendants(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def refusal(task: str, body: bytes) -> HttpError:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)) as caught:
        DECODERS[task].decode(body)
    return from_decoding(caught.value)


def test_problem_by_heart() -> None:
    """The body has exactly the six documented keys."""
    error = InvalidRequest(faults=[Fault(("instances", 0, "views", 3), "expected `float` >= 0.0")])
    assert orjson.loads(problem(error, "abc-1")) == {
        "status": 422,
        "code": "invalid_request",
        "error": "instances[0].views[3]: expected `float` >= 0.0",
        "request_id": "abc-1",
        "retryable": False,
        "errors": [{"loc": ["instances", 0, "views", 3], "reason": "expected `float` >= 0.0"}],
    }


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        (MalformedRequest("m"), 400, False),
        (UnknownModel("m"), 404, False),
        (errors.Unauthenticated("m"), 401, False),
        (errors.Forbidden("m"), 403, False),
        (errors.RateLimited("m", 1.0), 429, True),
        (errors.BodyTooLarge("m"), 413, False),
        (errors.RequestTimeout("m"), 408, True),
        (errors.UnsupportedMediaType("m"), 415, False),
        (InvalidRequest("m"), 422, False),
        (Overloaded("m"), 503, True),
        (DeadlineExceeded("m"), 504, True),
    ],
)
def test_status(error: HttpError, status: int, retryable: bool) -> None:
    """Each error has its status, and says whether to try again; its message is told."""
    body = orjson.loads(problem(error, "x"))
    assert (body["status"], body["retryable"], body["error"]) == (status, retryable, "m")


def test_inside_stays_inside() -> None:
    """What an unforeseen error says never leaves the house."""
    body = problem(HttpError("/secret/path: KeyError 'x'"), "x")
    assert b"secret" not in body
    assert orjson.loads(body)["status"] == 500


def test_every_error_has_a_place() -> None:
    """Every error with a status has a code of its own, which the metrics know where a model can raise it."""
    kinds = [kind for kind in descendants(HttpError) if kind not in (RequestError, errors.ServingError)]
    codes = [kind.code for kind in kinds]  # type: ignore[attr-defined]
    assert len(set(codes)) == len(codes)
    nowhere = {"unknown_model", "unknown_version", "unknown_route", "headers_too_large", "activation_refused"}
    nowhere |= {"unknown_job", "job_unfinished", "range_not_satisfiable", "idempotency_mismatch", "storage_full"}
    assert set(codes) - set(OUTCOMES) <= nowhere
    assert set(OUTCOMES) - set(codes) == {"ok", "disconnected", "internal"}


def test_tree_is_drawn() -> None:
    """The docstring draws every exception of the module, and none that is not there."""
    drawn = {line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line}
    there = {kind.__name__ for kind in descendants(LecternError) if kind.__module__ == "models.errors"}
    assert drawn == there - {"HttpError"}


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"nonsense", b"{'a': 1}", b'{"instances": [}', b"\xff\xfe", b'{"instances": [NaN]}', b"\x00"],
)
@pytest.mark.parametrize("task", DECODERS)
def test_broken_syntax(body: bytes, task: str) -> None:
    """What is no JSON is a 400 without faults."""
    error = refusal(task, body)
    assert isinstance(error, MalformedRequest)
    assert (str(error), error.faults) == ("the body is not JSON", ())


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.task)
def test_cut_bodies(card: AnyCard, shipped: Callable[[str], Predictor]) -> None:
    """A working body cut anywhere is broken syntax; with more behind it too."""
    name = {"label_nodes": "citation", "label_graph": "molecule", "classify": "image"}.get(card.task, card.family)
    body = msgspec.json.encode({"instances": [card.example(shipped(name).assets)]})
    DECODERS[card.task].decode(body)
    for end in (*range(0, len(body), 1 + len(body) // 50), len(body) - 1):
        assert isinstance(refusal(card.task, body[:end]), MalformedRequest)
    assert isinstance(refusal(card.task, body + b"}"), MalformedRequest)


@pytest.mark.parametrize("body", [b"[", b"{}}", b"5 5"])
def test_twice_wrong(body: bytes) -> None:
    """What is wrong in two ways is refused for the first that one reading meets."""
    assert refusal("tag", body).status in (400, 422)


def test_too_deep() -> None:
    """Brackets without end are broken syntax, not a crash."""
    for body in (b"[" * 100_000, b'{"instances": ' + b"[" * 100_000, b'{"a":' * 50_000):
        assert refusal("tag", body).status in (400, 422)


@pytest.mark.parametrize(
    ("task", "body", "loc", "reason"),
    [
        ("forecast", b"[]", (), "expected object, got array"),
        ("forecast", b"null", (), "expected object, got null"),
        ("forecast", b"{}", (), "object missing required field instances"),
        ("forecast", b'{"instances": []}', ("instances",), "expected array of length >= 1"),
        ("forecast", b'{"instances": {}}', ("instances",), "expected array, got object"),
        ("forecast", b'{"instances": [5]}', ("instances", 0), "expected object, got int"),
        ("forecast", b'{"instances": [{}]}', ("instances", 0), "object missing required field views"),
        ("tag", b'{"instances": [{}, {"tokens": [1]}]}', ("instances", 1, "tokens", 0), "expected str, got int"),
        ("tag", b'{"instances": [{}, {}, {}, {}, {}]}', ("instances",), "expected array of length <= 4"),
        ("tag", b'{"instances": [{"txt": "private"}]}', ("instances", 0), "unknown field"),
        ("tag", b'{"instances": [{"text": "a"}], "private": 1}', (), "unknown field"),
        ("tag", b'{"instances": [{"text": "a"}], "explain": 1}', ("explain",), "expected bool, got int"),
        ("tag", b'{"instances": [{"text": null}]}', ("instances", 0, "text"), "expected str, got null"),
        ("classify", b'{"instances": [{"image": "not!"}]}', ("instances", 0, "image"), "invalid base64 encoded string"),
        ("classify", b'{"instances": [{"pixels": [[256]]}]}', ("instances", 0, "pixels", 0, 0), "expected int <= 255"),
        (
            "label_graph",
            b'{"instances": [{"atoms": ["C"], "bonds": [[0]]}]}',
            ("instances", 0, "bonds", 0),
            "expected array of length 2",
        ),
        ("label_nodes", b'{"instances": [{"node_ids": [-1]}]}', ("instances", 0, "node_ids", 0), "expected int >= 0"),
    ],
)  # fmt: skip
def test_wrong_types(task: str, body: bytes, loc: tuple[str | int, ...], reason: str) -> None:
    """What has the wrong type or size is a 422 with its place, in words without the input."""
    error = refusal(task, body)
    assert isinstance(error, InvalidRequest)
    assert error.faults == (Fault(loc, reason),)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [{"SECRET": 1}]}',
        b'{"SECRET": [{"text": "a"}]}',
        b'{"instances": [{"text": 5, "SECRET": 1}]}',
        b'{"instances": ["SECRET"]}',
        b'{"instances": [{"image": "SECRET!"}]}',
        b'{"instances": "SECRET"}',
        b'"SECRET"',
        b"SECRET",
        b'{"instances": [{"SEC`RET - at `$.x`": 1}]}',
        b'{"instances": [{"tokens": "SECRET"}], "explain": "SECRET"}',
        '{"instances": [{"SECRET\\n\u2028": 1}]}'.encode(),
    ],
)
@pytest.mark.parametrize("task", DECODERS)
def test_no_echo(task: str, body: bytes) -> None:
    """Nothing of a refused body comes back, neither values nor names."""
    answer = problem(refusal(task, body), "x")
    assert b"SEC" not in answer.upper().replace(b'"SECONDS', b"")
    assert b"RET" not in answer.replace(b"retryable", b"").upper()


def test_fault_inside() -> None:
    """A fault is told from the outside in."""
    assert Fault(("views", 3), "r").inside("instances", 0) == Fault(("instances", 0, "views", 3), "r")


def test_failures_are_told_alike() -> None:
    """A model's failure is a 500 that says so and no more."""
    body = orjson.loads(problem(RunnerFailed("the model failed on this request"), "x"))
    assert (body["code"], body["errors"], body["retryable"]) == ("runner_failed", [], False)


def test_cards_are_all_here() -> None:
    """The tables above speak of every card."""
    assert {card.task for card in (FORECAST, TAG, CLASSIFY, LABEL_NODES, LABEL_GRAPH)} == set(DECODERS)
