"""Limit a micro-batch, and cut samples in a row into some."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Describe how much one micro-batch holds, in the unit that costs.

    Attributes:
        unit: What is counted, e.g. ``"rows"``, ``"tokens"``.
        batch: Most units in one micro-batch; a single larger sample still runs, alone.
        explained: Most units in one sample whose attention is returned (the answer grows with its square).
        is_padded: Whether a micro-batch costs as much as if every sample were as large as its largest: one sentence
            of 256 words among 256 of one word took 12 s and 5.6 GB, 512 words in equal sentences 0.05 s.
    """

    unit: str
    batch: int
    explained: int
    is_padded: bool = False

    def units(self, costs: Sequence[int]) -> int:
        """Return what one micro-batch of these samples takes of the budget."""
        return max(costs, default=0) * len(costs) if self.is_padded else sum(costs)

    def cuts(self, costs: Sequence[int]) -> list[int]:
        """Return how many samples each micro-batch takes, of samples with these costs in order."""
        if costs and self.units(costs) <= self.batch:  # most of the time
            return [len(costs)]
        sizes, start = [], 0
        while start < len(costs):
            sizes.append(self.cut(islice(costs, start, None)))
            start += sizes[-1]
        return sizes

    def cut(self, costs: Iterable[int]) -> int:
        """Return how many of the samples with these costs, taken in order, make the next micro-batch; at least one."""
        count = total = largest = 0
        for cost in costs:
            total, largest = total + cost, max(largest, cost)
            filled = largest * (count + 1) if self.is_padded else total
            if count and filled > self.batch:
                break
            count += 1
        return count
