"""Jobs on two Ray nodes of this machine; one of them is killed, or the runner is."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from export.store import install
from models.paths import REPOSITORY
from service.scoring.workers.ray_pool import INSTALL
from tests.service.scoring.ray_nodes import Cluster, processes_of
from tests.service.scoring.stand_in import write_rows

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=f"Ray is not installed: {INSTALL}"),
]

ROWS, PARTS = 1000, 20
# A node's first worker may come ten seconds after another's: there must be something left to do for it.
MANY = ("--part-rows", 10, "--seconds", 0.3)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A cluster of one node, ``a``."""
    cluster = Cluster()
    try:
        cluster.start("a")
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def cluster(head: Cluster) -> Cluster:
    """A cluster of two, ``a`` and ``b``."""
    if "b" not in head.nodes:
        head.start("b")
    return head


@pytest.fixture
def start(tmp_path: Path, cluster: Cluster) -> Iterator[Start]:
    """Starts runners; whatever is left of them is ended."""
    started = []

    def begin(*options: Any, is_local: bool = False) -> "subprocess.Popen[str]":
        where = ["--workers", 2] if is_local else ["--workers", 4, "--engine", "ray", "--ray-address", cluster.address]
        command = [sys.executable, "-m", "tests.service.scoring.runner", tmp_path, *where, *options]
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=REPOSITORY,
            env=cluster.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def lines(path: Path) -> list[str]:
    """Of a file that may not be there yet."""
    return path.read_text().split() if path.exists() else []


def wait_for(what: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 60) -> None:
    """Until it is so."""
    until = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and everything said."""
    said, _ = process.communicate(timeout=90)
    return process.returncode, said


def test_a_node_is_killed(start: Start, cluster: Cluster, tmp_path: Path) -> None:
    """Both nodes score, one dies with all its processes: the same bytes, and only what it was at is begun again."""
    want = write_rows(tmp_path / "in", ROWS)
    run = start(*MANY, "--progress", "json")
    wait_for(lambda: {"a", "b"} <= {*lines(tmp_path / "nodes")}, run)
    cluster.kill("b")
    code, said = end(run)
    assert code == 0, said
    assert json.loads(said.splitlines()[-1])["event"] == "done"
    assert {json.loads(line)["event"] for line in said.splitlines()} == {"progress", "done"}
    assert (tmp_path / "out").read_bytes() == want
    begun = lines(tmp_path / "log")
    assert {*begun} == {str(number) for number in range(ROWS // 10)}
    assert len(begun) <= ROWS // 10 + 2  # two of the four workers were there
    assert not (tmp_path / ".out.job").exists()


def test_one_digest(cluster: Cluster, tmp_path: Path, shipped_folder: Callable[[str], Path]) -> None:
    """A shipped model in one process, in two, and on two nodes: one output, an error row in it."""
    rows = [json.dumps({"tokens": ["a", "dog", "saw"] * (row % 5 + 1)}) for row in range(60)]
    rows[7] = '{"tokens": ["a", 5]}'
    (tmp_path / "in.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (tmp_path / "home" / "models").mkdir(parents=True)
    with BentoMLContainer.model_store.patch(ModelStore(tmp_path / "home" / "models")):
        install(shipped_folder("tagging"))
    found = []
    for where in (["--workers=1"], ["--workers=2"], ["--workers=4", "--engine=ray"]):
        out = tmp_path / f"{len(found)}.parquet"
        command = [sys.executable, "-m", "service.scoring", "run", "tagging", tmp_path / "in.jsonl", out]
        environment = cluster.environment() | {"BENTOML_HOME": str(tmp_path / "home"), "RAY_ADDRESS": cluster.address}
        subprocess.run([*command, "--part-rows=5", *where], cwd=REPOSITORY, env=environment, check=True)
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]


def test_poisonous_rows(start: Start, tmp_path: Path) -> None:
    """Rows that end their process, hang, or raise are the error rows that they are on one machine."""
    planted = {3: "die", 60: "raise", 110: "stand still", 112: "die", 149: "raise", ROWS - 1: "die"}
    write_rows(tmp_path / "in", ROWS, planted)
    assert end(start("--row-timeout", 1))[0] == 0
    there = (tmp_path / "out").read_bytes()
    (tmp_path / "out").unlink()
    assert end(start("--row-timeout", 1, is_local=True))[0] == 0
    assert there == (tmp_path / "out").read_bytes()
    assert there.count(b"! runner_failed") == 5
    assert there.count(b"! runner_timed_out") == 1


@pytest.mark.parametrize("begins_local", [True, False])
def test_a_runner_is_killed(begins_local: bool, start: Start, tmp_path: Path) -> None:
    """What one engine's runner began the other one brings to its end; finished parts are not scored again."""
    want = write_rows(tmp_path / "in", ROWS)
    first = start("--seconds", 0.2, is_local=begins_local)
    wait_for(lambda: len(lines(tmp_path / "log")) > 8, first)
    first.kill()
    first.wait()
    code, said = end(start(is_local=not begins_local))
    assert code == 0, said
    assert (tmp_path / "out").read_bytes() == want
    assert len(lines(tmp_path / "log")) <= PARTS + 4 + (0 if begins_local else 4)


def test_interrupted(start: Start, tmp_path: Path) -> None:
    """SIGTERM pauses a job as it does on one machine, whatever Ray does with signals."""
    want = write_rows(tmp_path / "in", ROWS)
    first = start("--seconds", 0.3)
    wait_for(lambda: len(lines(tmp_path / "log")) > 4, first)
    first.terminate()
    code, said = end(first)
    assert (code, " -m service.scoring resume" in said) == (130, True), said
    assert end(start())[0] == 0
    assert (tmp_path / "out").read_bytes() == want


def test_other_answers_on_another_node(start: Start, tmp_path: Path) -> None:
    """Control: a node whose answers differ is seen by these comparisons."""
    want = write_rows(tmp_path / "in", ROWS)
    code, said = end(start(*MANY, "--node-in", "answers"))
    assert code == 0, said
    assert "b" in lines(tmp_path / "nodes")
    assert (tmp_path / "out").read_bytes() != want


def test_another_machine(start: Start, tmp_path: Path) -> None:
    """Nodes with other versions, or another CPU, are refused unless --mix lets them take part."""
    want = write_rows(tmp_path / "in", ROWS)
    code, said = end(start("--node-in", "stack"))
    assert (code, "a machine of the cluster has" in said) == (1, True), said
    assert end(start("--node-in", "stack", "--mix"))[0] == 0
    assert (tmp_path / "out").read_bytes() == want


def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Without an address: the same bytes, and nobody but this machine can speak to it meanwhile."""
    want = write_rows(tmp_path / "in", ROWS)
    command = [sys.executable, "-m", "tests.service.scoring.runner", tmp_path, "--engine=ray", "--workers=2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)}
    with subprocess.Popen([*command, "--seconds=0.3"], cwd=REPOSITORY, env=environment) as run:
        wait_for(lambda: (tmp_path / "log").exists(), run)
        open_to = {
            connection.laddr.ip
            for process in processes_of(run.pid)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert run.wait(90) == 0
    assert (tmp_path / "out").read_bytes() == want
    assert open_to <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert open_to
