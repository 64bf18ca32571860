"""The rows of the table of ``benchmarks.gpu``: what was promised, what was found, or why it was not run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gpu import served as server
from benchmarks.gpu.torch_baseline import best_seconds, net_of, runs_of
from benchmarks.harness.environments import Unavailable
from benchmarks.harness.protocols import PLAIN
from benchmarks.harness.servers import free_ports, install_artifacts
from export.certify import data_of
from export.convert import example_feeds
from export.device import certify_device, compute_of
from export.store import shipped_folders
from models.artifact.device_certificate import DevicePlacement
from models.artifact.manifest import Manifest, read_artifact
from models.errors import LecternError
from models.paths import REPOSITORY
from models.runtime.device import CPU_PROVIDER, has_cuda
from models.runtime.predictor import open_predictor
from models.runtime.session import open_artifact
from models.training.datasets import Data

SIZES = (1, 8, 64, 512)
TIMING_SECONDS = 1.0
FIRST = 50
CONNECTIONS, CLIENTS, WORKERS = 256, 6, 8
IMAGE = "image-vit"


class GpuRow(msgspec.Struct, frozen=True, kw_only=True):
    """One promise.

    Attributes:
        what: Its name.
        bar: What was promised.
        found: What was found, or why it was not run.
        is_met: Whether that keeps the promise; ``None`` where it was not run or no bar stands.
        details: One line each.
    """

    what: str
    bar: str
    found: str
    is_met: bool | None = None
    details: list[str] = []

    @property
    def verdict(self) -> str:
        """Return one or two words."""
        if self.is_met is None:
            return "not run" if self.found.startswith("not run") else "told"
        return "kept" if self.is_met else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Describe how much is run, and where.

    Attributes:
        device: ``cuda`` or ``cpu``.
        models: Names; empty: every shipped model.
        seconds: Of each load test.
        has_test_set: Whether the data are at hand.
        has_server: Whether what needs a running service is run.
    """

    device: str
    models: tuple[str, ...]
    seconds: float
    has_test_set: bool
    has_server: bool

    @property
    def is_small(self) -> bool:
        """Return whether this is only to see that it runs."""
        return self.device == "cpu"

    def folders(self) -> list[Path]:
        """Return the artifacts."""
        return [folder for folder in shipped_folders() if not self.models or folder.name in self.models]


def proofs(scope: Scope) -> Iterator[GpuRow]:
    """Yield every model's certificate on the device; one that fails is told, and the others go on."""
    details, wrong, tests, strays = list[str](), 0, 0, 0
    for folder in scope.folders():
        manifest, content = read_artifact(folder)
        data = _test_set(scope, manifest, details)
        try:
            choice = certify_device(manifest, content, compute_of(scope.device), data=data)
        except LecternError as error:
            wrong += 1
            details.append(f"{manifest.tag}: {error}")
            continue
        details.append(f"{manifest.tag}: {_told(choice)}")
        assert choice.proof is not None
        tests += choice.proof.test_instances
        strays += choice.proof.nodes.get(CPU_PROVIDER, 0) - choice.proof.size_nodes
    count = len(scope.folders())
    found = f"{count - wrong} of {count} proved, {strays} nodes that compute numbers on the CPU, "
    found += f"0 label changes in {tests} test instances" if tests else "not run on the test sets"
    yield GpuRow(
        what="all shipped models on the device",
        bar="0 nodes on the CPU, parity within tolerance, 0 label changes on the test sets",
        found=found,
        is_met=None if scope.is_small or not (wrong or strays or tests) else not (wrong or strays),
        details=details,
    )


def _test_set(scope: Scope, manifest: Manifest, details: list[str]) -> Data | None:
    """Return the data with the test set, or a line that says why not."""
    try:
        return data_of(manifest, None) if scope.has_test_set else None
    except (LecternError, OSError) as error:
        details.append(f"{manifest.tag}: its test set is not at hand: {error}")
        return None


def _told(choice: DevicePlacement) -> str:
    proof = choice.proof
    assert proof is not None
    return (
        f"nodes {proof.nodes} ({proof.size_nodes} of the CPU's by sizes alone), against float64 {proof.parity}, "
        f"with TF32 {proof.tf32_parity} and {proof.tf32_label_changes} of 48 labels, repeatable {proof.is_repeatable}, "
        f"in company {proof.company_max_abs_diff:.3g}, better off on {choice.chosen or 'no device measured'}: "
        f"{choice.reason}; buckets {proof.buckets}; {proof.versions}"
    )


def speed(scope: Scope) -> Iterator[GpuRow]:
    """Instances a second against torch on the same device, from the host's memory and back."""
    paces = [pace for folder in scope.folders() for pace in _paces(scope, folder)]
    behind = [f"{pace.model} at {pace.size} ({name})" for pace in paces for name in pace.ahead()]
    failed = sum(len(pace.failures) for pace in paces)
    yield GpuRow(
        what="rows/s against torch eager and torch.compile on the same device, batch 1, 8, 64, 512",
        bar="ahead of both at every size",
        found=f"behind at {', '.join(behind)}" if behind else f"ahead everywhere; {failed} rivals did not run",
        is_met=None if scope.is_small else not behind and not failed,
        details=[str(pace) for pace in paces],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPace:
    """Instances a second of one model in batches of one size, ours and its rivals', and who failed, and why."""

    model: str
    size: int
    ours: float
    rivals: dict[str, float]
    failures: dict[str, str]

    def ahead(self) -> list[str]:
        """Rivals that are not slower."""
        return [name for name, rate in self.rivals.items() if rate >= self.ours]

    def __str__(self) -> str:
        told = [f"torch {name} {rate:,.0f} ({self.ours / rate:.2f}x)" for name, rate in self.rivals.items()]
        told += [f"torch {name} failed: {reason}" for name, reason in self.failures.items()]
        return f"{self.model}, batch {self.size}: {self.ours:,.0f} a second; {', '.join(told)}"


def _paces(scope: Scope, folder: Path) -> Iterator[GpuPace]:
    session = open_artifact(folder, compute_of(scope.device))
    wanted = open_predictor(session).wanted(explain=False)
    net = net_of(session.manifest, session.assets)
    runs = runs_of(net, session.card, scope.device, compiles=not scope.is_small)
    budget = 0.0 if scope.is_small else TIMING_SECONDS
    for size in SIZES[:2] if scope.is_small else SIZES:
        feeds = example_feeds(session.card, session.assets, count=size, seed=size)
        rates, failures = dict[str, float](), dict[str, str]()
        for name, run in runs.items():
            try:
                rates[name] = size / best_seconds(partial(run, feeds), budget)
            except Exception as error:  # the border to torch's compiler
                failures[name] = str(error).splitlines()[0][:200]
        ours = size / best_seconds(partial(session.run, feeds, wanted), budget)
        yield GpuPace(model=session.manifest.tag, size=size, ours=ours, rivals=rates, failures=failures)


def unwritten() -> Iterator[GpuRow]:
    """Yield what waits for a GPU to be written on."""
    for what, bar in (
        ("viewcount, image, image-vit with CUDA graphs at batch 1", "at most 1.3x of the kernels' own time"),
        ("IO binding with buffers that stay on the device", "no bar; copies and launches are told apart"),
        ("reduced precision (fp16, bf16) behind a score gate", "at most 0.1 points lost, else refused"),
    ):
        yield GpuRow(what=what, bar=bar, found="not run: not written, since no GPU was at hand to try it on")


def served(scope: Scope, home: Path) -> Iterator[GpuRow]:
    """Yield what callers see."""
    for what, bar, measure in (
        (
            f"through REST, {WORKERS} gateway workers, {IMAGE}, binary bodies, c = {CONNECTIONS}",
            "at least 80 % of the same front with a null model, p99 at most 15 ms; the device's idle share is stated",
            _rest,
        ),
        ("first request after ready", "no slower than 2x the median", _first),
    ):
        if not scope.has_server:
            yield GpuRow(what=what, bar=bar, found="not run: left out")
            continue
        try:
            found, is_met, details = measure(scope, home)
            yield GpuRow(what=what, bar=bar, found=found, is_met=None if scope.is_small else is_met, details=details)
        except Unavailable as error:
            yield GpuRow(what=what, bar=bar, found=str(error), is_met=False)


def _rest(scope: Scope, home: Path) -> tuple[str, bool, list[str]]:
    source = next(folder for folder in shipped_folders() if folder.name == IMAGE)
    server.null_artifact(source, home / "null")
    install_artifacts(home, source, home / "null")
    found = {}
    for model in (IMAGE, server.NULL):
        wanted = model if model == IMAGE else f"{model}:{read_artifact(home / 'null')[0].version}"
        settings = {"LECTERN_MODELS": wanted, "LECTERN_DEVICE": scope.device}
        settings |= {"LECTERN_WORKERS": str(1 if scope.is_small else WORKERS), "LECTERN_RUNNERS": "process"}
        with server.serving(home, **settings) as port:
            call = server.picture_call(model)
            server.first_request(port, call, 5)
            many, clients = (8, 1) if scope.is_small else (CONNECTIONS, CLIENTS)
            found[model] = server.load(port, call, connections=many, clients=clients, seconds=scope.seconds)
    ours, null = found[IMAGE], found[server.NULL]
    told = f"{ours.rate:,.0f} a second, {ours.rate / null.rate:.0%} of the null model's {null.rate:,.0f}, "
    told += f"p99 {ours.p99_ms:.1f} ms, {ours.errors} errors, device idle "
    told += "not known" if ours.idle is None else f"{ours.idle:.0%}"
    return told, ours.rate >= 0.8 * null.rate and ours.p99_ms <= 15 and not ours.errors, []


def _first(scope: Scope, home: Path) -> tuple[str, bool, list[str]]:
    folders = scope.folders()
    install_artifacts(home, *folders)
    settings = {"LECTERN_MODELS": ",".join(folder.name for folder in folders), "LECTERN_DEVICE": scope.device}
    details, worst = [], 0.0
    with server.serving(home, **settings) as port:
        for folder in folders:
            predictor = open_predictor(open_artifact(folder))
            example: Any = predictor.card.example(predictor.assets)
            call = PLAIN.call(folder.name, msgspec.json.encode({"instances": [example]}))
            first, usual = server.first_request(port, call, 5 if scope.is_small else FIRST)
            worst = max(worst, first / usual)
            details.append(f"{folder.name}: {first:.2f} ms, then {usual:.2f} ms ({first / usual:.2f}x)")
    return f"{worst:.2f}x at worst", worst <= 2, details


def no_gpu(scope: Scope, home: Path) -> Iterator[GpuRow]:
    """Asked only where there is none."""
    what, bar = "no GPU present", "LECTERN_DEVICE=auto says CPU and serves; =cuda stops with one clear line"
    if has_cuda() or not scope.has_server:
        yield GpuRow(what=what, bar=bar, found="not run: " + ("this machine has a GPU" if has_cuda() else "left out"))
        return
    port, _ = free_ports()
    ours = {"LECTERN_PORT": str(port), "BENTOML_HOME": str(home / "bentoml"), "LECTERN_LOG": "text"}
    folder = next(folder for folder in shipped_folders() if folder.name == "viewcount")
    install_artifacts(home, folder)
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env={**os.environ, **ours, "LECTERN_DEVICE": "cuda", "LECTERN_MODELS": "viewcount"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stderr.splitlines()
    is_one_line = done.returncode == 1 and len(lines) == 1 and "LECTERN_DEVICE=cuda" in lines[0]
    with server.serving(home, LECTERN_MODELS="viewcount", LECTERN_DEVICE="auto") as port:
        example = open_predictor(open_artifact(folder))
        body = msgspec.json.encode({"instances": [example.card.example(example.assets)]})
        server.first_request(port, PLAIN.call("viewcount", body), 1)
    said = " / ".join(lines)[:200]
    yield GpuRow(what=what, bar=bar, found=f"auto serves on the CPU; cuda says: {said}", is_met=is_one_line)
