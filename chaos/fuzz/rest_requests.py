"""Ask a running server nearly right requests: ``python -m chaos.fuzz.rest_requests --cases 10000 --url http://127.0.0.1:3000``.

Each must be answered, never with a 5xx; a refusal must be a problem as documented; and after each of them a good
request must have the bytes it had at first. RestCase ``n`` of a family and a seed is always the same.
"""

import json
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from urllib.parse import urlsplit

import click
import msgspec

from chaos.fuzz.mutations import JSON, RestCase, make_case, make_raw
from models.paths import REPOSITORY
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact

FAMILIES = {
    "viewcount": ("viewcount",),
    "tagging": ("tagging",),
    "image": ("image", "image-vit"),
    "graph": ("citation", "molecule"),
    "http": ("viewcount",),
}
CALLERS = 8
PATIENCE_SECONDS = 30.0
# A request that is cut off has no answer: so long is waited for one.
SILENCE_SECONDS = 0.1
REFUSALS = frozenset((400, 404, 405, 408, 413, 415, 422, 431))
PROBLEM = {"status", "code", "error", "request_id", "retryable", "errors"}


class FuzzFailure(Exception):
    """A promise that was not kept."""


@dataclass
class RestFuzzReport:
    """Describe how the cases of one family ended.

    Attributes:
        statuses: How many answers of each status; 0 stands for none, which only a request cut off may have.
        failures: What went wrong, with the number of the case.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class FuzzConnection:
    """One connection to the server, opened again when it is closed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socket: socket.socket | None = None
        self.received = b""

    def send(self, content: bytes) -> None:
        """Send, on a new connection if need be."""
        if self.socket is None:
            self.socket, self.received = socket.create_connection(self.address, PATIENCE_SECONDS), b""
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(content)

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer.

        Raises:
            Failure: If it is cut off or no HTTP.
            EOFError: If the server has closed the connection after a whole answer.
        """
        while b"\r\n\r\n" not in self.received:
            self._more(is_whole=not self.received)
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1.1 "):
            raise FuzzFailure(f"no HTTP: {first[:99]!r}")
        status, headers = int(first[9:12]), dict(line.split(": ", 1) for line in lines)
        length = 0 if status == 100 else int(headers["content-length"])
        while len(self.received) < length:
            self._more(is_whole=False)
        body, self.received = self.received[:length], self.received[length:]
        if headers.get("connection") == "close":
            self.close()
        return self.read() if status == 100 else (status, headers, body)

    def _more(self, *, is_whole: bool) -> None:
        data = self.socket.recv(2**20) if self.socket is not None else b""
        if not data:
            self.close()
            raise EOFError if is_whole else FuzzFailure("an answer is cut off")
        self.received += data

    def close(self) -> None:
        """Close it, if it is open."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def post(case: RestCase) -> bytes:
    """Return a request as it goes over the wire."""
    lines = (
        f"POST /v1/models/{case.model}/predict HTTP/1.1", "host: x", f"content-type: {case.media_type}",
        f"content-length: {len(case.body)}", *case.headers, "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + case.body


def check(status: int, headers: dict[str, str], body: bytes) -> None:
    """An answer is right in form.

    Raises:
        Failure: If it is not.
    """
    if status == 200:
        predictions = msgspec.json.decode(body)["predictions"]  # which knows no bare NaN
        if not predictions or b"null" in body.replace(b'"null"', b""):
            raise FuzzFailure(f"no prediction: {body[:99]!r}")
    elif status not in REFUSALS:
        raise FuzzFailure(f"status {status}: {body[:200]!r}")
    else:
        problem = json.loads(body)
        if headers["content-type"] != "application/problem+json" or set(problem) != PROBLEM:
            raise FuzzFailure(f"no problem: {body[:99]!r}")
        if problem["status"] != status or problem["request_id"] != headers["x-request-id"]:
            raise FuzzFailure(f"another's problem: {body[:99]!r}")


class Fuzz:
    """Cases of one family against one server."""

    def __init__(self, url: str, family: str, seed: int) -> None:
        parts = urlsplit(url)
        self.address = (str(parts.hostname), int(parts.port or 80))
        self.family, self.seed = family, seed
        self.predictors = {model: _open(model) for model in FAMILIES[family]}
        self.good = {model: _example(model, predictor) for model, predictor in self.predictors.items()}
        self.expected = {model: self._ask(FuzzConnection(self.address), case) for model, case in self.good.items()}

    def _ask(self, line: FuzzConnection, case: RestCase) -> bytes:
        line.send(post(case))
        status, _, body = line.read()
        if status != 200:
            raise FuzzFailure(f"a good request has status {status}: {body[:200]!r}")
        return body

    def run(self, cases: int) -> RestFuzzReport:
        """Ask every case, a few at a time."""
        report, step = RestFuzzReport(), self._raw if self.family == "http" else self._typed
        with ThreadPoolExecutor(CALLERS) as pool:
            for outcome in pool.map(lambda part: self._run(part, cases, step), range(CALLERS)):
                report.statuses += outcome.statuses
                report.failures += outcome.failures
        return report

    def _run(self, first: int, cases: int, step: Callable[[FuzzConnection, Random, str], int]) -> RestFuzzReport:
        report, line = RestFuzzReport(), FuzzConnection(self.address)
        for number in range(first, cases, CALLERS):
            rng = Random(f"{self.seed}:{self.family}:{number}")  # noqa: S311  nothing is secret here
            model = rng.choice(FAMILIES[self.family])
            try:
                report.statuses[step(line, rng, model)] += 1
                if self._ask(line, self.good[model]) != self.expected[model]:
                    raise FuzzFailure("the next good answer is another")
            except (FuzzFailure, OSError, EOFError, ValueError, LookupError) as error:
                report.failures.append(f"case {number}: {error!r}")
                line.close()
        line.close()
        return report

    def _typed(self, line: FuzzConnection, rng: Random, model: str) -> int:
        line.send(post(make_case(rng, model, self.predictors[model])))
        status, headers, body = line.read()
        check(status, headers, body)
        return status

    def _raw(self, _: FuzzConnection, rng: Random, model: str) -> int:
        """Status of the first answer, if there is one; all of them are checked."""
        line, first = FuzzConnection(self.address), 0
        try:
            with suppress(BrokenPipeError):  # it may be refused before it is all sent; then the answer is there
                line.send(make_raw(rng, self.good[model].body, model))
            assert line.socket is not None  # it has just been opened
            line.socket.settimeout(SILENCE_SECONDS)
            while line.socket is not None:
                status, headers, body = line.read()
                check(status, headers, body)
                first = first or status
        except (TimeoutError, EOFError):
            if line.received:
                raise FuzzFailure(f"half an answer: {line.received[:99]!r}") from None
        except (ConnectionResetError, BrokenPipeError):
            if not first:
                raise
        finally:
            line.close()
        return first


def _open(model: str) -> Predictor:
    return open_predictor(open_artifact(next((REPOSITORY / "models").glob(f"*/trained/{model}"))))


def _example(model: str, predictor: Predictor) -> RestCase:
    body = msgspec.json.encode({"instances": [predictor.card.example(predictor.assets)]})
    return RestCase(model, JSON, [], body)


@click.command(help=__doc__)
@click.option("--url", default="http://127.0.0.1:3000", show_default=True)
@click.option("--cases", default=10_000, show_default=True, help="Of each family.")
@click.option("--seed", default=0, show_default=True)
@click.option("--family", "wanted", multiple=True, type=click.Choice([*FAMILIES]), help="Only these.")
def main(url: str, cases: int, seed: int, wanted: tuple[str, ...]) -> None:
    """The command line."""
    is_broken = False
    for family in wanted or FAMILIES:
        report = Fuzz(url, family, seed).run(cases)
        statuses = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(report.statuses.items()))
        click.echo(f"{family}: {cases} cases, {len(report.failures)} failures; {statuses}")
        for failure in report.failures[:20]:
            click.echo(f"  {failure}")
        is_broken = is_broken or bool(report.failures)
    raise SystemExit(is_broken)


if __name__ == "__main__":
    main()
