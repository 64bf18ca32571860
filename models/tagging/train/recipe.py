"""Train the tagger."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec import convert
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.reading import HeldOut
from models.tagging import TAG, spelling
from models.tagging.codec import Sample, collate, encode
from models.tagging.schema import Assets, Instance
from models.tagging.train.conllu import Sentence
from models.tagging.train.data import TaggingData, load
from models.tagging.train.net import TaggerConfig, TaggerNet
from models.training import plots
from models.training.ending import GO_ON, TrainingEnd
from models.training.loop import Recipe, TrainingPlan

LABEL_SMOOTHING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingMethod:
    """Describe what the learner sees.

    Attributes:
        sentences: How many sentences of each split, the first ones; ``None`` for all.
    """

    sentences: int | None = None


# Of the fine tags' loss: what tells a past tense from a participle also tells a verb from an adjective.
FINE_WEIGHT = 0.5
# A known word is hidden with probability a / (a + count), so that the net learns from spelling what rare
# words are (Kiperwasser & Goldberg 2016, arXiv:1603.04351, section 4); any feature with a constant one.
HIDDEN_WORDS = 0.25
HIDDEN_FEATURES = 0.2
SCORED_WORDS = 2000


class Lesson(NamedTuple):
    """An encoded sentence with its true tag and fine tag ids, ``(T,)`` int64 each."""

    sample: Sample
    tags: NDArray[np.int64]
    fine_tags: NDArray[np.int64]


class Batch(NamedTuple):
    """Feeds of the net, and the true tag and fine tag ids ``(T,)`` int64 of the packed words."""

    feeds: dict[str, Tensor]
    tags: Tensor
    fine_tags: Tensor


class TaggingLearner:
    """Learns tags from sentences in which rare words and single features are hidden at random."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        config: TaggerConfig = recipe.network
        method: TaggingMethod = recipe.method
        data = load(path, seed, convert(dict(recipe.reading), HeldOut).test)
        if method.sentences is not None:
            data = replace(data, splits={name: part[: method.sentences] for name, part in data.splits.items()})
        assets = msgspec.structs.replace(data.assets, layers=config.layers, heads=config.attention.heads)
        self.data: TaggingData = replace(data, assets=assets)
        self.plan = recipe.plan
        everything = chain.from_iterable(data.splits.values())
        fine_tags = sorted({tag for sentence in everything for tag in sentence.fine_tags})
        self.net = TaggerNet(config, assets, len(fine_tags))
        self.lessons = {split: list(prepare(sentences, assets, fine_tags)) for split, sentences in data.splits.items()}
        self.lengths = np.array([len(lesson.tags) for lesson in self.lessons["train"]])
        self.chances = hiding_chances(self.lessons["train"], assets.rows)

    def batch_count(self) -> int:
        """Batches of about ``batch_size`` words; the same in every epoch."""
        return len(cut_by_words(np.sort(self.lengths), self.plan.batch_size))

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Sentences of like length together: equal lengths in random order, then batches in random order."""
        order = rng.permutation(len(self.lengths))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        parts = cut_by_words(self.lengths[order], self.plan.batch_size)
        for number in rng.permutation(len(parts)):
            start, end = parts[number]
            batch = pack([self.lessons["train"][index] for index in order[start:end]])
            features = hide(batch.feeds["features"].numpy(), self.chances, rng)
            yield batch._replace(feeds=batch.feeds | {"features": torch.from_numpy(features)})

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy with smoothed labels, of the tags and by a smaller weight of the fine tags."""
        logits, fine_logits = self.net.logits(**batch.feeds)
        loss = cross_entropy(logits, batch.tags, label_smoothing=LABEL_SMOOTHING)
        fine_loss = cross_entropy(fine_logits, batch.fine_tags, label_smoothing=LABEL_SMOOTHING)
        return loss + FINE_WEIGHT * fine_loss

    def _classes(self, split: str) -> NDArray[np.int64]:
        """Tag ids found for all words of a split in order."""
        lessons = self.lessons[split]
        found = []
        with torch.inference_mode():
            for start, end in cut_by_words(np.array([len(lesson.tags) for lesson in lessons]), SCORED_WORDS):
                logits, _ = self.net.logits(**pack(lessons[start:end]).feeds)
                found.append(logits.argmax(-1).numpy())
        return np.concatenate(found)

    def _truth(self, split: str) -> NDArray[np.int64]:
        return np.concatenate([lesson.tags for lesson in self.lessons[split]])

    def score(self, split: str) -> float:
        """Accuracy over words in %."""
        return 100 * float((self._classes(split) == self._truth(split)).mean())

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Share of the test words that never occur in training, and the accuracy on them, both in %."""
        words = {
            split: [spelling.fold(word) for sentence in sentences for word in sentence.words]
            for split, sentences in self.data.splits.items()
        }
        known = set(words["train"])
        is_unknown = np.array([word not in known for word in words["test"]])
        hits = (self._classes("test") == self._truth("test"))[is_unknown]
        accuracy = 100 * float(hits.mean()) if len(hits) else None
        report = {"unknown_words": {"share": 100 * float(is_unknown.mean()), "accuracy": accuracy}}
        return report if self.data.word_f1 is None else report | {"cut_words": {"validation_f1": self.data.word_f1}}

    def pooled(self) -> None:
        """Not wanted: the validation sentences are a small share of many alike."""

    def draw(self, directory: Path) -> None:
        """The confusion matrix on test."""
        tags = self.data.assets.tags
        plots.confusion(directory / "confusion.png", self._truth("test"), self._classes("test"), tags)


def prepare(sentences: Iterable[Sentence], assets: Assets, fine_tags: Sequence[str]) -> Iterator[Lesson]:
    """Sentences encoded, with their tags as places in ``assets.tags`` and ``fine_tags``."""
    tag_ids = {tag: index for index, tag in enumerate(assets.tags)}
    fine_places = {tag: index for index, tag in enumerate(fine_tags)}
    for words, tags, fine, _ in sentences:
        yield Lesson(
            encode(Instance(tokens=words), assets),
            np.array([tag_ids[tag] for tag in tags], np.int64),
            np.array([fine_places[tag] for tag in fine], np.int64),
        )


def pack(lessons: Sequence[Lesson]) -> Batch:
    """Return the feeds of several sentences and the true tags of their packed words."""
    feeds = collate([lesson.sample for lesson in lessons])
    return Batch(
        {name: torch.from_numpy(feed) for name, feed in feeds.items()},
        torch.from_numpy(np.concatenate([lesson.tags for lesson in lessons])),
        torch.from_numpy(np.concatenate([lesson.fine_tags for lesson in lessons])),
    )


def cut_by_words(lengths: NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Ranges of consecutive sentences of at most ``size`` words each; a single longer one is a range."""
    ranges = []
    start, words = 0, 0
    for index, length in enumerate(lengths.tolist()):
        if index > start and words + length > size:
            ranges.append((start, index))
            start, words = index, 0
        words += length
    return [*ranges, (start, len(lengths))]


def hiding_chances(lessons: Iterable[Lesson], rows: int) -> NDArray[np.float64]:
    """Probability for ids that are not words."""
    words = np.concatenate([lesson.sample.features[:, spelling.IDENTITY] for lesson in lessons])
    counts = np.bincount(words, minlength=rows)
    chances = (HIDDEN_WORDS / (HIDDEN_WORDS + counts)).astype(np.float64)
    chances[: spelling.RESERVED] = 0.0
    return chances


def hide(features: NDArray[np.int64], chances: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a copy of features ``(T, F)`` with rare words made unknown and single features made absent."""
    shown = features.copy()
    words = shown[:, spelling.IDENTITY]
    words[rng.random(len(words)) < chances[words]] = spelling.UNKNOWN
    shown[rng.random(shown.shape) < HIDDEN_FEATURES] = spelling.ABSENT
    return shown


RECIPES = (
    Recipe(
        name="tagging",
        card=TAG,
        summary="self-attention over words and their spelling, two layers of eight heads",
        plan=TrainingPlan(epochs=20, patience=20, batch_size=800, learning_rate=3e-3, weight_decay=0.05),
        network=TaggerConfig(),
        method=TaggingMethod(),
        learner=TaggingLearner,
    ),
)
