"""Locust's way in: ``python -m loadtests run`` starts it; ``locust -f loadtests/locustfile.py --worker`` joins it.

A worker needs nothing but this file: what to ask and when comes from the master, in messages. Locust patches the
standard library when it is imported, so nothing else imports this module.
"""

from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust import LoadTestShape, events
from locust.runners import MasterRunner, WorkerRunner

from loadtests.asking import Asker, Round
from loadtests.conductor import OFFER, PREPARE, READY, RECORDS, Conductor
from loadtests.plan import Offer
from loadtests.targets import Ask, Unusable
from loadtests.task import Task
from loadtests.users import FAMILY_USERS, FamilyUser, ScheduleUser, Stage

globals().update({user.__name__: user for user in FAMILY_USERS.values()})
__all__ = ["FamilyUser", "Load", "ScheduleUser"]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: Any) -> None:
    """What the master is told."""
    parser.add_argument("--task", default="", help="The file with what is to be measured; workers need none.")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Listen for what the other side says."""
    runner, path = environment.runner, environment.parsed_options.task
    if not isinstance(runner, MasterRunner):
        runner.register_message(PREPARE, on_prepare, concurrent=True)
        runner.register_message(OFFER, on_offer, concurrent=True)
    if path and not isinstance(runner, WorkerRunner):
        Load.conductor = Conductor(runner, msgspec.json.decode(Path(path).read_bytes(), type=Task))


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def start(environment: Any, **_: Any) -> None:
    """The master, or a process that is all there is, begins."""
    if Load.conductor is not None:
        gevent.spawn(Load.conductor.run)


def on_prepare(environment: Any, msg: Any, **_: Any) -> None:
    """A worker makes its questions, and learns what they are answered unloaded."""
    error = ""
    try:
        Stage.asker = Asker(msgspec.json.decode(msg.data["ask"], type=Ask), environment.events.request.fire)
    except (Unusable, OSError) as problem:
        error = f"{problem}"
    described = (
        [[one.name, one.version, one.digest, one.card.family] for one in Stage.asker.targets] if Stage.asker else []
    )
    environment.runner.send_message(READY, {"error": error, "models": described})


def on_offer(environment: Any, msg: Any, **_: Any) -> None:
    """A worker sends its part of a load, and then what became of it."""
    asker = Stage.asker
    assert asker is not None  # the master waits until all are ready
    offer = msgspec.json.decode(msg.data["offer"], type=Offer)
    before, round_ = asker.wire.reconnections, Round(offer)
    if offer.users:
        Stage.round = round_
        gevent.sleep(offer.seconds)
        Stage.round = None
        round_.note_cpu()
        gevent.sleep(0.5)
    else:
        Stage.rounds.put(round_)
        round_ = Stage.ended.get()
    counted = sum(phase.seconds for phase in offer.phases if phase.is_counted)
    environment.runner.send_message(
        RECORDS,
        {
            **round_.records.to_message(),
            "cpu_share": round_.cpu_seconds / counted,
            "reconnections": asker.wire.reconnections - before,
        },
    )


class Load(LoadTestShape):
    """As many users as are needed, until everything is measured."""

    conductor: Conductor | None = None

    def tick(self) -> tuple[int, float, list[type[Any]]] | None:
        """Users and who they are; ``None`` ends the run."""
        conductor = self.conductor
        if conductor is None or conductor.is_done:
            return None
        if conductor.task.users:
            kinds = [FAMILY_USERS[family] for family in conductor.families]
            return (conductor.task.users, 100, kinds) if kinds else (0, 1, [])
        return conductor.workers, 100, [ScheduleUser]
