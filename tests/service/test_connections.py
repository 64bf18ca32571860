"""How long and how many connections are kept, and the handshake of those that speak TLS."""

import asyncio
import resource
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

import pytest
import trustme

from service.server.protocol_factory import SPARE_DESCRIPTORS, max_connections

pytestmark = pytest.mark.timeout(20)

# One sweep, and a slow machine.
SLACK_SECONDS = 1.0
HEAD = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def first_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """A client must begin within this time."""
    for module in ("connection", "handshake"):
        monkeypatch.setattr(f"service.server.{module}.FIRST_SECONDS", 0.3)
    return 0.3


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and that of a client which trusts it."""
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def ask_encrypted(live: Any, context: ssl.SSLContext, request: bytes) -> bytes:
    """Return the answer on a new connection, which the server closes."""
    reader, writer = await asyncio.open_connection(*live.address, ssl=context)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


# How long


def test_idle_ones_are_kept(first_seconds: float, run: Any, serve: Any, post: Any) -> None:
    """Who has asked is kept as long as the setting says, who never asked is not, nor who leaves a body unsent."""

    async def work() -> None:
        async with serve(keep_alive=2.2, body_timeout_seconds=0.6) as live:
            never, short, long, half = [await live.connect() for _ in range(4)]
            assert (await short.ask(post(1))).y == 3
            assert (await long.ask(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")).status == 200
            assert (await half.ask(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")).status == 200
            started, ended = time.monotonic(), {}
            for name, client in (("never", never), ("half", half), ("short", short), ("long", long)):
                assert await client.read() is None
                ended[name] = time.monotonic() - started
            assert ended["never"] < first_seconds + SLACK_SECONDS
            assert 0.5 < ended["half"] < 0.6 + SLACK_SECONDS
            assert min(ended["short"], ended["long"]) > 2.1
            assert max(ended.values()) < 2.2 + SLACK_SECONDS

    run(work)


# How many


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{"])
def test_the_oldest_make_room(begun: bytes, wire: bool, run_on_both: Any, serve: Any, post: Any) -> None:
    """However many come and stay, a newcomer is answered, whoever waits for an answer gets it, and few are kept."""

    async def work() -> None:
        async with serve(wire=wire, max_connections=20) as live:
            waiting = await live.plug()
            held = [await live.connect(is_known=False) for _ in range(60)]
            for client in held:
                with suppress(ConnectionError):
                    await client.send(begun or b"\r\n")
            await live.until(lambda: len(live.state.connections) <= 20)
            assert waiting.is_silent()
            live.model.gate.set()
            for number in range(5):
                assert (await (await live.connect()).ask(post(number))).y == 2 * number + 1
            assert (await waiting.read()).y == 1
            assert len(live.state.connections) <= 20

    run_on_both(work)


async def ended(client: Any) -> bool:
    """Return whether the server has closed on it."""
    await asyncio.sleep(0)
    try:
        return client.socket.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_the_latest_stay(run: Any, serve: Any, post: Any) -> None:
    """Those that go are those that have been idle for longest."""

    async def work() -> None:
        async with serve(max_connections=10) as live:
            clients = [await live.connect() for _ in range(10)]
            for client in reversed(clients):
                assert (await client.ask(post(1))).y == 3
            for _ in range(4):
                assert (await (await live.connect()).ask(post(2))).y == 5
            assert [await ended(client) for client in clients] == [False] * 6 + [True] * 4

    run(work)


def test_as_many_as_there_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few descriptors some are left for other files; the setting counts where there are many, or no limit is."""
    limits = {"soft": 300}
    monkeypatch.setattr("resource.getrlimit", lambda _: (limits["soft"], 4096))
    monkeypatch.setattr("os.listdir", lambda _: ["0"] * 40)
    assert max_connections(4096) == 300 - 40 - SPARE_DESCRIPTORS
    assert max_connections(7) == 7
    limits["soft"] = 10
    assert max_connections(4096) == 1
    limits["soft"] = resource.RLIM_INFINITY
    assert max_connections(4096) == 4096


# TLS


def test_encrypted(contexts: Any, run_on_both: Any, serve: Any, post: Any) -> None:
    """The first request may come with the last bytes of the handshake; the caller's address is known."""

    async def work() -> None:
        async with serve(tls=contexts[0]) as live:
            for number in range(20):
                answer = await ask_encrypted(live, contexts[1], post(number, close=True))
                assert b'"y":%d' % (2 * number + 1) in answer.replace(b" ", b"")
            page = await ask_encrypted(live, contexts[1], b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert page.startswith(b"HTTP/1.1 200 ")
            assert not live.protocol.shaking

    run_on_both(work)


@pytest.mark.parametrize("said", [b"", b"\x16", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_no_handshake(
    said: bytes, first_seconds: float, contexts: Any, run_on_both: Any, serve: Any, post: Any
) -> None:
    """Who does not shake hands is closed on in the time that a first request has, and hears no HTTP."""

    async def work() -> None:
        async with serve(tls=contexts[0]) as live:
            client = await live.connect(is_known=False)
            started = time.monotonic()
            await client.send(said)
            assert not await client._more() or b"HTTP" not in client.received
            assert time.monotonic() - started < first_seconds + SLACK_SECONDS
            await live.until(lambda: not live.protocol.shaking)
            answer = await ask_encrypted(live, contexts[1], post(1, close=True))
            assert answer.startswith(b"HTTP/1.1 200 ")

    run_on_both(work)


def test_handshakes_are_counted(contexts: Any, run_on_both: Any, serve: Any, post: Any) -> None:
    """However many never shake hands, few are kept, and others are served meanwhile."""

    async def work() -> None:
        async with serve(tls=contexts[0], max_connections=20) as live:
            silent = [await live.connect(is_known=False) for _ in range(100)]
            for number in range(5):
                answer = await ask_encrypted(live, contexts[1], post(number, close=True))
                assert answer.startswith(b"HTTP/1.1 200 ")
            assert 0 < len(live.protocol.shaking) <= 20
            assert sum([not await ended(client) for client in silent]) <= 20
            for client in silent:
                client.close()
            await live.until(lambda: not live.protocol.shaking)

    run_on_both(work)
