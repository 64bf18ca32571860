"""Count today's requests and answers into the bins of the training data.

The counts are Prometheus counters, so those of all workers add up, and a worker that dies takes none along.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter

from models.artifact.drift_profile import Profile, measure
from models.artifact.manifest import Manifest
from models.card import DriftFeatures, Prediction
from models.runtime.predictor import Predictor

logger = logging.getLogger("lectern.drift")

# Instances of one model that a process looks at: these take 0.1 to 0.3 ms together, more are passed over.
MOST_AT_ONCE, PAUSE_SECONDS = 100, 0.05

INSTANCES = Counter(
    "lectern_feature_instances_total",
    "Instances that were looked at, by the bin that a feature of them is in.",
    ["model", "feature", "bin"],
)
OUT_OF_RANGE = Counter(
    "lectern_feature_out_of_range_total",
    "Instances that were looked at with a feature outside the range of the training data.",
    ["model", "feature"],
)


class DriftCounters:
    """Counts what one version of a model is asked and answers.

    Micro-batches are only put down; they are measured together in a moment when something else may be waited for, at
    most twenty times in a second. Which of them is put down depends on the clock alone, not on what is in them.
    """

    def __init__(self, name: str, profile: Profile, traits: DriftFeatures[Any, Any], assets: Any) -> None:
        self._name, self._profile, self._traits, self._assets = name, profile, traits, assets
        self._bins = [
            (
                feature,
                [INSTANCES.labels(name, feature.name, index) for index in feature.bins],
                None if feature.kinds else OUT_OF_RANGE.labels(name, feature.name),
            )
            for feature in profile.features
        ]
        self._samples: list[Any] = []
        self._predictions: list[Prediction | None] = []
        self._is_waiting = False

    def see(self, samples: Sequence[Any], predictions: Sequence[Prediction | None]) -> None:
        """Put down what callers asked in a micro-batch and what they are answered, if there is room for more."""
        if len(self._samples) >= MOST_AT_ONCE:
            return
        self._samples.extend(samples)
        self._predictions.extend(predictions)
        if self._samples and not self._is_waiting:
            self._is_waiting = True
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self.count)

    def count(self) -> None:
        """Measure what was put down."""
        samples, predictions, self._samples, self._predictions = self._samples, self._predictions, [], []
        self._is_waiting = False
        good = [index for index, prediction in enumerate(predictions) if prediction is not None]
        if not good:
            return
        try:
            self._count([samples[index] for index in good], [predictions[index] for index in good])
        except Exception:  # the border to the family's own code: requests have been answered, and go on
            logger.exception("%s: requests cannot be compared with the training data", self._name)

    def _count(self, samples: list[Any], predictions: list[Any]) -> None:
        measured = measure(self._traits, samples, predictions, self._assets)
        for feature, children, strays in self._bins:
            counts = feature.count(measured[feature.name])
            for child, number in zip(children, counts.tolist(), strict=True):
                if number:
                    child.inc(number)
            if strays is not None and (outside := feature.outside(counts)):
                strays.inc(outside)


def drift_counters(manifest: Manifest, predictor: Predictor) -> DriftCounters | None:
    """Return what counts for a model; ``None`` where nothing is known of what is usual."""
    profile, traits = manifest.profile, predictor.card.traits
    if profile is None or traits is None:
        return None
    return DriftCounters(manifest.model, profile, traits, predictor.assets)
