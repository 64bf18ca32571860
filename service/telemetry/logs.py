"""One event, one line on standard error, as JSON or as text; no input can forge a line of either.

Every logger of the process writes by one handler: Lectern's, BentoML's, uvicorn's, warnings, and what nobody caught.
An event is one ``write`` of at most ``MOST_BYTES``, so that the lines of several processes on one pipe never mix, and a
line of code that is asked for too many events is silenced and counted, so that no caller can fill the disk.
"""

import json
import logging
import logging.config
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from service.settings import LogForm, log_form

Document = dict[str, Any]

# What POSIX writes into a pipe in one piece (PIPE_BUF on Linux).
MOST_BYTES = 4096
# Events that one line of code may log at once, and later per second: enough for 64 models that get ready.
BURST, PER_SECOND = 64.0, 1.0

# uvicorn's second message, with colours for a terminal, is the first once more.
_ALWAYS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_CUT = " ... "
_logger = logging.getLogger("lectern.uncaught")


class LineHandler(logging.Handler):
    """Writes every event as one line.

    Args:
        form: JSON or text.
        write: Takes a whole line; standard error by default.
        clock: Monotonic, seconds.
    """

    def __init__(
        self, form: LogForm, write: Callable[[bytes], object] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        super().__init__()
        self.form, self.clock = form, clock
        self._write = write or _to_stderr
        self._places: dict[tuple[str, int], _Location] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event, unless its place has said too much; called with the handler's lock held."""
        now = self.clock()
        location = self._places.setdefault((record.pathname, record.lineno), _Location(now))
        if not location.admits(now):
            location.name = record.name
            return
        try:
            self._put({**document(record), **location.owed()})
            self._settle(now)
        except Exception:  # the border of the log: an event that cannot be told must not cost a request
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in logging)
        """Say that an event was lost; ``logging`` would print it with a traceback, past this handler."""
        with suppress(Exception):  # a full disk or a closed pipe: there is nowhere to say it
            self._put({**_head(record), "level": "ERROR", "message": "an event could not be written"})

    def close(self) -> None:
        """Say what was silenced and not yet told."""
        self.acquire()
        try:
            self._settle(math.inf)
        finally:
            self.release()
        super().close()

    def _settle(self, now: float) -> None:
        for location in self._places.values():
            if location.silenced and location.is_quiet(now):
                head = {
                    "time": _time(datetime.now(UTC)),
                    "level": "WARNING",
                    "logger": location.name,
                    "pid": os.getpid(),
                }
                self._put({**head, "message": "events were not written", **location.owed()})

    def _put(self, event: Document) -> None:
        as_line = to_json if self.form is LogForm.JSON else to_text
        texts = {name: _shorter(value, MOST_BYTES) for name, value in event.items() if isinstance(value, str)}
        while len(line := as_line({**event, **texts})) > MOST_BYTES:
            longest = max(texts, key=lambda name: len(texts[name]))
            texts[longest] = _shorter(texts[longest], len(texts[longest]) * 3 // 4)
        self._write(line)


class _Location:
    """Describe how much one line of code may still log: a token bucket."""

    def __init__(self, now: float) -> None:
        self.tokens, self.filled_at, self.silenced, self.name = BURST, now, 0, ""

    def admits(self, now: float) -> bool:
        self.tokens = min(BURST, self.tokens + PER_SECOND * (now - self.filled_at))
        self.filled_at = now
        if self.tokens < 1:
            self.silenced += 1
            return False
        self.tokens -= 1
        return True

    def is_quiet(self, now: float) -> bool:
        return now - self.filled_at > 1 / PER_SECOND

    def owed(self) -> Document:
        """Return how many events were not written since this was last asked."""
        count, self.silenced = self.silenced, 0
        return {"suppressed": count} if count else {}


def document(record: logging.LogRecord) -> Document:
    """Return what is told of an event: plain values only.

    ``extra={"model": …}`` becomes a field; a traceback is one string.
    """
    try:
        message = record.getMessage()
    except Exception:  # a message whose arguments do not fit it
        message = str(record.msg)
    own = {**_head(record), "message": message}
    extras = {name: _plain(value) for name, value in vars(record).items() if name not in _ALWAYS | own.keys()}
    told = {**own, **extras}
    if record.exc_info and record.exc_info[0] is not None:
        told["traceback"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return told


def to_json(event: Document) -> bytes:
    """Return one JSON object and a line feed, in ASCII: what some reader takes for the end of a line is escaped."""
    whole = {name: _unicode(value) if isinstance(value, str) else value for name, value in event.items()}
    text = json.dumps(whole, ensure_ascii=True, allow_nan=False, default=str)
    return text.replace("\x7f", "\\u007f").encode() + b"\n"


def to_text(event: Document) -> bytes:
    """Return one line for people; a traceback follows on lines that no event begins like."""
    rest = {name: value for name, value in event.items() if name not in ("time", "level", "logger", "message")}
    trace = str(rest.pop("traceback", "")).split("\n") if "traceback" in rest else []
    fields = [f"{name}={value}" for name, value in rest.items() if name != "pid"]
    first = " ".join(str(part) for part in (event["time"], event["level"], event["logger"], event["message"], *fields))
    return "".join(f"{escape(line)}\n" for line in (first, *(f"    | {line}" for line in trace))).encode()


def escape(text: str) -> str:
    r"""Return the text on one line, with every character that is not for the eye written out, e.g. ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def format_fatal(error: Exception) -> str:
    """Return the line with which a process that refuses to start ends, for ``SystemExit``."""
    if log_form() is LogForm.TEXT:
        return f"lectern: {escape(str(error))}"
    head = {"time": _time(datetime.now(UTC)), "level": "CRITICAL", "logger": "lectern", "pid": os.getpid()}
    return to_json({**head, "event": "refused", "message": f"lectern: {error}"}).decode().rstrip("\n")


def configure(form: LogForm) -> None:
    """From now on everything this process logs is written by one ``LineHandler``.

    BentoML sets up its own logging before it imports the service, never after.
    """
    quiet = {"level": "WARNING", "handlers": [], "propagate": True}
    told = {"level": "INFO", "handlers": [], "propagate": True}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"line": {"()": LineHandler, "form": form}},
            "loggers": {"lectern": told, "bentoml": told, "uvicorn.error": quiet, "circus": quiet},
            "root": {"level": "WARNING", "handlers": ["line"]},
        }
    )
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False  # BentoML's own configuration switches off whatever it does not name
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda kind, error, trace: _logger.critical("uncaught", exc_info=(kind, error, trace))
    threading.excepthook = lambda found: _uncaught("uncaught in a thread", found.exc_value)
    sys.unraisablehook = lambda found: _uncaught(found.err_msg or "cannot be raised", found.exc_value)


def write_event(event: Document) -> None:
    """Write an event that somebody has asked for in so many words, however many there are of its kind."""
    as_line = to_json if log_form() is LogForm.JSON else to_text
    _to_stderr(as_line(event))


def announce(message: str, **fields: int | str) -> None:
    """Write an event that somebody waits for: to people its message says all, machines get its fields too."""
    head = {"time": _time(datetime.now(UTC)), "level": "INFO", "logger": "lectern", "pid": os.getpid()}
    write_event({**head, "message": message, **(fields if log_form() is LogForm.JSON else {})})


def _uncaught(message: str, error: BaseException | None) -> None:
    _logger.critical(message, exc_info=error)


def _head(record: logging.LogRecord) -> Document:
    when = _time(datetime.fromtimestamp(record.created, UTC))
    return {"time": when, "level": record.levelname, "logger": record.name, "pid": record.process}


def _time(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    is_number = isinstance(value, int | float) and abs(value) < 2**53
    return value if value is None or is_number else str(value)


def _unicode(text: str) -> str:
    """The text without halves of surrogate pairs, on which strict readers of JSON fail; file names may hold some."""
    return text.encode("utf-8", "backslashreplace").decode()


def _shorter(text: str, length: int) -> str:
    """Return the same with its middle left out: a traceback begins with where and ends with why."""
    half = (length - len(_CUT)) // 2
    return text if len(text) <= length else text[:half] + _CUT + text[-half:] if half > 0 else ""


def _to_stderr(line: bytes) -> None:
    os.write(2, line)
