"""End a training run before its plan does, and estimate how long it still takes."""

import time
from dataclasses import dataclass

# In which half of a run it ended, and which weights are kept.
ENDED = "on training data", "the best weights until then"
ENDED_POOLING = "on training and validation data together", "what was learned from training data alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnd:
    """Describe what ends a run before its plan or its patience do.

    Attributes:
        is_finish: End at once, with what there is.
        deadline: End after the epoch in which ``time.monotonic()`` passes this; ``None``: never.
    """

    is_finish: bool = False
    deadline: float | None = None

    def is_now(self, *, may_begin: bool) -> bool:
        """Return whether to train no further epoch; ``may_begin``: without this one there would be nothing to keep."""
        if self.is_finish:
            return True
        return self.deadline is not None and not may_begin and time.monotonic() >= self.deadline


GO_ON = TrainingEnd()


def ending(*, is_finish: bool, minutes: float | None) -> TrainingEnd:
    """Return the ending that a command line asks for; the minutes begin now."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    return TrainingEnd(is_finish=is_finish, deadline=deadline)


def time_left(epochs: int, most: int, seconds: float) -> str:
    """Return what is said after an epoch: the time that the rest takes at most, since patience may end it sooner."""
    left = seconds / epochs * (most - epochs)
    if not left:
        return ""
    return f"  at most {left / 60:.0f} min left" if left >= 90 else f"  at most {left:.0f} s left"
