"""Pictures as a raw tensor, or as files. numpy only."""

from collections.abc import Mapping

from models.card import Array
from models.image.codec import Sample
from models.image.schema import Assets
from models.tensors import ONE_ROW, Tensors


def samples(feeds: Mapping[str, Array], assets: Assets) -> list[Sample]:
    """One picture per row of ``pixels`` ``(batch, channels, height, width)`` uint8; every such number is a colour."""
    return list(feeds["pixels"])


TENSORS = Tensors(
    samples=samples,
    steps=lambda sample: ONE_ROW,
    payloads={"image": bytes},
    classes=lambda assets: assets.classes,
)
