"""What is replaced of other libraries: each test fails when a library no longer does what the replacement relies on."""

import ast
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import _bentoml_impl.worker.service as worker
import bentoml._internal.utils.circus as circus
import bentoml.serving as dependencies
import pytest
import uvicorn
import uvicorn.config
from _bentoml_impl.server import serving
from bentoml._internal.configuration.containers import BentoMLContainer

from service.process import patches


def attributes(module: Any) -> set[str]:
    """Return what a module's code looks up by a dotted name."""
    tree = ast.parse(Path(inspect.getsourcefile(module) or "").read_text())
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_the_worker_makes_its_server_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML's worker looks ``uvicorn.Server`` up when it begins, so ours takes its place."""
    assert "uvicorn.Server" in attributes(worker)
    monkeypatch.setattr(uvicorn, "Server", uvicorn.Server)
    made = partial(uvicorn.Server)
    patches.use_server(made)
    assert uvicorn.Server is made


def test_uvicorn_looks_its_protocol_up_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that leaves the choice at ``auto``, as BentoML's does, takes ours."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", uvicorn.config.HTTP_PROTOCOLS)
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", uvicorn.config.HTTP_PROTOCOLS["auto"])

    def make(**_: Any) -> None:
        """Make no protocol."""

    patches.use_http_protocol(make)
    config = uvicorn.Config(lambda: None, http="auto", log_config=None)
    config.load()
    assert config.http_protocol_class is make
    assert "http" not in inspect.signature(worker.main.callback or worker.main).parameters


def test_the_supervisor_is_told_its_addresses_by_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML hands the arbiter addresses that ours exchanges; circus binds what it is told."""
    monkeypatch.setattr(circus, "Arbiter", circus.Arbiter)
    patches.close_control()
    source = inspect.getsource(circus.create_standalone_arbiter)
    assert "else Arbiter" in source  # looked up when it is called
    assert 'endpoint=f"tcp:' in source
    assert 'pubsub_endpoint=f"tcp:' in source
    arbiter: Any = circus.Arbiter([], endpoint="tcp://127.0.0.1:1", pubsub_endpoint="tcp://127.0.0.1:2")
    assert (arbiter.endpoint, arbiter.pubsub_endpoint) == ("inproc://lectern-control", "inproc://lectern-events")


def test_the_supervisor_is_made_by_a_function_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``bentoml serve`` imports it when it is called, and the arbiter it makes has what the watchdog wraps."""
    monkeypatch.setattr(circus, "create_standalone_arbiter", circus.create_standalone_arbiter)
    assert "create_standalone_arbiter" in Path(inspect.getsourcefile(serving) or "").read_text()
    assert "check_delay" in inspect.getsource(circus.create_standalone_arbiter)
    assert callable(circus.Arbiter.manage_watchers)
    assert callable(circus.Arbiter.iter_watchers)
    seen: list[Any] = []
    patches.watch_supervisor(lambda create: seen.append(create) or create)  # type: ignore[func-returns-value]
    assert seen == [circus.create_standalone_arbiter]


def test_metrics_have_a_folder_that_can_be_set() -> None:
    """BentoML's processes are told the folder that its container names."""
    before = BentoMLContainer.prometheus_multiproc_dir.get()
    try:
        patches.keep_metrics_in("/somewhere")
        assert BentoMLContainer.prometheus_multiproc_dir.get() == "/somewhere"
    finally:
        BentoMLContainer.prometheus_multiproc_dir.set(before)
    assert "BentoMLContainer.prometheus_multiproc_dir" in Path(inspect.getsourcefile(dependencies) or "").read_text()
