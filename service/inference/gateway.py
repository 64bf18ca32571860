"""The gateway's core: requests to any served model, from a whole body to an answer."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

from models.errors import Draining, HttpError, UnknownModel
from models.payload.json_payload import JSON
from service.auth.access import Access
from service.inference.endpoint import Endpoint
from service.inference.request import AwaitedExchange, Exchange
from service.inference.time_sharing import TimeSharing
from service.messages.body_memory import LONG_BODY_BYTES, BodyRoom, crowded
from service.messages.response import new_request_id
from service.settings import Settings
from service.telemetry.drift_window import Windows
from service.telemetry.http_metrics import Responses

# More take long to encode however short their body: 1,024 requests for resident nodes, 32 kB, took 190 ms.
MANY_INSTANCES = 64


@dataclass(slots=True, kw_only=True)
class Desk:
    """Where requests for any model are answered, by REST, by BentoML's own API or in a test.

    Attributes:
        endpoints: The live version of each model; changes while the service runs.
        settings: The deployment's.
        pool: Threads for what would hold up the event loop.
        access: Who may ask, where not everybody may.
        keeps_requests: Whether each model's last requests are kept in memory, to try a new version on.
        is_draining: Whether the service is stopping, so that nothing new is begun.
        preparation: What is done in ``pool``.
        body_room: How many bytes of bodies are held.
        responses: Counts all answers to HTTP requests.
        windows: How far recent requests are from the training data.
    """

    endpoints: dict[str, Endpoint]
    settings: Settings
    pool: ThreadPoolExecutor
    access: Access | None = None
    keeps_requests: bool = False
    is_draining: bool = False
    windows: Windows | None = None
    responses: Responses = field(default_factory=Responses)
    preparation: TimeSharing = field(init=False)
    body_room: BodyRoom = field(init=False)

    def __post_init__(self) -> None:
        """Share the threads and the memory."""
        self.preparation = TimeSharing(self.pool)
        self.body_room = BodyRoom(self.settings.max_arriving_bytes)

    def find(self, name: str) -> Endpoint:
        """The model's endpoint.

        Raises:
            UnknownModel: If it is not served.
        """
        try:
            return self.endpoints[name]
        except KeyError:
            raise UnknownModel(f"no such model; served are {', '.join(self.endpoints)}") from None

    def submit(self, exchange: Exchange, body: bytes, media_type: str, timeout_seconds: float) -> None:
        """Put a whole body to the model; the exchange's ``send`` gets the answer, maybe before this returns."""
        exchange.started = monotonic()
        exchange.deadline = exchange.started + timeout_seconds
        endpoint = exchange.endpoint
        endpoint.ledger.read(len(body))
        try:
            if self.is_draining:
                raise Draining("the service is stopping; ask another one")
            batcher = endpoint.batcher
            if batcher.units and not (
                batcher.room and batcher.wait_seconds < min(timeout_seconds / 2, self.settings.queue_seconds)
            ):
                exchange.finish(batcher.refusal())
                return
            if len(body) > LONG_BODY_BYTES:
                loop = asyncio.get_running_loop()
                self._prepare(exchange, _read_and_encode(exchange, body, media_type, loop), len(body))
                return
            question = exchange.read(body, media_type)
            if len(question.instances) > MANY_INSTANCES or exchange.holds_file(question):
                self._prepare(exchange, exchange.encode_stepwise(question), len(body))
                return
            exchange.encode(question)
            batcher.submit(exchange)
            if self.keeps_requests and not (exchange.takes_tensors or exchange.is_load_test):
                endpoint.recent.append(question.instances[0])
        except Exception as error:  # the process border
            exchange.finish(error)

    def _prepare(self, exchange: Exchange, steps: Iterator[None], length: int) -> None:
        """Prepare in threads what would hold up the event loop, and count its body; answer when time is over."""
        if not self.body_room.fits(length):
            raise crowded()
        exchange.expire_in_time()

        def submit(prepared: "asyncio.Future[None]") -> None:
            self.body_room.hold(-length)
            if exchange.timer is not None:
                exchange.timer.cancel()
            try:
                prepared.result()
                if not exchange.is_over:
                    exchange.endpoint.batcher.submit(exchange)
            except Exception as error:  # the process border
                exchange.finish(error)

        prepared = self.preparation.run(_while_wanted(exchange, steps))
        self.body_room.hold(length)
        prepared.add_done_callback(submit)

    async def answer(self, endpoint: Endpoint, body: bytes) -> bytes:
        """The JSON answer to one JSON body, for BentoML's own API.

        Raises:
            RequestError: If the caller can mend it.
            ServingError: If it is the service's fault or limit.
        """
        exchange = AwaitedExchange(endpoint, new_request_id())
        try:
            self.submit(exchange, body, JSON, self.settings.request_timeout_seconds)
            answer = await exchange.answered
        finally:
            exchange.abandon()
        if isinstance(answer, HttpError):
            raise answer
        return answer


def _read_and_encode(
    exchange: Exchange, body: bytes, media_type: str, loop: asyncio.AbstractEventLoop
) -> Iterator[None]:
    question = exchange.read(body, media_type)
    loop.call_soon_threadsafe(exchange.expire_in_time)  # the body may have left less of it
    yield
    yield from exchange.encode_stepwise(question)


def _while_wanted(exchange: Exchange, steps: Iterator[None]) -> Iterator[None]:
    """Take no step more once the caller has left, or has its answer."""
    while not exchange.is_over and next(steps, exchange) is not exchange:
        yield
