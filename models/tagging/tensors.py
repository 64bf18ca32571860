"""Sentences as raw tensors, or as text. numpy only."""

from collections.abc import Mapping

import numpy as np

from models.card import Array
from models.tagging.codec import Sample, pack
from models.tagging.schema import MAX_TOKENS, Assets
from models.tensors import Steps, Tensors, demand, demand_each


def samples(feeds: Mapping[str, Array], assets: Assets) -> list[Sample]:
    """Return one sentence per row of ``grid``; its words are not known, and answered as empty strings.

    Raises:
        InvalidRequest: Unless the tensors are what ``collate`` makes: words end to end in ``features`` ``(T, F)``, and
            ``grid`` ``(S, W)``, ``keep`` ``(S, W)`` and ``back`` ``(T,)`` the way into the narrowest grid and back.
    """
    features, keep = feeds["features"], feeds["keep"]
    demand_each((features >= 0) & (features < assets.rows), features, "features", f"expected ids below {assets.rows}")
    demand(keep.shape[0] > 0, "keep", "expected at least one sentence")
    demand(keep.shape[1] <= MAX_TOKENS, "keep", f"expected at most {MAX_TOKENS} words in a sentence")
    lengths = keep.sum(axis=1, dtype=np.int64)
    demand(lengths.sum() == len(features), "keep", f"expected {len(features)} cells with a word, found {lengths.sum()}")
    packed = pack(features, lengths)
    for name in ("keep", "grid", "back"):
        expected = f"expected the {name} of sentences with {lengths.tolist()[:8]} words, in the narrowest grid"
        demand(np.array_equal(packed[name], feeds[name]), name, expected)
    ends = lengths.cumsum().tolist()
    return [
        Sample([""] * length, features[end - length : end])
        for length, end in zip(lengths.tolist(), ends, strict=True)
    ]  # fmt: skip


def _steps(sample: Sample) -> Steps:
    return {"sentences": 1, "tokens": len(sample.tokens), "width": len(sample.tokens)}


TENSORS = Tensors(
    samples=samples,
    steps=_steps,
    payloads={"text": bytes.decode},
    listed="text",
    classes=lambda assets: assets.tags,
)
