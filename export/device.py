"""A model certified on a device, and which device it is better off on."""

import platform
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from torch import nn

from export.artifact import write_artifact
from export.device_checks import (
    REPEATS,
    check_company,
    check_float64,
    check_repeats,
    check_test_set,
    count_random_changes,
    full_batch,
)
from export.reference import EVALUATOR, TORCH, graph_float64, torch_float64
from models.artifact.device_certificate import DevicePlacement, DeviceProof, Timing
from models.artifact.manifest import Manifest, read_artifact
from models.artifact.onnx_allowlist import find_size_nodes
from models.errors import CertificateError, DeviceError
from models.runtime.device import CPU_PROVIDER, CUDA_PROVIDER, Compute, Device, Padding, has_cuda, provider_options
from models.runtime.padding import list_buckets
from models.runtime.predictor import Predictor, Run, open_predictor
from models.runtime.session import Session, find_nodes, open_model
from models.training.datasets import Data

ROUNDS = 30
# Below it the difference is not worth a place on the GPU, and not sure.
CLEARLY = 0.9


def certify_device(
    manifest: Manifest, content: bytes, compute: Compute, *, data: Data | None = None, net: nn.Module | None = None
) -> DevicePlacement:
    """Prove a model on a device and measure it there and on the CPU.

    Args:
        manifest: The artifact's.
        content: Its verified bytes.
        compute: The device, and how; TF32 is off for everything but the part that looks at it.
        data: Whose test set is held against the CPU's answers, where it is at hand.
        net: The torch net; without it float64 answers come from the graph.

    Raises:
        CertificateError: At the first proof that fails.
        DeviceError: If the device cannot be had, or leaves operators to the CPU.
    """
    if compute.device is Device.CUDA and not has_cuda():
        raise DeviceError(f"{manifest.tag}: this machine shows no NVIDIA device; --device cpu tries the same there")
    session = open_model(manifest, content, replace(compute, uses_tf32=False, records_nodes=True))
    cpu, device = open_predictor(open_model(manifest, content)), open_predictor(session)
    tolerance = session.card.tolerance
    reference = graph_float64(content) if net is None else torch_float64(net, session.card)
    parity = check_float64(device, reference, tolerance)
    tf32, tf32_changes = _look_at_tf32(manifest, content, compute, reference, cpu)
    company = check_company(device, tolerance)
    proof = DeviceProof(
        **_describe(session, content, compute),
        reference=EVALUATOR if net is None else TORCH,
        parity=parity,
        tf32_parity=tf32,
        tf32_label_changes=tf32_changes,
        repeats=REPEATS,
        is_repeatable=check_repeats(device, manifest.certificate.operators, tolerance),
        companies=company.companies,
        company_max_abs_diff=company.max_abs_diff,
        test_instances=0 if data is None else check_test_set(data, cpu, device),
        test_label_changes=0,
    )
    return choose(measure(cpu, device), proof)


def _describe(session: Session, content: bytes, compute: Compute) -> dict[str, Any]:
    """Return the part of the proof that is looked up: where each node computes, on what, and how."""
    nodes, size_nodes, provider = find_nodes(session.engine), find_size_nodes(content), session.provider
    return {
        "provider": provider,
        "device": _device_name(provider, compute.device_id),
        "versions": _versions(provider),
        "options": provider_options(replace(compute, uses_tf32=False)) if provider == CUDA_PROVIDER else {},
        "buckets": list_buckets(session.card, session.assets) if compute.pads(provider) else {},
        "nodes": dict(Counter(node.provider for node in nodes)),
        "size_nodes": sum(node.provider == CPU_PROVIDER and node.name in size_nodes for node in nodes),
    }


def _look_at_tf32(
    manifest: Manifest, content: bytes, compute: Compute, reference: Run, cpu: Predictor
) -> tuple[dict[str, float] | None, int | None]:
    """Return how far TF32 takes the outputs from float64, and how many labels it changes; nothing is demanded of it."""
    session = open_model(manifest, content, replace(compute, uses_tf32=True))
    if session.provider != CUDA_PROVIDER:
        return None, None
    predictor = open_predictor(session)
    return check_float64(predictor, reference, None), count_random_changes(cpu, predictor)


def measure(cpu: Predictor, device: Predictor) -> list[Timing]:
    """Seconds of a lone instance and of a full micro-batch on both, each at its best of many."""
    batch, found = full_batch(cpu), []
    for samples in (batch[:1], batch):
        one, other = (_best_seconds(predictor, samples) for predictor in (cpu, device))
        found.append(Timing(instances=len(samples), cpu_seconds=one, device_seconds=other))
    return found


def _best_seconds(predictor: Predictor, samples: list[object]) -> float:
    feeds, wanted = predictor.card.collate(samples), predictor.wanted(explain=False)
    times = []
    for _ in range(ROUNDS):
        started = perf_counter()
        predictor.run(feeds, wanted)
        times.append(perf_counter() - started)
    return min(times)


def choose(timings: list[Timing], proof: DeviceProof) -> DevicePlacement:
    """Return the GPU where it takes clearly less time for the largest micro-batch measured, else the CPU.

    Where no GPU was measured nothing is chosen.
    """
    full = max(timings, key=lambda timing: timing.instances)
    told = f"{full.instances} instances take {full.cpu_seconds * 1e3:.3g} ms on the CPU"
    told += f" and {full.device_seconds * 1e3:.3g} ms on {proof.device}"
    if proof.provider != CUDA_PROVIDER:
        return DevicePlacement(chosen=None, reason=f"no GPU was measured; {told}", timings=timings, proof=proof)
    is_faster = full.device_seconds < CLEARLY * full.cpu_seconds
    return DevicePlacement(chosen="cuda" if is_faster else "cpu", reason=told, timings=timings, proof=proof)


def add_device(folder: Path, choice: DevicePlacement) -> Manifest:
    """Write what was proved on a GPU into an artifact: the same weights, another digest; a signature is to be renewed.

    Raises:
        CertificateError: If nothing was proved on a GPU.
    """
    if choice.proof is None or choice.proof.provider != CUDA_PROVIDER:
        raise CertificateError(f"{folder.name}: nothing was proved on a GPU, so there is nothing to write")
    manifest, content = read_artifact(folder)
    write_artifact(folder, msgspec.structs.replace(manifest, device=choice), content)
    return read_artifact(folder)[0]


def _device_name(provider: str, device_id: int) -> str:
    if provider == CPU_PROVIDER:
        return platform.processor() or platform.machine()
    with suppress(Exception):  # the border to the driver
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(device_id)))
    return "a GPU without a name"


def _versions(provider: str) -> dict[str, str]:
    found = {"onnxruntime": ort.__version__, "numpy": np.__version__}
    if provider == CPU_PROVIDER:
        return found
    with suppress(Exception):  # the border to the driver
        import pynvml

        pynvml.nvmlInit()
        found["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
        found["driver's CUDA"] = str(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    for package in ("nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cublas"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def compute_of(device: str) -> Compute:
    """Return how a certificate's session computes: as it serves on a GPU, every batch filled up."""
    return Compute(device=Device(device), padding=Padding.ALWAYS)
