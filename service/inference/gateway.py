"""Answer requests to any served model, from a whole body to an answer."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

from models.errors import DeadlineExceeded, Draining, HttpError, UnknownModel
from models.payload.json_payload import JSON
from service.inference.endpoint import Endpoint
from service.inference.json_codec import JSON_CODEC
from service.inference.request import InferenceRequest
from service.inference.request_queue import NO_TIME
from service.inference.time_sharing import TimeSharingPool
from service.messages.body_memory import LONG_BODY_BYTES, BodyMemory, too_many_bodies_in_flight
from service.messages.request_id import new_request_id
from service.settings import Settings
from service.telemetry.drift_window import DriftWindows

# More take long to encode however short their body: 1,024 requests for resident nodes, 32 kB, took 190 ms.
MANY_INSTANCES = 64


@dataclass(slots=True, kw_only=True)
class InferenceGateway:
    """Takes requests for any model, whatever protocol they came by.

    Attributes:
        endpoints: The active version of each model; changes while the service runs.
        settings: The deployment's.
        pool: Threads for what would hold up the event loop.
        keeps_requests: Whether each model's last requests are kept in memory, to try a new version on.
        is_draining: Whether the service is stopping, so that nothing new is begun.
        windows: How far recent requests are from the training data.
        preparation: What is done in ``pool``.
        body_memory: How many bytes of bodies are held.
    """

    endpoints: dict[str, Endpoint]
    settings: Settings
    pool: ThreadPoolExecutor
    keeps_requests: bool = False
    is_draining: bool = False
    windows: DriftWindows | None = None
    preparation: TimeSharingPool = field(init=False)
    body_memory: BodyMemory = field(init=False)

    def __post_init__(self) -> None:
        """Share the threads and the memory."""
        self.preparation = TimeSharingPool(self.pool)
        self.body_memory = BodyMemory(self.settings.max_arriving_bytes)

    def find(self, name: str) -> Endpoint:
        """Return a model's endpoint.

        Raises:
            UnknownModel: If it is not served.
        """
        try:
            return self.endpoints[name]
        except KeyError:
            raise UnknownModel(f"no such model; served are {', '.join(self.endpoints)}") from None

    def submit(self, request: InferenceRequest, body: bytes, media_type: str, timeout_seconds: float) -> None:
        """Put a whole body to the model; the request's ``respond`` gets the answer, maybe before this returns."""
        started = request.times.started = monotonic()
        request.deadline = started + timeout_seconds
        endpoint, codec = request.endpoint, request.codec
        endpoint.counters.read(len(body))
        try:
            if self.is_draining:
                raise Draining("the service is stopping; ask another one")
            queue = endpoint.share.batcher.queue
            if queue.units and not (
                queue.room and queue.wait_seconds < min(timeout_seconds / 2, self.settings.queue_seconds)
            ):
                request.finish(queue.refusal())
                return
            if len(body) > LONG_BODY_BYTES:
                preparation = _Preparation(self, request, len(body))
                preparation.begin(preparation.read_and_encode(body, media_type))
                return
            question = codec.read(request, body, media_type)
            if len(question.instances) > MANY_INSTANCES or codec.holds_file(request, question):
                _Preparation(self, request, len(body)).begin(codec.encode_stepwise(request, question))
                return
            codec.encode(request, question)
            endpoint.share.submit(request)
            if self.keeps_requests and not (codec.wants_outputs or request.is_load_test):
                endpoint.recent.append(question.instances[0])
        except Exception as error:  # the process border
            request.finish(error)

    async def answer(self, endpoint: Endpoint, body: bytes) -> bytes:
        """Return the JSON answer to one JSON body, for BentoML's own API.

        Raises:
            RequestError: If the caller can mend it.
            ServingError: If it is the service's fault or limit.
        """
        answered: asyncio.Future[bytes | HttpError] = asyncio.get_running_loop().create_future()
        request = InferenceRequest(endpoint, JSON_CODEC, new_request_id(), answered.set_result)
        try:
            self.submit(request, body, JSON, self.settings.request_timeout_seconds)
            answer = await answered
        finally:
            request.abandon()
        if isinstance(answer, HttpError):
            raise answer
        return answer


class _Preparation:
    """The preparation of one request in threads, of what would hold up the event loop; its body is counted meanwhile.

    The request is answered when its time is over, prepared or not.
    """

    def __init__(self, gateway: InferenceGateway, request: InferenceRequest, length: int) -> None:
        self._gateway, self._request, self._length = gateway, request, length
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, steps: Iterator[None]) -> None:
        """Take the steps, and queue the request's samples after the last one.

        Raises:
            Overloaded: If there is no room for the body.
        """
        memory = self._gateway.body_memory
        if not memory.fits(self._length):
            raise too_many_bodies_in_flight()
        self._expire_in_time()
        prepared = self._gateway.preparation.run(self._while_wanted(steps))
        memory.hold(self._length)
        prepared.add_done_callback(self._submit)

    def read_and_encode(self, body: bytes, media_type: str) -> Iterator[None]:
        """Decode a long body in one step, then encode an instance a step."""
        request = self._request
        question = request.codec.read(request, body, media_type)
        self._loop.call_soon_threadsafe(self._expire_in_time)  # the body may have left less of it
        yield
        yield from request.codec.encode_stepwise(request, question)

    def _while_wanted(self, steps: Iterator[None]) -> Iterator[None]:
        """Take no step more once the caller has left, or has its answer."""
        while not self._request.ended and next(steps, self) is not self:
            yield

    def _expire_in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left, late = max(0.0, self._request.deadline - monotonic()), DeadlineExceeded(NO_TIME)
        self._timer = self._loop.call_later(left, self._request.finish, late)

    def _submit(self, prepared: "asyncio.Future[None]") -> None:
        request = self._request
        self._gateway.body_memory.hold(-self._length)
        if self._timer is not None:
            self._timer.cancel()
        try:
            prepared.result()
            if not request.ended:
                request.endpoint.share.submit(request)
        except Exception as error:  # the process border
            request.finish(error)
