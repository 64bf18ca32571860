"""Long bodies, read instance by instance: the same answers and refusals as at once, and none takes long."""

import time
from typing import Any

import msgspec
import numpy as np
import pytest

from models.errors import InvalidRequest, MalformedRequest
from models.payload import json_payload
from models.payload.json_payload import JsonPayloads
from models.payload.long_json import LONG_BYTES, MAX_OBJECTS, MAX_VALUES
from models.registry import FAMILIES

CARDS = {card.task: card for family in FAMILIES for card in family.cards}
DAYS = b",".join([b"5"] * 56)


def reader(task: str = "forecast") -> JsonPayloads:
    return JsonPayloads(CARDS[task], "x:1", max_instances=1024)


def views(*instances: bytes, rest: bytes = b"") -> bytes:
    """Return a long body of view counts, by white space at its end."""
    return (b'{"instances":[' + b",".join(instances) + b"]" + rest + b"}").ljust(LONG_BYTES + 1)


ONE = b'{"views":[' + DAYS + b"]}"
SAME = [
    views(ONE), views(ONE, ONE, rest=b',"explain":true'), views(), views(ONE + b"x"), views(ONE, b"7"),
    views(ONE, b"{}"), views(ONE, b'{"views":[1]}'), views(ONE, b'{"views":[' + DAYS + b',"5"]}'),
    views(ONE, ONE[:-1] + b',"x":1}'), views(ONE, rest=b',"x":1'), views(ONE, rest=b',"explain":1'),
    views(ONE, ONE[:-1] + b',"views":[1]}'), views(ONE, ONE[:-1] + b',"views":[' + DAYS + b"]}"),
    views(ONE, rest=b',"explain":false,"explain":true'), views(ONE, rest=b',"instances":[' + ONE + b"]"),
    views(ONE, rest=b',"\\u0069nstances":[' + ONE + b"]"), views(ONE, ONE[:-1] + b',"horizon":3,"\\u0068orizon":3}'),
    views(ONE, rest=b',"instances":[' + ONE + b"," + ONE + b"]"), views(*[ONE] * 1025),
    views(ONE, b"NaN"), views(ONE, b'{"views":[' + DAYS + b",NaN]}"), b"\xef\xbb\xbf" + views(ONE),
    views(ONE, b'{"views":[' + DAYS + b',1e400]}'), views(ONE)[:-1] + b"\xff", b"[" * (LONG_BYTES + 1),
    b" " * (LONG_BYTES + 1), b"null".ljust(LONG_BYTES + 1), views(ONE).replace(b"instances", b"instance"),
]  # fmt: skip


def outcome(task: str, body: bytes) -> Any:
    try:
        question = reader(task).read(body)
    except (InvalidRequest, MalformedRequest) as error:
        return type(error), error.faults
    return msgspec.to_builtins(question.instances), question.explain


@pytest.mark.parametrize("body", SAME, ids=range(len(SAME)))
def test_same_as_at_once(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Length changes neither an answer, nor a refusal, nor its place."""
    found = outcome("forecast", body)
    monkeypatch.setattr(json_payload, "LONG_BYTES", 2**30)
    assert found == outcome("forecast", body)


@pytest.mark.parametrize("task", CARDS)
def test_every_family(task: str, shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random requests of every family are read alike."""
    names = {"forecast": "viewcount", "tag": "tagging", "classify": "image", "label_nodes": "citation"}
    predictor, rng = shipped(names.get(task, "molecule")), np.random.default_rng(4)
    instances = [predictor.card.random_request(rng, predictor.assets) for _ in range(60)]
    body = msgspec.json.encode({"instances": instances}).ljust(LONG_BYTES + 1)
    found = outcome(task, body)
    assert len(found[0]) == 60
    monkeypatch.setattr(json_payload, "LONG_BYTES", 2**30)
    assert found == outcome(task, body)


MANY = 4_000_000


@pytest.mark.parametrize(
    ("task", "body", "loc", "reason"),
    [
        ("forecast", b'{"instances":[{"views":[' + b"1," * MANY + b"1]}]}", 0, f"{MAX_VALUES} values, found {MANY}"),
        ("label_nodes", b'{"instances":[{"words":[' + b"[]," * MANY + b"[]]}]}", 0, "values"),
        ("label_nodes", b'{"instances":[{"words":[[]],"edges":[' + b"[0,0]," * MANY + b"[0,0]]}]}", 0, "values"),
        ("classify", b'{"instances":[{"pixels":[[' + b"1," * MANY + b"1]]}]}", 0, "values"),
        ("tag", b'{"instances":[{"tokens":[' + b'"",' * MANY + b'""]}]}', 0, "values"),
        ("tag", b'{"instances":[' + b"{}," * MANY + b"{}]}", None, f"{MAX_OBJECTS} objects, found more"),
        ("tag", b'{"instances":[' + b"1," * MANY + b"1]}", 0, "expected object, got int"),
        ("tag", b'{"instances":[' + b"{}," * 9000 + b"{}]}" + b" " * LONG_BYTES, None, "array of length <= 1024"),
        ("forecast", b'{"instances":[' + ONE + b'],"instances":[' + b"1," * MANY + b"1]}", 0, "expected object"),
    ],
    ids=["views", "lists", "edges", "pixels", "tokens", "objects", "numbers", "instances", "twice"],
)  # fmt: skip
def test_too_much(task: str, body: bytes, loc: int | None, reason: str) -> None:
    """Millions of values are refused without being read: in a fraction of the second that reading them takes."""
    bodies_of_task = reader(task)
    started = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        bodies_of_task.read(body)
    assert time.process_time() - started < 0.3
    (fault,) = caught.value.faults
    assert fault.loc == (("instances",) if loc is None else ("instances", loc))
    assert reason in fault.reason


def test_as_much_as_may_be() -> None:
    """Control: the largest graph of its own is read."""
    edges = b",".join([b"[0,1]"] * 65_536)
    body = b'{"instances":[{"words":[' + b",".join([b"[1,2,3]"] * 4096) + b'],"edges":[' + edges + b"]}]}"
    (instance,) = reader("label_nodes").read(body).instances
    assert len(instance.edges) == 65_536
