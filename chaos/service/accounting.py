"""Truth: clients keep books of their own over requests of every kind, workers are killed, and both books agree."""

import http.client
import re
import socket
import threading
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from time import perf_counter, sleep

import msgspec

from benchmarks.harness.servers import install_artifacts
from chaos.service.counters import parse
from chaos.service.harness import Harness, Site, one_request
from chaos.service.verdict import ChaosVerdict
from chaos.service.worker_kill import kill
from service.auth.api_keys import line_of, new_key

TITLE = "the counters against the clients' own books"
CONTROL = "a service that forgets to count one answer in fifty"
MODEL, REQUESTS, KILLS, CLIENTS, WORKERS = "viewcount", 100_000, 5, 16, "2"
MAX_BODY_BYTES = 65_536
# What a client does that leaves in the middle of a body, this long before a kill, may not have been noticed any more.
NOTICE_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
PATH = f"/v1/models/{MODEL}/predict"
# Kinds of requests, how many in a hundred, and the outcome a lost one of them might have been counted as.
KINDS = {
    "good": (42, "ok"),
    "malformed": (8, "malformed_request"),
    "invalid": (8, "invalid_request"),
    "large": (5, "body_too_large"),
    "stranger": (6, "unauthenticated"),
    "forbidden": (5, "forbidden"),
    "media": (5, "unsupported_media_type"),
    "method": (4, "method_not_allowed"),
    "greedy": (7, "rate_limited"),
    "leaving": (4, "disconnected"),
    "model": (3, ""),
    "path": (3, ""),
}
BODIES = {
    "malformed": (b"{", b"", b"\xff", b"[1,", b"nonsense"),
    "invalid": (b"{}", b'{"instances": 3}', b'{"instances": [{"views": [-1]}]}'),
}
METHODS = {"method": ("GET", "PUT", "DELETE"), "path": ("GET",)}
PATHS = {"model": "/v1/models/none-{}/predict", "path": "/{}"}
NOT_A_MODEL = ("unknown_model", "unknown_route")
_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class ClientKeys(msgspec.Struct, frozen=True):
    """The keys of a client without a rate, of one with a rate, and of who reads the metrics."""

    plain: str
    greedy: str
    metrics: str

    @property
    def setting(self) -> str:
        """For ``LECTERN_KEYS``."""
        own = [line_of(self.plain, "plain", ["predict"]), line_of(self.metrics, "metrics", ["metrics"])]
        rate = line_of(self.greedy, "greedy", ["predict"])
        return ";".join([*own, f"{rate} requests_per_second=5 burst=3"])


class Books:
    """Describe what the clients have seen, by outcome.

    Attributes:
        seen: Answers, and callers who left.
        lost: Requests whose connection ended without an answer, by what they might have been counted as.
        left_at: When callers left.
    """

    def __init__(self) -> None:
        self.seen, self.lost = Counter[str](), Counter[str]()
        self.left_at: list[float] = []
        self._turn = threading.Lock()

    def note(self, outcome: str) -> None:
        """An answer was read."""
        with self._turn:
            self.seen[outcome] += 1

    def lose(self, kind: str) -> None:
        """A connection ended without the answer to a request of this kind."""
        with self._turn:
            self.lost[KINDS[kind][1]] += 1
            if kind == "greedy":
                self.lost["ok"] += 1  # it might have been either

    def leave(self) -> None:
        """A caller left."""
        with self._turn:
            self.seen["disconnected"] += 1
            self.left_at.append(perf_counter())

    def differences(self, server: Counter[str], kills: list[float]) -> list[str]:
        """Return where the server's books differ by more than what was under way in a worker when that was killed."""
        found = []
        unnoticed = sum(any(0 < at - left < NOTICE_SECONDS for at in kills) for left in self.left_at)
        for outcome in sorted({*self.seen, *server} - {*NOT_A_MODEL}):
            least = self.seen[outcome] - (unnoticed if outcome == "disconnected" else 0)
            most = self.seen[outcome] + self.lost[outcome]
            if not least <= server[outcome] <= most:
                found.append(f"{outcome}: server {server[outcome]}, clients {self.seen[outcome]}, lost {most - least}")
        return found


class AccountingClient(threading.Thread):
    """One caller, one request at a time, on a connection that it keeps while it may."""

    def __init__(self, port: int, keys: ClientKeys, body: bytes, books: Books, number: int, seed: int) -> None:
        super().__init__()
        self._port, self._keys, self._body, self._books = port, keys, body, books
        self._number, self._random = number, Random(seed)  # noqa: S311  no secret
        self._socket: socket.socket | None = None

    def run(self) -> None:
        """Ask as often as was said."""
        kinds, weights = [*KINDS], [weight for weight, _ in KINDS.values()]
        for kind in self._random.choices(kinds, weights, k=self._number):
            try:
                self._ask(kind)
            except OSError:
                self._close()
                self._books.lose(kind)
        self._close()

    def _ask(self, kind: str) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS)
        request = self._request(kind)
        if kind == "leaving":
            self._socket.sendall(request[:-20])
            self._close()
            self._books.leave()
            return
        self._socket.sendall(request)
        head, body = self._read(self._socket)
        if kind == "large" or b"connection: close" in head.lower():
            self._close()
        status = _STATUS.match(head)
        assert status is not None, head
        self._books.note("ok" if status[1] == b"200" else str(msgspec.json.decode(body)["code"]))

    def _read(self, connection: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while True:
            head, end, body = data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head) if end else None
            if length is not None and len(body) >= int(length[1]):
                return head, body
            part = connection.recv(65_536)
            if not part:
                raise ConnectionResetError("no answer")
            data += part

    def _request(self, kind: str) -> bytes:
        if kind == "large":
            whole = one_request(PATH, self._headers("large"), b"")
            return whole.replace(b"length: 0", b"length: %d" % (MAX_BODY_BYTES + 1))
        method = self._random.choice(METHODS.get(kind, ("POST",)))
        bodies = (b"",) if method != "POST" else BODIES.get(kind, (self._body,))
        path = PATHS.get(kind, PATH).format(self._random.randrange(10**6))
        return one_request(path, self._headers(kind), self._random.choice(bodies), method)

    def _headers(self, kind: str) -> dict[str, str]:
        key = {"forbidden": self._keys.metrics, "greedy": self._keys.greedy}.get(kind, self._keys.plain)
        media_type = "text/plain" if kind == "media" else "application/json"
        return {"content-type": media_type, **({} if kind == "stranger" else {"x-api-key": key})}

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def run(ground: Harness, faults: tuple[str, ...] = ()) -> ChaosVerdict:
    """Return a hundred thousand requests of twelve kinds, and five kills."""
    verdict, home = ChaosVerdict(trial="truth"), Path(mkdtemp(dir=ground.folder))
    keys, requests, kills = ClientKeys(new_key(), new_key(), new_key()), ground.part(REQUESTS), ground.part(KILLS)
    install_artifacts(home)
    settings = {"LECTERN_KEYS": keys.setting, "LECTERN_WORKERS": WORKERS, "LECTERN_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    with ground.serve_at(home, MODEL, faults=faults, headers={"x-api-key": keys.plain}, **settings) as site:
        before, books = scrape(site, keys), Books()
        each, body = requests // CLIENTS, ground.examples(MODEL)[MODEL]
        clients = [AccountingClient(site.port, keys, body, books, each, seed) for seed in range(CLIENTS)]
        began = perf_counter()
        for client in clients:
            client.start()
        killed = _kill(ground, site, books, each * CLIENTS, kills)
        for client in clients:
            client.join()
        seconds = perf_counter() - began
        after = scrape(site, keys)
        after.subtract(before)
    found = books.differences(after, killed)
    told = "; ".join(found) or "equal"
    verdict.expect(f"the counters equal the clients' books, {kills} workers killed", told, not found)
    verdict.expect("as many workers were killed", len(killed), len(killed) == kills)
    verdict.expect("every kind of outcome was there", dict(books.seen), set(books.seen) >= _expected())
    verdict.measured = {
        "requests": each * CLIENTS,
        "seconds": round(seconds, 1),
        "clients": dict(books.seen),
        "server": {name: number for name, number in after.items() if number},
        "lost_in_killed_workers": sum(books.lost.values()),
    }
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.01, say=ground.say), ("miscounts",))


def _expected() -> set[str]:
    return {outcome for _, outcome in KINDS.values() if outcome} | {*NOT_A_MODEL}


def _kill(ground: Harness, site: Site, books: Books, total: int, kills: int) -> list[float]:
    """Kill a worker whenever a further share of the requests is over; when each died."""
    at = []
    for number in range(kills):
        while sum(books.seen.values()) < total * (number + 1) / (kills + 1):
            sleep(0.01)
        ground.say(f"kill {number + 1}")
        at.append(kill(site)[2])
    return at


def scrape(site: Site, keys: ClientKeys) -> Counter[str]:
    """Return the server's outcomes now.

    Raises:
        OSError: If there is no page.
    """
    sleep(0.5)  # callers that left a moment ago are noticed
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/metrics", headers={"x-api-key": keys.metrics})
        answer = connection.getresponse()
        page = answer.read().decode()
        if answer.status != 200:
            raise OSError(f"/metrics says {answer.status}")
        return Counter(parse(page).outcomes)
    finally:
        connection.close()
