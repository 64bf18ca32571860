"""Listen, and shut down gracefully: finish what is under way and refuse what comes.

libuv accepts one connection of a socket in each turn of the event loop (https://github.com/libuv/libuv/pull/3696).
Under overload a turn takes milliseconds, so that newcomers, Prometheus among them, waited seconds to be accepted.

uvicorn stops accepting at once. But BentoML's parent holds the listening socket open until its last worker has gone, so
that newcomers would wait in the backlog and be reset.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn

from service.inference.gateway import InferenceGateway
from service.process.patches import use_server

GRACE_SECONDS = 30.0
# So that what was already waiting to be accepted hears a 503, and no connection is reset.
LEAST_SECONDS = 0.1
# A gateway that still works may for a moment have no connection to the runner.
RUNNER_SECONDS = 1.0
STEP_SECONDS = 0.01
# Connections that are accepted in a turn.
DOORS = 8


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with more doors, ending in two steps: refuse with 503 while answers are owed, then close.

    A runner's process has no gateway: it serves until the gateways that ask it have gone.

    Attributes:
        gateway: Where this process answers predictions, if it does.
    """

    def __init__(self, gateway: Callable[[], InferenceGateway] | None, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.gateway = gateway

    @property
    def _wires(self) -> Any:
        return self.config.http_protocol_class

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """From the signal on nothing new is begun, and ``/readyz`` says so."""
        if self.gateway is not None and self.started:
            self.gateway().is_draining = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; each copy of a public socket is one more that is looked at in a turn.

        Workers share one open file description, and with it the flag that says whether ``accept`` waits: a copy of a
        socket that waits would set it for all of them, and a worker that accepts just then stands still.
        """
        doors = DOORS if self.gateway is not None else 1
        if self.gateway is not None:  # the wires shake hands themselves
            self._wires.tls, self.config.ssl = self.config.ssl, None
        for listening in sockets or ():
            listening.setblocking(False)
        copies = [listening.dup() for listening in sockets or () for _ in range(doors - 1)]
        await super().startup(sockets and [*sockets, *copies])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the answers that are owed, then close.

        A connection is reset when it waits to be accepted, or has sent what nobody has read. So the backlog is emptied
        first, and who has just been accepted gets the time to be refused.
        """
        end = monotonic() + (self.config.timeout_graceful_shutdown or GRACE_SECONDS)
        await self._refuse(end)
        last = [connection for listening in sockets or () for connection in _stop_listening(listening)]
        for server in self.servers:
            server.close()
        for connection in last:
            await self._take(connection)
        await self._refuse(end)
        for one in self._wires.shaking if self.gateway is not None else ():
            one.abort()
        self.config.timeout_graceful_shutdown = max(1, round(end - monotonic()))
        await super().shutdown(sockets)

    async def _take(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted here, as uvicorn does."""
        protocol = partial(
            self._wires,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)

    async def _refuse(self, end: float) -> None:
        """Let the event loop turn for a little while, and until nothing is owed."""
        least = monotonic() + LEAST_SECONDS
        while not self.force_exit and (now := monotonic()) < end:
            if self.gateway is None and self._is_needed():
                least = now + RUNNER_SECONDS
            if now >= least and not self._is_needed():
                return
            await asyncio.sleep(STEP_SECONDS)

    def _is_needed(self) -> bool:
        """Return whether somebody waits for an answer; not who has only begun to ask, and will be refused."""
        connections = self.server_state.connections
        if self.gateway is None:
            return bool(connections)
        owed = (fast for one in connections for fast in getattr(one, "unanswered", ()))
        return bool(self.server_state.tasks) or any(fast.request.times.started for fast in owed)


def _stop_listening(listening: socket.socket) -> list[socket.socket]:
    """Accept who waits, and listen no more in the same instant, in all processes that share the socket."""
    waiting = []
    listening.setblocking(False)
    with suppress(OSError):  # nobody waits any more
        while True:
            waiting.append(listening.accept()[0])
    with suppress(OSError):  # a sister worker was first
        listening.shutdown(socket.SHUT_RDWR)
    return waiting


def use_draining_server(gateway: Callable[[], InferenceGateway] | None = None) -> None:
    """Make uvicorn's server of this process end in this way; BentoML's worker makes it by that name."""
    use_server(partial(DrainingServer, gateway))
