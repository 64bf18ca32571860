"""Puts the wire into uvicorn, and looks after its connections."""

import asyncio
from functools import partial
from time import monotonic
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS

from service.call import Route, find_routes
from service.front import Front
from service.wire import Wire

SWEEP_SECONDS = 0.5
LATE_SECONDS = 0.5


class Wires:
    """Makes the connections of one server, and sweeps them twice a second.

    One timer for all of them: a timer per connection, set and cancelled with every request, costs more than parsing it.

    Args:
        front: Answers what the wire does not.
        is_short: Whether predictions are answered below ASGI.
    """

    def __init__(self, front: Front, *, is_short: bool = True) -> None:
        self.front, self.is_short = front, is_short
        self.routes: dict[bytes, Route] = {}
        self._is_sweeping = False

    def __call__(self, *, server_state: Any, **uvicorn: Any) -> Wire:
        """A protocol for a new connection; called by uvicorn."""
        desk = self.front.desk()
        if self.is_short and not self.routes:
            self.routes = find_routes(desk.endpoints)
        return Wire(desk, self.routes, partial(self._watch, server_state), server_state=server_state, **uvicorn)

    def _watch(self, server_state: Any) -> None:
        if not self._is_sweeping:
            self._is_sweeping = True
            due = monotonic() + SWEEP_SECONDS
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep, server_state, due)

    def _sweep(self, server_state: Any, due: float) -> None:
        self._is_sweeping = False
        if server_state.connections:
            self._watch(server_state)
        now = monotonic()
        if now - due > LATE_SECONDS:  # what looks idle may have sent what nobody had the time to read
            return
        for connection in list(server_state.connections):
            connection.sweep(now)


def use_wires(front: Front, *, is_short: bool) -> None:
    """Make uvicorn answer this process's connections by wires.

    uvicorn looks its protocol up in this table; BentoML leaves the choice at "auto" and has no setting of its own.
    """
    HTTP_PROTOCOLS["auto"] = Wires(front, is_short=is_short)  # type: ignore[assignment]
