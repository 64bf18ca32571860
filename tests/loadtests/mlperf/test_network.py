"""The client for LoadGen against servers that end idle connections when they like."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from time import monotonic, sleep

import pytest

from loadtests.mlperf.network import Network
from loadtests.mlperf.served import Address

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Once:
    """A question, and what became of it."""

    def __init__(self) -> None:
        self.outcomes: Queue[str] = Queue()

    def request(self) -> bytes:
        return b"GET / HTTP/1.1\r\n\r\n"

    def answered(self, outcome: str, body: bytes) -> None:
        self.outcomes.put(outcome)


@contextmanager
def serving(serve: Callable[[socket.socket, int], None]) -> Iterator[Address]:
    """A server whose connections are served one after the other, by number."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            for number in range(8):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    serve(connection, number)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield Address(host="127.0.0.1", port=listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_connection_closed_in_the_moment_of_use_is_no_failure() -> None:
    """The second question meets a server that had decided to close: it is asked again on a new connection."""

    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        connection.sendall(ANSWER)
        if number == 0:
            connection.recv(4096)  # the second question; it is closed over it
        else:
            connection.recv(1)

    with serving(serve) as address, Network(address, 4) as network:
        for _ in range(2):
            one = Once()
            network.ask(one)
            assert one.outcomes.get(timeout=5) == "200"
            ended = monotonic() + 5
            while not network.idle and monotonic() < ended:
                sleep(0.001)  # its connection is free a moment after its answer


@pytest.mark.parametrize("said", [b"", ANSWER[:-1]])
def test_a_server_that_only_hangs_up_is_a_failure(said: bytes) -> None:
    """A new connection that is closed without an answer, or in the middle of one, is not asked again."""

    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        connection.sendall(said)

    with serving(serve) as address, Network(address, 4) as network:
        one = Once()
        network.ask(one)
        assert one.outcomes.get(timeout=5) == "closed"
