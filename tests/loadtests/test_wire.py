from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.server import StreamServer
from geventhttpclient.response import HTTPParseError

from loadtests.alarm import Timer
from loadtests.wire import HttpClient

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
Serve = Callable[[Any], None]


@contextmanager
def serving(serve: Serve) -> Iterator[tuple[HttpClient, list[int]]]:
    """A wire to a server, and the requests that each of its connections brought."""
    connections: list[int] = []

    def connected(connection: Any, _: Any) -> None:
        number = len(connections)
        connections.append(0)
        while connection.recv(65_536):
            connections[number] += 1
            serve(connection)

    server = StreamServer(("127.0.0.1", 0), connected)
    server.start()
    try:
        yield HttpClient(f"http://127.0.0.1:{server.server_port}", timeout=0.2), connections
    finally:
        server.stop(timeout=0)


def answer(connection: Any) -> None:
    connection.sendall(ANSWER)


def test_one_connection_serves_one_request_after_the_other() -> None:
    with serving(answer) as (found, connections):
        request = found.request("/x", b"{}")
        assert [found.ask(request) for _ in range(3)] == [(200, b"hi")] * 3
        assert connections == [3]


def test_requests_at_once_have_connections_of_their_own() -> None:
    def slowly(connection: Any) -> None:
        gevent.sleep(0.02)
        answer(connection)

    with serving(slowly) as (found, connections):
        asked = [gevent.spawn(found.ask, found.request("/x", b"{}")) for _ in range(5)]
        gevent.joinall(asked, raise_error=True)
        assert connections == [1] * 5


def test_a_connection_that_the_server_closed_when_it_was_idle_is_not_used_again() -> None:
    """However soon it closes them; nothing is sent twice then."""

    def once(connection: Any) -> None:
        answer(connection)
        connection.shutdown(gevent.socket.SHUT_RDWR)

    with serving(once) as (found, connections):
        for _ in range(3):
            assert found.ask(found.request("/x")) == (200, b"hi")
            gevent.sleep(0.01)
        assert connections == [1, 1, 1]
        assert found.reconnections == 0


def test_a_connection_closed_in_the_moment_of_use_is_replaced_once_and_counted() -> None:
    count = 0

    def moody(connection: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            connection.shutdown(gevent.socket.SHUT_RDWR)
        else:
            answer(connection)

    with serving(moody) as (found, _):
        assert found.ask(found.request("/x")) == (200, b"hi")
        assert found.reconnections == 1


def test_a_server_that_only_hangs_up_gives_no_answer() -> None:
    with (
        serving(lambda connection: connection.shutdown(gevent.socket.SHUT_RDWR)) as (found, _),
        pytest.raises(ConnectionResetError),
    ):
        found.ask(found.request("/x"))


def test_an_answer_that_breaks_off_is_none() -> None:
    def half(connection: Any) -> None:
        connection.sendall(ANSWER[:-1])
        connection.shutdown(gevent.socket.SHUT_RDWR)

    with serving(half) as (found, _), pytest.raises(HTTPParseError):
        found.ask(found.request("/x"))


def test_a_silent_server_is_not_waited_for_any_longer_than_asked() -> None:
    with serving(lambda connection: gevent.sleep(5)) as (found, _):
        began = perf_counter()
        with pytest.raises(TimeoutError):
            found.ask(found.request("/x"))
        assert perf_counter() - began < 3


def test_nobody_there_is_a_refused_connection() -> None:
    with serving(answer) as (found, _):
        pass
    with pytest.raises(ConnectionRefusedError):
        found.ask(found.request("/x"))


def test_a_request_says_who_asks_and_how_much_it_brings() -> None:
    request = HttpClient("http://127.0.0.1:80", key="secret").request("/v1/models/a/predict", b"{}")
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n") == [
        b"POST /v1/models/a/predict HTTP/1.1",
        b"host: 127.0.0.1:80",
        b"x-load-test: 1",
        b"authorization: Bearer secret",
        b"content-type: application/json",
        b"content-length: 2",
    ]


def test_an_alarm_rings_when_it_is_due_and_others_work_meanwhile() -> None:
    turns = 0

    def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0.001)

    other, alarm, began = gevent.spawn(work), Timer(), perf_counter()
    assert alarm.wait_until(began + 0.02)
    assert perf_counter() - began >= 0.02
    assert not alarm.wait_until(began)
    other.kill()
    alarm.close()
    assert turns > 3
