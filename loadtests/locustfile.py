"""Locust's way in: ``locust -f loadtests/locustfile.py``, headless or with its page, has a user per family.

``python -m loadtests run`` starts it with a task, which says what is measured; ``--worker`` joins either, and needs
nothing but this file: what to ask and when comes from the master, in messages. Locust patches the standard library
when it is imported, so nothing else imports this module.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
import msgspec
from geventhttpclient.response import HTTPParseError
from locust import LoadTestShape, events
from locust.runners import STATE_RUNNING, MasterRunner, WorkerRunner

from loadtests import users
from loadtests.asking import Generator, GeneratorRound
from loadtests.conductor import FAILED, OFFER, PREPARE, READY, RECORDS, STOP, Coordinator
from loadtests.hosts import DEFAULT_HOST, read_host
from loadtests.keys import read_key
from loadtests.plan import ArrivalPlan
from loadtests.targets import Ask, Unusable, describe_failure
from loadtests.task import LoadTask
from loadtests.users import FAMILY_USERS, UserStage

globals().update({user.__name__: user for user in FAMILY_USERS.values()})
logger = logging.getLogger("lectern")
UNUSABLE = "lectern-unusable"
# Of each model, for users without a task: asked once before the first user begins, while Locust's clock runs.
FEW_QUESTIONS = 32
SPAWN_SECONDS = 10.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: Any) -> None:
    """Add options beside Locust's own."""
    parser.add_argument("--task", default="", include_in_web_ui=False, help="Used by python -m loadtests.")
    parser.add_argument("--key-file", default="", include_in_web_ui=False, help="With the caller's key.")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Listen for what the other side says; with a task, follow it."""
    # gevent counts from when its loop last ran: a first import that took 10 s would leave nothing of ``-t 10s``.
    gevent.get_hub().loop.update_now()
    runner, path = environment.runner, environment.parsed_options.task
    if not isinstance(runner, MasterRunner):
        runner.register_message(PREPARE, on_prepare, concurrent=True)
        runner.register_message(OFFER, on_offer, concurrent=True)
        runner.register_message(STOP, lambda **_: UserStage.stopped.set())
    if path or isinstance(runner, WorkerRunner):
        environment.user_classes.append(users.ScheduleUser)  # no user to choose on Locust's page
    if isinstance(runner, WorkerRunner):
        _leave_interrupts_to_the_master(path)
        return
    runner.register_message(UNUSABLE, on_unusable)
    if path:
        conductor = Coordinator(runner, msgspec.json.decode(Path(path).read_bytes(), type=LoadTask))
        environment.shape_class = LoadShape(conductor)
        gevent.signal_handler(signal.SIGINT, conductor.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return
    try:
        environment.host = read_host(environment.host or DEFAULT_HOST).url  # as Locust's page proposes it
    except ValueError as error:
        sys.stderr.write(f"lectern: {error}\n")
        sys.exit(2)


def _leave_interrupts_to_the_master(path: str) -> None:
    """Let only the master of a task hear Ctrl-C: it collects what this process has by then."""
    if path:
        os.setpgrp()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def start(environment: Any, **_: Any) -> None:
    """Begin the task; without one, make the questions of this process's users."""
    if isinstance(environment.shape_class, LoadShape):
        gevent.spawn(environment.shape_class.conductor.run)
    elif not (environment.parsed_options.task or isinstance(environment.runner, MasterRunner)):
        try:
            host, key = environment.host or DEFAULT_HOST, read_key(environment.parsed_options.key_file)
            error = make_asker(environment, Ask(host=host, key=key, questions=FEW_QUESTIONS))
        except ValueError as problem:
            error = f"{problem}"
        if error:
            environment.runner.send_message(UNUSABLE, {"error": error})


def make_asker(environment: Any, ask: Ask) -> str:
    """Make the questions, and learn what they are answered unloaded; why that was impossible, if it was."""
    UserStage.asker = None
    try:
        UserStage.asker = Generator(ask, environment.events.request.fire)
    except (Unusable, OSError, HTTPParseError, ValueError) as problem:
        return describe_failure(ask.host, problem)
    return ""


def on_unusable(environment: Any, msg: Any, **_: Any) -> None:
    """Say why nothing can be asked, and end."""
    logger.error(msg.data["error"])
    if environment.parsed_options.headless:
        environment.process_exit_code = FAILED
        gevent.spawn(environment.runner.quit)
    else:
        gevent.spawn(_stop, environment.runner)


def _stop(runner: Any) -> None:
    """Stop a test that Locust's page has begun, once it has: one that begins cannot be stopped."""
    with gevent.Timeout(SPAWN_SECONDS, False):
        while runner.state != STATE_RUNNING:
            gevent.sleep(0.05)
    runner.stop()


def on_prepare(environment: Any, msg: Any, **_: Any) -> None:
    """A worker makes its questions, and learns what they are answered unloaded."""
    UserStage.is_measured = True
    error = make_asker(environment, msgspec.json.decode(msg.data["ask"], type=Ask))
    described = (
        [[one.name, one.version, one.digest, one.card.family] for one in UserStage.asker.targets]
        if UserStage.asker
        else []
    )
    environment.runner.send_message(READY, {"error": error, "models": described})


def on_offer(environment: Any, msg: Any, **_: Any) -> None:
    """A worker sends its part of a load, and then what became of it."""
    asker = UserStage.asker
    assert asker is not None  # the master waits until all are ready
    offer = msgspec.json.decode(msg.data["offer"], type=ArrivalPlan)
    before, round_ = asker.wire.reconnections, GeneratorRound(offer, UserStage.stopped)
    if offer.users:
        UserStage.round = round_
        UserStage.stopped.wait(offer.seconds)
        UserStage.round = None
        round_.note_cpu()
        gevent.sleep(0.5)
    else:
        UserStage.rounds.put(round_)
        round_ = UserStage.ended.get()
    environment.runner.send_message(
        RECORDS,
        {
            **round_.records.to_message(),
            "cpu_share": round_.cpu_share,
            "reconnections": asker.wire.reconnections - before,
        },
    )


class LoadShape(LoadTestShape):
    """As many users as are needed, until everything is measured."""

    abstract = True  # Locust makes none by itself: there is one only where there is a task

    def __init__(self, conductor: Coordinator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conductor = conductor

    def tick(self) -> tuple[int, float, list[type[Any]]] | None:
        """Users and who they are; ``None`` ends the run."""
        conductor = self.conductor
        if conductor.is_done:
            return None
        if conductor.task.users:
            kinds = [FAMILY_USERS[family] for family in conductor.families]
            return (conductor.task.users, 100, kinds) if kinds else (0, 1, [])
        return conductor.workers, 100, [users.ScheduleUser]
