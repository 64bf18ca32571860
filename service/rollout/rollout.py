"""Another version of a served model goes live, without a lost request.

Certificate, warm-up and a trial on recent requests come first; then one assignment makes all later requests the new
version's, while those under way are answered by the old one. Other workers follow a file.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from models.artifact.manifest import Manifest
from models.errors import ActivationRefused, ArtifactError, ArtifactMissing, Fault, UnknownVersion
from service.inference.endpoint import Endpoint
from service.inference.gateway import InferenceGateway
from service.rollout.comparison import VersionComparison, check_change_rate, compare
from service.runners.backends import Backend
from service.store.active_versions import ActiveVersion, path, read_active, write_active
from service.store.catalog import find_version, installed_at
from service.telemetry.state_metrics import (
    ACTIVATED,
    REFUSED,
    ROLLED_BACK,
    count_activation,
    count_mismatch,
    show_model,
)

logger = logging.getLogger("lectern.versions")
FOLLOW_SECONDS = 1.0


class Activated(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what became of an activation.

    Attributes:
        model: Its name.
        version: What serves now.
        digest: Of its manifest.
        previous: What served before.
        comparison: Of both on recent requests; none where nothing changed or a version came back.
    """

    model: str
    version: str
    digest: str
    previous: str
    comparison: VersionComparison | None = None


class Rollout:
    """The live versions of this process's models.

    Attributes:
        gateway: Where requests find them.
        backends: Where each model's family computes.
        pinned: Models whose version the settings name; they are never changed.
        unloaded: Models that were taken out of service, by what they served last.
    """

    def __init__(self, gateway: InferenceGateway, backends: Mapping[str, Backend], pinned: frozenset[str]) -> None:
        self.gateway, self.backends, self.pinned = gateway, backends, pinned
        self.unloaded: dict[str, Manifest] = {}
        self._lock = asyncio.Lock()
        self._seen = 0

    async def activate(self, name: str, version: str, most_changed: float = 1.0) -> Activated:
        """Bring a version of the model store live.

        Args:
            name: A served model.
            version: Of the model store.
            most_changed: Largest allowed part of recent requests that it answers otherwise, 0 to 1.

        Raises:
            UnknownModel: If the model is not served.
            UnknownVersion: If the store has no such version.
            ActivationRefused: If the version must not go live; the old one goes on.
        """
        async with self._lock:
            old = self._changeable(name)
            if old.manifest.version == version:
                return _activated(old, read_active().get(name, ActiveVersion(version, version)).previous)
            with _counted(name, ACTIVATED):
                new = await self._bring(old.manifest, version)
                comparison = await asyncio.to_thread(compare, old.predictor, new.predictor, [*old.recent])
                check_change_rate(comparison, most_changed)
                self._switch(old, new)
            return _activated(new, old.manifest.version, comparison)

    async def roll_back(self, name: str) -> Activated:
        """Bring the version back that was live before.

        Raises:
            UnknownModel: If the model is not served.
            UnknownVersion: If there was none, or the store does not have it any more.
            ActivationRefused: If it must not go live.
        """
        async with self._lock:
            old = self._changeable(name)
            live = read_active().get(name)
            if live is None:
                raise UnknownVersion(f"no other version of {name} has been live")
            with _counted(name, ROLLED_BACK):
                new = await self._bring(old.manifest, live.previous)
                self._switch(old, new)
            return _activated(new, old.manifest.version)

    async def load(self, name: str, version: str) -> None:
        """Bring a version live, also of a model that was taken out of service.

        Raises:
            UnknownModel: If the model is neither served nor unloaded.
            HttpError: As ``activate``.
        """
        if name not in self.unloaded:
            await self.activate(name, version)
            return
        async with self._lock:
            with _counted(name, ACTIVATED):
                before = self.unloaded[name]
                new = await self._bring(before, version)
                _write(name, ActiveVersion(version, before.version))
                self._return(new)

    async def unload(self, name: str) -> None:
        """Take a model out of service, in all workers and also after a restart, until it is loaded again.

        Raises:
            UnknownModel: If the model is not served.
            ActivationRefused: If it must not be unloaded, or that cannot be written down.
        """
        async with self._lock:
            old = self._changeable(name)
            version = old.manifest.version
            live = read_active().get(name, ActiveVersion(version, version))
            _write(name, ActiveVersion(version, live.previous, is_unloaded=True))
            self._retire(old)

    async def follow(self) -> None:
        """Go with what other workers bring live, for ever."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.catch_up()
            except Exception:  # the process border: whatever it is, this worker's versions serve on
                logger.exception("this worker cannot follow the others' versions")

    async def catch_up(self) -> None:
        """Go with what other workers, or this one before it was started again, have written down."""
        try:
            changed = path().stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed == self._seen:
            return
        self._seen = changed
        async with self._lock:
            for name, live in read_active().items():
                if name not in self.pinned:
                    await self._go_with(name, live)

    async def _go_with(self, name: str, live: ActiveVersion) -> None:
        old = self.gateway.endpoints.get(name)
        if old is None:
            if name in self.unloaded and not live.is_unloaded:
                self._return(await self._bring(self.unloaded[name], live.version))
        elif live.is_unloaded:
            self._retire(old)
        elif old.manifest.version != live.version:
            self._replace(old, await self._bring(old.manifest, live.version))

    def _changeable(self, name: str) -> Endpoint:
        old = self.gateway.find(name)
        if name in self.pinned:
            raise ActivationRefused(f"LECTERN_MODELS names the version of {name}")
        return old

    async def _bring(self, old: Manifest, version: str) -> Endpoint:
        tag = f"{old.model}:{version}"
        try:
            model = await asyncio.to_thread(find_version, tag)
            if (model.manifest.family, model.manifest.task) != (old.family, old.task):
                raise ActivationRefused(f"{tag} is of another family or task")
            return await self.backends[old.model].load(model)
        except ArtifactMissing as error:
            raise UnknownVersion(f"{tag} is not in the model store") from error
        except ArtifactError as error:
            count_mismatch(old.model)
            logger.error("%s was refused: %s", tag, error)
            raise ActivationRefused("the artifact must not be served", [Fault(("version",), str(error))]) from error

    def _switch(self, old: Endpoint, new: Endpoint) -> None:
        """Write first: a worker that starts now, or dies in a moment, takes up the new version."""
        _write(old.name, ActiveVersion(new.manifest.version, old.manifest.version))
        self._replace(old, new)

    def _retire(self, old: Endpoint) -> None:
        """Answer what is under way, and nothing more."""
        self.unloaded[old.name] = old.manifest
        del self.gateway.endpoints[old.name]
        show_model(old.manifest, old.provider, is_live=False)
        logger.info("%s is unloaded", old.manifest.tag)

    def _return(self, new: Endpoint) -> None:
        self.gateway.endpoints[new.name] = new
        del self.unloaded[new.name]
        show_model(new.manifest, new.provider, is_live=True, installed=installed_at(new.manifest.tag))
        logger.info("%s is live again, %s", new.manifest.tag, new.manifest.digest[:12])

    def _replace(self, old: Endpoint, new: Endpoint) -> None:
        new.recent.extend(old.recent)
        self.gateway.endpoints[old.name] = new
        show_model(old.manifest, old.provider, is_live=False)
        show_model(new.manifest, new.provider, is_live=True, installed=installed_at(new.manifest.tag))
        logger.info("%s is live, %s; before it %s", new.manifest.tag, new.manifest.digest[:12], old.manifest.tag)


def _write(name: str, live: ActiveVersion) -> None:
    try:
        write_active(read_active() | {name: live})
    except OSError as error:
        raise ActivationRefused(f"the choice cannot be written down: {error.strerror}") from error


@contextmanager
def _counted(model: str, outcome: str) -> Iterator[None]:
    """Count an activation: as its outcome, or as refused."""
    try:
        yield
    except Exception:
        count_activation(model, REFUSED)
        raise
    count_activation(model, outcome)


def _activated(endpoint: Endpoint, previous: str, comparison: VersionComparison | None = None) -> Activated:
    manifest = endpoint.manifest
    return Activated(
        model=manifest.model,
        version=manifest.version,
        digest=manifest.digest,
        previous=previous,
        comparison=comparison,
    )


def overview(gateway: InferenceGateway, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what serves, what served before it, and what the store has beside, by model."""
    live = read_active()
    return {
        "models": [
            {
                "name": name,
                "version": endpoint.manifest.version,
                "digest": endpoint.manifest.digest,
                "previous": live[name].previous if name in live else None,
                "stored": stored.get(name, []),
            }
            for name, endpoint in gateway.endpoints.items()
        ]
    }
