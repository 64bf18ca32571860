"""What, other than the service, made requests leave late: a busy generator, or the machine it shares."""

from typing import NamedTuple

from loadtests.result import Part, Used
from loadtests.task import Objective, Patience

BUSY_MACHINE = 0.92
# Of all cores, taken by neither service nor generator.
OTHERS_SHARE = 0.15
GENERATOR = "the load generator"
MACHINE = "the machine, which service and load generator share"
OTHERS = "other processes on the machine"


class Bottleneck(NamedTuple):
    """What it was, and how that showed."""

    what: str
    why: str


def find_bottleneck(part: Part, used: Used, objective: Objective, patience: Patience) -> Bottleneck | None:
    """What made the generator late; ``None`` when it was on time.

    A late generator on a machine whose cores are all busy is no sign of a busy generator: whoever took the cores is.
    """
    if used.client_share > patience.cpu_share:
        return Bottleneck(GENERATOR, f"a generator process used {used.client_share:.0%} of its core")
    if part.lag_p99_ms <= patience.lag_ms(objective):
        return None
    late = (
        f"one request of a hundred left {part.lag_p99_ms:.1f} ms late or more, "
        f"and {patience.lag_ms(objective):.1f} ms are bearable"
    )
    if used.machine_share + used.stolen_share <= BUSY_MACHINE:
        return Bottleneck(GENERATOR, late)
    what = OTHERS if used.other_cores > OTHERS_SHARE * used.cores else MACHINE
    return Bottleneck(what, f"{late}; {cores_taken(used)}")


def cores_taken(used: Used) -> str:
    """Who took how many of the machine's cores."""
    share = used.machine_share + used.stolen_share
    return (
        f"{share:.0%} of its {used.cores} cores were busy: the service took {used.server_cores or 0:.2f}, "
        f"the generator {used.client_cores:.2f}, others {used.other_cores:.2f}"
    )
