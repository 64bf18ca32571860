"""Counting what is asked and answered, and saying on request how unusual it is, through the front."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from msgspec.structs import replace

from models.artifact.drift_profile import find_outliers, measure
from models.errors import HttpError, InvalidRequest
from models.payload.json_payload import JSON
from models.payload.long_json import LONG_BYTES
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import Session
from service.inference.endpoint import Endpoint, make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.json_codec import JSON_CODEC
from service.inference.request import InferenceRequest
from service.inference.scheduler import FairScheduler
from service.runners.backends import InProcessRunner
from service.server.openapi import openapi
from service.settings import Settings
from service.telemetry.drift import INSTANCES, MOST_AT_ONCE, OUT_OF_RANGE, DriftCounters, drift_counters

Open = Callable[[str], Session]
MODELS = ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]


def counted(name: str) -> dict[tuple[str, str], float]:
    """Return the counters of a model, by feature and bin."""
    (family,) = INSTANCES.collect()
    return {
        (sample.labels["feature"], sample.labels["bin"]): sample.value
        for sample in family.samples
        if sample.labels["model"] == name and sample.name.endswith("_total")
    }


def grown(name: str, before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    now = counted(name)
    return {key: now[key] - before.get(key, 0.0) for key in now if now[key] != before.get(key, 0.0)}


def draw(predictor: Predictor, count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]


def expected_counts(session: Session, instances: list[Any]) -> dict[tuple[str, str], float]:
    """Return the same, counted all at once, without a watch."""
    predictor = open_predictor(session)
    samples = predictor.encode(instances)
    assert predictor.card.traits is not None
    assert session.manifest.profile is not None
    found = measure(predictor.card.traits, samples, predictor.predict(instances), predictor.assets)
    return {
        (feature.name, position): number
        for feature in session.manifest.profile.features
        for position, number in zip(feature.bins, feature.count(found[feature.name]).tolist(), strict=True)
        if number
    }


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def open_desk(session: Session, pool: ThreadPoolExecutor) -> InferenceGateway:
    settings = Settings()
    runner = InProcessRunner(pool, session.run)
    endpoint = make_endpoint(session, "none", runner, FairScheduler(1), settings)
    return InferenceGateway(endpoints={session.manifest.model: endpoint}, settings=settings, pool=pool)


async def answer(gateway: InferenceGateway, body: bytes, media_type: str = JSON) -> bytes:
    (endpoint,) = gateway.endpoints.values()
    answered: asyncio.Future[bytes | HttpError] = asyncio.get_running_loop().create_future()
    gateway.submit(InferenceRequest(endpoint, JSON_CODEC, b"id", answered.set_result), body, media_type, 30)
    found = await answered
    if isinstance(found, HttpError):
        raise found
    return found


def ask(gateway: InferenceGateway, *instances: Any, **more: Any) -> bytes:
    return asyncio.run(answer(gateway, msgspec.json.encode({"instances": instances, **more})))


def watch_of(gateway: InferenceGateway) -> DriftCounters:
    (endpoint,) = gateway.endpoints.values()
    assert endpoint.batcher.drift is not None
    return endpoint.batcher.drift


@pytest.mark.parametrize("name", MODELS)
def test_every_request_is_counted(name: str, shipped_session: Open, pool: ThreadPoolExecutor) -> None:
    """Requests one after the other, in several batches: the counts are those of all of them together."""
    session = shipped_session(name)
    gateway, before = open_desk(session, pool), counted(name)
    instances = draw(open_predictor(session), 12)

    async def go() -> None:
        bodies = [
            msgspec.json.encode({"instances": instances[position : position + 3]}) for position in range(0, 12, 3)
        ]
        await asyncio.gather(*(answer(gateway, body) for body in bodies))
        assert grown(name, before) == {}  # nobody waits for it
        await asyncio.sleep(0.2)

    asyncio.run(go())
    found, wanted = grown(name, before), expected_counts(session, instances)
    assert found == pytest.approx(wanted)
    assert found != pytest.approx(expected_counts(session, draw(open_predictor(session), 12, seed=1)))


def test_two_workers_are_one(shipped_session: Open) -> None:
    """What two watches count of halves is what one counts of all, and none counts what has no answer."""
    session = shipped_session("viewcount")
    predictor = open_predictor(session)
    samples = predictor.encode(draw(predictor, 40))
    predictions = predictor.infer(samples)

    async def count(*parts: tuple[list[Any], list[Any]]) -> dict[tuple[str, str], float]:
        before = counted("viewcount")
        for part in parts:
            one = drift_counters(session.manifest, predictor)
            assert one is not None
            one.see(*part)
            one.count()
        return grown("viewcount", before)

    whole = asyncio.run(count((samples, predictions)))
    halves = asyncio.run(count((samples[:15], predictions[:15]), (samples[15:], predictions[15:])))
    assert halves == whole
    holes = [None if position % 2 else one for position, one in enumerate(predictions)]
    assert asyncio.run(count((samples, holes))) == asyncio.run(count((samples[::2], predictions[::2]))) != whole
    assert asyncio.run(count((samples[:2], [None, None]))) == {}


def test_strays_are_counted(shipped_session: Open) -> None:
    """A channel of ten million views is out of the range of one of ten thousand; a usual one is not."""
    session = shipped_session("viewcount")
    predictor = open_predictor(session)
    example = predictor.card.example(predictor.assets)
    large = replace(example, views=[500 * views for views in example.views])
    levels = OUT_OF_RANGE.labels("viewcount", "level")._value

    async def strays(instance: Any) -> float:
        one, before = drift_counters(session.manifest, predictor), levels.get()
        assert one is not None
        one.see(predictor.encode([instance]), predictor.predict([instance]))
        one.count()
        return float(levels.get() - before)

    assert (asyncio.run(strays(example)), asyncio.run(strays(large))) == (0.0, 1.0)


def test_flood_is_sampled(shipped_session: Open) -> None:
    """In one pause only so many are put down; after it there is room again."""
    session = shipped_session("viewcount")
    predictor = open_predictor(session)
    samples = predictor.encode(draw(predictor, 50))
    predictions = predictor.infer(samples)

    async def flood() -> float:
        one, before = drift_counters(session.manifest, predictor), counted("viewcount")
        assert one is not None
        for _ in range(20):
            one.see(samples, predictions)
        one.count()
        return sum(number for (feature, _), number in grown("viewcount", before).items() if feature == "level")

    assert asyncio.run(flood()) == MOST_AT_ONCE
    assert asyncio.run(flood()) == MOST_AT_ONCE


def test_failing_measure_hurts_nobody(
    shipped_session: Open, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """A family's code that raises is logged; requests are answered before and after."""
    gateway = open_desk(shipped_session("viewcount"), pool)
    predictor = gateway.endpoints["viewcount"].predictor
    example = predictor.card.example(predictor.assets)
    watch_of(gateway)._assets = None
    watch_of(gateway)._traits = None  # type: ignore[assignment]

    async def go() -> None:
        body = msgspec.json.encode({"instances": [example]})
        assert orjson.loads(await answer(gateway, body))["predictions"]
        await asyncio.sleep(0.2)
        assert orjson.loads(await answer(gateway, body))["predictions"]

    with caplog.at_level(logging.ERROR):
        asyncio.run(go())
    assert "requests cannot be compared with the training data" in caplog.text


@pytest.mark.parametrize("name", MODELS)
def test_outliers_on_request(name: str, shipped_session: Open, pool: ThreadPoolExecutor) -> None:
    """One for each instance, in order, beside the same predictions; without asking, not one byte is another."""
    session = shipped_session(name)
    gateway, predictor = open_desk(session, pool), open_predictor(session)
    instances = draw(predictor, 5)
    plain, judged = ask(gateway, *instances), orjson.loads(ask(gateway, *instances, outlier=True))
    assert ask(gateway, *instances, outlier=False) == plain
    outliers = judged.pop("outliers")
    assert judged == orjson.loads(plain)
    assert session.manifest.profile is not None
    assert predictor.card.traits is not None
    samples = predictor.encode(instances)
    found = measure(predictor.card.traits, samples, predictor.predict(instances), predictor.assets)
    assert outliers == [msgspec.to_builtins(one) for one in find_outliers(session.manifest.profile, found)]
    assert {one["feature"] for one in outliers} <= {None, *found}


def test_strange_and_usual(shipped_session: Open, pool: ThreadPoolExecutor) -> None:
    """A channel like the training data's is nothing special; one a thousand times as large is, by its level."""
    gateway = open_desk(shipped_session("viewcount"), pool)
    predictor = gateway.endpoints["viewcount"].predictor
    example = predictor.card.example(predictor.assets)
    large = replace(example, views=[1000 * views for views in example.views])
    usual, strange = orjson.loads(ask(gateway, example, large, outlier=True))["outliers"]
    assert usual["score"] < 1.5
    assert (strange["feature"], strange["score"] > 3) == ("level", True)


def test_long_body(shipped_session: Open, pool: ThreadPoolExecutor) -> None:
    """A body that is read instance by instance, in a thread, may ask too."""
    session = shipped_session("viewcount")
    gateway = open_desk(session, pool)
    predictor = open_predictor(session)
    instances = [predictor.card.example(predictor.assets)] * 64
    rest = b" " * LONG_BYTES
    body = msgspec.json.encode({"instances": instances, "outlier": True}) + rest
    assert len(orjson.loads(asyncio.run(answer(gateway, body)))["outliers"]) == 64
    with pytest.raises(InvalidRequest):
        asyncio.run(answer(gateway, body.replace(b'"outlier":true', b'"outlier":true,"outlier":true')))


def test_model_without_a_profile(shipped_session: Open, pool: ThreadPoolExecutor) -> None:
    """It answers as ever and counts nothing; who asks how unusual something is, is told why nobody knows."""
    session = shipped_session("molecule")
    bare = dataclasses.replace(session, manifest=replace(session.manifest, profile=None, model="bare"))
    gateway = open_desk(bare, pool)
    example = open_predictor(bare).card.example(bare.assets)
    assert orjson.loads(ask(gateway, example))["predictions"]
    endpoint: Endpoint = gateway.endpoints["bare"]
    assert (endpoint.batcher.drift, counted("bare")) == (None, {})
    with pytest.raises(InvalidRequest) as caught:
        ask(gateway, example, outlier=True)
    (fault,) = caught.value.faults
    assert (fault.loc, fault.reason) == (("outlier",), "nothing is known of what is usual for this model")


def test_documented(shipped_session: Open, pool: ThreadPoolExecutor) -> None:
    """The OpenAPI document has the wish and the answer."""
    document = openapi(open_desk(shipped_session("image"), pool), None)
    told = document["paths"]["/v1/models/image/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    assert told["schema"]["properties"]["outliers"]["items"]["required"] == ["score", "feature"]
    (request,) = [schema for name, schema in document["components"]["schemas"].items() if name.endswith("request")]
    assert request["properties"]["outlier"]["default"] is False
