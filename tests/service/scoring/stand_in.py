"""An assignment whose answer is known by heart: 2x + 1 for each line of a file, one line each.

Some lines do to the process that scores them what a poisonous row does to a model. A worker process imports this
module by its name.
"""

import hashlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from models.errors import InputChanged
from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import PartResult, PartSpec, PoisonRow, RowError
from service.scoring.workers.worker import KINDS, Stopped, WorkOrder, score

SECONDS_FOR_EVER = 3600


@dataclass(frozen=True)
class Doubling:
    """The assignment.

    Attributes:
        path: The input.
        part_rows: Lines in a part.
        seconds: How long a part takes.
        log: A file that is told of every part a worker begins with.
        versions: What it says it runs on.
        node_in: What shows the name of the machine's that scores: the log's second file alone, or, as a fault, the
            answers or the versions.
    """

    path: Path
    part_rows: int = 50
    seconds: float = 0.0
    log: Path | None = None
    versions: str = "1"
    node_in: str = "log"

    @property
    def spec(self) -> bytes:
        return b'{"second": "b", "first": "a"}'

    @property
    def identity(self) -> bytes:
        return f"doubling, parts of {self.part_rows}".encode()

    def stack(self) -> dict[str, str]:
        return {"stand-in": self.versions} | ({"node": node()} if self.node_in == "stack" else {})

    def mark(self) -> str:
        found = self.path.stat()
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"

    def source(self) -> "Lines":
        return Lines(self)

    def scorer(self) -> "Lines":
        return Lines(self)

    def assembly(self, file: BinaryIO) -> "Pages":
        return Pages(file)


class Lines:
    """Source and scorer at once."""

    passed_over, notes = 0, ()

    def __init__(self, asked: Doubling) -> None:
        self._asked, self.digest = asked, ""

    def cuts(self) -> Iterator[PartSpec]:
        lines, first = self._asked.path.read_bytes().splitlines(keepends=True), 0
        for index, start in enumerate(range(0, max(1, len(lines)), self._asked.part_rows)):
            piece = lines[start : start + self._asked.part_rows]
            digest, position = hashlib.sha256(b"".join(piece)).hexdigest(), {"start": start}
            yield PartSpec(index=index, first_row=first, rows=len(piece), digest=digest, place=position)
            first += len(piece)
        self.digest = hashlib.sha256(b"".join(lines)).hexdigest()

    def score(
        self,
        cut: PartSpec,
        *,
        known: Mapping[int, RowError] | None = None,
        alone: bool = False,
        begin: Callable[[int], None] | None = None,
    ) -> "Answers":
        if self._asked.log:
            with self._asked.log.open("ab", buffering=0) as log:
                log.write(b"%d\n" % cut.index)
            with self._asked.log.with_name("nodes").open("ab", buffering=0) as log:
                log.write(f"{node()}\n".encode())
        lines = self._asked.path.read_bytes().splitlines(keepends=True)[cut.place["start"] :][: cut.rows]
        if hashlib.sha256(b"".join(lines)).hexdigest() != cut.digest:
            raise InputChanged("the input changed")
        time.sleep(self._asked.seconds)
        answers, errors = [], 0
        for row, line in enumerate(lines):
            if row in (known or {}):
                answers.append(f"! {(known or {})[row].code}\n")
                errors += 1
                continue
            if begin:
                begin(row)
            answers.append(answer(line.decode().split()))
            errors += answers[-1].startswith("!")
        if self._asked.node_in == "answers" and node() == "b":
            answers[0] = "0\n"
        return Answers(answers, errors)


def node() -> str:
    """Return the machine's name, as the tests name machines."""
    return os.environ.get("NODE", "")


def answer(words: list[str]) -> str:
    """Return what a line is answered with, if the process lives to say it."""
    match words:
        case ["die"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["stand", "still"]:
            time.sleep(SECONDS_FOR_EVER)
        case ["raise"]:
            raise ValueError("nobody foresaw this")
        case ["burn", seconds, path]:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            began, until = time.monotonic(), time.thread_time() + float(seconds)
            while time.thread_time() < until:
                pass
            Path(path).write_text(str(time.monotonic() - began))
        case ["signal", number, "unless", path] if not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), int(number))
        case [word] if word.isdigit():
            return f"{2 * int(word) + 1}\n"
    return f"! {' '.join(words[:1])}\n"


@dataclass(frozen=True)
class Answers:
    """A part with its answers."""

    lines: list[str]
    errors: int

    @property
    def rows(self) -> int:
        return len(self.lines)

    @property
    def first_errors(self) -> tuple[str, ...]:
        return tuple(line.rstrip() for line in self.lines if line.startswith("!"))[:3]

    def write(self, file: BinaryIO) -> None:
        file.writelines(line.encode() for line in self.lines)


class Pages:
    """The parts one after the other, between a first and a last line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(b"answers\n")

    def add(self, part: BinaryIO) -> None:
        self._file.write(part.read())

    def close(self) -> None:
        self._file.write(b"end\n")


class Here:
    """Scores in this process, on this disk: what ``Pool`` does, for tests that stop between two operations."""

    def __init__(self, asked: Doubling, disk: Disk, aside: Callable[[int], str]) -> None:
        self._scorer, self._disk, self._aside = asked.scorer(), disk, aside
        self._waiting: deque[tuple[PartSpec, dict[int, RowError]]] = deque()

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()

    @property
    def room(self) -> int:
        return 2 - len(self._waiting)

    @property
    def running(self) -> set[int]:
        return {cut.index for cut, _ in list(self._waiting)[:1]}

    def expect(self, parts: int) -> None:
        return

    def submit(self, cut: PartSpec, known: dict[int, RowError]) -> None:
        self._waiting.append((cut, known))

    def results(self, seconds: float) -> Iterator[PartResult | PoisonRow]:
        if self._waiting:
            cut, known = self._waiting.popleft()
            report = score(self._scorer, WorkOrder(cut=cut, aside=self._aside(cut.index), known=known), self._disk)
            if isinstance(report, Stopped):
                raise KINDS[report.kind](report.reason)
            assert isinstance(report, PartResult), report
            yield report


def write_rows(path: Path, rows: int, planted: Mapping[int, str] | None = None) -> bytes:
    """Return an input; what its output must be, planted lines aside."""
    lines: list[Any] = list(range(rows))
    for row, line in (planted or {}).items():
        lines[row] = line
    path.write_text("".join(f"{line}\n" for line in lines))
    return b"answers\n" + b"".join(b"%d\n" % (2 * row + 1) for row in range(rows)) + b"end\n"


def gone(pid: int) -> None:
    """A process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
