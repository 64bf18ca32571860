"""Token buckets on a clock of their own."""

import random

import pytest

from service.auth import rate_limit
from service.auth.rate_limit import AddressBuckets, TokenBucket, network


def passed(bucket: TokenBucket, times: list[float]) -> int:
    return sum(not bucket.wait(now) for now in times)


class Tokens:
    """The textbook's bucket: counts tokens, and adds new ones by the time that went by."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, float(burst), 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rate", "burst"), [(1.0, 1), (0.25, 3), (8.0, 8), (64.0, 2)])
def test_as_the_textbook(rate: float, burst: int, seed: int) -> None:
    """Request by request what a bucket that counts its tokens says."""
    rng = random.Random(seed)
    bucket, tokens, now = TokenBucket(rate, burst), Tokens(rate, burst), 100.0
    tokens.at = now
    for _ in range(2000):
        now += rng.choice([0, 0, 1 / 64, 1 / 4, 1, 5]) / rate  # multiples that binary numbers hold exactly
        assert (bucket.wait(now) == 0.0) == tokens.take(now)


@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0, 99.9, 5000.0])
def test_rate_and_burst(rate: float) -> None:
    """A full bucket passes its burst at once, and after that its rate, no more and no less, however often asked."""
    bucket = TokenBucket(rate, 7)
    assert passed(bucket, [1e6] * 50) == 7
    seconds = 1000 / rate
    times = [1e6 + seconds * n / 20_000 for n in range(1, 20_001)]  # 20 times as often as it may
    assert abs(passed(bucket, times) - 1000) <= 1


@pytest.mark.parametrize(("rate", "burst"), [(0.5, 1), (1.0, 1), (2.5, 3), (50.0, 50)])
def test_burst_by_default(rate: float, burst: int) -> None:
    """Without a burst of its own a bucket holds the tokens of one second, and at least one."""
    assert TokenBucket(rate).burst == burst
    assert passed(TokenBucket(rate), [5.0] * 100) == burst


def test_wait() -> None:
    """What is said to wait is enough, and less is not; asking in vain costs nothing."""
    bucket = TokenBucket(0.5, 2)
    assert [bucket.wait(10.0) for _ in range(2)] == [0.0, 0.0]
    for _ in range(100):
        assert bucket.wait(10.0) == pytest.approx(2.0, abs=0.01)
    assert bucket.wait(11.9) > 0
    assert bucket.wait(12.0) == 0.0


def test_refusal() -> None:
    """It names the limit and the time to wait."""
    bucket = TokenBucket(2.5, 1)
    assert bucket.refusal(1.0) is None
    error = bucket.refusal(1.0)
    assert error is not None
    assert (str(error), error.retryable) == ("more than 2.5 requests per second", True)
    assert error.wait_seconds == pytest.approx(0.4, abs=0.01)


def test_steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the monotonic one: the time of day may jump."""
    monkeypatch.setattr("time.time", lambda: 1 / 0)
    monkeypatch.setattr("service.auth.rate_limit.monotonic", lambda: 7.0)
    bucket = TokenBucket(1.0)
    assert [bool(bucket.wait()) for _ in range(3)] == [False, True, True]
    monkeypatch.setattr("service.auth.rate_limit.monotonic", lambda: 8.0)
    assert [bool(bucket.wait()) for _ in range(2)] == [False, True]


def test_one_greedy_caller() -> None:
    """A caller at twenty times its limit gets its limit, and nine others at theirs lose nothing."""
    buckets = [TokenBucket(10.0) for _ in range(10)]
    asked = [(n / 200, 0) for n in range(2000)] + [(n / 10, who) for n in range(100) for who in range(1, 10)]
    got = [0] * 10
    for now, who in sorted(asked):
        got[who] += not buckets[who].wait(1000 + now)
    assert got[1:] == [100] * 9
    assert abs(got[0] - (10 + 10 * 10)) <= 1  # the burst, and ten seconds


def test_addresses() -> None:
    """Each address has a bucket of its own, which is kept."""
    addresses = AddressBuckets(1.0)
    assert addresses.bucket("10.0.0.1") is addresses.bucket("10.0.0.1")
    assert addresses.bucket("10.0.0.1") is not addresses.bucket("10.0.0.2")


def test_few_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are remembered; who asked longest ago is forgotten first."""
    monkeypatch.setattr(rate_limit, "MOST_ADDRESSES", 3)
    addresses = AddressBuckets(1.0)
    one, two = addresses.bucket("1"), addresses.bucket("2")
    for name in ("3", "1", "4", "1", "5"):
        addresses.bucket(name)
    assert len(addresses) == 3
    assert addresses.bucket("1") is one
    assert addresses.bucket("2") is not two


@pytest.mark.parametrize(
    ("address", "position"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::"),
        ("10.0.0.1", "10.0.0.1"),
        ("not an address", "not an address"),
    ],
)
def test_network(address: str, position: str) -> None:
    """Nobody gets a new bucket by choosing another of the 2^64 addresses that one customer has."""
    assert network(address) == position


def test_networks_share() -> None:
    """Addresses of one network share a bucket."""
    addresses = AddressBuckets(1.0)
    assert addresses.bucket("2001:db8::1") is addresses.bucket("2001:db8::2")
    assert addresses.bucket("2001:db8::1") is not addresses.bucket("2001:db8:0:1::1")
