"""Describe what a certificate proves on a GPU, and which device a model is faster on. Torch-free."""

from typing import Literal

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One micro-batch of so many instances, seconds at its best, feeds and outputs in this machine's memory."""

    instances: int
    cpu_seconds: float
    device_seconds: float


class DeviceProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that was proved on a device; what holds on one stack need not hold on another.

    Attributes:
        provider: ONNX Runtime's name for the device's code.
        device: The device's own name.
        versions: Of the driver, of CUDA, cuDNN and ONNX Runtime, as far as they can be asked.
        options: What the provider was told.
        buckets: The sizes of each dynamic axis that a micro-batch is filled up to.
        nodes: How many nodes each provider computes.
        size_nodes: How many of those on the CPU depend on sizes alone.
        reference: What the device was held against, in float64.
        parity: Largest absolute difference of each output from the reference.
        tf32_parity: The same with TF32; ``None`` where there is none.
        tf32_label_changes: Labels of random requests that TF32 changed; ``None`` likewise.
        repeats: How often the same micro-batches were computed.
        is_repeatable: Whether each time to the same bits; demanded but of models whose sums have no order.
        companies: In how many companies random requests were computed, and alone.
        company_max_abs_diff: By how much an answer in company differed from the answer alone.
        test_instances: Of the test set, through the CPU and through the device; 0 where it was not at hand.
        test_label_changes: Always 0.
    """

    provider: str
    device: str
    versions: dict[str, str]
    options: dict[str, str]
    buckets: dict[str, list[int]]
    nodes: dict[str, int]
    size_nodes: int
    reference: str
    parity: dict[str, float]
    tf32_parity: dict[str, float] | None
    tf32_label_changes: int | None
    repeats: int
    is_repeatable: bool
    companies: int
    company_max_abs_diff: float
    test_instances: int
    test_label_changes: int


class DevicePlacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe which device a model computes on where both are there and nobody says otherwise.

    Attributes:
        chosen: The faster one for full micro-batches; ``None`` where no GPU was measured.
        reason: Why, for people.
        timings: What was measured.
        proof: What was proved on the GPU.
    """

    chosen: Literal["cpu", "cuda"] | None
    reason: str
    timings: list[Timing] = []
    proof: DeviceProof | None = None


UNMEASURED = DevicePlacement(chosen=None, reason="no GPU was measured")
