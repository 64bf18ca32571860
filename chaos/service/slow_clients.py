"""Slow and huge clients: two hundred raw connections that cost the others nothing and end in time."""

import asyncio
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic, sleep

from benchmarks.harness.machine import MEGABYTE
from chaos.service.harness import Harness, Site, offer, peak, workload
from chaos.service.verdict import ChaosVerdict

TITLE = "slow and huge clients"
CONTROL = "a server that lets a body take a minute"
CLIENTS, KINDS = 200, 7
LIMIT_SECONDS, SWEEP_SECONDS = 10.0, 1.5
HUGE_BYTES = 240 * 2**20
MORE_MEGABYTES = 16.0
HEAD = b"POST /v1/models/image/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNK = b"10000\r\n" + b"1" * 65536 + b"\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _trickle(writer: asyncio.StreamWriter, content: bytes, pause: float) -> None:
    for number in range(len(content)):
        writer.write(content[number : number + 1])
        await writer.drain()
        await asyncio.sleep(pause)


async def trickled_headers(streams: Streams) -> None:
    """One byte of endless headers each half second."""
    streams[1].write(HEAD + b"x-slow: ")
    await _trickle(streams[1], b"a" * 1000, 0.5)


async def trickled_body(streams: Streams) -> None:
    """One byte of a body each half second."""
    streams[1].write(HEAD + b"content-length: 1000\r\n\r\n")
    await _trickle(streams[1], b"1" * 1000, 0.5)


async def idle_body(streams: Streams) -> None:
    """No byte of a body that was announced."""
    streams[1].write(HEAD + b"content-length: 1000\r\n\r\n")
    await asyncio.sleep(60)


async def half_closed(streams: Streams) -> None:
    """Half a body, and the end of the stream."""
    streams[1].write(HEAD + b"content-length: 1000\r\n\r\n" + b"1" * 500)
    streams[1].write_eof()
    await asyncio.sleep(60)


async def oversized(streams: Streams) -> None:
    """A body of 240 MB that says so."""
    streams[1].write(HEAD + b"content-length: %d\r\n\r\n" % HUGE_BYTES)
    for _ in range(HUGE_BYTES // 65536):
        streams[1].write(b"1" * 65536)
        await streams[1].drain()


async def oversized_chunks(streams: Streams) -> None:
    """A body of 240 MB in chunks, whose length nobody says."""
    streams[1].write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(HUGE_BYTES // 65536):
        streams[1].write(CHUNK)
        await streams[1].drain()


async def never_reading(streams: Streams) -> None:
    """Request upon request for a long page, without reading an answer."""
    streams[0]._transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        streams[1].write(b"GET /docs.json HTTP/1.1\r\nhost: x\r\n\r\n" * 16)
        await streams[1].drain()
        await asyncio.sleep(0.05)


ATTACKS: tuple[Callable[[Streams], Awaitable[None]], ...] = (
    trickled_headers,
    trickled_body,
    idle_body,
    half_closed,
    oversized,
    oversized_chunks,
    never_reading,
)


class Siege:
    """The attackers, in a thread; each comes back as soon as it was ended.

    Attributes:
        ended: By kind: after how many seconds the server ended it, and the status it was told.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.ended: dict[str, list[tuple[float, str]]] = {attack.__name__: [] for attack in ATTACKS}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._all())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    async def _all(self) -> None:
        await asyncio.gather(*(self._attack(ATTACKS[number % KINDS]) for number in range(CLIENTS)))

    async def _attack(self, attack: Callable[[Streams], Awaitable[None]]) -> None:
        while True:
            with suppress(OSError):
                streams = await asyncio.open_connection("127.0.0.1", self.port)
                began, status = monotonic(), await _until_ended(attack, streams)
                self.ended[attack.__name__].append((monotonic() - began, status))
            await asyncio.sleep(0.5)

    def end(self) -> None:
        """Call it off."""
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()


async def _until_ended(attack: Callable[[Streams], Awaitable[None]], streams: Streams) -> str:
    """Return the status the server ended an attack with, empty if it just closed."""
    acting = asyncio.ensure_future(attack(streams))
    try:
        if attack is never_reading:
            await asyncio.wait([acting])
            return ""
        return (await streams[0].read(12))[9:].decode()
    except OSError:
        return ""
    finally:
        acting.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await acting
        abort = struct.pack("ii", 1, 0)
        with suppress(OSError):
            streams[1].get_extra_info("socket").setsockopt(1, 13, abort)  # SOL_SOCKET, SO_LINGER: leave nothing behind
        streams[1].transport.abort()


class Memory:
    """Watches the most memory that a server's workers take."""

    def __init__(self, site: Site) -> None:
        self.workers = site.workers()
        self.start = self.most = self._now()
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _now(self) -> float:
        return float(sum(one.memory_info().rss for one in self.workers) / MEGABYTE)

    def _run(self) -> None:
        while not self._is_over:
            self.most = max(self.most, self._now())
            sleep(0.1)

    def end(self) -> float:
        """By how many megabytes it grew."""
        self._is_over = True
        self._thread.join()
        return self.most - self.start


def run(ground: Harness, **settings: str) -> ChaosVerdict:
    """Load at half the peak, without and with the attackers."""
    verdict, seconds = ChaosVerdict(trial="slow_clients"), ground.seconds(60, 25)
    content = workload("image")
    with ground.serve("image", **settings) as site:
        rate = 0.5 * peak(site, content, 3)
        alone = offer(site, content, (rate, seconds)).phases[0]
        memory, siege = Memory(site), Siege(site.port)
        sleep(1)
        beside = offer(site, content, (rate, seconds)).phases[0]
        siege.end()
        grown = memory.end()
        sleep(1)
        answers = offer(site, content, (rate, 2.0)).statuses
    verdict.at_least("goodput over goodput without them", beside.goodput / alone.goodput, 0.95)
    verdict.expect("every request of the others is answered", beside.statuses, set(beside.statuses) == {"200"})
    verdict.at_most("server memory grows by", grown, MORE_MEGABYTES, " MB")
    for kind, status in (("trickled_headers", "408"), ("trickled_body", "408"), ("idle_body", "408")):
        _judge(verdict, kind, siege.ended[kind], status, LIMIT_SECONDS + SWEEP_SECONDS)
    for kind in ("oversized", "oversized_chunks"):
        _judge(verdict, kind, siege.ended[kind], "413", LIMIT_SECONDS)
    verdict.expect("afterwards all is well", answers, set(answers) == {"200"})
    verdict.measured = {
        "rate": round(rate),
        "memory_grown_mb": round(grown, 1),
        "p99_ms_alone": round(alone.groups["200"].p99_ms, 1),
        "p99_ms_beside": round(beside.groups["200"].p99_ms, 1),
        "ended": {kind: _summary(found) for kind, found in siege.ended.items()},
    }
    return verdict


def _judge(verdict: ChaosVerdict, kind: str, ended: list[tuple[float, str]], status: str, limit: float) -> None:
    told = sum(found == status for _, found in ended)
    verdict.expect(f"{kind}: told {status}", f"{told} of {len(ended)}", bool(ended) and told == len(ended))
    verdict.at_most(f"{kind}: ended within", max((took for took, _ in ended), default=float("inf")), limit, " s")


def _summary(ended: list[tuple[float, str]]) -> dict[str, object]:
    statuses = sorted({status or "closed" for _, status in ended})
    return {"times": len(ended), "most_s": round(max((took for took, _ in ended), default=0), 1), "told": statuses}


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a setting."""
    return run(Harness(folder=ground.folder, share=0.1, say=ground.say), LECTERN_BODY_TIMEOUT_SECONDS="60")
