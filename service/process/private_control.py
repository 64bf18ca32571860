"""Keeps the supervisor's control to itself."""

from typing import Any

from bentoml._internal.utils import circus


class PrivateArbiter(circus.Arbiter):
    """BentoML's supervisor, deaf to other processes.

    BentoML gives it two TCP ports on 127.0.0.1, and who connects to one may list, stop and add programs without any
    proof: every user of the machine could run commands as the service's (read in circus/controller.py, and tried).
    Only ``bentoml serve --reload`` needs them, for a watcher in a process of its own; else its sockets are bound inside
    the process, where no other can reach them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("plugins"):
            kwargs |= {"endpoint": "inproc://lectern-control", "pubsub_endpoint": "inproc://lectern-events"}
        super().__init__(*args, **kwargs)


def close_control() -> None:
    """Make the supervisor that this process may become a private one."""
    circus.Arbiter = PrivateArbiter  # type: ignore[misc]
