"""Stubs that run, each in a process of its own."""

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import pytest

from loadtests.mlperf.served import Address
from tests.loadtests.mlperf.stub import Stub, main

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has no wheel for this machine")

Start = Callable[[Stub], Address]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts stubs, each in a process of its own; all end with the test."""
    running: list[BaseProcess] = []

    def start_one(stub: Stub) -> Address:
        listening = socket.create_server(("127.0.0.1", 0))
        process = multiprocessing.get_context("fork").Process(target=main, args=(stub, listening), daemon=True)
        process.start()
        port = listening.getsockname()[1]
        listening.close()
        running.append(process)
        return Address(host="127.0.0.1", port=port)

    yield start_one
    for process in running:
        process.kill()
        process.join()
