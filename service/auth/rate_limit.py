"""Limit rates: token buckets, one per key or per address.

A bucket holds ``burst`` tokens and gets ``rate`` new ones a second; a request takes one or is refused. It is kept as
the one number of the generic cell rate algorithm (ITU-T I.371): when the bucket will be full again. Each process counts
for itself, so a caller whose connections reach all of ``W`` workers gets up to ``W`` times its rate.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from math import ceil
from time import monotonic

from models.errors import RateLimited

# Whoever has more addresses than this can start afresh with each; a table of all of IPv6 would be the worse harm.
MOST_ADDRESSES = 10_000


class TokenBucket:
    """The tokens of one caller.

    Attributes:
        rate: New tokens per second.
        burst: Tokens of a full bucket.
    """

    __slots__ = ("_full_at", "_interval", "_span", "burst", "rate")

    def __init__(self, rate: float, burst: int | None = None) -> None:
        self.rate = rate
        self.burst = max(1, ceil(rate)) if burst is None else burst
        self._interval = 1 / rate
        # A thousandth of a token more, or rounding on a clock that has run for days would cost the last one of a burst.
        self._span = (self.burst - 0.999) * self._interval
        self._full_at = 0.0

    def wait(self, now: float | None = None) -> float:
        """Take a token; the seconds until there is one when there is none, else 0.

        Args:
            now: On the monotonic clock.
        """
        now = monotonic() if now is None else now
        full_at = self._full_at
        if full_at <= now:
            self._full_at = now + self._interval
            return 0.0
        late = full_at - now - self._span
        if late > 0:
            return late
        self._full_at = full_at + self._interval
        return 0.0

    def refusal(self, now: float | None = None) -> RateLimited | None:
        """Take a token; what to say when there is none."""
        late = self.wait(now)
        if not late:
            return None
        return RateLimited(f"more than {self.rate:g} requests per second", late)


class AddressBuckets:
    """The buckets of the addresses that asked last."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, address: str) -> TokenBucket:
        """Return the address's bucket; a full one if it is new, or was forgotten."""
        network_address = network(address) if ":" in address else address
        bucket = self._buckets.get(network_address)
        if bucket is None:
            bucket = self._buckets[network_address] = TokenBucket(self.rate)
            if len(self._buckets) > MOST_ADDRESSES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(network_address)
        return bucket


def network(address: str) -> str:
    """Return the network that one IPv6 customer has to itself (64 bits of RFC 6177), or the IPv4 address inside."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
