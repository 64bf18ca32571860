"""Find what other than the service was in the way: a busy generator, or a machine that is full."""

from typing import NamedTuple

from loadtests.result import ModelResult, Used
from loadtests.task import Objective, Patience

BUSY_MACHINE = 0.92
# Of all cores, taken by neither service nor generator.
OTHERS_SHARE = 0.15
GENERATOR = "the load generator"
MACHINE = "the machine, which service and load generator share"
OTHERS = "other processes on the machine"


class Bottleneck(NamedTuple):
    """Describe what it was, and how that showed."""

    what: str
    why: str


def find_bottleneck(part: ModelResult, used: Used, objective: Objective, patience: Patience) -> Bottleneck | None:
    """Return what made the generator late, or took the cores that the service needed; ``None`` when nothing did.

    A late generator on a machine whose cores are all busy is no sign of a busy generator: whoever took the cores is.
    """
    if used.client_share > patience.cpu_share:
        return Bottleneck(GENERATOR, f"a generator process used {used.client_share:.0%} of its core")
    is_full = used.machine_share + used.stolen_share > BUSY_MACHINE
    if is_full and used.server_cores is not None and used.other_cores > OTHERS_SHARE * used.cores:
        return Bottleneck(OTHERS, cores_taken(used))
    if part.lag_p99_ms <= patience.lag_ms(objective):
        return None
    late = (
        f"one request of a hundred left {part.lag_p99_ms:.1f} ms late or more, "
        f"and {patience.lag_ms(objective):.1f} ms are bearable"
    )
    return Bottleneck(MACHINE, f"{late}; {cores_taken(used)}") if is_full else Bottleneck(GENERATOR, late)


def cores_taken(used: Used) -> str:
    """Return who took how many of the machine's cores."""
    share = used.machine_share + used.stolen_share
    return (
        f"{share:.0%} of its {used.cores} cores were busy: the service took {used.server_cores or 0:.2f}, "
        f"the generator {used.client_cores:.2f}, others {used.other_cores:.2f}"
    )
