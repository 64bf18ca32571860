"""The log: one event, one line, in both forms, whatever the input; no flood fills the disk."""

import errno
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import RunnerFailed
from models.paths import REPOSITORY
from models.runtime.session import Session
from service.settings import LogForm
from service.telemetry.logs import BURST, MOST_BYTES, LineHandler, format_fatal
from tests.service.conftest import Serve, double

FORGED = "2026-11-21T00:00:00.000Z CRITICAL lectern.app forged"
HOSTILE = [
    f"\n{FORGED}",
    f"\r\n{FORGED}",
    f"\r{FORGED}",
    f"\v{FORGED}\f{FORGED}",
    f"\x1c{FORGED}\x1d{FORGED}\x1e{FORGED}",
    f"\x85{FORGED}",
    f"\u2028{FORGED}\u2029{FORGED}",
    "\x00" + FORGED,
    "\x1b[2K\x1b[1A" + FORGED,
    "\x1b]0;title\x07\x9b31m\x7f\x08\x08\x08",
    '"}\n{"time": "x", "level": "CRITICAL", "message": "forged"}',
    '\\n\\u000a\\"}',
    "\ud800\udfff\udfff\ud800",
    "\u202eforged\u200b\ufeff",
    "%s %d %(name)s {0}",
    "x" * 100_000,
    "\x00" * 100_000,
    "\n" * 10_000,
]


class Log:
    """A logger of its own with one handler, a clock that stands still and the lines that were written."""

    def __init__(self, form: LogForm) -> None:
        self.form, self.now, self.written = form, 0.0, list[bytes]()
        self.handler = LineHandler(form, self.written.append, lambda: self.now)
        self.logger = logging.Logger("lectern.test")
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        """Return what a reader sees who takes for the end of a line whatever may be one."""
        return b"".join(self.written).decode("ascii" if self.form is LogForm.JSON else "utf-8").splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the JSON objects."""
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in self.lines]


@pytest.fixture
def log() -> Log:
    """The JSON form."""
    return Log(LogForm.JSON)


@pytest.fixture
def text() -> Log:
    """The form for people."""
    return Log(LogForm.TEXT)


def test_an_event_by_heart(log: Log) -> None:
    """Time in UTC, level, logger, message and the fields of the event."""
    told = {"event": "ready", "model": "image:1.0.0", "digest": "ab12"}
    record = logging.LogRecord("lectern.app", logging.INFO, "app.py", 1, "%s is ready", ("image:1.0.0",), None)
    record.created, record.process = 1795283048.25, 7
    vars(record).update(told)
    log.handler.handle(record)
    assert log.events == [
        {
            "time": "2026-11-21T17:44:08.250Z",
            "level": "INFO",
            "logger": "lectern.app",
            "pid": 7,
            "message": "image:1.0.0 is ready",
            **told,
        }
    ]


def test_a_text_by_heart(text: Log) -> None:
    """The same for people."""
    record = logging.LogRecord("lectern.app", logging.INFO, "app.py", 1, "%s is ready", ("image:1.0.0",), None)
    record.created = 1795283048.25
    record.model = "image\n"
    text.handler.handle(record)
    assert text.lines == ["2026-11-21T17:44:08.250Z INFO lectern.app image:1.0.0 is ready model=image\\n"]


def tell(log: Log, hostile: str) -> int:
    """Events with the string wherever one can be: message, argument, field, error; how many there are."""
    log.logger.error(hostile)
    log.logger.error("path %s", hostile)
    log.logger.error(
        "path %r", hostile, extra={"event": "x", "model": hostile, "request_id": hostile, "level": hostile}
    )
    try:
        raise ValueError(hostile) from KeyError(hostile)
    except ValueError:
        log.logger.exception("failed")
    log.logger.warning("bytes %s", hostile.encode("utf-8", "surrogatepass"))
    return 5


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_input_forges_a_json_line(hostile: str, log: Log) -> None:
    """Lines are events: each is an object, and the string is inside one of its strings."""
    count = tell(log, hostile)
    assert len(log.lines) == len(log.events) == count
    assert {event["logger"] for event in log.events} == {"lectern.test"}
    assert [event["level"] for event in log.events] == ["ERROR"] * 4 + ["WARNING"]
    assert all(len(line) <= MOST_BYTES for line in log.written)
    told = hostile.encode("utf-8", "backslashreplace").decode()
    if len(told) < 1000:
        assert log.events[0]["message"] == told
        assert log.events[2]["model"] == told
        assert told in log.events[3]["traceback"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_input_forges_a_text_line(hostile: str, text: Log) -> None:
    """Only events begin with a time; a traceback's lines begin with a bar; nothing acts on the terminal."""
    count = tell(text, hostile)
    events = [line for line in text.lines if not line.startswith("    | ")]
    assert len(events) == count
    assert all(" lectern.test " in line.split("forged")[0] for line in events)
    assert all(line.isprintable() for line in text.lines)
    assert all(len(line) <= MOST_BYTES for line in text.written)


ANY = st.text(st.characters(exclude_categories=()))


@given(ANY, ANY, st.dictionaries(st.sampled_from(["model", "event", "digest"]), ANY))
def test_any_text(message: str, error: str, fields: dict[str, str]) -> None:
    """Both forms, whatever the characters."""
    for form in LogForm:
        log = Log(form)
        log.logger.error(message, exc_info=ValueError(error), extra=fields)
        lines = [line for line in log.lines if not line.startswith("    | ")]
        assert len(lines) == len(log.written) == 1
        told = message.encode("utf-8", "backslashreplace").decode()
        assert form is LogForm.TEXT or log.events[0]["message"] == told


def test_a_long_traceback_keeps_its_ends(log: Log) -> None:
    """One line stays one piece in a pipe; where it began and what it was are still there."""

    def deep(left: int) -> None:
        if left:
            (deep if left % 2 else lambda n: deep(n))(left - 1)
        raise ValueError("the reason")

    try:
        deep(60)
    except ValueError:
        log.logger.exception("failed")
    (event,) = log.events
    assert event["traceback"].startswith("Traceback (most recent call last)")
    assert event["traceback"].endswith("ValueError: the reason")
    assert len(log.written[0]) <= MOST_BYTES


def test_values_that_are_no_json(log: Log) -> None:
    """Any object may be a field; a message whose arguments do not fit it is told as it is."""
    extra = {"a": float("nan"), "b": b"\n", "c": 10**30, "d": None, "e": True, "f": 0.5}
    log.logger.error("%d of %s", "x", extra=extra)
    (event,) = log.events
    assert event["message"] == "%d of %s"
    found = {name: event[name] for name in extra}
    assert found == {"a": "nan", "b": "b'\\n'", "c": str(10**30), "d": None, "e": True, "f": 0.5}


def test_an_event_that_cannot_be_told(log: Log) -> None:
    """An object that cannot be shown costs its own text, not the request that logged it."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError("no")

    log.logger.error(Broken())
    log.logger.error("next")
    assert [event["message"] for event in log.events] == ["an event could not be written", "next"]


def test_a_full_disk_costs_no_request() -> None:
    """What cannot be written is lost in silence."""

    def full(line: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    logger = logging.Logger("lectern.test")
    logger.addHandler(LineHandler(LogForm.JSON, full))
    logger.error("lost")


def test_a_flood_is_counted_not_written(log: Log) -> None:
    """One line of code may say 64 things at once and one per second; the next event says how many were left out."""

    def flood(count: int) -> None:
        for number in range(count):
            log.logger.warning("invalid request %d", number)

    flood(1000)
    assert len(log.events) == BURST
    log.logger.warning("another place is heard")
    assert len(log.events) == BURST + 1
    log.now = 1.0
    flood(1)
    assert log.events[-1]["suppressed"] == 1000 - BURST
    log.now = 2.0
    flood(3)
    assert "suppressed" not in log.events[-1]
    log.now = 10.0
    log.logger.warning("long after")
    assert [event.get("suppressed") for event in log.events[-2:]] == [None, 2]
    assert log.events[-1]["message"] == "events were not written"


def test_what_was_left_out_is_told_at_the_end(log: Log) -> None:
    """The last words of a process say how many of its events were not written."""
    for number in range(100):
        log.logger.warning("%d", number)
    log.handler.close()
    assert log.events[-1]["suppressed"] == 100 - BURST
    assert log.events[-1]["logger"] == "lectern.test"


@pytest.mark.parametrize("wire", [True, False])
def test_requests_forge_nothing(wire: bool, serve: Serve, run: Callable[[Any], None], log: Log, capfd: Any) -> None:
    """Hostile paths, headers and ids through the whole service: lines are events, and none tells the input."""
    seen: list[logging.LogRecord] = []
    log.logger.handlers[0].addFilter(lambda record: not seen.append(record))  # type: ignore[func-returns-value]
    hostile = [one.encode("utf-8", "surrogatepass") for one in HOSTILE if len(one) < 1000]
    escaped = [b"".join(b"%%%02x" % byte for byte in one) for one in hostile]
    requests = [b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n" % one for one in escaped]
    requests += [b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n" % one for one in hostile]
    requests += [double(1, headers=b"x-request-id: %s\r\n" % one) for one in hostile]
    requests += [double(1, headers=b"x-%s: 1\r\n" % one) for one in hostile]
    requests += [
        b"POST /v1/models/%s/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % one for one in escaped
    ]
    requests += [double(1, body=b'{"instances": ["%s"]}' % one) for one in hostile]
    requests += [one + b"\r\n\r\n" for one in hostile]

    async def work() -> None:
        async with serve(wire=wire, log_requests=1.0) as live:
            for request in requests:
                client = await live.connect()
                await client.send(request)
                client.finish()
                await client.read_all()

    root = logging.getLogger()
    root.addHandler(log.handler)
    try:
        run(work)
    finally:
        root.removeHandler(log.handler)
    told = [*log.lines, *capfd.readouterr().err.splitlines()]
    assert len(log.lines) == len(log.events) <= len(seen)
    assert len([json.loads(line) for line in told]) > len(hostile)  # a line for each request to a model
    assert "forged" not in "".join(told)


def test_a_failed_model_is_told_with_its_request(serve: Serve, run: Callable[[Any], None], log: Log) -> None:
    """The event names the model and the request; the traceback is inside it."""

    async def work() -> None:
        async with serve() as live:

            async def fail(*_: Any) -> Any:
                raise ValueError("the engine's\nreason")

            live.model.run = live.model.run_now = fail  # type: ignore[method-assign]
            client = await live.connect()
            answer = await client.ask(double(1, headers=b"x-request-id: mine-7\r\n"))
            assert answer.status == 500

    logger = logging.getLogger("lectern.batching")
    logger.addHandler(log.handler)
    logger.propagate = False
    try:
        run(work)
    finally:
        logger.removeHandler(log.handler)
        logger.propagate = True
    (event,) = log.events
    assert (event["event"], event["model"], event["request_id"]) == ("model_failed", "double", "mine-7")
    assert "the engine's\nreason" in event["traceback"]


def test_the_engine_writes_nothing_of_its_own(
    shipped_session: Callable[[str], Session], capfd: pytest.CaptureFixture[str]
) -> None:
    """A run that fails is an exception with the engine's reason, and no line past the log."""
    session = shipped_session("tagging")
    sizes = {one.name: [n if isinstance(n, int) else 1 for n in one.shape] for one in session.manifest.inputs}
    feeds = {one.name: np.full(sizes[one.name], 10**6, one.dtype) for one in session.manifest.inputs}
    with pytest.raises(RunnerFailed) as caught:
        session.run(feeds, [session.manifest.outputs[0].name])
    assert "out of data bounds" in str(caught.value.__cause__)
    assert capfd.readouterr() == ("", "")


PROGRAM = """
import logging, sys, threading, warnings
from service.telemetry.logs import configure
from service.settings import LogForm
from bentoml._internal.log import configure_server_logging
configure_server_logging()
configure(LogForm({form!r}))
logging.getLogger("bentoml.serve").info("bentoml says")
logging.getLogger("uvicorn.error").warning("uvicorn says")
logging.getLogger("uvicorn.error").info("uvicorn whispers")
logging.getLogger("uvicorn.access").info("127.0.0.1 - GET /")
logging.getLogger("circus").error("circus says")
logging.getLogger("anything").warning("a library says")
warnings.warn("a warning\\nof two lines")
def fail(): raise ValueError("in a\\nthread")
thread = threading.Thread(target=fail); thread.start(); thread.join()
class Bad:
    def __del__(self): raise ValueError("while\\ndeleting")
bad = Bad(); del bad
raise RuntimeError("uncaught\\nhere")
"""


@pytest.mark.parametrize("form", list(LogForm))
def test_a_whole_process(form: LogForm) -> None:
    """Everything goes to standard error in one form: BentoML's, uvicorn's, warnings, and what nobody caught."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form.value)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("    | ")]
    names = ["bentoml.serve", "uvicorn.error", "circus", "anything", "py.warnings", *["lectern.uncaught"] * 3]
    if form is LogForm.JSON:
        events = [msgspec.json.decode(line, type=dict[str, Any]) for line in done.stderr.splitlines()]
        assert [event["logger"] for event in events] == names
        assert "RuntimeError: uncaught\nhere" in events[-1]["traceback"]
    assert [line.split()[2] for line in lines] == names or form is LogForm.JSON


@pytest.mark.parametrize(("value", "is_json"), [("json", True), ("text", False), ("yaml", True), (None, True)])
def test_last_words(value: str | None, is_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal to start is one line in the wanted form, even where the settings cannot be read."""
    monkeypatch.delenv("LECTERN_LOG", raising=False)
    if value:
        monkeypatch.setenv("LECTERN_LOG", value)
    words = format_fatal(ValueError("no\nfile \x1b[1m"))
    assert len(words.splitlines()) == 1
    if is_json:
        event = msgspec.json.decode(words)
        assert (event["event"], event["level"]) == ("refused", "CRITICAL")
        assert event["message"] == "lectern: no\nfile \x1b[1m"
    else:
        assert words == "lectern: no\\nfile \\x1b[1m"


def test_lines_of_many_processes_do_not_mix() -> None:
    """Eight processes write long lines into one pipe; each arrives whole."""
    code = (
        "import logging, sys; from service.telemetry.logs import LineHandler; from service.settings import LogForm\n"
        "log = logging.Logger('x'); log.addHandler(LineHandler(LogForm.JSON))\n"
        "[log.error(sys.argv[1] * 50000) for _ in range(60)]"
    )
    reader, writer = os.pipe()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, f"{n}"], cwd=REPOSITORY, stderr=writer) for n in range(8)
    ]
    os.close(writer)
    time.sleep(0.5)  # until the pipe is full and every writer waits for room
    with os.fdopen(reader, "rb", buffering=0) as opened:
        lines = b"".join(iter(lambda: opened.read(1000), b"")).splitlines()
    assert [process.wait(30) for process in processes] == [0] * 8
    assert len(lines) == 8 * 60
    assert max(map(len, lines)) < select.PIPE_BUF
    for line in lines:
        assert len(set(msgspec.json.decode(line)["message"].replace(" ... ", ""))) == 1
