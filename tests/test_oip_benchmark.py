"""The comparison with a real Triton sees what differs, and lets nothing pass that is not meant."""

import json

import numpy as np
import pytest

from benchmarks.oip.cases import ProtocolCase, right, wrong
from benchmarks.oip.requests import HEAD_LENGTH, of_tensors
from benchmarks.oip.triton import Difference, TritonAnswer, _differ
from models.runtime.predictor import Predictor

CASE = ProtocolCase(name="good", model="viewcount", body=b"", outputs=("forecast",), is_right=True)


def answer(values: list[float], *, is_binary: bool = True, **more: str) -> TritonAnswer:
    """Return an answer with one output."""
    request = of_tensors({"forecast": np.array(values, np.float32)}, is_binary=is_binary)
    head = json.dumps({"model_name": "viewcount", "outputs": request.head["inputs"], **more}).encode()
    headers = {HEAD_LENGTH: str(len(head))} if is_binary else {}
    return TritonAnswer(200, headers, head + request.rest)


BAD = TritonAnswer(400, {}, b'{"error":"why"}')


@pytest.mark.parametrize(
    ("triton", "fields"),
    [
        (answer([1, 2]), set()),
        (answer([1, 3]), {"values of forecast"}),
        (answer([1, 2, 3]), {"values of forecast", "outputs"}),
        (answer([1, 2], is_binary=False), {"outputs"}),
        (answer([1, 2], id="a"), {"id"}),
        (answer([1, 2], model_name="image"), {"model_name"}),
        (BAD, {"status"}),
        (TritonAnswer(500, {}, b"{}"), {"status"}),
        (TritonAnswer(0, {}, b""), {"status"}),
    ],
)
def test_every_difference_is_seen(triton: TritonAnswer, fields: set[str]) -> None:
    """In status, form and value, and none of them is meant."""
    found = list(_differ(CASE, answer([1, 2]), triton))
    assert {one.field for one in found} == fields
    assert all(one.reason is None for one in found)


def test_which_refusals_are_meant() -> None:
    """400 for Triton's 500, where both refuse; never a 500 of ours, nor a refusal that does not say why."""
    (found,) = _differ(CASE, BAD, TritonAnswer(500, {}, b'{"error":"x"}'))
    assert found.reason is not None
    assert {one.field for one in _differ(CASE, TritonAnswer(400, {}, b"{}"), BAD)} == {"error"}
    (found,) = _differ(CASE, TritonAnswer(500, {}, b'{"error":"x"}'), BAD)
    assert found.reason is None
    assert Difference("views below 0", "values of lower", "", "").reason is None


def test_there_are_enough_cases(shipped: object) -> None:
    """Right and wrong, each with a name of its own."""
    models = ("viewcount", "tagging", "image", "citation", "molecule")
    predictors: dict[str, Predictor] = {name: shipped(name) for name in models}  # type: ignore[operator]
    good, bad = list(right(predictors)), list(wrong(predictors))
    assert len(good) >= 50
    assert len(bad) >= 50
    assert len({case.name for case in (*good, *bad)}) == len(good) + len(bad)
