"""Describe the result of a trial: bars, each met or not, and what was measured."""

from typing import Any

import msgspec


class PromiseBar(msgspec.Struct, frozen=True, kw_only=True):
    """One promise.

    Attributes:
        promise: In words, with its number.
        found: What was measured instead of it.
        is_met: Whether it holds.
    """

    promise: str
    found: str
    is_met: bool


class ChaosVerdict(msgspec.Struct, kw_only=True):
    """One trial.

    Attributes:
        trial: Its name on the command line.
        title: In the table.
        bars: What was promised, and whether it holds.
        measured: Figures worth keeping, with units in their names.
        notes: What a reader must know.
        control: What was planted to see the trial fail, and whether it did; empty when there was no control.
        seconds: It took.
        share: Of its full size.
        commit: It was held at.
    """

    trial: str
    title: str = ""
    bars: list[PromiseBar] = []
    measured: dict[str, Any] = {}
    notes: list[str] = []
    control: str = ""
    seconds: float = 0.0
    share: float = 1.0
    commit: str = ""

    @property
    def is_met(self) -> bool:
        """Return whether every bar is."""
        return bool(self.bars) and all(bar.is_met for bar in self.bars)

    def at_most(self, promise: str, found: float, limit: float, unit: str = "") -> None:
        """A bar on a figure that must not exceed its limit."""
        self.expect(f"{promise} ≤ {number(limit)}{unit}", f"{number(found)}{unit}", found <= limit)

    def at_least(self, promise: str, found: float, limit: float, unit: str = "") -> None:
        """A bar on a figure that must reach its limit."""
        self.expect(f"{promise} ≥ {number(limit)}{unit}", f"{number(found)}{unit}", found >= limit)

    def expect(self, promise: str, found: object, is_met: bool) -> None:
        """Any other bar."""
        self.bars.append(PromiseBar(promise=promise, found=str(found), is_met=is_met))


def number(value: float) -> str:
    """Return a number as short as its size allows."""
    if value == int(value) if abs(value) < 1e15 else False:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Trials(msgspec.Struct, kw_only=True):
    """The trials held so far; a later one takes the place of an earlier one of its name."""

    date: str
    machine: dict[str, Any]
    verdicts: list[ChaosVerdict] = []

    def add(self, verdict: ChaosVerdict) -> None:
        """Keep a verdict, in the place of the last one of its name."""
        names = [one.trial for one in self.verdicts]
        if verdict.trial in names:
            self.verdicts[names.index(verdict.trial)] = verdict
        else:
            self.verdicts.append(verdict)
