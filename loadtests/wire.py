"""Whole requests, encoded beforehand, over pooled connections: what a request costs the generator is what it costs.

``FastHttpUser`` builds headers, a response object and a context per request. Here a request is bytes that are ready,
and geventhttpclient's pool and parser do the rest.
"""

import socket
from typing import NamedTuple

import gevent.socket
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketPoolResponse

from loadtests.hosts import read_host

# The pool looks at idle sockets by select(), which knows descriptors below 1,024 only.
MOST_CONNECTIONS = 900
BLOCK_BYTES = 65_536
# Keeps the load out of what the service knows of its callers; it reads the mark from loopback and from keys that may.
LOAD_TEST_HEADER = "x-load-test: 1\r\n"
_DEAD_CONNECTION = (HTTPConnectionClosed, ConnectionResetError, BrokenPipeError)


class HttpAnswer(NamedTuple):
    """Describe what came back."""

    status: int
    body: bytes


class _Fresh(ConnectionPool):
    """Connections that do not wait for more to send; the pool uses none again that the server has closed meanwhile."""

    def after_connect(self, sock: gevent.socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _FreshTls(_Fresh, SSLConnectionPool):
    """The same over TLS."""


class HttpClient:
    """One host, asked over as many connections as there are requests at once.

    Args:
        host: Its address, as ``read_host`` reads it; what is asked for lies below its path.
        key: What callers show, if they must show one.
        timeout: Seconds after which an answer is not waited for any longer.
    """

    def __init__(self, host: str, *, key: str = "", timeout: float = 30.0) -> None:
        found = read_host(host)
        kind, name, port = _FreshTls if found.scheme == "https" else _Fresh, found.name, found.port
        self._pool = kind(name, port, name, port, size=MOST_CONNECTIONS, network_timeout=timeout)
        self.url, self._prefix = found.url, found.prefix
        self._headers = f"host: {found.authority}\r\n{LOAD_TEST_HEADER}" + (
            f"authorization: Bearer {key}\r\n" if key else ""
        )
        self.reconnections = 0

    def request(self, path: str, body: bytes | None = None) -> bytes:
        """Return a whole request: a GET, or with a body a POST of JSON."""
        if body is None:
            return f"GET {self._prefix}{path} HTTP/1.1\r\n{self._headers}\r\n".encode("latin-1")
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}content-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body

    def ask(self, request: bytes) -> HttpAnswer:
        """Return the answer to a whole request.

        A server may close an idle connection in the moment it is used again, which says nothing about the request; it
        is then sent once more, and counted.

        Raises:
            OSError: If there is no answer: no connection, none in time, or one that broke.
        """
        try:
            return self._ask(request)
        except _DEAD_CONNECTION:
            self.reconnections += 1
        try:
            return self._ask(request)
        except HTTPParseError as error:
            raise ConnectionResetError(str(error)) from error

    def _ask(self, request: bytes) -> HttpAnswer:
        connection = self._pool.get_socket()
        try:
            connection.sendall(request)
        except BaseException:
            self._pool.release_socket(connection)
            raise
        response = HTTPSocketPoolResponse(connection, self._pool, block_size=BLOCK_BYTES, method="POST")
        return HttpAnswer(response.get_code(), response.read())

    def close(self) -> None:
        """Close what is idle."""
        self._pool.close()
