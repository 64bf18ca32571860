"""The one scoring path: requests in, predictions out. Torch-free.

The REST call, the batch job, the certificate and the tests all go through the same five verbs; the service's hot path
calls the parts in other threads, and the parts are these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from models.errors import Fault, InvalidRequest, RunnerFailed
from models.family import AnyCard, Array, Assets, Feeds, Outputs, Prediction
from models.session import Session

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
        """Whether the model can explain itself by its attention."""
        return any(spec.is_attention and spec.name in self.outputs for spec in self.card.outputs)

    def faults(self, instance: Any) -> list[Fault]:
        """What is wrong with an instance; empty when ``encode`` may have it."""
        return list(self.card.validate(instance, self.assets))

    def encode(self, instances: Sequence[Any], *, explain: bool = False) -> list[Any]:
        """Validate every instance, then encode them.

        Raises:
            InvalidRequest: With every fault of every instance, located below ``instances``.
        """
        faults = [
            fault.inside("instances", place)
            for place, instance in enumerate(instances)
            for fault in self.faults(instance)
        ]
        if explain and not self.attends:
            faults.append(Fault(("explain",), "this model has no attention to explain its answers with"))
        if faults:
            raise InvalidRequest("a value makes no sense", faults)
        samples = [self.card.encode(instance, self.assets) for instance in instances]
        if explain:
            self._bound_explanation(samples)
        return samples

    def _bound_explanation(self, samples: Sequence[Any]) -> None:
        budget = self.card.budget
        faults = [
            Fault(
                ("instances", place),
                f"expected at most {budget.explained} {budget.unit} to explain, found {cost}",
            )
            for place, cost in enumerate(map(self.card.cost, samples))
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
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise RunnerFailed(f"output {name!r} is not finite")
        return self.card.decode(outputs, samples, self.assets)

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
        batches, rest = [], list(samples)
        while rest:
            size = self.card.budget.cut(map(self.card.cost, rest))
            batches.append(rest[:size])
            rest = rest[size:]
        return batches


def open_predictor(session: Session) -> Predictor:
    """The predictor of an open session."""
    return Predictor(card=session.card, assets=session.assets, outputs=session.manifest.output_names, run=session.run)


def warm_up(predictor: Predictor, seed: int = 0) -> None:
    """Run random requests of several batch sizes, with and without attention, so that no user pays for the first."""
    rng = np.random.default_rng(seed)
    for size in (1, 4, 16):
        instances = [predictor.card.random_request(rng, predictor.assets) for _ in range(size)]
        samples = predictor.encode(instances)
        predictor.infer(samples)
    if predictor.attends:
        predictor.infer(
            [predictor.card.encode(predictor.card.example(predictor.assets), predictor.assets)], explain=True
        )
