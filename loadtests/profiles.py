"""The load profiles: each a list of phases around one rate, with a warm-up that does not count."""

from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.plan import LoadPhase

WARM_SECONDS = 3.0
# Of the rate: what a service stands at before a spike, and after it.
QUIET = 0.2


def smoke(rate: float, seconds: float) -> list[LoadPhase]:
    """Return whether it works at all."""
    return [LoadPhase(name="smoke", seconds=seconds, rate=rate)]


def ramp(rate: float, seconds: float) -> list[LoadPhase]:
    """From a twentieth of the rate up to it, steadily."""
    return [LoadPhase(name="ramp", seconds=seconds, rate=rate / 20, until=rate)]


def step(rate: float, seconds: float) -> list[LoadPhase]:
    """Return a quarter, a half, three quarters of the rate, and the rate."""
    shares = (0.25, 0.5, 0.75, 1.0)
    return [LoadPhase(name=f"{share:.0%}", seconds=seconds / len(shares), rate=share * rate) for share in shares]


def spike(rate: float, seconds: float) -> list[LoadPhase]:
    """Return the rate out of nowhere for a fifth of the time, in the middle of a quiet one."""
    quiet = QUIET * rate
    return [
        LoadPhase(name="before", seconds=0.4 * seconds, rate=quiet),
        LoadPhase(name="spike", seconds=0.2 * seconds, rate=rate),
        LoadPhase(name="after", seconds=0.4 * seconds, rate=quiet),
    ]


def soak(rate: float, seconds: float) -> list[LoadPhase]:
    """Return one rate for long, in ten parts, so that what creeps shows as a difference between them."""
    return [LoadPhase(name=f"part {number}", seconds=seconds / 10, rate=rate) for number in range(1, 11)]


def overload(rate: float, seconds: float) -> list[LoadPhase]:
    """Five times and ten times a rate the service carries, and whether it recovers after each."""
    shares = ((1, "before"), (5, "5 times"), (1, "after 5 times"), (10, "10 times"), (1, "after 10 times"))
    return [LoadPhase(name=name, seconds=seconds / len(shares), rate=share * rate) for share, name in shares]


def mixed(rate: float, seconds: float) -> list[LoadPhase]:
    """Return all models at once, by their weights."""
    return [LoadPhase(name="mixed", seconds=seconds, rate=rate)]


# Profile to its phases and to how long it takes unless something else is asked for.
PROFILES: dict[str, tuple[Callable[[float, float], list[LoadPhase]], float]] = {
    "smoke": (smoke, 10.0),
    "ramp": (ramp, 60.0),
    "step": (step, 60.0),
    "spike": (spike, 50.0),
    "soak": (soak, 3600.0),
    "overload": (overload, 50.0),
    "mixed": (mixed, 30.0),
}
REPLAY, CLOSED = "replay", "closed"
NAMES = (*PROFILES, REPLAY, CLOSED)


def phases(profile: str, rate: float, seconds: float | None, warm_seconds: float = WARM_SECONDS) -> list[LoadPhase]:
    """Return a profile's phases after its warm-up, which goes up to the rate of the first one."""
    make, usual = PROFILES[profile]
    found = make(rate, seconds or usual)
    return [*_warm_up(found[0].rate, warm_seconds), *found]


def closed(seconds: float | None, warm_seconds: float = WARM_SECONDS) -> list[LoadPhase]:
    """Return the time of a closed loop, whose users ask as often as they are answered."""
    warm = [LoadPhase(name="warm-up", seconds=warm_seconds, rate=0, is_counted=False)] if warm_seconds else []
    return [*warm, LoadPhase(name="closed", seconds=seconds or 30.0, rate=0)]


def replay(log: Path, speed: float, warm_seconds: float = WARM_SECONDS) -> tuple[list[LoadPhase], list[float]]:
    """The phases and times of a log's arrivals: one timestamp in seconds a line, before the first blank or comma.

    The first ``warm_seconds`` of the log are the warm-up.

    Raises:
        ValueError: If a line holds no number, or there are fewer than two.
    """
    stamps = sorted(_stamp(log, number, line) for number, line in enumerate(log.read_text().splitlines(), 1) if line)
    if len(stamps) < 2:
        raise ValueError(f"{log}: a replay needs two timestamps or more, found {len(stamps)}")
    times = [(stamp - stamps[0]) / speed for stamp in stamps]
    whole = max(times[-1], 0.001) * (1 + 1 / len(times))
    warm = min(warm_seconds, whole / 2)
    rate = len(times) / whole
    counted = LoadPhase(name="replay", seconds=whole - warm, rate=rate)
    return [*([LoadPhase(name="warm-up", seconds=warm, rate=rate, is_counted=False)] if warm else []), counted], times


def _stamp(log: Path, number: int, line: str) -> float:
    words = line.replace(",", " ").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        raise ValueError(f"{log}, line {number}: expected a timestamp in seconds, found {line[:40]!r}") from None


def _warm_up(rate: float, seconds: float) -> Sequence[LoadPhase]:
    if not seconds:
        return ()
    return (LoadPhase(name="warm-up", seconds=seconds, rate=rate / 2, until=rate, is_counted=False),)
