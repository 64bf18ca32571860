"""Make uvicorn's connections, and look after them."""

import asyncio
import os
import resource
import ssl
from functools import partial
from heapq import nsmallest
from operator import itemgetter
from time import monotonic
from typing import Any

from service.messages.body_memory import MANY_BODY_BYTES
from service.process.memory import give_back
from service.process.patches import use_http_protocol
from service.server.fast_path import FastPathProtocol
from service.server.handshake import Handshake
from service.server.prediction import PredictionRoute, find_routes
from service.server.routes import Application

SWEEP_SECONDS = 0.5
LATE_SECONDS = 0.5
# For what is accepted in a turn, and for files opened now and then.
SPARE_DESCRIPTORS = 24


class ProtocolFactory:
    """Makes the connections of one server, and sweeps them twice a second.

    One timer for all of them: a timer per connection, set and cancelled with every request, costs more than parsing it.

    Args:
        application: Answers what the fast path does not.
        has_fast_path: Whether predictions are answered below ASGI.

    Attributes:
        tls: How to speak TLS, where it is spoken.
        shaking: Connections that are not made yet.
        most: How many there may be; the longest quiet ones go when one more comes.
    """

    def __init__(self, application: Application, *, has_fast_path: bool = True) -> None:
        self.application, self.has_fast_path = application, has_fast_path
        self.routes: dict[bytes, PredictionRoute] = {}
        self.tls: ssl.SSLContext | None = None
        self.shaking: set[Handshake] = set()
        self.most = 0
        self._is_sweeping = self._is_untidy = False

    def __call__(self, *, server_state: Any, **uvicorn: Any) -> FastPathProtocol | Handshake:
        """Return a protocol for a new connection; called by uvicorn."""
        context = self.application.context()
        if self.has_fast_path and not self.routes:
            self.routes = find_routes(context.gateway.endpoints)
        self.most = self.most or max_connections(context.gateway.settings.max_connections)
        watch = partial(self._watch, server_state)
        protocol = FastPathProtocol(context, self.routes, watch, server_state=server_state, **uvicorn)
        return protocol if self.tls is None else Handshake(self.tls, protocol, self.shaking, watch)

    def _watch(self, server_state: Any) -> None:
        if len(server_state.connections) + len(self.shaking) > self.most:
            self._make_room(server_state.connections)
        if not self._is_sweeping:
            self._is_sweeping = True
            due = monotonic() + SWEEP_SECONDS
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep, server_state, due)

    def _make_room(self, connections: set[Any]) -> None:
        """End those that have been quiet for longest, some at once: to find them is to look at all."""
        quiet = ((one.quiet_since, one) for one in (*connections, *self.shaking))
        for _, one in nsmallest(1 + self.most // 64, (one for one in quiet if one[0] is not None), itemgetter(0)):
            one.abort()

    def _sweep(self, server_state: Any, due: float) -> None:
        self._is_sweeping = False
        self._tidy(server_state.connections)
        if server_state.connections or self._is_untidy:
            self._watch(server_state)
        now = monotonic()
        if now - due > LATE_SECONDS:  # what looks idle may have sent what nobody had the time to read
            return
        for connection in list(server_state.connections):
            connection.sweep(now)

    def _tidy(self, connections: set[Any]) -> None:
        """Give memory back when many bodies or pipelines have come and gone, and no more came since the last sweep."""
        gateway = self.application.context().gateway
        memory = gateway.body_memory
        held = memory.held + sum(len(connection.flow.rest) for connection in connections)
        if memory.is_stretched or held > MANY_BODY_BYTES:
            self._is_untidy, memory.is_stretched = True, False
        elif self._is_untidy:
            self._is_untidy = False
            gateway.pool.submit(give_back)


def max_connections(most: int) -> int:
    """Return how many connections this process may hold: so many, or as there are descriptors for.

    Without a free descriptor libuv accepts whoever comes and closes on him at once.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = most if limit == resource.RLIM_INFINITY else limit - len(os.listdir("/dev/fd")) - SPARE_DESCRIPTORS
    return max(1, min(most, free))


def use_protocol_factory(application: Application, *, has_fast_path: bool) -> None:
    """Make uvicorn take this process's connections from a factory for this application."""
    use_http_protocol(ProtocolFactory(application, has_fast_path=has_fast_path))
