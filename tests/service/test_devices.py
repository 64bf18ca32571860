"""Which device a model computes on, who shares a GPU, and which runners are processes of their own."""

import asyncio
import os
from typing import Any

import msgspec
import pytest
from _bentoml_impl.server.allocator import ResourceAllocator

from models.artifact.device_certificate import UNMEASURED, DevicePlacement
from models.artifact.manifest import Manifest
from models.errors import DeviceError, RunnerFailed, SettingsError
from models.registry import FAMILIES
from models.runtime.device import Compute, ConvolutionSearch, Device, Padding
from models.runtime.session import Session
from service.inference.endpoint import make_endpoint
from service.inference.scheduler import FairScheduler
from service.process.process_metrics import count_devices
from service.runners.backends import try_out
from service.runners.services import (
    FamilyRunner,
    RemoteRunner,
    check_devices,
    gpu_share,
    remote_families,
    runner_service,
)
from service.settings import Settings, parse
from service.store.catalog import ServedModel


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that shows an NVIDIA device."""
    for room in ("service.settings", "service.runners.services"):
        monkeypatch.setattr(f"{room}.has_cuda", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("service.settings", "service.runners.services"):
        monkeypatch.setattr(f"{room}.has_cuda", lambda: False)


@pytest.fixture
def manifest(shipped_session: Any) -> Any:
    """The manifest of a shipped model with a choice of device, by name."""

    def make(name: str, chosen: str | None = None) -> Manifest:
        session: Session = shipped_session(name)
        choice = UNMEASURED if chosen is None else DevicePlacement(chosen=chosen, reason="measured")  # type: ignore[arg-type]
        return msgspec.structs.replace(session.manifest, device=choice)

    return make


def served(*manifests: Manifest) -> list[ServedModel]:
    return [ServedModel(manifest=manifest, folder=None) for manifest in manifests]  # type: ignore[arg-type]


def settings(**variables: str) -> Settings:
    return parse({f"LECTERN_{name.upper()}": value for name, value in variables.items()})


@pytest.mark.parametrize(
    ("variables", "chosen", "device"),
    [
        ({}, None, Device.AUTO),
        ({}, "cuda", Device.AUTO),
        ({}, "cpu", Device.CPU),
        ({"device": "cuda"}, "cpu", Device.CUDA),
        ({"device": "cpu"}, "cuda", Device.CPU),
        ({"devices": "viewcount=cuda"}, "cpu", Device.CUDA),
        ({"devices": "image=cuda"}, "cpu", Device.CPU),
        ({"device": "cuda", "devices": "viewcount=auto"}, "cpu", Device.CPU),
        ({"device": "cuda", "devices": "viewcount=cpu"}, None, Device.CPU),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_device_of_a_model(variables: dict[str, str], chosen: str | None, device: Device, manifest: Any) -> None:
    """Its own setting, then the service's, then what export measured; nobody but the setting moves it off the GPU."""
    assert settings(**variables).device_for(manifest("viewcount", chosen)) is device


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu(manifest: Any) -> None:
    """``auto`` says the CPU where nothing else is; ``cuda`` stays what was asked."""
    assert settings().device_for(manifest("image", "cuda")) is Device.CPU
    assert settings(device="cuda").device_for(manifest("image")) is Device.CUDA


def test_compute_of_settings() -> None:
    """Every choice of the deployment reaches the session."""
    found = settings(
        gpu_tf32="true",
        gpu_convolution_search="default",
        gpu_memory_bytes="1073741824",
        gpu_leaves_to_cpu="true",
        padding="never",
    ).compute_on(Device.CUDA, 2)
    assert found == Compute(
        device=Device.CUDA,
        device_id=2,
        uses_tf32=True,
        search=ConvolutionSearch.DEFAULT,
        memory_bytes=2**30,
        allows_cpu=True,
        padding=Padding.NEVER,
    )


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("variables", "error", "message"),
    [
        ({"device": "cuda"}, DeviceError, "LECTERN_DEVICE=cuda, but this machine shows no NVIDIA device"),
        ({"devices": "image=cuda"}, DeviceError, "LECTERN_DEVICES=image=cuda, but this machine shows no NVIDIA"),
    ],
)
def test_a_gpu_that_is_not_there(
    variables: dict[str, str], error: type[Exception], message: str, manifest: Any
) -> None:
    """Asking for one, for all models or for one of them, ends the start in one line."""
    with pytest.raises(error, match=f"^{message}"):
        check_devices(settings(**variables), served(manifest("image")))
    check_devices(settings(devices="image=auto"), served(manifest("image")))


def test_a_misspelt_model(manifest: Any) -> None:
    """A device for a model that nobody serves is an error, not a choice without effect."""
    with pytest.raises(SettingsError, match=r"^LECTERN_DEVICES: no model 'view-count' is served$"):
        check_devices(settings(devices="view-count=cpu"), served(manifest("viewcount")))


# Who shares a GPU


def allocate(runners: int, devices: int) -> list[list[int]]:
    """Return the GPUs that BentoML's own allocator gives to so many runners."""
    allocator = ResourceAllocator.__new__(ResourceAllocator)
    allocator.remaining_gpus, allocator._available_gpus = devices, [(1.0, 1.0)] * devices
    part = gpu_share(runners, devices)
    return [allocator.assign_gpus(part) for _ in range(runners)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("runners", [1, 2, 3, 4, 5, 6, 7])
def test_everybody_gets_a_gpu_that_exists(runners: int, devices: int) -> None:
    """One runner per GPU where there are enough, else equal parts; never a device that is not there, never two."""
    found = allocate(runners, devices)
    assert [len(gpus) for gpus in found] == [1] * runners
    assert {gpu for gpus in found for gpu in gpus} <= {*range(devices)}
    if runners <= devices:
        assert len({gpu for gpus in found for gpu in gpus}) == runners


def test_whole_gpus_for_all_would_not_do() -> None:
    """Control: with ``gpu: 1`` each, the second of two runners gets a device that does not exist."""
    allocator = ResourceAllocator.__new__(ResourceAllocator)
    allocator.remaining_gpus, allocator._available_gpus = 1, [(1.0, 1.0)]
    with pytest.warns(ResourceWarning):
        assert [allocator.assign_gpus(1) for _ in range(2)] == [[0], [1]]


@pytest.mark.parametrize(("named", "count"), [("0", 1), ("2,3", 2), ("GPU-a,GPU-b, GPU-c", 3), ("MIG-1", 1)])
def test_devices_that_are_named(named: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``CUDA_VISIBLE_DEVICES`` names is counted, by number or by name."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert count_devices() == count


def test_devices_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one, so that parts can be reckoned."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert count_devices() >= 1


@pytest.mark.usefixtures("gpu")
def test_runners_of_their_own(manifest: Any) -> None:
    """On a GPU each family, but the ones whose every model is better off on the CPU; by setting all or none."""
    models = served(
        manifest("viewcount", "cpu"), manifest("image", "cuda"), manifest("image-vit"), manifest("citation")
    )
    assert remote_families(models, settings()) == ["image", "graph"]
    assert remote_families(models, settings(devices="viewcount=cuda")) == ["viewcount", "image", "graph"]
    assert remote_families(models, settings(device="cpu")) == []
    assert remote_families(models, settings(runners="embedded")) == []
    assert remote_families(models, settings(runners="process", device="cpu")) == ["viewcount", "image", "graph"]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("devices", "part"), [(1, 0.5), (2, 1.0)])
def test_what_a_runner_asks_for(devices: int, part: float, manifest: Any) -> None:
    """One process with its part of a GPU, its families' models, and its number."""
    models = served(manifest("image"), manifest("image-vit"), manifest("citation"))
    family = next(family for family in FAMILIES if family.name == "graph")
    service = runner_service(family, models, settings(threads="3"), ["image", "graph"], devices)
    assert (service.name, service.config["workers"], service.config["resources"]) == ("graph_runner", 1, {"gpu": part})
    runner = service.inner
    assert issubclass(runner, RemoteRunner)
    assert (runner.number, [model.name for model in runner.served]) == (1, ["citation"])


@pytest.mark.parametrize(
    ("visible", "number", "device_id"), [("0", 1, 0), ("2,3", 1, 1), ("2,3", 2, 0), ("4,5,6", 2, 2)]
)
def test_named_gpus_are_taken_in_turn(
    visible: str, number: int, device_id: int, monkeypatch: pytest.MonkeyPatch, shipped_folder: Any, manifest: Any
) -> None:
    """BentoML allocates nothing when ``CUDA_VISIBLE_DEVICES`` is set; then runners spread over what it names."""
    asked: list[Compute] = []

    def open_there(folder: Any, compute: Compute) -> Any:
        asked.append(compute)
        raise DeviceError("enough")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("service.runners.services.open_artifact", open_there)
    model = ServedModel(manifest=manifest("image"), folder=shipped_folder("image"))
    runner = type(
        "Runner", (FamilyRunner,), {"served": (model,), "settings": settings(device="cuda"), "number": number}
    )
    with pytest.raises(DeviceError, match=r"^enough$"):
        runner()
    assert asked[0].device_id == device_id
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


# The first request


class Untouchable:
    """Fails whoever counts."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was touched")


@pytest.mark.parametrize("name", ["viewcount", "molecule"])
def test_tried_out_before_users_come(name: str, shipped_session: Any) -> None:
    """A model's runner computes its example the way requests come, and nothing is counted; a failure is not hidden."""
    session: Session = shipped_session(name)
    asked: list[list[str]] = []

    class Counting:
        async def run(self, feeds: Any, outputs: list[str]) -> Any:
            asked.append(outputs)
            if len(asked) > 1:
                raise RunnerFailed("no more")
            return session.run(feeds, outputs)

        run_now = run

    endpoint = make_endpoint(session, "none", Counting(), FairScheduler(1), Settings())
    endpoint.counters = endpoint.batcher.meter = Untouchable()  # type: ignore[assignment]
    asyncio.run(try_out(endpoint))
    assert asked == [endpoint.predictor.wanted(explain=False)]
    with pytest.raises(RunnerFailed, match=r"^no more$"):
        asyncio.run(try_out(endpoint))
