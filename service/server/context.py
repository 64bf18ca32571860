"""Hold what the connections of one process and the ASGI application share."""

from dataclasses import dataclass, field

from service.auth.access import Access
from service.inference.gateway import InferenceGateway
from service.server.flow_control import LowPriorityQueue
from service.server.refusal_backoff import RefusalBackoff
from service.telemetry.http_metrics import ResponseCounters


@dataclass(slots=True, kw_only=True)
class ServerContext:
    """Describe what all HTTP requests of one process go through.

    Attributes:
        gateway: Answers predictions.
        access: Who may ask, where not everybody may.
        responses: Counts all answers to HTTP requests.
        backoff: Connections that were refused, and are read on a little later.
        low_priority: What is done when there is time.
    """

    gateway: InferenceGateway
    access: Access | None = None
    responses: ResponseCounters = field(default_factory=ResponseCounters)
    backoff: RefusalBackoff = field(default_factory=RefusalBackoff)
    low_priority: LowPriorityQueue = field(default_factory=LowPriorityQueue)
