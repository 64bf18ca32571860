"""The answer to a scrape: the page of metrics in the form and the encoding that were asked for."""

import gzip

from prometheus_client.exposition import choose_encoder, gzip_accepted

from service.messages.headers import Header
from service.messages.response import Response, make_response
from service.telemetry.drift_window import DriftWindows
from service.telemetry.exposition import MEDIA_TYPE, OPEN_MEDIA_TYPE, MetricsPage

# 130 KB become 12, or 10 by level 9 in several times as long, for which the event loop would wait.
LEVEL = 1
VARY = (b"vary", b"accept, accept-encoding")


def scrape(page: MetricsPage, windows: DriftWindows | None, headers: list[Header], request_id: bytes) -> Response:
    """Return the whole answer.

    Here and now: a thread would wait for the event loop at every file.

    Args:
        page: Of this service.
        windows: What is added to it about drift.
        headers: Of the request; OpenMetrics and gzip only if they accept it, else Prometheus' text, as ever.
        request_id: Of the request.
    """
    _, chosen = choose_encoder(_joined(headers, b"accept"))
    is_open = chosen.startswith("application/openmetrics-text")
    content = page.render(None if windows is None else windows.add_to, is_open=is_open)
    more = [VARY]
    if gzip_accepted(_joined(headers, b"accept-encoding")):
        content = gzip.compress(content, LEVEL)
        more.append((b"content-encoding", b"gzip"))
    answer = make_response(content, request_id, OPEN_MEDIA_TYPE if is_open else MEDIA_TYPE)
    answer.headers.extend(more)
    return answer


def _joined(headers: list[Header], wanted: bytes) -> str:
    return b",".join(value for name, value in headers if name == wanted).decode("latin-1")
