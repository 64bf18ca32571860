"""Batch scoring: rows in are rows out, in order; a bad line costs only itself."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from models.predictor import Predictor
from service.scoring.__main__ import score_lines

Open = Callable[[str], Predictor]


def bodies(predictor: Predictor, count: int, seed: int = 0) -> tuple[list[Any], list[bytes]]:
    rng = np.random.default_rng(seed)
    instances = [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]
    return instances, [msgspec.json.encode(instance) + b"\n" for instance in instances]


def as_json(answers: list[Any]) -> list[Any]:
    return [orjson.loads(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)) for answer in answers]


@pytest.mark.parametrize("name", ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"])
@pytest.mark.parametrize("size", [1, 7, 256])
def test_rows(name: str, size: int, shipped: Open) -> None:
    """Every line gets the prediction of its instance, in order, whatever the chunk's size."""
    predictor = shipped(name)
    instances, lines = bodies(predictor, 20)
    answers = list(score_lines(predictor, iter(lines), size))
    assert as_json(answers) == as_json(predictor.predict(instances))


def test_no_rows(shipped: Open) -> None:
    """An empty file gives an empty file."""
    assert list(score_lines(shipped("tagging"), iter(()))) == []


BROKEN = {
    b"\n": "malformed_request",
    b"nonsense\n": "malformed_request",
    b'{"text": "cut\n': "malformed_request",
    b'\xff{"text": "a"}\n': "malformed_request",
    b'{"text": "\xff"}\n': "malformed_request",
    b"[" * 50_000 + b"\n": "malformed_request",
    b"[]\n": "invalid_request",
    b'{"text": 5}\n': "invalid_request",
    b'{"txt": "a"}\n': "invalid_request",
    b"{}\n": "invalid_request",
    b'{"tokens": ["a", ""]}\n': "invalid_request",
}


@pytest.mark.parametrize("size", [1, 3, 256])
def test_bad_lines(size: int, shipped: Open) -> None:
    """Among good lines each bad one becomes an error at its place; the good ones are answered as without it."""
    predictor = shipped("tagging")
    instances, good = bodies(predictor, len(BROKEN))
    lines = [line for pair in zip(good, BROKEN, strict=True) for line in pair]
    answers = list(score_lines(predictor, iter(lines), size))
    assert len(answers) == len(lines)
    assert as_json(answers[::2]) == as_json(predictor.predict(instances))
    for answer, (line, code) in zip(answers[1::2], BROKEN.items(), strict=True):
        assert answer.keys() == {"error"}
        if not line.startswith(b"[["):  # nobody needs that one told apart
            assert answer["error"]["code"] == code


def test_faults_are_located(shipped: Open) -> None:
    """A line's error says where in the line and why, as the service does."""
    lines = [b'{"tokens": ["a", ""]}', b'{"tokens": ["a", 5]}', b"{}"]
    found = [answer["error"] for answer in score_lines(shipped("tagging"), iter(lines))]
    assert [error["errors"][0]["reason"] for error in found] == [
        "expected a word, found an empty string",
        "expected str, got int",
        "expected exactly one of 'text' and 'tokens'",
    ]
    locs = [error["errors"][0]["loc"] for error in found]
    assert locs[1] == ["tokens", 1]
    # One line is one instance: it has no list of instances to be located in.
    assert (locs[0], locs[2]) == (["tokens", 1], [])


def test_lines_are_read_as_needed(shipped: Open) -> None:
    """A file is never held whole: after one chunk its answers are there."""
    predictor = shipped("tagging")
    read: list[int] = []

    def endless() -> Any:
        while True:
            read.append(1)
            yield b'{"text": "I saw a saw"}\n'

    answers = score_lines(predictor, endless(), size=4)
    assert next(answers)["tags"] == ["PRON", "VERB", "DET", "NOUN"]
    assert len(read) == 4


def test_failing_model(shipped: Open) -> None:
    """A line that the model fails on costs only itself."""
    predictor = shipped("viewcount")

    def run(feeds: Any, names: list[str]) -> Any:
        outputs = predictor.run(feeds, names)
        return {name: np.where(feeds["views"][:, :1] == 13, np.nan, values) for name, values in outputs.items()}

    lines = [msgspec.json.encode({"views": [float(first)] + [100.0] * 55}) for first in (12, 13, 14)]
    answers = list(score_lines(replace(predictor, run=run), iter(lines)))
    assert [answer.keys() == {"error"} for answer in answers] == [False, True, False]
    assert answers[1]["error"]["code"] == "runner_failed"
