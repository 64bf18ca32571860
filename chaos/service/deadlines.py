"""Deadlines: requests that cannot be answered in time are told so in time, and never computed."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.harness.workloads import body
from chaos.service.counters import Count, get, scrape
from chaos.service.harness import Harness, Site, offer, reconcile, requests, workload
from chaos.service.overload import long_sentence
from chaos.service.verdict import ChaosVerdict

TITLE = "deadlines"
CONTROL = "a server that gives every request an hour"
DEADLINE_MS, GRACE_MS = 200, 50
BLOCKERS = 600
SEND_SECONDS = 1.0


@contextmanager
def busy(site: Site) -> Iterator[list[bytes]]:
    """A server with seconds of long sentences to compute, one a request; their answers' heads, once the block ends.

    In one request they would let the others by, and so they would in one pipeline.
    """
    content, heads = requests("tagging", body(long_sentence()))[0], list[bytes]()
    with ExitStack() as stack:
        callers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=60)) for _ in range(BLOCKERS)
        ]
        before = scrape(site.port)
        for one in callers:
            one.sendall(content)
        while (now := scrape(site.port)).batches == before.batches or _taken_in(site, before, now) < BLOCKERS:
            pass
        yield heads
        heads.extend(one.recv(65_536) for one in callers)


def _taken_in(site: Site, before: Count, now: Count) -> float:
    """Return how many requests were answered since, or are being answered."""
    page = get(site.port, "/metrics")[1].decode()
    in_flight = re.search(r'^lectern_requests_in_flight\{model="tagging"\} (\S+)', page, re.MULTILINE)
    assert in_flight is not None, "the series is made at start"
    return float(in_flight[1]) + now.since(before).get("ok", 0)


def run(ground: Harness, faults: tuple[str, ...] = ()) -> ChaosVerdict:
    """Return a thousand requests with a fifth of a second each, behind seconds of work."""
    verdict, rounds = ChaosVerdict(trial="deadlines"), ground.part(10)
    content = workload("tagging", x_request_timeout_ms=str(DEADLINE_MS))
    late, sent, computed, statuses = 0.0, 0, 0, dict[str, int]()
    with ground.serve("tagging", faults=faults, LECTERN_QUEUE_SECONDS="60") as site:
        before = site.count()
        for _ in range(rounds):
            start = site.count().instances
            with busy(site) as heads:
                tally = offer(site, content, (100 / SEND_SECONDS, SEND_SECONDS), patience_seconds=30).phases[0]
            answered = sum(head.startswith(b"HTTP/1.1 200") for head in heads)
            computed += site.count().instances - start - answered - tally.statuses.get("200", 0)
            late = max(late, *(group.worst_ms for group in tally.groups.values()))
            sent += tally.offered
            for head in heads:
                statuses[head[9:12].decode()] = statuses.get(head[9:12].decode(), 0) + 1
            for status, number in tally.statuses.items():
                statuses[status] = statuses.get(status, 0) + number
        after = site.count()
    refused = sum(statuses.get(code, 0) for code in ("429", "503", "504"))
    verdict.at_least("requests refused for want of time", refused, 0.5 * sent)
    verdict.at_most("the latest reply", late, DEADLINE_MS + GRACE_MS, " ms")
    verdict.at_most("requests computed in vain", computed, 0)
    reconcile(verdict, statuses, before, after)
    verdict.measured = {"sent": sent, "statuses": statuses, "latest_ms": round(late, 1)}
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.1, say=ground.say), ("ignores_deadlines",))
