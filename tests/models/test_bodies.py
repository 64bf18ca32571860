"""Bodies in, answers out: one reader and one writer for REST, jobs and benchmarks."""

import io
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from models.errors import InvalidRequest, MalformedRequest
from models.image import CLASSIFY
from models.payload.json_payload import JSON, JsonPayloads, to_json
from models.payload.npy import MEDIA_TYPE
from models.registry import CARDS
from models.runtime.predictor import open_predictor
from models.runtime.session import Session
from models.viewcount import FORECAST

Open = Callable[[str], Session]


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["viewcount", "image", "image-vit", "tagging", "citation", "molecule"])
def test_json_round_trip(name: str, shipped_session: Open) -> None:
    """A body of random requests is read as those requests, and their answers are written as JSON numbers."""
    session = shipped_session(name)
    predictor = open_predictor(session)
    bodies = JsonPayloads(session.card, session.manifest.tag, max_instances=8)
    rng = np.random.default_rng(3)
    instances = [session.card.random_request(rng, session.assets) for _ in range(3)]
    question = bodies.read(msgspec.json.encode({"instances": instances, "explain": False}))
    assert question == (instances, False, False)
    answer = orjson.loads(bodies.write(predictor.predict(question.instances)))
    assert answer["model"] == session.manifest.tag
    assert len(answer["predictions"]) == 3


def test_arrays_are_answered_like_json(shipped_session: Open) -> None:
    """The same numbers as an array and as JSON have the same answer, bit for bit."""
    rng = np.random.default_rng(4)
    views, pixels = rng.integers(0, 10**6, (5, 56)), rng.integers(0, 256, (5, 28, 28), np.uint8)
    for name, array, field in (
        ("viewcount", views, "views"),
        ("image", pixels, "pixels"),
        ("image-vit", pixels, "pixels"),
    ):
        session = shipped_session(name)
        predictor, bodies = open_predictor(session), JsonPayloads(session.card, "tag", max_instances=8)
        plain = bodies.read(to_json({"instances": [{field: row.tolist()} for row in array]}))
        binary = bodies.read(saved(array), MEDIA_TYPE)
        ones, others = (bodies.write(predictor.predict(question.instances)) for question in (plain, binary))
        assert ones == others
        assert bodies.write(predictor.predict(bodies.read(saved(array[0]), MEDIA_TYPE).instances)) == bodies.write(
            predictor.predict(plain.instances[:1])
        )


def test_pictures_of_another_size(shipped_session: Open) -> None:
    """An array in another size than the model's is refused by what the model expects."""
    predictor = open_predictor(shipped_session("image"))
    (instance,) = (
        JsonPayloads(CLASSIFY, "tag", max_instances=8).read(saved(np.zeros((1, 27, 28), "u1")), MEDIA_TYPE).instances
    )
    with pytest.raises(InvalidRequest) as caught:
        predictor.encode([instance])
    assert caught.value.faults[0].reason == "expected an array of shape (28, 28), found (27, 28)"


@pytest.mark.parametrize("rows", [0, 9])
def test_number_of_rows(rows: int) -> None:
    """Arrays hold at least one and at most as many instances as a JSON body."""
    with pytest.raises(InvalidRequest) as caught:
        JsonPayloads(FORECAST, "tag", max_instances=8).read(saved(np.zeros((rows, 56))), MEDIA_TYPE)
    assert caught.value.faults[0].reason == f"expected 1 to 8 instances, found {rows}"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.task)
def test_broken_json(card: Any) -> None:
    """Broken syntax is malformed, a wrong type invalid, for every card."""
    bodies = JsonPayloads(card, "tag", max_instances=8)
    assert bodies.media_types[0] == JSON
    for body in (b"", b"{", b"\xff"):
        with pytest.raises(MalformedRequest):
            bodies.read(body)
    for body in (
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"instances": []}',
        b'{"instances": [1]}',
        b'{"instances": [{"x": 1}]}',
    ):
        with pytest.raises(InvalidRequest):
            bodies.read(body)


def test_numbers_without_loss() -> None:
    """float32 numbers are written so that reading them gives the same bits, contiguous or not."""
    array = np.random.default_rng(5).normal(size=(7, 6)).astype(np.float32)
    assert np.array_equal(np.asarray(orjson.loads(to_json(array)), np.float32), array)
    assert np.array_equal(np.asarray(orjson.loads(to_json(array[:, ::2])), np.float32), array[:, ::2])
    with pytest.raises(TypeError):
        to_json(object())
