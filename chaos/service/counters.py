"""The server's own count of what it did, to be held against the client's."""

import http.client
import re
from collections import Counter
from collections.abc import Mapping
from time import perf_counter

import msgspec

_LINE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# What the service calls the end of a request, and what the client sees of it.
STATUSES = {
    "ok": "200",
    "malformed_request": "400",
    "unauthorized": "401",
    "method_not_allowed": "405",
    "request_timeout": "408",
    "body_too_large": "413",
    "unsupported_media_type": "415",
    "invalid_request": "422",
    "rate_limited": "429",
    "runner_failed": "500",
    "internal": "500",
    "overloaded": "503",
    "draining": "503",
    "deadline_exceeded": "504",
}
# A request that ended so for the client may be counted as this by the server, or not at all.
UNANSWERED = ("closed", "reset", "silent")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """One scrape.

    Attributes:
        outcomes: Requests of all models by outcome.
        batches: Micro-batches computed.
        instances: Instances in them.
        series: Lines of the page that are series.
        size_bytes: Of the page.
        seconds: The scrape took.
    """

    outcomes: dict[str, int]
    batches: int
    instances: int
    series: int
    size_bytes: int
    seconds: float

    def since(self, before: "Count") -> dict[str, int]:
        """Outcomes counted meanwhile, without zeros."""
        grown = Counter(self.outcomes)
        grown.subtract(before.outcomes)
        return {outcome: number for outcome, number in grown.items() if number}


def get(port: int, path: str, timeout: float = 30.0) -> tuple[int, bytes]:
    """Status and body of a page.

    Raises:
        OSError: If there is no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def scrape(port: int) -> Count:
    """Return the counters now.

    Raises:
        OSError: If ``/metrics`` does not answer with 200.
    """
    started = perf_counter()
    status, page = get(port, "/metrics")
    if status != 200:
        raise OSError(f"/metrics says {status}")
    return parse(page.decode(), perf_counter() - started)


def parse(page: str, seconds: float = 0.0) -> Count:
    """Return the counters on a page of metrics."""
    outcomes, batches, instances = Counter[str](), 0.0, 0.0
    for name, labels, value in _LINE.findall(page):
        if name == "lectern_requests_total":
            outcomes[dict(_LABEL.findall(labels))["outcome"]] += int(float(value))
        elif name == "lectern_batch_instances_count":
            batches += float(value)
        elif name == "lectern_batch_instances_sum":
            instances += float(value)
    return Count(
        outcomes=dict(outcomes),
        batches=int(batches),
        instances=int(instances),
        series=sum(1 for line in page.splitlines() if line and not line.startswith("#")),
        size_bytes=len(page),
        seconds=seconds,
    )


def differences(client: Mapping[str, int], server: Mapping[str, int]) -> list[str]:
    """Return where the two disagree: each status of the client's must be the server's outcomes of that status, exactly.

    Requests that got no answer may be counted as ``disconnected`` or not at all, when their server was killed.
    """
    counted = Counter[str]()
    for outcome, number in server.items():
        counted[STATUSES.get(outcome, outcome)] += number
    gone, unanswered = counted.pop("disconnected", 0), sum(client.get(name, 0) for name in UNANSWERED)
    found = []
    for status in sorted({*counted, *client} - {*UNANSWERED, "refused", "unsent"}):
        if client.get(status, 0) != counted.get(status, 0):
            found.append(f"{status}: client {client.get(status, 0)}, server {counted.get(status, 0)}")
    if gone > unanswered:
        found.append(f"disconnected: client {unanswered}, server {gone}")
    return found
