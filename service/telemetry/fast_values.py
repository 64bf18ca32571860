"""Numbers of metrics, each one addition away: no lock, no system call, and every process's scrape sees it at once.

``prometheus_client`` takes a lock and asks the kernel which process this is at every step. A request has a dozen steps,
and one that was put off to the end of a turn would be lost with the worker. So the hot path writes into the client's
own mapped files, where the client has made the place. A number written here is never touched by the client's methods:
they remember what they wrote last. Only the event loop's thread writes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram

_DOUBLE = 8


class Numbers(Protocol):
    """The numbers of a file, or of this process."""

    def __getitem__(self, offset: int, /) -> float: ...

    def __setitem__(self, offset: int, number: float, /) -> None: ...


class _PrivateNumbers:
    """The numbers of a process that shares them with no other, as in a test."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def __getitem__(self, offset: int) -> float:
        found: float = self._values[offset].get()
        return found

    def __setitem__(self, offset: int, number: float) -> None:
        self._values[offset].set(number)


def find(values: Sequence[Any]) -> tuple[Numbers, list[int]]:
    """Return where the client keeps these values of one metric: the numbers, and the place of each."""
    if not values[0]._multiprocess:
        return _PrivateNumbers(values), [*range(len(values))]
    file = values[0]._file
    # A file that grows is mapped anew; what was mapped before goes on showing the same bytes.
    return memoryview(file._m).cast("d"), [file._positions[value._key] // _DOUBLE for value in values]


class MmapCounters:
    """A counter's series that differ in one label, by that label's value.

    Args:
        counter: Whose.
        keys: The label's values, all there are.
        known: The other labels.

    Attributes:
        numbers: Where they stand, for who cannot afford to call ``add``.
        offsets: Of them among the numbers, by the label's value.
    """

    def __init__(self, counter: Counter, keys: Sequence[str], **known: str) -> None:
        (free,) = set(counter._labelnames) - known.keys()
        self.numbers, offsets = find([counter.labels(**known, **{free: key})._value for key in keys])
        self.offsets: Mapping[str, int] = dict(zip(keys, offsets, strict=True))

    def add(self, key: str, amount: float = 1.0) -> None:
        """Count one, or more.

        Raises:
            KeyError: If there is no such series; none is made here.
        """
        self.numbers[self.offsets[key]] += amount


class MmapGauge:
    """One series of a counter or a gauge.

    Attributes:
        numbers: Where it stands, for who cannot afford to call ``add``.
        offset: Of it among them.
    """

    def __init__(self, metric: Counter | Gauge, **labels: str) -> None:
        child = metric.labels(**labels) if labels else metric
        self.numbers, (self.offset,) = find([child._value])

    def add(self, amount: float = 1.0) -> None:
        """Let it grow."""
        self.numbers[self.offset] += amount

    def set(self, amount: float) -> None:
        """Let it be so much."""
        self.numbers[self.offset] = amount


class MmapHistogram:
    """One series of a histogram."""

    def __init__(self, histogram: Histogram, **labels: str) -> None:
        child = histogram.labels(**labels)
        self._bounds = child._upper_bounds
        self._numbers, (self._sum, *self._places) = find([child._sum, *child._buckets])

    def add(self, amount: float, times: int = 1) -> None:
        """Observe an amount, once or several times."""
        numbers = self._numbers
        numbers[self._places[bisect_left(self._bounds, amount)]] += times
        numbers[self._sum] += amount * times

    def add_all(self, amounts: list[float]) -> None:
        """Observe many amounts, at the price of one per bucket; they are sorted on the way."""
        if not amounts:
            return
        amounts.sort()
        numbers, bounds, offsets, start = self._numbers, self._bounds, self._places, 0
        numbers[self._sum] += sum(amounts)
        last = bisect_left(bounds, amounts[-1])
        for bucket in range(bisect_left(bounds, amounts[0]), last):
            end = bisect_right(amounts, bounds[bucket], start)
            numbers[offsets[bucket]] += end - start
            start = end
        numbers[offsets[last]] += len(amounts) - start
