"""A thousand nearly right requests of each family, and a thousand with broken HTTP around them."""

from typing import Any

import pytest

from chaos.fuzz.rest_requests import FAMILIES, Fuzz, FuzzFailure, check

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
CASES = 1000


@pytest.mark.parametrize("family", FAMILIES)
def test_no_request_breaks_the_service(family: str, server: Any) -> None:
    """No 5xx, no reset, every refusal in its form, and the next good answer always the same."""
    report = Fuzz(server.url, family, seed=0).run(CASES)
    assert report.failures == []
    assert report.statuses.total() == CASES
    assert report.statuses[200] >= 10  # some of them are right after all
    assert report.statuses[400] >= 10


GOOD = {"content-type": "application/problem+json", "x-request-id": "a"}
PROBLEM = b'{"status":400,"code":"a","error":"a","request_id":"a","retryable":false,"errors":[]}'


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, GOOD, PROBLEM),
        (503, GOOD, PROBLEM),
        (302, GOOD, PROBLEM),
        (422, GOOD, PROBLEM),
        (400, GOOD, PROBLEM.replace(b"retryable", b"again")),
        (400, {**GOOD, "x-request-id": "b"}, PROBLEM),
        (400, {**GOOD, "content-type": "text/html"}, PROBLEM),
        (200, GOOD, b'{"predictions":[]}'),
        (200, GOOD, b'{"predictions":[{"y":null}]}'),
    ],
)
def test_what_is_a_failure(status: int, headers: dict[str, str], body: bytes) -> None:
    """Control: what a broken service would say is seen as broken."""
    check(400, GOOD, PROBLEM)
    check(200, GOOD, b'{"predictions":[{"y":1}]}')
    with pytest.raises(FuzzFailure):
        check(status, headers, body)
