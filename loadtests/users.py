"""Locust's users: one that sends a schedule, and one per family that asks as soon as it is answered."""

import random
from time import perf_counter
from typing import ClassVar

import gevent
import gevent.queue
from locust import User, constant, task

from loadtests.asking import Asker, Round
from models.registry import FAMILIES

AGAIN_SECONDS = 0.05


class Stage:
    """What this process's users share: who asks, the round under way, and the rounds that are to come."""

    asker: ClassVar[Asker | None] = None
    round: ClassVar[Round | None] = None
    rounds: ClassVar["gevent.queue.Queue[Round]"] = gevent.queue.Queue()
    ended: ClassVar["gevent.queue.Queue[Round]"] = gevent.queue.Queue()


class ScheduleUser(User):
    """Sends what is offered when it is due, whatever the service does. One per process is enough for any rate."""

    wait_time = constant(0)

    @task
    def offer(self) -> None:
        """Take the next offer, and hand its records back."""
        round_ = Stage.rounds.get()
        assert Stage.asker is not None  # nothing is offered before it was prepared
        Stage.asker.offer(round_)
        Stage.ended.put(round_)


class FamilyUser(User):
    """Asks the served models of one family, again as soon as it is answered: the closed loop, for comparison.

    Such users slow down with the service, and so do not see how long others would have waited.
    """

    abstract = True
    family = ""
    wait_time = constant(0)

    @task
    def ask(self) -> None:
        """One question to one of the family's models."""
        asker, round_ = Stage.asker, Stage.round
        numbers = (
            [] if asker is None else [at for at, one in enumerate(asker.targets) if one.card.family == self.family]
        )
        if asker is None or round_ is None or not numbers:
            gevent.sleep(AGAIN_SECONDS)
            return
        number = random.choice(numbers)  # noqa: S311  load, not secrets
        question = random.randrange(len(asker.targets[number].requests))  # noqa: S311
        asker.ask(number, question, perf_counter(), round_)


FAMILY_USERS: dict[str, type[FamilyUser]] = {
    family.name: type(f"{family.title}User", (FamilyUser,), {"family": family.name, "__doc__": family.title})
    for family in FAMILIES
}
