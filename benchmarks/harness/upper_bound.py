"""Measure what the same core does without a server: ``python -m benchmarks.harness.upper_bound < task``.

``engine`` is ONNX Runtime alone on ready feeds; ``codec`` reads and encodes every request, runs them together and
writes every answer. A server on this core can be as fast as the second at best.
"""

import sys
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import click
import msgspec

from benchmarks.harness.protocols import JSON
from benchmarks.peers.codec import Codec, open_codec

MAX_BATCH = 256
REPEATS = 9
T = TypeVar("T")


class BoundTask(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what to measure.

    Attributes:
        model: Whose session.
        bodies: Requests in turn.
        media_type: Of the bodies.
        seconds: For each batch size.
        is_burst: Whether the bodies arrive together, once, instead of one after the other for ever.
    """

    model: str
    bodies: list[bytes]
    media_type: str = JSON
    seconds: float = 0.2
    is_burst: bool = False


class UpperBound(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what was found.

    Attributes:
        engine: Requests per second by requests in a batch.
        codec: Likewise, with reading and writing.
        alone: Requests per second of ``Predictor.predict``, one by one.
        burst_ms: Of a burst: until the last answer, one by one and in one micro-batch.
    """

    engine: dict[int, float] = {}
    codec: dict[int, float] = {}
    alone: float = 0.0
    burst_ms: dict[str, float] = {}


def rate(step: Callable[[T], object], groups: Sequence[T], size: int, seconds: float) -> float:
    """Requests per second of a step on groups of ``size`` requests, over whole rounds of the groups."""
    step(groups[0])
    done, start = 0, perf_counter()
    while (elapsed := perf_counter() - start) < seconds:
        for group in groups:
            step(group)
        done += size * len(groups)
    return done / elapsed


def measure(task: BoundTask) -> UpperBound:
    """Return the limits of requests that never stop coming."""
    codec = open_codec(task.model)
    predictor = codec.predictor
    samples = [codec.read(body, task.media_type) for body in task.bodies]
    instances = [one for body in task.bodies for one in codec.bodies.read(body, task.media_type).instances]
    wanted = predictor.wanted(explain=False)
    engine, whole = {}, {}
    for size in _sizes(MAX_BATCH // max(map(len, samples))):
        feeds = [predictor.card.collate([one for each in group for one in each]) for group in _groups(samples, size)]
        engine[size] = rate(lambda ready: predictor.run(ready, wanted), feeds, size, task.seconds)
        bodies = _groups(task.bodies, size)
        whole[size] = rate(lambda group: _reply(codec, group, task.media_type), bodies, size, task.seconds)
    alone = rate(lambda one: predictor.predict([one]), instances, 1, task.seconds)
    return UpperBound(engine=engine, codec=whole, alone=alone / len(samples[0]))


def measure_burst(task: BoundTask) -> UpperBound:
    """Return the limits of requests that come once, together."""
    codec = open_codec(task.model)
    instances = [codec.bodies.read(body, task.media_type).instances[0] for body in task.bodies]

    def one_by_one() -> None:
        for instance in instances:
            codec.predictor.predict([instance])

    def together() -> None:
        codec.predictor.infer(codec.encode(instances))

    return UpperBound(burst_ms={"one by one": _median_ms(one_by_one), "one micro-batch": _median_ms(together)})


def _reply(codec: Codec, bodies: Sequence[bytes], media_type: str) -> list[bytes]:
    return [codec.write(found) for found in codec.answer([codec.read(body, media_type) for body in bodies])]


def _sizes(largest: int) -> list[int]:
    return [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size <= largest]


def _groups(requests: Sequence[T], size: int) -> list[list[T]]:
    """Requests in groups of one size, beginning again at the first to fill the last group."""
    count = -(-len(requests) // size)
    turned = [requests[at % len(requests)] for at in range(count * size)]
    return [turned[at : at + size] for at in range(0, len(turned), size)]


def _median_ms(step: Callable[[], Any]) -> float:
    step()
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        step()
        times.append(1000 * (perf_counter() - start))
    return median(times)


@click.command(help=__doc__)
def main() -> None:
    """Do the task on standard input (MessagePack), and write the limit (JSON)."""
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=BoundTask)
    found = measure_burst(task) if task.is_burst else measure(task)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
