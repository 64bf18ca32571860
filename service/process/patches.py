"""Replace parts of BentoML, uvicorn and circus that have no setting for it: each with its reason and its source.

``tests/service/test_patches.py`` fails when a library changes underneath. What is read of ``prometheus_client``'s
files, without replacing anything, is in ``service.telemetry.fast_values`` and ``dead_processes``.
"""

from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.config import HTTP_PROTOCOLS


def use_server(make_server: Callable[[uvicorn.Config], uvicorn.Server]) -> None:
    """Make this process's uvicorn server another one, which shuts down without a lost request.

    uvicorn closes its sockets first, and resets who waits to be accepted. BentoML's worker makes its server by that
    name (``_bentoml_impl/worker/service.py``: ``uvicorn.Server(config).run``).
    """
    uvicorn.Server = make_server  # type: ignore[misc,assignment]


def use_http_protocol(make_protocol: Callable[..., Any]) -> None:
    """Make uvicorn take this process's connections from a factory of ours.

    uvicorn looks its protocol up in this table; BentoML leaves the choice at ``auto`` and has no setting of its own
    (``uvicorn/config.py``, ``HTTP_PROTOCOLS``).
    """
    HTTP_PROTOCOLS["auto"] = make_protocol  # type: ignore[assignment]


def close_control() -> None:
    """Make the supervisor that this process may become deaf to other processes.

    BentoML gives circus' arbiter two TCP ports on 127.0.0.1, and who connects to one may list, stop and add programs
    without any proof: every user of the machine could run commands as the service's (``circus/controller.py``, and
    tried). Only ``bentoml serve --reload`` needs them, for a watcher in a process of its own; else its sockets are
    bound inside the process, where no other can reach them.
    """
    from bentoml._internal.utils import circus

    if getattr(circus.Arbiter, "is_private", False):
        return

    class PrivateArbiter(circus.Arbiter):
        """BentoML's supervisor, with its sockets inside the process."""

        is_private = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if not kwargs.get("plugins"):
                kwargs |= {"endpoint": "inproc://lectern-control", "pubsub_endpoint": "inproc://lectern-events"}
            super().__init__(*args, **kwargs)

    circus.Arbiter = PrivateArbiter  # type: ignore[misc]


def watch_supervisor(watched: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Make BentoML's supervisor by a function of ours around its own.

    BentoML looks for dead workers every ten seconds and for silent ones never; ``create_standalone_arbiter`` is how
    ``bentoml serve`` makes it (``bentoml/_internal/utils/circus/__init__.py``).
    """
    import bentoml._internal.utils.circus as circus

    circus.create_standalone_arbiter = watched(circus.create_standalone_arbiter)


def keep_metrics_in(folder: str) -> None:
    """Make BentoML's processes keep their metrics in this folder: it has a place for them and no setting for it."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    BentoMLContainer.prometheus_multiproc_dir.set(folder)
