"""A stand-in for ``python -m service.scoring``: its command line, progress and exit codes.

A line of its input is a row that says what to do: any word is scored, ``wait FILE`` is scored once FILE is there,
``error`` is an error row, ``exit CODE REASON`` ends it, ``once CODE REASON`` ends it the first time, ``die`` is
its sudden death. What was scored before it ended is not scored again. ``runs`` beside the output has a line for every
start, and ``TWICE`` if two ever ran at once.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

_, verb, model, source, target, *options = sys.argv
SOURCE, TARGET = Path(source), Path(target)
PART, RUNS = TARGET.with_name(".part"), TARGET.with_name("runs")


def say(event: str, **more: object) -> None:
    sys.stderr.write(json.dumps({"event": event, **more}) + "\n")
    sys.stderr.flush()


def leave(code: int, reason: str, event: str = "failed") -> None:
    say(event, reason=reason, code=reason if reason == "stack_changed" else None)
    os._exit(code)


def pause(*_: object) -> None:
    leave(130, "interrupted", "paused")


def score(number: int, line: str) -> str:
    word, _, rest = line.partition(" ")
    first = TARGET.with_name(f"once-{number}")
    if word == "wait":
        while not Path(rest).exists():
            time.sleep(0.01)
    elif word == "exit" or (word == "once" and not first.exists()):
        first.touch()
        code, _, reason = rest.partition(" ")
        leave(int(code), reason.replace("SOURCE", source).replace("TARGET", target))
    elif word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{number} {word}\n"


def main() -> None:
    signal.signal(signal.SIGTERM, pause)
    signal.signal(signal.SIGINT, pause)
    lock = os.open(TARGET.with_name("stand-in.lock"), os.O_RDWR | os.O_CREAT)
    with RUNS.open("a") as runs:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            runs.write("TWICE\n")
        runs.write(f"{verb} {model} {' '.join(options)}\n")
    lines = SOURCE.read_text().splitlines()
    with PART.open("a+") as part:
        part.seek(0)
        done = len(part.readlines())
        for number in range(done, len(lines)):
            part.write(score(number, lines[number]))
            part.flush()
            rows = {"rows": number + 1, "rows_total": len(lines), "errors": lines[: number + 1].count("error")}
            say("progress", **rows, rows_per_second=1.0, seconds_left=len(lines) - number - 1.0)
    PART.rename(TARGET)
    say("done", rows=len(lines), errors=lines.count("error"), notes=["one", "two"])


main()
