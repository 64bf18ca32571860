"""A storm of callers that leave: what nobody waits for never reaches the model."""

import random
import socket
import time

from benchmarks.harness.workloads import body
from chaos.service.counters import scrape
from chaos.service.deadlines import BLOCKERS, busy
from chaos.service.harness import Harness, requests
from chaos.service.overload import long_sentence
from chaos.service.verdict import ChaosVerdict

TITLE = "callers that leave"
CONTROL = "a server that answers those who left all the same"
CALLERS = 200
MOST_SECONDS = 0.03


def run(ground: Harness, faults: tuple[str, ...] = ()) -> ChaosVerdict:
    """Two hundred connections, each sends a request and closes; ten times over, behind seconds of work.

    They ask as much as those before them: shorter sentences would be sorted before them wherever a round begins.
    """
    verdict, content = ChaosVerdict(trial="disconnects"), requests("tagging", body(long_sentence()))[0]
    left = wanted = answered = computed = 0
    waiting = BLOCKERS
    with ground.serve("tagging", faults=faults, LECTERN_QUEUE_SECONDS="60") as site:
        before = site.count()
        for number in range(ground.part(10)):
            start = site.count()
            with busy(site) as heads:
                left += _storm(site.port, content, random.Random(number))  # noqa: S311  no secret
                waiting = min(waiting, BLOCKERS - scrape(site.port).since(start).get("ok", 0))
            answered += sum(head.startswith(b"HTTP/1.1 200") for head in heads)
            wanted += len(heads)
            computed += site.count().instances - start.instances
        after = site.count()
        verdict.expect("the server answers afterwards", "ready", site.count().series == after.series)
    found = after.since(before)
    verdict.at_least("requests before them, unanswered when the last has left", waiting, 1)
    verdict.at_most("abandoned requests computed", computed - answered, 0)
    verdict.expect("each is counted as disconnected", found, found.get("disconnected", 0) == left)
    verdict.expect("each of those who waited is answered", f"{answered} of {wanted}", answered == wanted)
    verdict.measured = {"left": left, "outcomes": found}
    return verdict


def _storm(port: int, content: bytes, rng: random.Random) -> int:
    """Return how many requests were sent and abandoned; some with a reset, some with a plain close."""
    opened = []
    for _ in range(CALLERS):
        one = socket.create_connection(("127.0.0.1", port), timeout=10)
        one.sendall(content)
        opened.append(one)
    time.sleep(rng.uniform(0.1, 0.1 + MOST_SECONDS))  # a request that is not read yet when its caller leaves is none
    rng.shuffle(opened)
    for number, one in enumerate(opened):
        if number % 2:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()
        time.sleep(rng.uniform(0, MOST_SECONDS / CALLERS))
    return len(opened)


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.1, say=ground.say), ("ignores_leaving",))
