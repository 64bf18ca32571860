"""Cut a micro-batch's outputs into the part of each sample."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from models.card import AnyCard, Array


def cut(card: "AnyCard", outputs: Mapping[str, Array], samples: Sequence[Any]) -> list[dict[str, Array]]:
    """Of each sample of a micro-batch its own part of the outputs, as views where that can be."""
    tensors = card.tensors
    if tensors is None:
        return [{} for _ in samples]
    steps = [tensors.steps(sample) for sample in samples]
    parts: list[dict[str, Array]] = [{} for _ in samples]
    for spec in [spec for spec in card.outputs if spec.name in outputs]:
        first, *others = spec.axes
        ends = [*accumulate(own[first] for own in steps)]
        for part, own, end in zip(parts, steps, ends, strict=True):
            rest = tuple(slice(own.get(axis)) for axis in others)
            part[spec.name] = outputs[spec.name][(slice(end - own[first], end), *rest)]
    for part, sample in zip(parts, samples, strict=True):
        _pick(card, part, tensors.asked(sample))
    return parts


def _pick(card: "AnyCard", part: dict[str, Array], asked: Mapping[str, Array]) -> None:
    for spec in card.outputs:
        if spec.name in part and spec.axes[0] in asked:
            part[spec.name] = part[spec.name][asked[spec.axes[0]]]
