"""Measure a served GPU: the first request after ready, and image-vit against the same server with a null model."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from statistics import mean, median
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.closed_loop import ClosedLoopCounts, ClosedLoopPlan
from benchmarks.harness.environments import Unavailable
from benchmarks.harness.protocols import PLAIN, ProtocolCall
from benchmarks.harness.servers import ask, free_ports, stop, without_paths
from export.artifact import write_artifact
from export.operators import check_operators
from models.artifact.manifest import ASSETS_KEY, read_artifact
from models.paths import REPOSITORY

NULL = "image-null"
READY_SECONDS = 180.0
NPY = "application/x-npy"


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[int]:
    """The port of a service with these settings, ready, until the end of the block.

    Raises:
        Unavailable: If it does not become ready.
    """
    port, _ = free_ports()
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("LECTERN_", "BENTOML_"))}
    ours = {"LECTERN_PORT": str(port), "BENTOML_HOME": str(home / "bentoml"), "PYTHONPATH": str(REPOSITORY)}
    log = home / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env={**mine, **ours, **settings},
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield port
    finally:
        stop(process)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = perf_counter() + READY_SECONDS
    while perf_counter() < end and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        sleep(0.05)
    lines = log.read_text(errors="replace").splitlines() or ["(empty)"]
    raise Unavailable(without_paths(f"the service is not ready; its log ends: {lines[-1][:400]}"))


# The first request after ready


def first_request(port: int, call: ProtocolCall, count: int) -> tuple[float, float]:
    """Milliseconds of the first answer, and the median of those after it, over one connection each.

    Raises:
        Unavailable: If an answer is no 200.
    """
    times = []
    for _ in range(1 + count):
        started = perf_counter()
        status, body = ask(port, call)
        times.append(1000 * (perf_counter() - started))
        if status != 200:
            raise Unavailable(f"status {status}: {body[:200].decode(errors='replace')}")
    return times[0], median(times[1:])


# Under load


def null_artifact(source: Path, target: Path) -> None:
    """An artifact with the card of ``source`` whose every score is the same: what is left is the front.

    Its certificate is the source's but for what the file must agree with; it is served here and nowhere else.
    """
    manifest, content = read_artifact(source)
    given = onnx.load_model_from_string(content)
    classes = next(tensor for tensor in manifest.outputs if tensor.name == "scores").shape[1]
    nodes = [
        helper.make_node("Shape", ["pixels"], ["rows"], "rows", start=0, end=1),
        helper.make_node("Concat", ["rows", "classes"], ["sizes"], "sizes", axis=0),
        helper.make_node(
            "ConstantOfShape", ["sizes"], ["scores"], "scores", value=numpy_helper.from_array(np.float32([0.1]))
        ),
    ]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])
    classes_tensor = numpy_helper.from_array(np.array([classes], np.int64), "classes")
    graph = helper.make_graph(nodes, "null", [*given.graph.input], [output], [classes_tensor])
    model = helper.make_model(graph, opset_imports=given.opset_import, ir_version=given.ir_version)
    assets = next(prop.value for prop in given.metadata_props if prop.key == ASSETS_KEY)
    helper.set_model_props(model, {ASSETS_KEY: assets})
    null = model.SerializeToString(deterministic=True)
    outputs = [tensor for tensor in manifest.outputs if tensor.name == "scores"]
    certificate = msgspec.structs.replace(manifest.certificate, operators=check_operators(model, 1))
    changes: dict[str, Any] = {"model": NULL, "certificate": certificate, "outputs": outputs, "profile": None}
    sums = {"model_sha256": sha256(null).hexdigest(), "model_bytes": len(null), "device": None}
    write_artifact(target, msgspec.structs.replace(manifest, **changes, **sums), null)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLoad:
    """Answers per second, the worst client's percentile, what was no 200, and the share of time the GPU was idle."""

    rate: float
    p99_ms: float
    errors: int
    idle: float | None


def load(port: int, call: ProtocolCall, *, connections: int, clients: int, seconds: float) -> GpuLoad:
    """Closed-loop clients in processes of their own, with equal parts of the connections."""
    plan = ClosedLoopPlan(
        port=port, requests=[call.to_bytes()], connections=max(1, connections // clients), seconds=seconds
    )
    content, end = msgspec.msgpack.encode(plan), Event()
    shares = list[float]()
    watch = Thread(target=_watch, args=(end, shares))
    watch.start()
    try:
        tallies = _drive(content, clients)
    finally:
        end.set()
        watch.join()
    return GpuLoad(
        rate=sum(tally.answers / tally.seconds for tally in tallies),
        p99_ms=max(tally.p99_ms for tally in tallies),
        errors=sum(tally.errors for tally in tallies),
        idle=1 - mean(shares) if shares else None,
    )


def _drive(plan: bytes, clients: int) -> list[ClosedLoopCounts]:
    command = [sys.executable, "-m", "benchmarks.harness.closed_loop"]
    running = [
        subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  our own
        for _ in range(clients)
    ]
    for client in running:
        assert client.stdin is not None
        client.stdin.write(plan)
        client.stdin.close()
    contents = [client.stdout.read() for client in running if client.stdout is not None]
    if any(client.wait() for client in running):
        raise Unavailable("a load client failed")
    return [msgspec.json.decode(content, type=list[ClosedLoopCounts])[0] for content in contents]


def _watch(end: Event, shares: list[float]) -> None:
    """Collect how busy the first GPU is, as NVML says of the time since it was asked last, until the end."""
    with suppress(Exception):  # the border to the driver
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not end.wait(0.2):
            shares.append(pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)


def picture_call(model: str, pictures: int = 1) -> ProtocolCall:
    """Random pictures as numpy saves them."""
    buffer = BytesIO()
    np.save(buffer, np.random.default_rng(5).integers(0, 256, (pictures, 28, 28)).astype(np.uint8))
    return PLAIN.call(model, buffer.getvalue(), NPY)
