import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.answers import BROKEN, WRONG, Checker
from loadtests.records import OK
from loadtests.targets import Unusable, read_instances, refusal
from loadtests.wire import HttpAnswer
from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY
from models.payload.json_payload import to_json
from models.runtime.predictor import Predictor

MODELS = sorted(path.parent.name for path in REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))
Predictors = Callable[[str], Predictor]


@pytest.fixture(params=MODELS)
def answered(request: pytest.FixtureRequest, shipped: Predictors) -> tuple[Checker, dict[str, Any]]:
    """A shipped model's checker, and its answer to a random request."""
    predictor = shipped(request.param)
    instance = predictor.card.random_request(np.random.default_rng(3), predictor.assets)
    answer = {"model": f"{request.param}:1.0.0", "predictions": predictor.predict([instance])}
    return Checker(predictor.card, request.param), json.loads(to_json(answer))


def body(answer: Any) -> bytes:
    return json.dumps(answer).encode()


def altered(value: Any, by: float) -> Any:
    """The same with its largest number changed by a share; the smallest may be within the tolerance of nothing."""
    if isinstance(value, list):
        at = (
            max(range(len(value)), key=lambda number: np.max(value[number]))
            if np.ndim(value) and not isinstance(value[0], str)
            else 0
        )
        return [*value[:at], altered(value[at], by), *value[at + 1 :]]
    return value * (1 + by) if isinstance(value, int | float) else f"{value}x"


def test_the_models_own_answer_is_right(answered: tuple[Checker, dict[str, Any]]) -> None:
    checker, answer = answered
    assert checker.check(body(answer), None) == OK
    assert checker.check(body(answer), body(answer)) == OK
    assert checker.check(body(answer) + b" ", body(answer)) == OK


def test_every_altered_field_is_a_wrong_answer(answered: tuple[Checker, dict[str, Any]]) -> None:
    checker, answer = answered
    prediction = answer["predictions"][0]
    for name, value in prediction.items():
        wrong = {**answer, "predictions": [{**prediction, name: altered(value, 0.01)}]}
        if body(wrong) != body(answer):  # a class id of 0 stays one
            assert checker.check(body(wrong), body(answer)) in (WRONG, BROKEN), name


def test_differences_within_the_cards_tolerance_are_none(answered: tuple[Checker, dict[str, Any]]) -> None:
    checker, answer = answered
    prediction = answer["predictions"][0]
    name = next(name for name, value in prediction.items() if isinstance(np.ravel(value)[0], np.floating))
    near = {**answer, "predictions": [{**prediction, name: altered(prediction[name], 1e-6)}]}
    assert checker.check(body(near), body(answer)) == OK


def test_what_is_no_answer_of_the_card_is_broken(answered: tuple[Checker, dict[str, Any]]) -> None:
    checker, answer = answered
    prediction = answer["predictions"][0]
    name = next(name for name, value in prediction.items() if isinstance(value, list))
    broken = [
        {**answer, "predictions": []},
        {**answer, "predictions": [prediction, prediction]},
        {**answer, "predictions": [{**prediction, "more": 1}]},
        {**answer, "predictions": [{key: value for key, value in prediction.items() if key != name}]},
        {**answer, "predictions": [{**prediction, name: None}]},
        {**answer, "predictions": [{**prediction, name: [[1.0], [1.0, 2.0]]}]},
        {**answer, "model": "another:1.0.0"},
        {"predictions": [prediction]},
    ]
    for one in broken:
        assert checker.check(body(one), None) == BROKEN, one
    for text in (b"", b"{", b"null", b'{"model": "x"', body(answer).replace(b"[", b"[NaN,", 1)):
        assert checker.check(text, None) == BROKEN, text


def test_words_among_numbers_are_broken(shipped: Predictors) -> None:
    checker = Checker(shipped("viewcount").card, "viewcount")
    right = {"forecast": [1.0], "lower": [1.0], "upper": [1.0]}
    assert checker.check(body({"model": "viewcount:1", "predictions": [right]}), None) == OK
    assert checker.check(body({"model": "viewcount:1", "predictions": [{**right, "upper": ["1"]}]}), None) == BROKEN


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (HttpAnswer(503, b'{"code": "overloaded"}'), "503 overloaded"),
        (HttpAnswer(502, b"<html>Bad gateway</html>"), "502"),
        (HttpAnswer(500, b"[]"), "500"),
    ],
)
def test_a_refusal_is_named_by_its_status_and_code(answer: HttpAnswer, reason: str) -> None:
    assert refusal(answer) == reason


def test_a_file_of_instances_that_do_not_fit_is_refused_with_its_line(shipped: Predictors, tmp_path: Path) -> None:
    card, file = shipped("tagging").card, tmp_path / "rows.jsonl"
    file.write_text('{"tokens": ["a"]}\n{"words": ["b"]}\n')
    with pytest.raises(Unusable, match="line 2: "):
        read_instances(file, card)
    file.write_text("")
    with pytest.raises(Unusable, match="is empty"):
        read_instances(file, card)
