"""Whatever is run with ``python -m`` says what it is for when asked, and starts nothing by a word that is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.paths import REPOSITORY

ROOMS = ("models", "export", "service", "loadtests", "benchmarks", "chaos", "monitoring")
# Each peer has an environment of its own. Only these have their packages here, too.
PEERS, HERE = "benchmarks.peers.", ("benchmarks.peers.serve_bentoml",)
# Runs each program in a fork of a process that has imported what takes long; what starts anything ends with 99.
RUN_ALL = """
import os, runpy, sys
import bentoml, matplotlib.pyplot, pandas, pyarrow.dataset, scipy.stats, torch
def watch(event, arguments):
    if event in ("socket.bind", "socket.connect", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork"):
        os.write(2, f"{event}{arguments}\\n".encode())
        os._exit(99)
folder, word, *programs = sys.argv[1:]
for program in programs:
    if os.fork() == 0:
        output = os.open(f"{folder}/{program}", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.addaudithook(watch)
        sys.argv = [program, word]
        try:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
            status = 1
        sys.stdout.flush()
        os._exit(status)
    print(program, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def find_programs() -> list[str]:
    """Return the modules that do something when they are run."""
    found = []
    for path in sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")):
        if '\nif __name__ == "__main__":' in path.read_text():
            found.append(".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__"))
    return [name for name in found if not name.startswith(PEERS) or name in HERE]


def test_programs_are_found() -> None:
    """Control: packages and modules of every room."""
    found = find_programs()
    assert {"service", "service.auth", "export", "models.train", "loadtests", "chaos.service"} <= {*found}


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("word", "status", "said_of"), [("--help", 0, "usage:"), ("--no-such-flag", 2, "flag|usage:")])
def test_every_program(word: str, status: int, said_of: str, tmp_path: Path) -> None:
    """``--help`` ends with 0 and the usage, a flag that there is not with 2 and its name; nothing is started."""
    programs = find_programs()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LECTERN_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(tmp_path), word, *programs],
        env={**kept, "PYTHONPATH": str(REPOSITORY), "BENTOML_HOME": str(tmp_path / "home")},
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = {program: (tmp_path / program).read_text() for program in programs}
    statuses = dict(line.split() for line in done.stdout.splitlines())
    wrong = {
        program: said[program][-500:]
        for program in programs
        if statuses.get(program) != str(status) or not re.search(said_of, said[program].lower())
    }
    assert wrong == {}
