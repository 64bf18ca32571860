"""The TLS handshake of a connection, before there is anything to read on it."""

import asyncio
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any

# A client is there to ask: for its handshake, and then for the first byte of a request, it has less time than later.
FIRST_SECONDS = 5.0


class Handshake(asyncio.Protocol):
    """Shakes hands, and hands over to the protocol that reads what was encrypted.

    The event loop would do so by itself, but out of sight: nobody could count or end those who never say a word.

    Attributes:
        quiet_since: When it began, on the monotonic clock.
    """

    def __init__(
        self, context: ssl.SSLContext, protocol: asyncio.Protocol, shaking: set["Handshake"], watch: Callable[[], None]
    ) -> None:
        self.context, self.protocol, self.shaking, self.watch = context, protocol, shaking, watch
        self.quiet_since: float | None = monotonic()
        self.early = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin.

        The first step is made here and now: a task would make it after the first bytes have come, to this protocol.
        """
        self.transport = transport
        self.shaking.add(self)
        self.watch()
        shake = asyncio.get_running_loop().start_tls(
            transport, self, self.context, server_side=True, ssl_handshake_timeout=FIRST_SECONDS
        )
        self._steps = shake.__await__()
        next(self._steps).add_done_callback(self._end)

    def data_received(self, data: bytes) -> None:
        """Keep what comes together with the end of the handshake."""
        self.early += data

    def _end(self, _: Any) -> None:
        self.shaking.discard(self)
        try:
            next(self._steps)
        except StopIteration as step:
            encrypted: asyncio.Transport | None = step.value
        except OSError:  # no TLS, none that is spoken here, gone, or not in time
            self.transport.abort()
            return
        if encrypted is None or self.transport.is_closing():
            return
        encrypted.set_protocol(self.protocol)
        self.protocol.connection_made(encrypted)
        if self.early:
            self.protocol.data_received(self.early)

    def abort(self) -> None:
        """Make room for another."""
        self.quiet_since = None
        self.transport.abort()
