"""The gateway's core: for every served model a predictor, a micro-batcher and typed decoders."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from models.errors import DeadlineExceeded, UnknownModel
from models.family import AnyCard, Array, Feeds, Prediction
from models.manifest import Manifest
from models.predictor import Predictor, open_predictor
from models.session import Session
from service.batching import AsyncRun, MicroBatcher
from service.errors import from_decoding
from service.settings import Settings


def request_type(card: AnyCard, max_instances: int) -> type[msgspec.Struct]:
    """The body of ``predict`` for one card; models of one card share the type."""
    return _request_type(f"{card.family}-{card.task}-request", card.instance, max_instances)  # type: ignore[arg-type]


@cache
def _request_type(name: str, instance: Any, max_instances: int) -> type[msgspec.Struct]:
    instances = Annotated[list[instance], Meta(min_length=1, max_length=max_instances)]
    explain = Annotated[bool, Meta(description="Add the attention that made each answer.")]
    fields: list[Any] = [("instances", instances), ("explain", explain, False)]
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One served model, ready to answer."""

    manifest: Manifest
    provider: str
    predictor: Predictor
    batcher: MicroBatcher
    request: type[msgspec.Struct]
    decoder: msgspec.json.Decoder[Any]
    example: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.model

    def decode(self, body: bytes, media_type: str) -> tuple[Sequence[Any], bool]:
        """Instances of a body and whether an explanation is wanted.

        Raises:
            MalformedRequest: If the body is not JSON.
            InvalidRequest: If a type or a bound is wrong.
        """
        reader = self.predictor.card.from_media.get(media_type)
        if reader is not None:
            return [reader(body)], False
        try:
            request = self.decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise from_decoding(error) from error
        return request.instances, request.explain


def make_endpoint(session: Session, provider: str, run: AsyncRun, settings: Settings) -> Endpoint:
    """Put the parts of one model together.

    Args:
        session: The verified artifact, open here; it makes the documentation's example.
        provider: Where ``run`` computes.
        run: The runner, embedded or remote.
        settings: The deployment's.
    """
    manifest, predictor = session.manifest, open_predictor(session)
    request = request_type(predictor.card, settings.max_instances)
    example = predictor.card.example(predictor.assets)
    return Endpoint(
        manifest=manifest,
        provider=provider,
        predictor=predictor,
        batcher=MicroBatcher(predictor, run, name=manifest.model, queue_limit=settings.queue_limit),
        request=request,
        decoder=msgspec.json.Decoder(request),
        example={"model": manifest.tag, "predictions": predictor.predict([example])},
    )


def in_thread(pool: ThreadPoolExecutor, run: Any, model: str) -> AsyncRun:
    """An awaitable form of an embedded runner's ``run``."""

    async def awaitable(feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        return await asyncio.get_running_loop().run_in_executor(pool, run, model, feeds, outputs)

    return awaitable


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where requests for any model are answered, by REST, by BentoML's own API or in a test."""

    endpoints: Mapping[str, Endpoint]
    settings: Settings
    pool: ThreadPoolExecutor

    def find(self, name: str) -> Endpoint:
        """The model's endpoint.

        Raises:
            UnknownModel: If it is not served.
        """
        try:
            return self.endpoints[name]
        except KeyError:
            raise UnknownModel(f"no such model; served are {', '.join(self.endpoints)}") from None

    async def answer(self, endpoint: Endpoint, body: bytes, media_type: str) -> dict[str, Any]:
        """The whole answer to one body.

        Raises:
            RequestError: If the caller can mend it.
            ServingError: If it is the service's fault or limit.
        """
        instances, explain = endpoint.decode(body, media_type)
        try:
            async with asyncio.timeout(self.settings.request_timeout_seconds):
                predictions = await self._predict(endpoint, instances, explain)
        except TimeoutError as error:
            raise DeadlineExceeded("no answer within the time limit") from error
        return {"model": endpoint.manifest.tag, "predictions": predictions}

    async def _predict(self, endpoint: Endpoint, instances: Sequence[Any], explain: bool) -> list[Prediction]:
        encode = partial(endpoint.predictor.encode, instances, explain=explain)
        if endpoint.predictor.card.from_media:  # decoding files takes milliseconds: not on the event loop
            samples = await asyncio.get_running_loop().run_in_executor(self.pool, encode)
        else:
            samples = encode()
        return await endpoint.batcher.submit(samples, explain=explain)
