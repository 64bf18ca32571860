"""Locust's users: one per family that asks and waits as a caller does, and one that sends a schedule.

What ``python -m loadtests`` measures comes from a schedule, or from family users that do not wait between two requests.
Plain ``locust -f loadtests/locustfile.py`` has the family users alone, as Locust's own page starts and stops them.
"""

import random
from time import perf_counter
from typing import ClassVar

import gevent
import gevent.event
import gevent.queue
from locust import User, constant, task
from locust.exception import StopUser

from loadtests.asking import Generator, GeneratorRound
from models.registry import FAMILIES

AGAIN_SECONDS = 0.05
# Between an answer and the next question of a user who is left alone: about one request per second and user.
LEAST_WAIT_SECONDS, MOST_WAIT_SECONDS = 0.5, 1.5


class UserStage:
    """Describe what this process's users share.

    Attributes:
        asker: Who asks.
        is_measured: Whether a task says what is asked when; without one users do as they are.
        round: What is under way, of a closed loop.
        rounds: What is to come, of an open one.
        ended: What has been.
        stopped: Set when the task is interrupted.
    """

    asker: ClassVar[Generator | None] = None
    is_measured: ClassVar[bool] = False
    round: ClassVar[GeneratorRound | None] = None
    rounds: ClassVar["gevent.queue.Queue[GeneratorRound]"] = gevent.queue.Queue()
    ended: ClassVar["gevent.queue.Queue[GeneratorRound]"] = gevent.queue.Queue()
    stopped: ClassVar[gevent.event.Event] = gevent.event.Event()


class ScheduleUser(User):
    """Sends what is offered when it is due, whatever the service does. One per process is enough for any rate."""

    wait_time = constant(0)

    @task
    def offer(self) -> None:
        """Take the next offer, and hand its records back."""
        round_ = UserStage.rounds.get()
        assert UserStage.asker is not None  # nothing is offered before it was prepared
        UserStage.asker.offer(round_)
        UserStage.ended.put(round_)


class FamilyUser(User):
    """Asks the served models of one family, waits for the answer, checks it, thinks, and asks again.

    Such users slow down with the service, and so do not see how long others would have waited.
    """

    abstract = True
    family = ""

    def wait_time(self) -> float:
        """Seconds until the next question: none in a closed loop that is measured."""
        return 0.0 if UserStage.is_measured else random.uniform(LEAST_WAIT_SECONDS, MOST_WAIT_SECONDS)  # noqa: S311  load

    @task
    def ask(self) -> None:
        """One question to one of the family's models."""
        asker, round_ = UserStage.asker, UserStage.round
        if asker is None or (UserStage.is_measured and round_ is None):
            gevent.sleep(AGAIN_SECONDS)
            return
        numbers = [at for at, one in enumerate(asker.targets) if one.card.family == self.family]
        if not numbers:
            raise StopUser(f"no model of the family {self.family} is served")
        number = random.choice(numbers)  # noqa: S311  load, not secrets
        question = random.randrange(len(asker.targets[number].requests))  # noqa: S311
        asker.ask(number, question, perf_counter(), round_)


FAMILY_USERS: dict[str, type[FamilyUser]] = {
    family.name: type(f"{family.title}User", (FamilyUser,), {"family": family.name, "__doc__": family.title})
    for family in FAMILIES
}
