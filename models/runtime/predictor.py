"""The one scoring path: requests in, predictions out. Torch-free.

The REST call, the batch job, the certificate and the tests all go through the same five verbs; the service's hot path
calls the parts in other threads, and the parts are these.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import thread_time
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from models.card import AnyCard, Array, Assets, Feeds, Outputs, Prediction
from models.errors import Fault, InvalidRequest, RunnerFailed
from models.payload.json_payload import to_json
from models.runtime.session import Session

# Whoever sends more is told of these; 800 texts that are too long took a second to be refused one by one.
MAX_FAULTS = 32
MUTE = "this model has no attention to explain its answers with"

Run: TypeAlias = Callable[[Feeds, list[str]], dict[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A card, its assets and something that runs feeds (a session, a remote runner, a torch net).

    Attributes:
        card: The family's functions.
        assets: The model's constants.
        outputs: Names of the outputs the model has.
        run: Feeds and wanted output names to outputs by name.
    """

    card: AnyCard
    assets: Assets
    outputs: frozenset[str]
    run: Run

    @property
    def attends(self) -> bool:
        """Return whether the model can explain itself by its attention."""
        return any(spec.is_attention and spec.name in self.outputs for spec in self.card.outputs)

    def faults(self, instance: Any) -> list[Fault]:
        """Return what is wrong with an instance; empty when ``encode`` may have it."""
        return list(self.card.validate(instance, self.assets))

    def encode(self, instances: Sequence[Any], *, explain: bool = False) -> list[Any]:
        """Validate every instance, then encode them.

        Raises:
            InvalidRequest: With the first faults, up to ``MAX_FAULTS``, located below ``instances``.
        """
        faults: list[Fault] = []
        self._validate(instances, faults)
        if faults or explain:
            self._refuse(faults, explain=explain)
        card, assets = self.card, self.assets
        samples = [card.encode(instance, assets) for instance in instances]
        if explain:
            self.bound_explanation(samples)
        return samples

    def encode_stepwise(self, instances: Sequence[Any], samples: list[Any], *, explain: bool = False) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step, and put what comes of it into ``samples``."""
        faults: list[Fault] = []
        units = 0
        for index, instance in enumerate(instances):
            if (units_here := self._validate([instance], faults, index, units)) is None:
                break
            units = units_here
            yield
        self._refuse(faults, explain=explain)
        for instance in instances:
            samples.append(self.card.encode(instance, self.assets))
            yield
        if explain:
            self.bound_explanation(samples)

    def _validate(self, instances: Sequence[Any], faults: list[Fault], first: int = 0, units: int = 0) -> int | None:
        """Collect the first faults; nothing is looked at behind too many, or behind too much that was decoded.

        Args:
            instances: Of a request, from the ``first`` one on.
            faults: Where to put them.
            first: How many instances were before.
            units: What was decoded for those.

        Returns:
            What was decoded up to here; ``None`` where nothing more is to be looked at.
        """
        card, assets, budget = self.card, self.assets, self.card.file_budget
        for index, instance in enumerate(instances, first):
            for fault in card.validate(instance, assets):
                faults.append(fault.inside("instances", index))
                if len(faults) == MAX_FAULTS:
                    return None
            if budget is not None:
                units += budget.cost(instance)
                if (too_much := budget.fault(index, units)) is not None:
                    faults.append(too_much)
                    return None
        return units

    def _refuse(self, faults: list[Fault], *, explain: bool) -> None:
        if explain and not self.attends:
            faults.append(Fault(("explain",), MUTE))
        if faults:
            raise InvalidRequest(faults=faults)

    def bound_explanation(self, samples: Sequence[Any]) -> None:
        """Let samples pass whose answers can be explained.

        Raises:
            InvalidRequest: If one is too large, or the model does not attend.
        """
        if not self.attends:
            raise InvalidRequest(faults=[Fault(("explain",), MUTE)])
        budget = self.card.budget
        faults = [
            Fault(
                ("instances", index),
                f"expected at most {budget.explained} {budget.unit} to explain, found {cost}",
            )
            for index, cost in enumerate(map(self.card.cost, samples))
            if cost > budget.explained
        ]
        if faults:
            raise InvalidRequest("too large to explain", faults)

    def wanted(self, *, explain: bool) -> list[str]:
        """Names of the outputs to fetch, in the card's order."""
        return [
            spec.name for spec in self.card.outputs if spec.name in self.outputs and (explain or not spec.is_attention)
        ]

    def infer(self, samples: Sequence[Any], *, explain: bool = False) -> list[Prediction]:
        """Collate, run and decode one micro-batch."""
        return self.decode(self.run(self.card.collate(samples), self.wanted(explain=explain)), samples)

    def decode(self, outputs: Outputs, samples: Sequence[Any]) -> list[Prediction]:
        """Predictions of one micro-batch's outputs.

        Raises:
            RunnerFailed: If an output is not finite: there is no such answer.
        """
        check_finite(outputs)
        return self.card.decode(outputs, samples, self.assets)

    def decode_each(self, outputs: Outputs, samples: Sequence[Any]) -> list[Prediction | None]:
        """Return the same, with ``None`` for a sample whose own prediction is not finite."""
        predictions = self.card.decode(outputs, samples, self.assets)
        if all(np.isfinite(values).all() for values in outputs.values()):
            return [*predictions]
        return [prediction if _is_finite(prediction) else None for prediction in predictions]

    def predict(self, instances: Sequence[Any], *, explain: bool = False) -> list[Prediction]:
        """Predictions in order, in micro-batches within the card's budget.

        Raises:
            InvalidRequest: If any instance has a fault.
            RunnerFailed: If the model fails.
        """
        samples = self.encode(instances, explain=explain)
        predictions: list[Prediction] = []
        for batch in self.batches(samples):
            predictions += self.infer(batch, explain=explain)
        return predictions

    def batches(self, samples: Sequence[Any]) -> list[list[Any]]:
        """Samples in order, cut where the budget is full; a larger sample stands alone."""
        batches, rest = [], iter(samples)
        for size in self.card.budget.cuts([self.card.cost(sample) for sample in samples]):
            batches.append(list(islice(rest, size)))
        return batches


def check_finite(outputs: Outputs) -> None:
    """Let outputs pass that are answers.

    Raises:
        RunnerFailed: If one is not finite.
    """
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise RunnerFailed(f"output {name!r} is not finite")


def _is_finite(prediction: Prediction) -> bool:
    """Return whether it has none but finite numbers; others would be written as null, which is found fastest."""
    return b"null" not in to_json(prediction) or all(np.isfinite(part).all() for part in _numbers(prediction))


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, np.ndarray | np.floating | float):
        yield value


def open_predictor(session: Session) -> Predictor:
    """Return the predictor of an open session."""
    return Predictor(card=session.card, assets=session.assets, outputs=session.manifest.output_names, run=session.run)


class LatencyModel(NamedTuple):
    """Describe how long micro-batches take, measured at warm-up: a line through the smallest batch and the fullest.

    Attributes:
        base_seconds: An empty batch's, by that line.
        unit_seconds: What each unit of the budget adds.
    """

    base_seconds: float
    unit_seconds: float

    def seconds(self, units: int) -> float:
        """Return a batch's."""
        return self.base_seconds + self.unit_seconds * units


def warm_up(predictor: Predictor, seed: int = 0) -> LatencyModel:
    """Run micro-batches of every size up to a full one, and with attention, so that no user pays for the first.

    Returns:
        The pace of what was run last, each size at its best of three, in seconds of this thread's computing: another
        version may be at work beside it.
    """
    rng = np.random.default_rng(seed)
    card = predictor.card
    samples: list[Any] = []
    while len(predictor.batches(samples)) < 2:  # more than one batch holds
        samples += predictor.encode([card.random_request(rng, predictor.assets)])
    full = len(predictor.batches(samples)[0])
    points = []
    for size in sorted({*(2**power for power in range(full.bit_length())), full}):
        batch = samples[:size]
        points.append((card.budget.units([card.cost(sample) for sample in batch]), _best_seconds(predictor, batch)))
    if predictor.attends:
        predictor.infer([card.encode(card.example(predictor.assets), predictor.assets)], explain=True)
    (few, short), (many, long) = min(points), max(points)
    unit_seconds = max(0.0, (long - short) / max(1, many - few))
    return LatencyModel(base_seconds=max(0.0, short - unit_seconds * few), unit_seconds=unit_seconds)


def _best_seconds(predictor: Predictor, batch: list[Any]) -> float:
    times = []
    for _ in range(3):
        started = thread_time()
        predictor.infer(batch)
        times.append(thread_time() - started)
    return min(times)
