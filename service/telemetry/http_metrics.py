"""Count every HTTP response by its status, whatever path it was, also below ASGI."""

from prometheus_client import Counter

from service.telemetry.fast_values import MmapCounters
from service.telemetry.metrics_storage import require_room

OTHER = "other"
# What Lectern and BentoML's pages answer; a test compares them with the errors there are.
STATUSES = (
    "200", "201", "202", "204", "206", "304", "307", "400", "401", "403", "404", "405", "408", "409", "413", "415",
    "416", "422", "429", "431", "500", "503", "504", "507", OTHER,
)  # fmt: skip

require_room()

RESPONSES = Counter(
    "lectern_http_responses_total",
    "Answers on every path, also to broken requests, by HTTP status.",
    ["status"],
)


class ResponseCounters:
    """Counts the answers of one process."""

    def __init__(self) -> None:
        tally = MmapCounters(RESPONSES, STATUSES)
        self._numbers, offsets = tally.numbers, tally.offsets
        self._places = {int(status): offset for status, offset in offsets.items() if status != OTHER}
        self._other = offsets[OTHER]

    def count(self, status: int) -> None:
        """Note one answer, before it leaves."""
        self._numbers[self._places.get(status, self._other)] += 1.0
