"""Batches filled up to a bucket answer bit for bit as before, and no index leaves its table."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.card import Feeds
from models.errors import RunnerFailed
from models.paths import REPOSITORY
from models.runtime.device import Compute, Padding
from models.runtime.padding import Bucketing, axis_sizes, bucket, check_indices, dynamic_axes, list_buckets
from models.runtime.predictor import Predictor, open_predictor, warm_up
from models.runtime.session import Session, open_artifact

FOLDERS = sorted(path.parent for path in (REPOSITORY / "models").glob("*/trained/*/manifest.json"))
NAMES = [folder.name for folder in FOLDERS]
EDGES = (-1, -(2**31), -(2**63), 2**31, 2**63 - 1, 2**63, 2**64)
Open = Callable[[str], Session]
every_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def padded() -> Open:
    """The session of a shipped model that fills every batch up, by name."""
    found = {folder.name: open_artifact(folder, Compute(padding=Padding.ALWAYS)) for folder in FOLDERS}
    return found.__getitem__


def draw(predictor: Predictor, count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return predictor.encode([predictor.card.random_request(rng, predictor.assets) for _ in range(count)])


def differing(ones: Feeds, others: Feeds) -> list[str]:
    """Names of the outputs that are not the same bit for bit."""
    assert ones.keys() == others.keys()
    return [
        name
        for name in ones
        if ones[name].shape != others[name].shape
        or ones[name].tobytes() != np.ascontiguousarray(others[name]).tobytes()
    ]


@every_model
def test_filled_up_batches_answer_bit_for_bit(name: str, shipped_session: Open, padded: Open) -> None:
    """Whatever the batch's size, what is filled in changes no bit of any output, attention included."""
    plain, other = shipped_session(name), padded(name)
    predictor = open_predictor(plain)
    wanted = predictor.wanted(explain=predictor.attends)
    samples = draw(predictor, 64, seed=5)
    for size in (1, 2, 3, 5, 7, 13, 31, 64):
        feeds = predictor.card.collate(samples[:size])
        assert (size, differing(plain.run(feeds, wanted), other.run(feeds, wanted))) == (size, [])


@every_model
def test_the_engine_sees_only_buckets(name: str, padded: Open) -> None:
    """Every dynamic axis has a size of the list, and the caller's own feeds are left as they were."""
    session = padded(name)
    predictor = open_predictor(session)
    assert session.fitting is not None
    buckets = list_buckets(predictor.card, predictor.assets)
    assert [*buckets] == dynamic_axes(predictor.card, predictor.assets)
    for seed in range(20):
        feeds = predictor.card.collate(predictor.batches(draw(predictor, 1 + seed, seed))[0])
        before = {key: feed.copy() for key, feed in feeds.items()}
        fitted, _ = session.fitting.fit(feeds)
        sizes = axis_sizes(fitted, predictor.card.inputs, predictor.assets.sizes)
        assert {axis: sizes[axis] in buckets[axis] or sizes[axis] > max(buckets[axis]) for axis in buckets} == (
            dict.fromkeys(buckets, True)
        )
        check_indices(fitted, predictor.card.inputs, sizes)
        assert differing(before, feeds) == []


def test_buckets() -> None:
    """Powers of two, none below the least."""
    assert [bucket(size) for size in (0, 1, 2, 3, 4, 5, 63, 64, 65)] == [1, 1, 2, 4, 4, 8, 64, 64, 128]
    assert [bucket(size, 16) for size in (0, 16, 17)] == [16, 16, 32]


@pytest.mark.parametrize("name", ["viewcount", "image", "image-vit"])
def test_warm_up_sees_every_bucket(name: str, padded: Open) -> None:
    """No user brings a shape of rows that was not computed before the service was ready."""
    session, seen = padded(name), set[int]()
    predictor = open_predictor(session)

    def run(feeds: Feeds, outputs: list[str]) -> Feeds:
        assert session.fitting is not None
        seen.add(len(next(iter(session.fitting.fit(feeds).feeds.values()))))
        return session.run(feeds, outputs)

    warm_up(replace(predictor, run=run))
    assert sorted(seen) == list_buckets(predictor.card, predictor.assets)["batch"]


@pytest.mark.parametrize("name", ["molecule", "citation", "tagging"])
def test_a_filler_that_belongs_to_somebody_is_seen(name: str, shipped_session: Open, padded: Open) -> None:
    """Control: zeros alone hang what is filled in on the first node or misplace words, and answers change."""
    plain, session = shipped_session(name), padded(name)
    predictor = open_predictor(plain)
    feeds, wanted = predictor.card.collate(draw(predictor, 5)), predictor.wanted(explain=False)
    broken = Bucketing(replace(predictor.card, connect=None), predictor.assets, is_padded=True)
    found = replace(session, fitting=broken).run(feeds, wanted)
    assert differing(plain.run(feeds, wanted), found) == wanted


def test_empty_sentences(shipped_session: Open, padded: Open) -> None:
    """A grid without a cell is filled up too."""
    predictor = open_predictor(padded("tagging"))
    instance = predictor.card.instance(tokens=[])
    plain = open_predictor(shipped_session("tagging"))
    assert predictor.predict([instance, instance])[1]["tags"] == plain.predict([instance])[0]["tags"] == []


@pytest.mark.parametrize("name", ["tagging", "citation", "molecule"])
def test_an_index_outside_its_table_is_refused(name: str, shipped_session: Open) -> None:
    """Each index input, one too large, or negative: refused by its name, before the engine sees it."""
    predictor = open_predictor(shipped_session(name))
    card, assets = predictor.card, predictor.assets
    fitting = Bucketing(card, assets, is_padded=False)
    feeds = card.collate(draw(predictor, 3))
    fitting.fit(feeds)
    sizes = axis_sizes(feeds, card.inputs, assets.sizes)
    for spec in card.inputs:
        for wrong in (-1, int(np.prod([sizes[axis] for axis in spec.below])), 2**62) if spec.below else ():
            hurt = feeds[spec.name].copy()
            hurt.reshape(-1)[0] = wrong
            with pytest.raises(RunnerFailed, match=f"^input {spec.name!r} has an index outside of 0 .. "):
                fitting.fit(feeds | {spec.name: hurt})


def test_every_integer_input_is_spoken_of() -> None:
    """An int64 input is an index with a bound, or one of the two counts, which no table is asked with."""
    from models.registry import CARDS

    unbound = {spec.name for card in CARDS for spec in card.inputs if spec.dtype == "int64" and not spec.below}
    assert unbound == {"features_of_node", "nodes_of_graph"}


# What callers may send


def integers(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where whole numbers stand in a JSON document."""
    if isinstance(document, bool):
        return []
    if isinstance(document, int):
        return [path]
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [found for key, part in parts for found in integers(part, (*path, key))]


def planted(document: Any, path: Sequence[Any], value: int) -> Any:
    copied = msgspec.json.decode(msgspec.json.encode(document))
    position = copied
    for key in path[:-1]:
        position = position[key]
    position[path[-1]] = value
    return copied


def reaches(predictor: Predictor, document: Any) -> bool:
    """Return whether an instance gets through to the feeds, which are then in range.

    Raises:
        RunnerFailed: If they are not.
    """
    try:
        instance = msgspec.json.decode(msgspec.json.encode(document), type=predictor.card.instance)
    except (msgspec.ValidationError, OverflowError):
        return False
    if predictor.faults(instance):
        return False
    feeds = predictor.card.collate([predictor.card.encode(instance, predictor.assets)])
    Bucketing(predictor.card, predictor.assets, is_padded=True).fit(feeds)
    return True


@every_model
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_request_brings_an_index_outside_its_table(
    name: str, shipped: Callable[[str], Predictor], data: Any
) -> None:
    """Hostile numbers anywhere in a request are refused, or what becomes of them is in range."""
    predictor = shipped(name)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    document = msgspec.to_builtins(predictor.card.random_request(rng, predictor.assets))
    positions = integers(document)
    for _ in range(data.draw(st.integers(1, 3)) if positions else 0):
        near = st.sampled_from(EDGES) | st.integers(-3, 4000)
        document = planted(document, data.draw(st.sampled_from(positions)), data.draw(near))
    reaches(predictor, document)


@pytest.mark.parametrize("name", ["citation", "molecule"])
def test_validation_is_what_keeps_them_out(name: str, shipped: Callable[[str], Predictor]) -> None:
    """Control: with a schema that finds no fault the same numbers come further, to the codec or the check of feeds."""
    predictor = shipped(name)
    blind = replace(predictor, card=replace(predictor.card, validate=lambda instance, assets: iter(())))
    is_citation = name == "citation"
    document = {"node_ids": [10**6]} if is_citation else {"atoms": ["C", "C"], "bonds": [[0, 2]]}
    assert not reaches(predictor, document)
    with pytest.raises((RunnerFailed, IndexError, ValueError)):
        reaches(blind, document)


def test_an_index_that_a_codec_got_wrong(padded: Open) -> None:
    """It ends as a failed micro-batch, not as an answer."""
    session = padded("molecule")
    predictor = open_predictor(session)
    feeds = predictor.card.collate(draw(predictor, 2))
    feeds["edges"][0, 0] = -1
    with pytest.raises(RunnerFailed, match=r"^input 'edges'"):
        session.run(feeds, ["scores"])
