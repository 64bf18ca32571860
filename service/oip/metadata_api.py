"""Answer requests about the service and its models; load and unload models."""

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from models.errors import (
    Fault,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    UnknownModel,
    UnknownRoute,
    UnknownVersion,
)
from models.payload.json_payload import from_decoding, to_json
from service.inference.endpoint import Endpoint
from service.inference.gateway import InferenceGateway
from service.oip.payload import tensor_payloads
from service.oip.request import describe_faults
from service.oip.statistics import statistics
from service.rollout.admin_api import stored_versions
from service.rollout.rollout import Rollout
from service.telemetry.build_info import VERSION
from service.telemetry.exposition import MetricsPage

NAME = "lectern"
PLATFORM = "onnx_onnxv1"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "statistics",
    "schedule_policy",
    "parameters",
)
REPOSITORY_EXTENSION = "model_repository"
_MODEL = r"/v2/models/([a-z][a-z0-9-]{0,39})(?:/versions/([A-Za-z0-9][A-Za-z0-9._-]{0,62}))?"
INFER_ROUTE = re.compile(_MODEL + "/infer")
MODEL_ROUTE = re.compile(_MODEL + "(?:/(ready|config|stats))?")
REPOSITORY_ROUTE = re.compile(r"/v2/repository/models/([a-z][a-z0-9-]{0,39})/(load|unload)")
READY, UNAVAILABLE = "READY", "UNAVAILABLE"


class LoadParameters(msgspec.Struct, frozen=True):
    """Describe which version is to be loaded; without one, the newest in the model store."""

    version: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = ""
    config: Any = None


class LoadRequest(msgspec.Struct, frozen=True):
    """The body of ``load``."""

    parameters: LoadParameters = LoadParameters()


class RepositoryQuery(msgspec.Struct, frozen=True):
    """The body of ``index``."""

    ready: bool = False


def check_version(endpoint: Endpoint, version: str | None) -> None:
    """Let a version pass that serves, or none.

    Raises:
        UnknownVersion: If another one serves.
    """
    if version is not None and version != endpoint.manifest.version:
        raise UnknownVersion(f"version {endpoint.manifest.version} of {endpoint.name} is served, and no other")


class MetadataApi:
    """Everything below ``/v2`` but predictions.

    Args:
        gateway: With the models.
        versions: To bring models live with, where an operator may ask for that.
        metrics: Of all processes; ``None`` for this one's.
    """

    def __init__(self, gateway: InferenceGateway, versions: Rollout | None, metrics: MetricsPage | None) -> None:
        self._gateway, self._versions, self._metrics = gateway, versions, metrics

    async def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Return the answer to one request.

        Raises:
            RequestError: If the caller can mend it; never as 422, of which the protocol knows nothing.
        """
        try:
            return await self._answer(method, path, body)
        except InvalidRequest as error:
            raise MalformedRequest("; ".join(describe_faults(error))) from error

    async def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if path == "/v2/repository/index":
            _allow(method, "POST")
            return to_json(await self._index(_read(body, RepositoryQuery)))
        match = REPOSITORY_ROUTE.fullmatch(path)
        if match is not None and self._versions is not None:
            _allow(method, "POST")
            await self._change(self._versions, match[1], match[2], body)
            return b""
        page = self._page(path)
        _allow(method, "GET", "HEAD")
        told = page()
        return b"" if told is None else to_json(told)

    def _page(self, path: str) -> Callable[[], Any]:
        """Return what makes the page at a path.

        Raises:
            UnknownRoute: If there is none.
            UnknownModel: If its model is not served.
            UnknownVersion: If another version is.
        """
        pages: dict[str, Callable[[], Any]] = {
            "/v2": self._server,
            "/v2/": self._server,
            "/v2/health/live": lambda: None,
            "/v2/models/stats": lambda: self._statistics([*self._gateway.endpoints.values()]),
        }
        match = MODEL_ROUTE.fullmatch(path)
        if path in pages or match is None:
            if path not in pages:
                raise UnknownRoute("no such path; the protocol's are in docs/operations.md")
            return pages[path]
        endpoint = self._gateway.find(match[1])
        check_version(endpoint, match[2])
        of_model: dict[str | None, Callable[[], Any]] = {
            None: lambda: metadata(endpoint),
            "ready": lambda: None,
            "config": lambda: config(endpoint, self._gateway.settings.max_instances),
            "stats": lambda: self._statistics([endpoint]),
        }
        return of_model[match[3]]

    def _server(self) -> dict[str, Any]:
        more = [] if self._versions is None else [REPOSITORY_EXTENSION]
        return {"name": NAME, "version": VERSION, "extensions": [*EXTENSIONS, *more]}

    def _statistics(self, endpoints: list[Endpoint]) -> dict[str, Any]:
        return statistics([endpoint.manifest for endpoint in endpoints], self._metrics)

    async def _index(self, look: RepositoryQuery) -> list[dict[str, str]]:
        """Return the models that serve, and where an operator asks, those of the store that could."""
        live = {(name, endpoint.manifest.version): endpoint for name, endpoint in self._gateway.endpoints.items()}
        found = [{"name": name, "version": version, "state": READY, "reason": ""} for name, version in live]
        if look.ready or self._versions is None:
            return found
        names = [*self._gateway.endpoints, *self._versions.unloaded]
        for name, stored in (await asyncio.to_thread(stored_versions, names)).items():
            reason = "unloaded" if name in self._versions.unloaded else "another version is live"
            found += [
                {"name": name, "version": version, "state": UNAVAILABLE, "reason": reason}
                for version in stored
                if (name, version) not in live
            ]
        return found

    async def _change(self, versions: Rollout, name: str, verb: str, body: bytes) -> None:
        if name not in self._gateway.endpoints and name not in versions.unloaded:
            raise UnknownModel("no such model")
        if verb == "unload":
            if name in self._gateway.endpoints:
                await versions.unload(name)
            return
        asked = _read(body, LoadRequest).parameters
        if asked.config is not None:
            reason = "a model's configuration is in its artifact; send parameters.version to choose one"
            raise InvalidRequest(reason, [Fault(("parameters", "config"), reason)])
        stored = (await asyncio.to_thread(stored_versions, [name]))[name]
        if not (asked.version or stored):
            raise UnknownVersion(f"the model store holds no version of {name}")
        await versions.load(name, asked.version or stored[-1])


def metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Return a model's tensors; ``alternatives`` are what it takes and gives beside those that are listed."""
    signature = tensor_payloads(endpoint).signature
    return {
        "name": endpoint.name,
        "versions": [endpoint.manifest.version],
        "platform": PLATFORM,
        "inputs": [port.metadata for port in signature.inputs],
        "outputs": [port.metadata for port in signature.outputs],
        "alternatives": {
            "inputs": [[port.metadata for port in ports] for ports in signature.alternatives],
            "outputs": [port.metadata for port in signature.attention],
        },
    }


def config(endpoint: Endpoint, max_instances: int) -> dict[str, Any]:
    """Return a model's configuration, as Triton's clients read it."""
    signature, manifest = tensor_payloads(endpoint).signature, endpoint.manifest
    is_batched = signature.is_batched
    told: dict[str, Any] = {
        "name": endpoint.name,
        "platform": PLATFORM,
        "max_batch_size": max_instances if is_batched else 0,
        "input": [port.config(is_batched=is_batched) for port in signature.inputs],
        "output": [port.config(is_batched=is_batched) for port in signature.outputs],
        "parameters": {
            key: {"string_value": value}
            for key, value in (
                ("digest", manifest.digest),
                ("family", manifest.family),
                ("task", manifest.task),
                ("provider", endpoint.provider),
            )
        },
    }
    if is_batched:
        told["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
    return told


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise MethodNotAllowed(f"only {allowed[0]} is allowed here", ", ".join(allowed))


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind) if body.strip() else kind()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise from_decoding(error) from error
