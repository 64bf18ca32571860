"""How a process listens: under load, too, newcomers do not wait at the door."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
import uvloop

from service.server import shutdown
from service.server.shutdown import DrainingServer

NEWCOMERS = 64
TURN_SECONDS = 0.005


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Says yes."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * NEWCOMERS) as one:
        yield one


async def turns_until_all_are_in(listening: socket.socket, *, is_public: bool = True) -> int:
    """Return how many turns of a busy event loop it takes until all newcomers of one moment are accepted."""
    config = uvicorn.Config(answer, log_config=None, lifespan="off")
    server = DrainingServer((lambda: None) if is_public else None, config)  # type: ignore[arg-type,return-value]
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listening])
    newcomers = [socket.create_connection(listening.getsockname()[:2]) for _ in range(NEWCOMERS)]
    turns = 0
    while len(server.server_state.connections) < NEWCOMERS and turns < 4 * NEWCOMERS:
        time.sleep(TURN_SECONDS)
        await asyncio.sleep(0)
        turns += 1
    for newcomer in newcomers:
        newcomer.close()
    for one in server.servers:
        one.close()
    await asyncio.sleep(0.05)
    return turns


def test_many_are_accepted_in_a_turn(listening: socket.socket) -> None:
    """A busy process lets in several of those who wait in each turn of its event loop."""
    assert uvloop.run(turns_until_all_are_in(listening)) < NEWCOMERS // shutdown.DOORS + 8


def test_one_door(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with one door, as a runner has, it is one in a turn."""
    monkeypatch.setattr(shutdown, "DOORS", 1)
    assert uvloop.run(turns_until_all_are_in(listening)) >= NEWCOMERS // 2


def test_a_runner_has_one_door(listening: socket.socket) -> None:
    """Who asks a runner are a few gateways that stay."""
    assert uvloop.run(turns_until_all_are_in(listening, is_public=False)) >= NEWCOMERS // 2


def test_workers_that_listen_already_never_wait(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts must not make ``accept`` wait in the other workers, which share the socket, not for an instant."""
    set_timeout, seen = socket.socket.settimeout, []

    def watched(one: socket.socket, seconds: float | None) -> None:
        set_timeout(one, seconds)
        seen.append(os.get_blocking(listening.fileno()))

    async def work() -> None:
        config = uvicorn.Config(answer, log_config=None, lifespan="off")
        config.load()
        await DrainingServer(lambda: None, config).startup([listening])  # type: ignore[arg-type,return-value]

    async def started(*_: Any) -> None:
        seen.append(os.get_blocking(listening.fileno()))

    os.set_blocking(listening.fileno(), False)  # as another worker has done
    monkeypatch.setattr(socket.socket, "settimeout", watched)
    monkeypatch.setattr(uvicorn.Server, "startup", started)
    uvloop.run(work())
    assert len(seen) == shutdown.DOORS
    assert not any(seen)


def test_the_port_closes(listening: socket.socket) -> None:
    """When the servers are closed nobody listens at any of the copies."""

    async def work() -> None:
        await turns_until_all_are_in(listening)
        listening.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    address = listening.getsockname()[:2]
    uvloop.run(work())
