"""One BentoML runner service per family: it owns the family's sessions and runs micro-batches.

``embedded``: the gateway holds it. ``process``: BentoML serves it behind ``bentoml.depends()``, one call per
micro-batch over BentoML's private Unix socket.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import bentoml
import numpy as np
from aiohttp import ClientConnectionError

from models.card import Array, Family, Feeds
from models.errors import ArtifactError, DeviceError, LecternError, RunnerFailed, SettingsError
from models.runtime.device import CPU_PROVIDER, Device, has_cuda
from models.runtime.predictor import LatencyModel, open_predictor, warm_up
from models.runtime.session import Session, open_artifact
from service.process.process_metrics import count_devices
from service.process.watchdog import beat
from service.settings import Placement, Settings
from service.store.catalog import ServedModel, find_version
from service.telemetry.state_metrics import count_mismatch

COMMON: dict[str, Any] = {
    # BentoML closes the client session shared by all calls after 100 requests or 300 s while others are in flight:
    # 4 to 34 % of answers become 500s under concurrency (https://github.com/bentoml/BentoML/issues/5540).
    "runner_connection": {"max_requests": 1_000_000_000, "max_age": 1e9},
    # Always on and half of the CPU of a request, though it samples nothing.
    "tracing": {"excluded_urls": ".*"},
    "logging": {"access": {"enabled": False}},
}


class OpenedModel(NamedTuple):
    """A model that is open and warm, and how long its micro-batches take here, where that is known."""

    session: Session
    pace: LatencyModel | None


def open_warm(model: ServedModel, settings: Settings, number: int = 0) -> OpenedModel:
    """Open a model and run it once at every size.

    Args:
        model: Which.
        settings: The deployment's.
        number: The runner's among those on GPUs; they take the GPUs that this process sees in turn.

    Raises:
        ArtifactError: If it is not what its certificate says.
        DeviceError: If it cannot compute where it should.
    """
    device = settings.device_for(model.manifest)
    device_id = 0 if device is Device.CPU else number % count_devices()
    session = open_artifact(model.folder, settings.compute_on(device, device_id))
    pace = warm_up(open_predictor(session))
    return OpenedModel(session, pace if session.provider == CPU_PROVIDER else None)  # a device computes while we wait


class FamilyRunner:
    """Models of one family, open and warm, by tag."""

    family: ClassVar[str] = ""
    served: ClassVar[tuple[ServedModel, ...]] = ()
    settings: ClassVar[Settings]
    number: ClassVar[int] = 0

    def __init__(self) -> None:
        self.opened = {model.manifest.tag: self._open(model) for model in self.served}

    def _open(self, model: ServedModel) -> OpenedModel:
        """Return one of the models that this process serves from its start."""
        try:
            return open_warm(model, self.settings, self.number)
        except ArtifactError:
            count_mismatch(model.name)
            raise


class RemoteRunner(FamilyRunner):
    """The runner in a process of its own; arrays travel by pickle 5 over a socket only this deployment can open."""

    def __init__(self) -> None:
        super().__init__()
        self.beats: asyncio.Task[None] | None = None
        # Every gateway process opens a version when it switches to it, and closes it when its last answer is out.
        self.users = Counter[str]()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def begin(self) -> None:
        """Let the parent see that this process lives."""
        self.beats = asyncio.create_task(beat(f"runner-{self.family}"))

    @bentoml.api  # type: ignore[untyped-decorator]
    def infer(self, model: str, feeds: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
        """Outputs by name of one micro-batch of the model with this tag, or the name of the error under ``error``."""
        try:
            return self.opened[model].session.run(feeds, outputs)
        except KeyError:
            return {"error": f"{model} is not open"}
        except RunnerFailed as error:
            return {"error": str(error)}

    @bentoml.api  # type: ignore[untyped-decorator]
    def load(self, model: str) -> dict[str, str]:
        """Open the model with this tag, if it is not; its ``provider``, or why it cannot be served under ``error``."""
        try:
            if model not in self.opened:
                self.opened[model] = open_warm(find_version(model), self.settings, self.number)
        except LecternError as error:
            return {"error": str(error)}
        self.users[model] += 1
        return {"provider": self.opened[model].session.provider}

    @bentoml.api  # type: ignore[untyped-decorator]
    def unload(self, model: str) -> bool:
        """One gateway process has no more use for the model with this tag; whether any other has."""
        self.users[model] -= 1
        if self.users[model] <= 0:
            self.opened.pop(model, None)
        return model in self.opened

    @bentoml.api  # type: ignore[untyped-decorator]
    def providers(self) -> dict[str, str]:
        """Return the execution provider of each model, by tag."""
        return {tag: opened.session.provider for tag, opened in self.opened.items()}


def runner_class(
    family: Family,
    served: Sequence[ServedModel],
    settings: Settings,
    base: type[FamilyRunner] = FamilyRunner,
    number: int = 0,
) -> type[FamilyRunner]:
    """Return the family's runner, e.g. ``ViewCountRunner``, with its models."""
    mine = tuple(model for model in served if model.manifest.family == family.name)
    return type(
        f"{family.title}Runner",
        (base,),
        {"family": family.name, "served": mine, "settings": settings, "number": number, "__doc__": base.__doc__},
    )


def check_devices(settings: Settings, served: Iterable[ServedModel]) -> None:
    """Let a deployment pass whose devices are there, as far as that shows before a session is opened.

    Raises:
        DeviceError: If a GPU is demanded where there is none.
        SettingsError: If a device is chosen for a model that is not served: a misspelt name.
    """
    chosen = settings.chosen_devices
    for name in chosen.keys() - {model.name for model in served}:
        raise SettingsError(f"LECTERN_DEVICES: no model {name!r} is served")
    wanted = ["LECTERN_DEVICE=cuda"] if settings.device is Device.CUDA else []
    wanted += [f"LECTERN_DEVICES={name}=cuda" for name, device in chosen.items() if device is Device.CUDA]
    if wanted and not has_cuda():
        raise DeviceError(f"{wanted[0]}, but this machine shows no NVIDIA device; use cpu or auto")


def remote_families(served: Sequence[ServedModel], settings: Settings) -> list[str]:
    """Return the families whose runners are processes of their own.

    Where nobody says otherwise these are the ones with a model on a GPU: what computes on the CPU by its certificate
    is quickest where the requests are.
    """
    names = dict.fromkeys(model.manifest.family for model in served)
    if settings.runners is Placement.PROCESS:
        return [*names]
    if settings.placement is Placement.EMBEDDED:
        return []
    here = Device.CPU
    on_gpu = {model.manifest.family for model in served if settings.device_for(model.manifest) is not here}
    return [name for name in names if name in on_gpu]


def gpu_share(runners: int, devices: int) -> float:
    """Part of a GPU that each of several runners asks for: a whole one where there are enough, else equal parts.

    BentoML puts runners on one device only when their parts are equal, and fills a device before it takes the next.
    """
    return 1 / -(-runners // devices)


def runner_service(
    family: Family, served: Sequence[ServedModel], settings: Settings, remote: Sequence[str], devices: int
) -> Any:
    """Return the family's runner as a BentoML service of its own.

    Args:
        family: Whose.
        served: All served models.
        settings: The deployment's.
        remote: The families with such runners.
        devices: GPUs that they share.
    """
    resources = {"resources": {"gpu": gpu_share(len(remote), devices)}} if settings.uses_cuda else {}
    service = bentoml.service(
        name=f"{family.name}_runner",
        workers=1,
        threads=settings.lanes,
        traffic={"timeout": 60},
        **resources,
        **COMMON,
    )
    return service(runner_class(family, served, settings, RemoteRunner, remote.index(family.name)))


def as_outputs(answer: dict[str, Any]) -> dict[str, Array]:
    """Return what a remote runner answered, as arrays.

    Raises:
        RunnerFailed: If the runner said so.
    """
    if "error" in answer:
        raise RunnerFailed(answer["error"])
    return {name: np.asarray(values) for name, values in answer.items()}


class RemoteModel:
    """One model of a runner in another process; one call per micro-batch."""

    def __init__(self, runner: Any, model: str) -> None:
        self._runner, self._model = runner, model

    async def run(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            RunnerFailed: If the runner said so.
        """
        try:
            return await self._call(feeds, outputs)
        except ClientConnectionError:
            # The runner closes an idle connection just as it is used again: once more, on a new one
            # (https://github.com/bentoml/BentoML/issues/4971). Inference has no side effect.
            return await self._call(feeds, outputs)

    run_now = run

    async def _call(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        return as_outputs(await self._runner.to_async.call("infer", self._model, feeds, outputs))
