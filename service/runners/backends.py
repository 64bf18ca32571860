"""Load models where they compute: in this process, or in the family's own."""

import asyncio
import logging
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from models.card import Array, Feeds
from models.errors import ArtifactMismatch
from models.payload.json_payload import JSON
from models.runtime.predictor import Run
from models.runtime.session import Session, open_artifact
from service.inference.endpoint import Endpoint, make_endpoint
from service.inference.scheduler import FairScheduler
from service.runners.services import FamilyRunner, OpenedModel, RemoteModel, open_warm
from service.settings import Settings
from service.store.catalog import ServedModel

logger = logging.getLogger("lectern.places")


class Backend(Protocol):
    """Describe where the models of a family compute."""

    def load_initial(self, model: ServedModel) -> Endpoint:
        """Return the endpoint of a model that the runner opened at its start."""

    async def load(self, model: ServedModel) -> Endpoint:
        """Return the endpoint of another version, open and warm.

        Raises:
            ArtifactError: If it must not be served.
        """


class InProcessRunner:
    """Runs feeds in this process: in a thread that leaves the event loop free, or at once."""

    def __init__(self, pool: ThreadPoolExecutor, run: Run) -> None:
        self._pool, self._run = pool, run

    async def run(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name, computed in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, feeds, outputs)

    async def run_now(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name, computed here."""
        return self._run(feeds, outputs)


class InProcessBackend:
    """In this process."""

    def __init__(
        self, runner: FamilyRunner, pool: ThreadPoolExecutor, scheduler: FairScheduler, settings: Settings
    ) -> None:
        self._runner, self._pool, self._scheduler, self._settings = runner, pool, scheduler, settings

    def load_initial(self, model: ServedModel) -> Endpoint:
        """Return the endpoint of a model that is open."""
        return self._make(self._runner.opened.pop(model.manifest.tag))

    async def load(self, model: ServedModel) -> Endpoint:
        """Open and warm it up in a thread."""
        return self._make(await asyncio.to_thread(open_warm, model, self._settings))

    def _make(self, opened: OpenedModel) -> Endpoint:
        session, pace = opened
        runner = InProcessRunner(self._pool, session.run)
        endpoint = make_endpoint(session, session.provider, runner, self._scheduler, self._settings, pace)
        _release(endpoint, self._scheduler)
        return endpoint


class RemoteBackend:
    """In the family's own process; here is only what encodes and decodes."""

    def __init__(self, runner: Any, scheduler: FairScheduler, settings: Settings) -> None:
        self._runner, self._scheduler, self._settings = runner, scheduler, settings
        self._tasks = set[asyncio.Task[Any]]()

    def load_initial(self, model: ServedModel) -> Endpoint:
        """Return the endpoint of a model that the runner has; where it computes is not known yet."""
        return self._make(open_artifact(model.folder))

    async def load(self, model: ServedModel) -> Endpoint:
        """Let the runner open it."""
        session = await asyncio.to_thread(open_artifact, model.folder)
        tag = model.manifest.tag
        answer = await self._runner.to_async.call("load", tag)
        if "error" in answer:
            raise ArtifactMismatch(answer["error"])
        endpoint = self._make(session)
        endpoint.provider = answer["provider"]
        loop = asyncio.get_running_loop()
        weakref.finalize(endpoint, loop.call_soon_threadsafe, self._begin_close, tag).atexit = False
        return endpoint

    def _make(self, session: Session) -> Endpoint:
        there = RemoteModel(self._runner, session.manifest.tag)
        endpoint = make_endpoint(session, session.provider, there, self._scheduler, self._settings)
        _release(endpoint, self._scheduler)
        return endpoint

    def _begin_close(self, tag: str) -> None:
        task = asyncio.get_running_loop().create_task(self._close(tag))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self, tag: str) -> None:
        try:
            await self._runner.to_async.call("unload", tag)
        except Exception:  # the border to another process; its memory is all that is lost
            logger.exception("%s was not closed", tag)


async def try_out(endpoint: Endpoint) -> None:
    """Put the documentation's example through everything that a request goes through but its counting.

    Raises:
        RunnerFailed: If the model fails on it.
    """
    predictor = endpoint.predictor
    body = msgspec.json.encode({"instances": [predictor.card.example(predictor.assets)]})
    samples = predictor.encode(endpoint.payloads.read(body, JSON).instances)
    feeds = predictor.card.collate(samples)
    outputs = await endpoint.batcher.runner.run(feeds, predictor.wanted(explain=False))
    endpoint.write(predictor.decode(outputs, samples))


def _release(endpoint: Endpoint, scheduler: FairScheduler) -> None:
    """Give the endpoint's share up when its last request is answered and nobody holds it any more."""
    weakref.finalize(endpoint, scheduler.remove, endpoint.share).atexit = False
