"""The gateway's core: requests to any served model, from a whole body to an answer."""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

from models.bodies import JSON, Question
from models.errors import DeadlineExceeded, Draining, HttpError, UnknownModel
from models.family import Array, Feeds, Prediction, never
from models.predictor import Run
from service.access import Access
from service.admission import Admission, Header, admit
from service.body_room import LONG_BODY_BYTES, BodyRoom, crowded
from service.cooling import Cooling
from service.drift_window import Windows
from service.endpoint import Endpoint
from service.http_metrics import Responses
from service.reply import Reply, new_request_id, reply
from service.settings import Settings
from service.spare import Spare
from service.time_sharing import TimeSharing
from service.turns import ABANDONED, LATE, NO_TIME, Pending

logger = logging.getLogger("lectern.gateway")

# More take long to encode however short their body: 1,024 requests for resident nodes, 32 kB, took 190 ms.
MANY_INSTANCES = 64


class EmbeddedRunner:
    """Runs feeds in this process: in a thread that leaves the event loop free, or at once."""

    def __init__(self, pool: ThreadPoolExecutor, run: Run) -> None:
        self._pool, self._run = pool, run

    async def run(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name, computed in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, feeds, outputs)

    async def run_now(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name, computed here."""
        return self._run(feeds, outputs)


class Exchange(Pending):
    """One request to a model, from its first header to its one answer; ``send`` says where that goes.

    Attributes:
        endpoint: Whose.
        request_id: The caller's, or a new one.
        outlier: Whether the answer says how unusual each instance is.
        head_length: As in ``Admission``.
        timer: Answers in time what is still being prepared.
    """

    outlier = False
    timer: asyncio.TimerHandle | None = None
    head_length: int | None = None

    def __init__(self, endpoint: Endpoint, request_id: bytes) -> None:
        self.endpoint, self.request_id = endpoint, request_id
        endpoint.ledger.begin()

    def send(self, answer: bytes | HttpError) -> None:
        """Called once, with the JSON answer or an error; never after ``abandon``."""
        raise NotImplementedError

    def ask(self, desk: "Desk", body: bytes, media_type: str, timeout_seconds: float) -> None:
        """Put a whole body to the model; ``send`` is called when there is an answer, maybe before this returns."""
        self.started = monotonic()
        self.deadline = self.started + timeout_seconds
        endpoint = self.endpoint
        endpoint.ledger.read(len(body))
        try:
            if desk.is_draining:
                raise Draining("the service is stopping; ask another one")
            batcher = endpoint.batcher
            if batcher.units and not (
                batcher.room and batcher.wait_seconds < min(timeout_seconds / 2, desk.settings.queue_seconds)
            ):
                self.finish(batcher.refusal())
                return
            if len(body) > LONG_BODY_BYTES:
                loop = asyncio.get_running_loop()
                self._prepare(desk, self._read_and_encode(body, media_type, loop), len(body))
                return
            question = self.read(body, media_type)
            if len(question.instances) > MANY_INSTANCES or self.holds_file(question):
                self._prepare(desk, self.encode_stepwise(question), len(body))
                return
            self.encode(question)
            batcher.submit(self)
            if desk.keeps_requests and not (self.takes_tensors or self.is_load_test):
                endpoint.recent.append(question.instances[0])
        except Exception as error:  # the process border
            self.finish(error)

    # What depends on the protocol that the request came by.

    @staticmethod
    def admit(endpoint: Endpoint, headers: list[Header], found: dict[bytes, bytes], settings: Settings) -> Admission:
        """Check the request's headers; raises as ``admission.admit``."""
        return admit(headers, found, endpoint.bodies.media_types, settings)

    def read(self, body: bytes, media_type: str) -> Question:
        """What the body asks; raises as ``Bodies.read``."""
        return self.endpoint.bodies.read(body, media_type)

    def holds_file(self, question: Question) -> bool:
        """Whether there is a file to decode."""
        holds_file = self.endpoint.predictor.card.holds_file
        return holds_file is not never and any(map(holds_file, question.instances))

    def encode(self, question: Question) -> None:
        """Make its samples; raises as ``Endpoint.check`` and ``Predictor.encode``."""
        self.accept(question)
        self.samples = self.endpoint.predictor.encode(question.instances, explain=question.explain)

    def encode_stepwise(self, question: Question) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step."""
        self.accept(question)
        self.samples = []
        return self.endpoint.predictor.encode_stepwise(question.instances, self.samples, explain=question.explain)

    def accept(self, question: Question) -> None:
        """Note what is wanted beside predictions; raises as ``Endpoint.check``."""
        self.endpoint.check(question)
        self.explain, self.outlier = question.explain, question.outlier

    def write(self, predictions: list[Prediction]) -> bytes:
        """The body of the answer."""
        return self.endpoint.write(predictions, self.samples if self.outlier else None)

    def respond(self, answer: bytes | HttpError) -> Reply:
        """The whole answer around a body, or an error."""
        return reply(answer, self.request_id, digest=self.endpoint.digest)

    # The way to the model and back.

    def _read_and_encode(self, body: bytes, media_type: str, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        question = self.read(body, media_type)
        loop.call_soon_threadsafe(self._expire_in_time)  # the body may have left less of it
        yield
        yield from self.encode_stepwise(question)

    def _prepare(self, desk: "Desk", steps: Iterator[None], length: int) -> None:
        """Prepare in threads what would hold up the event loop, and count its body; answer when time is over."""
        if not desk.body_room.fits(length):
            raise crowded()
        self._expire_in_time()

        def submit(prepared: "asyncio.Future[None]") -> None:
            desk.body_room.hold(-length)
            if self.timer is not None:
                self.timer.cancel()
            try:
                prepared.result()
                if not self.is_over:
                    self.endpoint.batcher.submit(self)
            except Exception as error:  # the process border
                self.finish(error)

        prepared = desk.preparation.run(self._while_wanted(steps))
        desk.body_room.hold(length)
        prepared.add_done_callback(submit)

    def _while_wanted(self, steps: Iterator[None]) -> Iterator[None]:
        """Take no step more once the caller has left, or has its answer."""
        while not self.is_over and next(steps, self) is not self:
            yield

    def _expire_in_time(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        left, late = max(0.0, self.deadline - monotonic()), DeadlineExceeded(NO_TIME)
        self.timer = asyncio.get_running_loop().call_later(left, self.finish, late)

    def finish(self, result: list[Prediction] | Exception) -> None:
        """Answer, once."""
        if self.is_over:
            return
        self.is_over = True
        answer: bytes | HttpError
        if isinstance(result, HttpError):
            answer = result.bare()
        else:
            try:
                answer = self.write(_checked(result))
            except Exception:  # the process border: BentoML would let the caller hang until its timeout
                told = {"event": "request_failed", "request_id": self.request_id.decode()}
                logger.exception("request %s failed", self.request_id.decode(), extra=told)
                answer = HttpError("internal error")
        if isinstance(answer, HttpError):
            if isinstance(answer, DeadlineExceeded):
                self.dropped = LATE
            self.endpoint.ledger.fail(answer)
        else:
            self.endpoint.ledger.answer(self, monotonic() - self.started, len(answer))
        self.send(answer)
        self._tell("ok" if isinstance(answer, bytes) else answer.code)

    def _tell(self, outcome: str) -> None:
        if self.endpoint.trail is not None:
            self.endpoint.trail.tell(self.endpoint.name, self.endpoint.manifest.tag, self, outcome)

    def abandon(self) -> None:
        """The caller is gone: what is left of its request never reaches the model."""
        if not self.is_over:
            self.is_over, self.dropped = True, ABANDONED
            self.endpoint.ledger.abandon()
            self._tell("disconnected")


def _checked(result: list[Prediction] | Exception) -> list[Prediction]:
    if isinstance(result, Exception):
        raise result
    return result


class AwaitedExchange(Exchange):
    """A request whose answer somebody awaits."""

    def __init__(self, endpoint: Endpoint, request_id: bytes) -> None:
        super().__init__(endpoint, request_id)
        self.answered: asyncio.Future[bytes | HttpError] = asyncio.get_running_loop().create_future()

    def send(self, answer: bytes | HttpError) -> None:
        """Hand it to whoever waits."""
        self.answered.set_result(answer)


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
        cooling: Connections that were refused.
        spare: What is done when there is time.
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
    cooling: Cooling = field(default_factory=Cooling)
    spare: Spare = field(default_factory=Spare)
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

    async def answer(self, endpoint: Endpoint, body: bytes) -> bytes:
        """The JSON answer to one JSON body, for BentoML's own API.

        Raises:
            RequestError: If the caller can mend it.
            ServingError: If it is the service's fault or limit.
        """
        exchange = AwaitedExchange(endpoint, new_request_id())
        try:
            exchange.ask(self, body, JSON, self.settings.request_timeout_seconds)
            answer = await exchange.answered
        finally:
            exchange.abandon()
        if isinstance(answer, HttpError):
            raise answer
        return answer
