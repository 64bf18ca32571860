"""The Gateway service: composition only.

Built once from the settings at import, in every process BentoML starts: the served models, their runners (embedded, or
services of their own behind ``bentoml.depends()``), one documented API per model, and the application around it all.
"""

import asyncio
import gc
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import bentoml
import msgspec

from models.artifact.manifest import Manifest
from models.errors import LecternError
from models.registry import FAMILIES
from models.runtime.device import CUDA_PROVIDER, Device
from service.auth.access import Access, open_access
from service.demo.pages import DemoPages
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.jobs.api import JobsApi, open_jobs
from service.process.patches import close_control
from service.process.process_metrics import collectors, count_devices, worker_name
from service.process.watchdog import beat
from service.rollout.rollout import Rollout
from service.runners.backends import Backend, InProcessBackend, RemoteBackend, try_out
from service.runners.services import COMMON, check_devices, remote_families, runner_class, runner_service
from service.server.context import ServerContext
from service.server.protocol_factory import use_protocol_factory
from service.server.routes import Application
from service.server.shutdown import use_draining_server
from service.server.tls import read_certificate
from service.settings import Settings, settings
from service.settings.environment import metrics_location
from service.store.catalog import ServedModel, find_models, installed_at
from service.telemetry.dead_processes import merge_dead_processes
from service.telemetry.drift_window import DriftWindows
from service.telemetry.exposition import open_page
from service.telemetry.logs import configure, format_fatal
from service.telemetry.metrics_storage import keep_reserve
from service.telemetry.state_metrics import initialise, show_certificate, show_model
from service.telemetry.tracing import find_exporter

logger = logging.getLogger("lectern.app")
READY_SECONDS = 2.0
# A second micro-batch travels while the first is computed.
IN_FLIGHT = 2


@attrs.define
class FrontedService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service with Lectern's ASGI application as its outermost layer."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return BentoML's application, behind Lectern's where the public port is."""
        app = super().to_asgi(is_main=is_main)  # attrs with slots: plain super() sees another class
        if not is_main:
            return app
        page, demo = open_page(collectors(uses_cuda=settings().uses_cuda)), DemoPages() if settings().demo else None
        application = Application(app, _context, _versions, _jobs, page, demo)
        use_draining_server(lambda: _context().gateway)
        application.router = app.router  # type: ignore[attr-defined]
        use_protocol_factory(application, has_fast_path=settings().wire)
        return application


def _context() -> ServerContext:
    context: ServerContext = bentoml.get_current_service().context
    return context


def _versions() -> Rollout:
    versions: Rollout = bentoml.get_current_service().versions
    return versions


def _jobs() -> JobsApi | None:
    jobs: JobsApi | None = bentoml.get_current_service().jobs
    return jobs


class GatewayCore:
    """Describe what the Gateway does, whatever its models are."""

    settings: Settings
    served: Sequence[ServedModel]
    remote: Sequence[str]

    def __init__(self) -> None:
        threads = self.settings.lanes
        pool = ThreadPoolExecutor(threads, thread_name_prefix="lectern-infer")
        reading_pool = ThreadPoolExecutor(threads, thread_name_prefix="lectern-read")
        scheduler = FairScheduler(threads)
        access = open_access(self.settings)
        self.gateway = InferenceGateway(
            endpoints={},
            settings=self.settings,
            pool=reading_pool,
            keeps_requests=access is not None and access.has_admin,
        )
        self.context = ServerContext(gateway=self.gateway, access=access)
        self.gateway.windows = DriftWindows(metrics_location(), self._manifests)
        backends: dict[str, Backend] = {}
        for family in FAMILIES:
            models = [model for model in self.served if model.manifest.family == family.name]
            if not models:
                continue
            backend: Backend
            if family.name in self.remote:
                backend = RemoteBackend(
                    getattr(self, f"{family.name}_runner"), FairScheduler(IN_FLIGHT, family.name), self.settings
                )
            else:
                runner = runner_class(family, self.served, self.settings)()
                backend = InProcessBackend(runner, pool, scheduler, self.settings)
            for model in models:
                backends[model.name] = backend
                self.gateway.endpoints[model.name] = backend.load_initial(model)
        self.versions = Rollout(self.gateway, backends, self.settings.pinned_models)
        self.jobs = open_jobs(self.gateway, access)
        self.tasks: list[asyncio.Task[None]] = []

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def begin(self) -> None:
        """Ask the remote runners where they really compute, say it in the log, and look after oneself from now on."""
        for name in self.remote:
            providers = await getattr(self, f"{name}_runner").to_async.call("providers")
            for endpoint in self.gateway.endpoints.values():
                endpoint.provider = providers.get(endpoint.manifest.tag, endpoint.provider)
        await self.versions.catch_up()
        endpoints = self.gateway.endpoints.values()
        # Models warmed up in another thread: what is made at first use, or by a device per thread, is made here.
        await asyncio.gather(*(try_out(endpoint) for endpoint in endpoints for _ in range(IN_FLIGHT)))
        merge_dead_processes()
        keep_reserve()
        device = Device.CUDA if self.settings.uses_cuda else Device.CPU
        initialise([(endpoint.manifest, endpoint.provider) for endpoint in endpoints], device)
        for endpoint in endpoints:
            manifest = endpoint.manifest
            show_model(manifest, endpoint.provider, is_live=True, installed=installed_at(manifest.tag))
        if self.settings.tls_certificate:
            show_certificate(read_certificate(self.settings.tls_certificate))
        settle()
        self.tasks = [
            asyncio.create_task(work) for work in (beat(worker_name(), len(endpoints)), self.versions.follow())
        ]
        if self.jobs is not None:
            self.jobs.begin()
        for endpoint in endpoints:
            is_elsewhere = endpoint.provider != CUDA_PROVIDER and self._wants_cuda(endpoint.manifest)
            say = logger.warning if is_elsewhere else logger.info
            tag, provider, digest = endpoint.manifest.tag, endpoint.provider, endpoint.manifest.digest
            told = {"event": "ready", "model": tag, "provider": provider, "digest": digest}
            say("%s ready on %s, %s", tag, provider, digest[:12], extra=told)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def end(self) -> None:
        """Let running jobs pause before this process ends."""
        if self.jobs is not None:
            await self.jobs.end()

    def _wants_cuda(self, manifest: Manifest) -> bool:
        return self.settings.device_for(manifest) is not Device.CPU

    def _manifests(self) -> list[Manifest]:
        return [endpoint.manifest for endpoint in [*self.gateway.endpoints.values()]]

    async def __is_ready__(self) -> bool:
        """Return whether every remote runner answers in time."""

        async def ready(name: str) -> bool:
            runner = getattr(self, f"{name}_runner")
            try:
                return not hasattr(runner, "is_ready") or await asyncio.wait_for(runner.is_ready(1), READY_SECONDS)
            except Exception:  # the border to another process: any failure means not ready
                return False

        return all(await asyncio.gather(*map(ready, self.remote)))


def settle() -> None:
    """Take everything loaded so far out of the garbage collector's sight, and let it look more rarely.

    Its full collections went through a few hundred thousand objects that live for ever, and were the p99.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def _api(model: ServedModel) -> Any:
    """Return a BentoML API for one model, so that BentoML's schema, clients and ``depends()`` know it."""

    async def predict(
        self: GatewayCore, instances: list[dict[str, Any]], explain: bool = False, outlier: bool = False
    ) -> dict[str, Any]:
        endpoint = self.gateway.find(model.name)
        body = msgspec.json.encode({"instances": instances, "explain": explain, "outlier": outlier})
        answer: dict[str, Any] = msgspec.json.decode(await self.gateway.answer(endpoint, body))
        return answer

    predict.__doc__ = model.manifest.summary
    predict.__name__ = api_name(model.name)  # BentoML 1.4 ignores the decorator's own ``name``
    return bentoml.api(predict, route=f"/v1/models/{model.name}/predict")


def api_name(model: str) -> str:
    """Return the method of BentoML's clients that asks this model, e.g. ``predict_image_vit``."""
    return "predict_" + model.replace("-", "_")


def build(settings: Settings) -> Any:
    """Return the Gateway service for these settings."""
    find_exporter(settings.traces)
    Access(settings)  # keys that cannot be read end the start here
    served = find_models(settings.wanted_models)
    families = [f for f in FAMILIES if any(model.manifest.family == f.name for model in served)]
    check_devices(settings, served)
    remote = remote_families(served, settings)
    body: dict[str, Any] = {
        "__doc__": "Predictions of certified models.",
        "settings": settings,
        "served": served,
        "remote": remote,
    }
    for family in families:
        if family.name in remote:
            service = runner_service(family, served, settings, remote, count_devices())
            body[f"{family.name}_runner"] = bentoml.depends(service)
    for model in served:
        body[api_name(model.name)] = _api(model)
        body["stored_" + model.name.replace("-", "_")] = bentoml.models.BentoModel(model.manifest.tag)
    gateway = type("Gateway", (GatewayCore,), body)
    service = bentoml.service(
        name="lectern_gateway",
        service_class=FrontedService,
        workers=settings.workers,
        traffic={"timeout": 60},
        runner_probe={"enabled": False, "timeout": 1, "period": 10},
        **COMMON,
    )
    return service(gateway)


use_draining_server()
try:
    configure(settings().log)
    close_control()
    Gateway = build(settings())
except LecternError as error:  # BentoML imports this module: one line for the operator instead of its traceback
    raise SystemExit(format_fatal(error)) from None
