"""Describe where sessions compute, and how: what a deployment chose, as plain data. Torch-free."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
_DRIVER = Path("/proc/driver/nvidia/gpus")


class Device(StrEnum):
    """Describe where sessions run: ``AUTO`` takes the GPU when its provider really loads."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ConvolutionSearch(StrEnum):
    """Describe how cuDNN chooses an algorithm: by rule, always the same one, or by trying all at each new shape."""

    HEURISTIC = "heuristic"
    DEFAULT = "default"
    EXHAUSTIVE = "exhaustive"


class Padding(StrEnum):
    """Describe which batches are filled up to a bucket: ``AUTO`` those on a GPU."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Describe how one session computes.

    Attributes:
        device: Where.
        device_id: Which of the GPUs that this process sees.
        uses_tf32: Whether a GPU may round the factors of products to 10 bits.
        search: How cuDNN chooses.
        memory_bytes: Most that the session's arena takes of the GPU; ``None``: no limit.
        allows_cpu: Whether single operators that the GPU has no kernel for may run on the CPU.
        padding: Which batches are filled up to a bucket.
        records_nodes: Whether the session can say on the CPU, too, where each node computes; on a GPU it always can.
    """

    device: Device = Device.CPU
    device_id: int = 0
    uses_tf32: bool = False
    search: ConvolutionSearch = ConvolutionSearch.HEURISTIC
    memory_bytes: int | None = None
    allows_cpu: bool = False
    padding: Padding = Padding.AUTO
    records_nodes: bool = False

    def pads(self, provider: str) -> bool:
        """Return whether batches that run there are filled up."""
        return self.padding is Padding.ALWAYS or (self.padding is Padding.AUTO and provider == CUDA_PROVIDER)


ON_CPU = Compute()


def provider_options(compute: Compute) -> dict[str, str]:
    """Return what ONNX Runtime's CUDA provider is told.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    options = {
        "device_id": str(compute.device_id),
        # On by default in ONNX Runtime, and then products differ from torch's by a thousandth.
        "use_tf32": str(int(compute.uses_tf32)),
        # Trying all algorithms takes 0.3 to 1.3 s at every new shape (https://github.com/PaddlePaddle/PaddleX/pull/5057).
        "cudnn_conv_algo_search": compute.search.value.upper(),
        # Several models share a device: each takes what it needs, not the next power of two.
        "arena_extend_strategy": "kSameAsRequested",
        # With a stream of their own, copies raced (https://github.com/microsoft/onnxruntime/issues/4829).
        "do_copy_in_default_stream": "1",
    }
    if compute.memory_bytes is not None:
        options["gpu_mem_limit"] = str(compute.memory_bytes)
    return options


def has_cuda() -> bool:
    """Return whether an NVIDIA device is there; the wheel's own list of providers says yes on every machine."""
    return _DRIVER.is_dir() or Path("/dev/nvidiactl").exists()
