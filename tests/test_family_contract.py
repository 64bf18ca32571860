"""The promises of every card, over every shipped artifact: a new model is tested by existing."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from export.checks import prediction_difference
from models.budget import Budget
from models.card import TensorSpec
from models.errors import CardMismatch, Fault, InvalidRequest, RunnerFailed
from models.paths import REPOSITORY
from models.payload.json_payload import request_type, to_json
from models.registry import CARDS, FAMILIES, find_card
from models.runtime.output_slices import cut
from models.runtime.predictor import MAX_FAULTS, Predictor, warm_up
from models.tensors import join
from service.server.openapi import schemas

NAMES = sorted(path.parent.name for path in (REPOSITORY / "models").glob("*/trained/*/manifest.json"))
Open = Callable[[str], Predictor]
every_model = pytest.mark.parametrize("name", NAMES)


def draw(predictor: Predictor, count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]


def through_json(predictor: Predictor, instance: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(instance), type=predictor.card.instance)


def differing(ones: Sequence[Any], others: Sequence[Any]) -> list[int]:
    """Places at which two lists of predictions are not the same bit for bit."""
    pairs = zip(ones, others, strict=True)
    return [position for position, (one, other) in enumerate(pairs) if prediction_difference(one, other) != 0.0]


def check_tensors(
    tensors: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Names, types and static axes are the specs', and a dynamic axis has one size wherever it appears."""
    assert list(tensors) == [spec.name for spec in specs]
    found = dict(sizes)
    for spec in specs:
        array = tensors[spec.name]
        assert (spec.name, array.dtype.name) == (spec.name, spec.dtype)
        for axis, size in zip(spec.axes, array.shape, strict=True):
            assert (spec.name, axis, found.setdefault(axis, size)) == (spec.name, axis, size)
    return found


def row_sums(attention: Any) -> np.ndarray:
    """Return what must be 1: sums over the last axis, or for edges the sums per target and head."""
    if not isinstance(attention, dict):
        return attention.sum(-1)
    targets, positions = np.unique(attention["edges"][:, 1], return_inverse=True)
    sums = np.zeros((len(attention["weights"]), len(targets)))
    for head, weights in enumerate(attention["weights"]):
        np.add.at(sums[head], positions, weights)
    return sums


def test_every_card_ships(shipped: Open) -> None:
    """Every card of the registry has at least one artifact, and every artifact has a card."""
    tasks = {(shipped(name).card.family, shipped(name).card.task) for name in NAMES}
    assert tasks == {(card.family, card.task) for card in CARDS}
    assert NAMES == ["citation", "image", "image-vit", "molecule", "tagging", "viewcount"]


def test_registry() -> None:
    """Cards are found by family and task, names are unique, and an unknown task is refused with the known ones."""
    keys = [(card.family, card.task) for card in CARDS]
    assert len(set(keys)) == len(keys)
    assert [find_card(*key) for key in keys] == list(CARDS)
    assert [card.family for card in CARDS] == [family.name for family in FAMILIES for _ in family.cards]
    with pytest.raises(CardMismatch, match=r"^no card for image/forecast; this code has viewcount/forecast, tagging/"):
        find_card("image", "forecast")


@every_model
def test_example_round_trip(name: str, shipped: Open) -> None:
    """The documentation's example survives JSON, has no fault, and predicts what its card documents."""
    predictor = shipped(name)
    example = predictor.card.example(predictor.assets)
    again = through_json(predictor, example)
    assert again == example
    assert predictor.faults(again) == []
    one, two = predictor.predict([example, again])
    assert differing([one], [two]) == []
    documented = predictor.card.prediction.__annotations__.keys()
    assert one.keys() == documented - {"attention"}


@every_model
def test_random_requests(name: str, shipped: Open) -> None:
    """``random_request`` gives valid instances for 50 seeds, the same for the same seed, and they survive JSON."""
    predictor = shipped(name)
    bodies = []
    for seed in range(50):
        (instance,) = draw(predictor, 1, seed)
        assert predictor.faults(instance) == []
        again = through_json(predictor, instance)
        assert again == instance == draw(predictor, 1, seed)[0]
        bodies.append(msgspec.json.encode(instance))
    assert len(set(bodies)) > 40


def holder_of(predictor: Predictor, kind: int) -> Any:
    """Return a checker of what a model's own schema says of its request (0) or prediction (1)."""
    found = schemas(request_type(predictor.card, 128), predictor, "#/$defs/{name}")
    return jsonschema.Draft202012Validator(found[kind] | {"$defs": found[2]})


@every_model
def test_own_schema(name: str, shipped: Open) -> None:
    """A model's own schema, with its classes and sizes, holds for all it takes and gives, and names its classes."""
    predictor = shipped(name)
    instances = [*draw(predictor, 30), predictor.card.example(predictor.assets)]
    request, prediction = holder_of(predictor, 0), holder_of(predictor, 1)
    request.validate({"instances": json.loads(msgspec.json.encode(instances))})
    answers = json.loads(to_json(predictor.predict(instances)))
    for answer in answers:
        prediction.validate(answer)
    classes = find_classes(predictor)
    assert json.dumps(classes)[1:-1] in json.dumps(prediction.schema)
    for label in ("label", "labels", "tags"):
        if label in answers[0]:
            other = ["no class"] if isinstance(answers[0][label], list) else "no class"
            assert not prediction.is_valid(answers[0] | {label: other})


def find_classes(predictor: Predictor) -> list[str]:
    tensors = predictor.card.tensors
    return [*tensors.classes(predictor.assets)] if tensors is not None and tensors.classes else []


@every_model
def test_feeds_match_card(name: str, shipped: Open) -> None:
    """Feeds and outputs of batches of one, three and many have the names, types and axes the card says."""
    predictor = shipped(name)
    inputs, sizes = predictor.card.inputs, predictor.assets.sizes
    outputs = [spec for spec in predictor.card.outputs if spec.name in predictor.outputs]
    for count in (1, 3, 20):
        feeds = predictor.card.collate(predictor.encode(draw(predictor, count, count)))
        found = check_tensors(feeds, inputs, sizes)
        check_tensors(predictor.run(feeds, [spec.name for spec in outputs]), outputs, found)


@every_model
def test_feeds_that_do_not_match(name: str, shipped: Open) -> None:
    """Control: another type and another static size are noticed."""
    predictor = shipped(name)
    feeds = predictor.card.collate(predictor.encode(draw(predictor, 3)))
    first = next(iter(feeds))
    with pytest.raises(AssertionError):
        check_tensors(
            {**feeds, first: feeds[first].astype(np.complex64)}, predictor.card.inputs, predictor.assets.sizes
        )
    sizes = {axis: 1 + feeds[spec.name].shape[0] for spec in predictor.card.inputs for axis in spec.axes[:1]}
    with pytest.raises(AssertionError):
        check_tensors(feeds, predictor.card.inputs, sizes)


@every_model
def test_batch_invariance(name: str, shipped: Open) -> None:
    """Every answer, attention included, is bit for bit the answer alone, in order, in any company."""
    predictor = shipped(name)
    requests, explain = draw(predictor, 40, seed=5), predictor.attends
    samples = predictor.encode(requests)
    alone = [predictor.infer([sample], explain=explain)[0] for sample in samples]
    assert differing(predictor.infer(samples, explain=explain), alone) == []
    backwards = predictor.infer(samples[::-1], explain=explain)
    assert differing(backwards[::-1], alone) == []
    assert len(differing(predictor.infer(samples), predictor.infer(samples[::-1]))) > 20
    plain = predictor.predict(requests)
    assert differing(plain, [predictor.predict([request])[0] for request in requests]) == []


@every_model
@pytest.mark.parametrize("plant", ["order", "company"])
def test_batch_variance_is_seen(name: str, plant: str, shipped: Open) -> None:
    """Control: answers in another order, or shifted by a hair with the batch's size, are told apart."""
    predictor = shipped(name)

    def run(feeds: Any, names: list[str]) -> Any:
        hair = np.float32(1 + 1e-6 * feeds[predictor.card.inputs[-1].name].size)
        return {key: value * hair for key, value in predictor.run(feeds, names).items()}

    def decode(outputs: Any, samples: Any, assets: Any) -> Any:
        return predictor.card.decode(outputs, samples, assets)[::-1]

    planted = (
        replace(predictor, run=run)
        if plant == "company"
        else replace(predictor, card=replace(predictor.card, decode=decode))
    )
    requests = draw(predictor, 12, seed=5)
    assert differing(planted.predict(requests), [planted.predict([request])[0] for request in requests])


@every_model
def test_explanations(name: str, shipped: Open) -> None:
    """Each row of attention sums to 1 and is no less than 0; asking a model without attention is refused."""
    predictor = shipped(name)
    example = predictor.card.example(predictor.assets)
    if not predictor.attends:
        with pytest.raises(InvalidRequest) as caught:
            predictor.predict([example], explain=True)
        assert caught.value.faults == (Fault(("explain",), "this model has no attention to explain its answers with"),)
        return
    requests = [r for r in draw(predictor, 30, seed=2) if not isinstance(_explained(predictor, r), InvalidRequest)]
    assert len(requests) > 10
    explained = predictor.predict([example, *requests], explain=True)
    for prediction in explained:
        sums = row_sums(prediction["attention"])
        assert sums.size
        np.testing.assert_allclose(sums, 1, atol=2e-6, rtol=0)
    plain = predictor.predict([example, *requests])
    without = [{k: v for k, v in prediction.items() if k != "attention"} for prediction in explained]
    assert differing(plain, without) == []


def _explained(predictor: Predictor, request: Any) -> Any:
    try:
        return predictor.encode([request], explain=True)
    except InvalidRequest as error:
        return error


def test_row_sums_by_heart() -> None:
    """Control: edge weights are summed per target and head, plain ones over the last axis."""
    edges = np.array([[0, 0], [1, 0], [1, 1]])
    weights = np.array([[0.25, 0.75, 1.0], [0.5, 0.25, 1.0]])
    assert row_sums({"edges": edges, "weights": weights}).tolist() == [[1.0, 1.0], [0.75, 1.0]]
    assert row_sums(weights).tolist() == [2.0, 1.75]


@every_model
def test_answers_agree_with_themselves(name: str, shipped: Open) -> None:
    """Labels are the classes of their ids, ids the likeliest scores, scores probabilities; intervals hold forecasts."""
    predictor = shipped(name)
    for prediction in predictor.predict(draw(predictor, 30, seed=9)):
        assert inconsistencies(prediction, predictor.assets) == []


def test_disagreement_is_seen(shipped: Open) -> None:
    """Control: a wrong label, id, score, tag count or interval is told."""
    (image,), assets = draw_predictions(shipped("image")), shipped("image").assets
    other = (image["class_id"] + 1) % 10
    assert inconsistencies(image | {"class_id": other}, assets) == ["label", "class_id", "score"]
    assert inconsistencies(image | {"score": 0.5 * image["score"]}, assets) == ["score"]
    assert inconsistencies(image | {"scores": 2 * image["scores"]}, assets) == ["score", "probabilities"]
    (tagging,), assets = draw_predictions(shipped("tagging")), shipped("tagging").assets
    assert inconsistencies(tagging | {"tags": [*tagging["tags"][1:], "VERBS"]}, assets) == ["tags"]
    (views,), assets = draw_predictions(shipped("viewcount")), shipped("viewcount").assets
    assert inconsistencies(views | {"lower": views["upper"]}, assets) == ["interval"]


def draw_predictions(predictor: Predictor) -> list[Any]:
    return predictor.predict(draw(predictor, 1))


def inconsistencies(prediction: Mapping[str, Any], assets: Any) -> list[str]:
    """Return what in a prediction contradicts the rest of it."""
    wrong: list[str] = []
    if "label" in prediction:
        single = {f"{key}s": [prediction[key]] for key in ("label", "class_id", "score")}
        wrong += label_contradictions({**single, "rows": prediction["scores"][None]}, assets.classes)
    if "labels" in prediction:
        best = prediction["scores"].max(1).tolist()
        wrong += label_contradictions({**prediction, "scores": best, "rows": prediction["scores"]}, assets.classes)
    if "tags" in prediction:
        fits = len(prediction["tokens"]) == len(prediction["tags"]) == len(prediction["scores"])
        wrong += [] if fits and set(prediction["tags"]) <= set(assets.tags) else ["tags"]
        wrong += [] if ((prediction["scores"] > 0) & (prediction["scores"] <= 1)).all() else ["score"]
    if "forecast" in prediction:
        lower, forecast, upper = (prediction[key] for key in ("lower", "forecast", "upper"))
        fits = ((lower >= 0) & (lower <= forecast) & (forecast <= upper) & (lower < upper)).all()
        wrong += [] if fits else ["interval"]
    return wrong


def label_contradictions(many: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    rows, ids = many["rows"], many["class_ids"]
    checks = {
        "label": many["labels"] == [classes[position] for position in ids],
        "class_id": ids == rows.argmax(1).tolist(),
        "score": many["scores"] == [float(row[position]) for row, position in zip(rows, ids, strict=True)],
        "probabilities": (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-5, rtol=0),
    }
    return [what for what, holds in checks.items() if not holds]


@every_model
def test_faults_are_located(name: str, shipped: Open) -> None:
    """An instance with nothing in it is refused by its decoder or by ``validate``; of several only the bad is named."""
    predictor = shipped(name)
    good = predictor.card.example(predictor.assets)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"zzz": 1}', type=predictor.card.instance)
    bad = BAD[predictor.card.task]
    instance = msgspec.json.decode(bad[0], type=predictor.card.instance)
    with pytest.raises(InvalidRequest) as caught:
        predictor.predict([good, instance, good])
    assert [fault.loc for fault in caught.value.faults] == [("instances", 1, *bad[1])]


BAD = {
    "forecast": (msgspec.json.encode({"views": [1.5] + [1] * 55}), ("views", 0)),
    "tag": (b'{"tokens": ["a", ""]}', ("tokens", 1)),
    "classify": (b'{"pixels": [[0]]}', ("pixels",)),
    "label_nodes": (b'{"words": [[1]], "edges": [[0, 0], [0, 1]]}', ("edges", 1)),
    "label_graph": (b'{"atoms": ["C"], "bonds": [[0, 7]]}', ("bonds", 0)),
}


@every_model
@pytest.mark.parametrize("bad", [(), (1,), (0, 2, 3), tuple(range(MAX_FAULTS + 3))], ids=len)
@pytest.mark.parametrize("explain", [False, True])
def test_steps_change_nothing(name: str, shipped: Open, bad: tuple[int, ...], explain: bool) -> None:
    """What is encoded an instance a step has the same samples, or the same first faults in the same order."""
    predictor = shipped(name)
    instances = draw(predictor, MAX_FAULTS + 4, seed=5)
    for position in bad:
        instances[position] = msgspec.json.decode(BAD[predictor.card.task][0], type=predictor.card.instance)
    at_once = outcome(lambda: predictor.encode(instances, explain=explain))
    samples: list[Any] = []
    steps = outcome(lambda: [*predictor.encode_stepwise(instances, samples, explain=explain)])
    if isinstance(at_once, InvalidRequest):
        assert isinstance(steps, InvalidRequest)
        assert [*steps.faults] == [*at_once.faults]
        assert at_once.faults
    else:
        assert steps == [None] * 2 * len(instances)
        np.testing.assert_equal(list(map(plain, samples)), list(map(plain, at_once)))


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except InvalidRequest as error:
        return error


def plain(sample: Any) -> Any:
    """Arrays and numbers that ``assert_equal`` looks into, whatever a family calls a sample."""
    slots = getattr(type(sample), "__slots__", ())
    return {slot: plain(getattr(sample, slot)) for slot in slots} if slots else sample


@every_model
def test_budgets_hold(name: str, shipped: Open) -> None:
    """Micro-batches keep order and size: within the budget, padding counted, unless one sample alone is larger."""
    predictor = shipped(name)
    card = predictor.card
    samples = predictor.encode(draw(predictor, 300, seed=3))
    batches = predictor.batches(samples)
    assert [id(sample) for batch in batches for sample in batch] == [id(sample) for sample in samples]
    for batch in batches:
        costs = [card.cost(sample) for sample in batch]
        filled = max(costs) * len(costs) if card.budget.is_padded else sum(costs)
        assert min(costs) >= 1
        assert filled <= card.budget.batch or len(batch) == 1
    assert len(batches) > 1


@pytest.mark.parametrize(
    ("is_padded", "costs", "count"),
    [
        (False, [], 0),
        (False, [4, 6], 2),
        (False, [4, 7], 1),
        (False, [99, 1], 1),
        (False, [1] * 20, 10),
        (True, [5, 5], 2),
        (True, [1, 6], 1),
        (True, [1, 1, 4], 2),
        (True, [6, 1], 1),
        (True, [99], 1),
    ],
)
def test_budget_by_heart(is_padded: bool, costs: list[int], count: int) -> None:
    """Of samples with these costs, so many go into a batch of ten units."""
    assert Budget(unit="units", batch=10, explained=1, is_padded=is_padded).cut(costs) == count


@every_model
def test_not_finite_is_no_answer(name: str, shipped: Open) -> None:
    """A NaN from the model is the model's failure, never an answer."""
    predictor = shipped(name)

    def run(feeds: Any, names: list[str]) -> Any:
        outputs = predictor.run(feeds, names)
        outputs[names[-1]] = np.full_like(outputs[names[-1]], np.nan)
        return outputs

    warm_up(predictor)
    with pytest.raises(RunnerFailed, match=r"^output '\w+' is not finite$"):
        replace(predictor, run=run).predict(draw(predictor, 2))


@every_model
def test_every_output_is_looked_at(name: str, shipped: Open) -> None:
    """A NaN in any output, attention too, takes the samples it belongs to out of a batch and no others."""
    predictor = shipped(name)
    explains = predictor.attends
    instance = predictor.card.example(predictor.assets)
    samples = predictor.encode([instance, instance], explain=explains)
    wanted = predictor.wanted(explain=explains)
    outputs = predictor.run(predictor.card.collate(samples), wanted)
    assert None not in predictor.decode_each(outputs, samples)
    for spoilt in wanted:
        values = outputs[spoilt].copy()
        values[: len(values) // 2] = np.nan
        found = predictor.decode_each({**outputs, spoilt: values}, samples)
        assert [prediction is None for prediction in found] == [True, False], spoilt


@every_model
def test_session_refuses_foreign_feeds(name: str, shipped: Open) -> None:
    """A session that cannot run its feeds says which model failed, whatever the engine raised."""
    predictor = shipped(name)
    with pytest.raises(RunnerFailed, match=rf"^{name}:\d+\.\d+\.\d+ failed on a micro-batch$"):
        predictor.run({"nothing": np.zeros(1)}, predictor.wanted(explain=False))


@every_model
def test_memory_addresses_do_not_matter(name: str, shipped: Open) -> None:
    """Feeds that lie anywhere in memory, as unpickled ones do, give the same bits."""
    predictor = shipped(name)
    samples = predictor.encode(draw(predictor, 20, seed=5))
    outputs = sorted(predictor.outputs)
    for sample in samples:
        feeds = predictor.card.collate([sample])
        wanted = predictor.run(feeds, outputs)
        for offset in (1, 4, 12):
            moved = {key: at_offset(feed, offset * feed.itemsize) for key, feed in feeds.items()}
            found = predictor.run(moved, outputs)
            assert [key for key in outputs if found[key].tobytes() != wanted[key].tobytes()] == []


def at_offset(feed: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy that begins so many bytes after a multiple of 64."""
    buffer = np.zeros(feed.nbytes + 64 + offset, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    moved = buffer[start : start + feed.nbytes].view(feed.dtype).reshape(feed.shape)
    moved[...] = feed
    return moved


@every_model
@pytest.mark.parametrize("count", [1, 5])
def test_tensors_are_samples_again(name: str, count: int, shipped: Open) -> None:
    """What was collated is read as what collates alike, and each sample's part of the outputs is its own."""
    predictor = shipped(name)
    card = predictor.card
    assert card.tensors is not None
    feeds = card.collate(predictor.encode(draw(predictor, count)))
    samples = card.tensors.samples(feeds, predictor.assets)
    again = card.collate(samples)
    assert all(np.array_equal(again[key], feeds[key]) for key in feeds)
    outputs = predictor.run(feeds, predictor.wanted(explain=True))
    parts = cut(card, outputs, samples)
    for key, values in outputs.items():
        np.testing.assert_array_equal(join([part[key] for part in parts]), values)
    for sample, part in zip(samples, parts, strict=True):
        alone = predictor.run(card.collate([sample]), predictor.wanted(explain=True))
        assert {key: value.tobytes() for key, value in alone.items()} == {k: v.tobytes() for k, v in part.items()}
