"""The drift trials would notice: a shift that is none, an alarm that is false, a model that nobody tries."""

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.quality.drift_detection import first_alarm, quiet_days, table, try_shift
from benchmarks.quality.shifts import FRENCH, LOADERS, SHIFTS
from models.artifact.drift_profile import Feature, Profile
from models.paths import REPOSITORY

LEVEL = Feature(
    name="level",
    unit="m",
    split="train",
    instances=1000,
    independent=1000.0,
    edges=[0.0, 1.0, 2.0],
    kinds=[],
    expected=[0.001, 0.499, 0.499, 0.001],
    limit=0.1,
)
PROFILE = Profile(window=1000, features=[LEVEL])
USUAL = {"level": np.repeat(np.eye(4)[1:3], 100, axis=0)}
SHIFTED = {"level": np.eye(4)[[3]]}


def test_every_shipped_model_is_tried() -> None:
    """With a shift of its own and the data to make it of."""
    shipped = {path.parent.name for path in (REPOSITORY / "models").glob("*/trained/*/manifest.json")}
    assert shipped <= SHIFTS.keys() == LOADERS.keys()
    assert all(any(not shift.is_usual for shift in shifts) for shifts in SHIFTS.values())
    assert len(FRENCH.splitlines()) == 40


def test_shift_and_none() -> None:
    """What is out of range alarms within the window; what is usual never does."""
    assert [alarm is None for alarm in try_shift(PROFILE, USUAL, USUAL, 3, seed=0)] == [True] * 3
    found = try_shift(PROFILE, USUAL, SHIFTED, 3, seed=0)
    assert all(0 < count < 200 and name == "level" for count, name in found)


def test_first_alarm_by_heart() -> None:
    """With a limit that a tenth of strays passes, after at most a tenth of the window."""
    stream = {"level": np.concatenate([np.tile(USUAL["level"], (5, 1)), np.repeat(SHIFTED["level"], 1000, axis=0)])}
    share = 0.1
    limit = (share - 0.001) * np.log(share / 0.001)
    alarm = first_alarm(Profile(window=1000, features=[replace(LEVEL, limit=float(limit))]), stream, 1000)
    assert alarm is not None
    assert alarm[0] == pytest.approx(100, abs=10)


def test_false_days_are_counted() -> None:
    """No day of usual requests alarms; with a limit below what chance does, every day does."""
    assert quiet_days(PROFILE, USUAL, 2, seed=0)[0] == 0
    low = Profile(window=1000, features=[replace(LEVEL, limit=0.001)])
    false, (name, part) = quiet_days(low, USUAL, 2, seed=0)
    assert (false, name, part > 1) == (2, "level", True)


def test_page() -> None:
    """A shift that raised no alarm says so."""
    shift = {
        "title": "none", "alarmed": 0, "trials": 3, "requests": None, "most_requests": None, "feature": "level",
        "index": 0.01, "limit": 0.1, "outliers": (0.5, 0.25),
    }  # fmt: skip
    quiet = {
        "instances": 9, "days": 4, "false_days": 1, "closest": ("level", 1.25), "outliers": (0.01, 0.0),
        "out_of_range": 0.002,
    }  # fmt: skip
    text = "\n".join(table([{"model": "m", "shifts": [shift], "quiet": quiet}]))
    assert "| m | none | 0 of 3 | – | level | 0.01, 0.1 | 50.0 %, 25.0 % |" in text
    assert "| m | 9 | 1 of 4 | level, 125 % | 0.20 % | 1.0 %, 0.0 % |" in text
