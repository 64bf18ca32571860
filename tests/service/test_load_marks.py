"""Load that is marked: answered and counted as ever, and kept out of drift; only whoever may mark it."""

from typing import Any

import pytest

from loadtests.wire import LOAD_TEST_HEADER
from service.auth.access import Access
from service.auth.api_keys import line_of
from service.auth.load_marks import NAME, VALUE, is_load_test
from service.settings import Settings
from service.telemetry.drift import INSTANCES

KEYS = {roles: f"lectern_{number}" + "k" * 42 for number, roles in enumerate(["predict", "predict,load-test"])}
LINES = ";".join(line_of(key, f"of-{number}", [roles]) for number, (roles, key) in enumerate(KEYS.items()))
MARK = NAME + b": " + VALUE
BODY = b'{"instances": [{"views": [%s], "horizon": 1}]}' % b",".join([b"7"] * 56)


def marked(keys: str, key: str, host: str, *, value: bytes = VALUE) -> bool:
    """Return what becomes of the mark of a caller with this key, at this address."""
    headers = [(NAME, value), (b"authorization", b"Bearer " + key.encode())]
    access = Access(Settings(keys=keys)) if keys else None
    return is_load_test(access, headers, dict(headers), (host, 1) if host else None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_mark_where_nobody_needs_a_key(host: str) -> None:
    """A connection from loopback marks load; any other value than 1 is no mark."""
    assert marked("", "", host)
    assert not marked("", "", host, value=b"0")


@pytest.mark.parametrize("host", ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "testclient", ""])
def test_other_machines_may_not(host: str) -> None:
    """From elsewhere the mark is ignored."""
    assert not marked("", "", host)


def test_where_keys_are_needed_the_role_decides() -> None:
    """Loopback is no right any more: proxies on this machine bring anybody's requests."""
    assert marked(LINES, KEYS["predict,load-test"], "10.0.0.1")
    assert not marked(LINES, KEYS["predict"], "127.0.0.1")


def test_without_keys_but_with_a_rate_loopback_decides() -> None:
    """A limit on addresses is no key."""
    access = Access(Settings(requests_per_second=9.0))
    headers = [(NAME, VALUE)]
    assert is_load_test(access, headers, dict(headers), ("127.0.0.1", 1))
    assert not is_load_test(access, headers, dict(headers), ("10.0.0.1", 1))


def test_the_generator_sends_what_the_service_reads() -> None:
    """The two rooms do not import each other."""
    assert f"{MARK.decode()}\r\n" == LOAD_TEST_HEADER


def compared() -> float:
    """Instances of the view-count model that were compared with its training data."""
    (family,) = INSTANCES.collect()
    return sum(
        sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
        and (sample.labels["model"], sample.labels["feature"]) == ("viewcount", "level")
    )


def request(*headers: bytes) -> bytes:
    first = (b"POST /v1/models/viewcount/predict HTTP/1.1", b"host: x", b"content-type: application/json")
    return b"\r\n".join((*first, b"content-length: %d" % len(BODY), *headers, b"", BODY))


@pytest.mark.parametrize("is_wire", [True, False])
@pytest.mark.parametrize("role", ["predict", "predict,load-test", None])
def test_marked_load_is_answered_alike_and_not_compared(is_wire: bool, role: str | None, run: Any, serve: Any) -> None:
    """By the fast path and by the long one, with keys and without."""
    key = [b"authorization: Bearer " + KEYS[role].encode()] if role else []

    async def work() -> None:
        async with serve(wire=is_wire, keys=LINES if role else "") as live:
            client = await live.connect()
            endpoint = live.front.gateway.endpoints["viewcount"]
            found = []
            for mark in ([], [MARK]):
                before = compared()
                answer = await client.ask(request(b"x-request-id: r", *key, *mark))
                endpoint.batcher.drift.count()
                found.append((answer, compared() - before))
            (plain, plain_compared), (marked_answer, marked_compared) = found
            assert plain == marked_answer
            assert (plain_compared, marked_compared) == (1, 1 if role == "predict" else 0)

    run(work)


def test_marked_load_is_nothing_to_try_a_new_version_on(run: Any, serve: Any) -> None:
    """The last requests that are kept are callers' own."""

    async def work() -> None:
        async with serve() as live:
            gateway = live.front.gateway
            gateway.keeps_requests = True
            client = await live.connect()
            kept = gateway.endpoints["viewcount"].recent
            await client.ask(request(MARK))
            assert not kept
            await client.ask(request())
            assert len(kept) == 1

    run(work)
