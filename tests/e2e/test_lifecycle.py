"""A served process on its worst day: killed, stopped, told to end under load, and given another version."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from msgspec.structs import replace

from models.artifact.manifest import MANIFEST_FILE, from_bytes, to_bytes
from models.paths import REPOSITORY
from service.auth.api_keys import line_of, new_key
from service.process.watchdog import SILENT_SECONDS
from service.telemetry.metrics_storage import metrics_folder

pytestmark = pytest.mark.e2e
BODY = {"instances": [{"views": [100] * 56}]}
PATH = "/v1/models/viewcount/predict"
CLIENTS = 8
BACK_SECONDS = 5.0


class Load:
    """What closed-loop clients saw: statuses, digests of the answers by model tag, and connections that broke."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.digests: dict[str, set[str]] = {}
        self.broken: list[str] = []
        self.answers: set[str] = set()
        self.is_over = False

    def ask(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=40, trust_env=False) as client:
            while not self.is_over:
                try:
                    answer = client.post(PATH, json=BODY)
                except httpx.ConnectError:
                    time.sleep(0.01)
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))
                else:
                    self.statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        found = answer.json()
                        self.digests.setdefault(found["model"], set()).add(answer.headers["x-model-digest"])
                        self.answers.add(json.dumps(found["predictions"]))


@contextmanager
def load(url: str) -> Iterator[Load]:
    """Clients at work until the end of the block."""
    seen = Load()
    threads = [threading.Thread(target=seen.ask, args=(url,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.is_over = True
        for thread in threads:
            thread.join()


def workers(server: Any) -> list[psutil.Process]:
    """Return the gateway's processes."""
    return [one for one in server.tree() if "lectern_gateway" in " ".join(one.cmdline())]


def until(condition: Callable[[], Any], seconds: float, what: str) -> float:
    """Seconds until the condition holds."""
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < seconds, what
        time.sleep(0.05)
    return time.perf_counter() - started


def answers(server: Any) -> bool:
    try:
        return bool(httpx.post(server.url + PATH, json=BODY, timeout=1, trust_env=False).status_code == 200)
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("placement", ["embedded", "process"])
def test_a_killed_worker_is_replaced(launch: Any, placement: str) -> None:
    """After SIGKILL of the only gateway process, answers come again within five seconds."""
    server = launch(LECTERN_MODELS="viewcount", LECTERN_RUNNERS=placement)
    (worker,) = workers(server)
    worker.kill()
    worker.wait(5)
    sys.stdout.write(f"back after {until(lambda: answers(server), BACK_SECONDS, 'no answer'):.2f} s\n")


def test_a_worker_that_stands_still_is_replaced(launch: Any) -> None:
    """A stopped process gives no sign of life; the parent kills and replaces it."""
    server = launch(LECTERN_MODELS="viewcount")
    (worker,) = workers(server)
    worker.suspend()
    until(lambda: not worker.is_running(), SILENT_SECONDS + 5, "it was not killed")
    until(lambda: answers(server), BACK_SECONDS, "no answer")
    assert "stood still" in server.log.read_text()


def test_workers_end_with_their_parent(launch: Any) -> None:
    """Nobody would replace them, and they would keep the port."""
    server = launch(LECTERN_MODELS="viewcount", LECTERN_WORKERS="2")
    found = workers(server)
    assert len(found) == 2
    server.process.kill()
    server.process.wait(5)
    _, alive = psutil.wait_procs(found, timeout=5)
    for one in alive:
        one.kill()
    assert alive == []


@pytest.mark.parametrize("placement", ["embedded", "process"])
@pytest.mark.parametrize("wire", ["true", "false"])
def test_the_end_loses_nothing(launch: Any, placement: str, wire: str) -> None:
    """SIGTERM under load: every request that was taken is answered, later ones are refused at once, then it ends.

    Its metrics take no memory any more.
    """
    server = launch(LECTERN_MODELS="viewcount", LECTERN_RUNNERS=placement, LECTERN_WIRE=wire)
    folder = metrics_folder(server.home, 1)
    assert folder is None or any(folder.iterdir())
    with load(server.url) as seen:
        until(lambda: seen.statuses[200] > 50, 10, "no answers")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)
    assert seen.statuses.keys() <= {200, 503}
    assert seen.broken == []
    assert "Traceback" not in server.log.read_text()
    assert folder is None or not folder.exists()


def another_version(home: Path, number: str) -> str:
    """Return a second version of the view-count model in a server's model store; its digest."""
    folder = home / "another"
    shutil.copytree(REPOSITORY / "models/viewcount/trained/viewcount", folder)
    manifest = from_bytes((folder / MANIFEST_FILE).read_bytes(), "")
    (folder / MANIFEST_FILE).write_bytes(to_bytes(replace(manifest, version=number)))
    return from_bytes((folder / MANIFEST_FILE).read_bytes(), "").digest


@pytest.mark.parametrize("placement", ["embedded", "process"])
def test_every_worker_takes_up_another_version(launch: Any, run: Any, placement: str) -> None:
    """Back and forth under load, with two workers: every answer is right and names the version that made it."""
    server = launch(LECTERN_MODELS="viewcount", LECTERN_WORKERS="2", LECTERN_RUNNERS=placement)
    shipped = server.page("/v1/models/viewcount")
    digest = another_version(server.home, "9.0.0")
    installed = run("-m", "export", "install", str(server.home / "another"), home=server.home)
    assert installed.returncode == 0, installed.stderr
    with load(server.url) as seen:
        for version, previous in (("9.0.0", shipped["version"]), (shipped["version"], "9.0.0")) * 2:
            text = json.dumps({"viewcount": {"version": version, "previous": previous}})
            (server.home / "new.json").write_text(text)
            os.replace(server.home / "new.json", server.home / "lectern-live.json")
            until(lambda v=version: served(server, v), 15, f"{version} is not live")
    assert set(seen.statuses) == {200}
    assert seen.broken == []
    assert seen.digests == {f"viewcount:{shipped['version']}": {shipped["digest"]}, "viewcount:9.0.0": {digest}}
    assert len(seen.answers) == 1
    log = server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]


def test_an_operator_brings_a_version_live_and_back(launch: Any, run: Any) -> None:
    """With an admin key: overview, activation with a comparison, refusals that change nothing, and back."""
    admin, caller = new_key(), new_key()
    keys = f"{line_of(admin, 'ops', ('admin',))}; {line_of(caller, 'app', ('predict',))}"
    server = launch(LECTERN_MODELS="viewcount", LECTERN_KEYS=keys)
    digest = another_version(server.home, "9.0.0")
    assert run("-m", "export", "install", str(server.home / "another"), home=server.home).returncode == 0

    def act(verb: str, body: Any = None, key: str = admin, model: str = "viewcount") -> httpx.Response:
        path = f"/v1/admin/models/{model}/{verb}" if verb else "/v1/admin/models"
        method = "POST" if verb else "GET"
        return server.client.request(method, path, json=body, headers={"x-api-key": key})

    def asked() -> tuple[str, str]:
        answer = server.client.post(PATH, json=BODY, headers={"x-api-key": caller})
        return answer.json()["model"], answer.headers["x-model-digest"]

    (before,) = act("").json()["models"]
    assert before["stored"] == [before["version"], "9.0.0"]
    assert before["previous"] is None
    first = asked()
    assert act("activate", {"version": "9.0.0"}, caller).status_code == 403
    assert act("activate", {"version": "9.0.0"}, new_key()).status_code == 401
    assert act("activate", {"version": "9.9.9"}).json()["code"] == "unknown_version"
    assert act("activate", {"version": 9}).status_code == 422
    assert act("activate", {}).status_code == 422
    assert act("rollback").status_code == 404
    assert act("activate", {"version": "9.0.0"}, model="nothing").json()["code"] == "unknown_model"
    assert asked() == first

    done = act("activate", {"version": "9.0.0", "max_changed": 0}).json()
    assert (done["version"], done["previous"], done["digest"]) == ("9.0.0", before["version"], digest)
    assert done["comparison"] == {"compared": 2, "changed": 0, "largest_difference": 0.0}
    assert asked() == ("viewcount:9.0.0", digest)
    assert act("rollback").json()["version"] == before["version"]
    assert asked() == first
    assert act("").json()["models"][0]["previous"] == "9.0.0"


def test_without_an_admin_key_nobody_is_an_operator(server: Any) -> None:
    """The operator's routes are unknown paths, like any other."""
    for method, path in (("GET", "/v1/admin/models"), ("POST", "/v1/admin/models/viewcount/activate")):
        answer = server.client.request(method, path, json={"version": "9.0.0"})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route")


def served(server: Any, version: str) -> bool:
    """Return whether forty answers in a row, on connections of their own, are of this version."""
    answers = (httpx.post(server.url + PATH, json=BODY, trust_env=False) for _ in range(40))
    return all(answer.json()["model"] == f"viewcount:{version}" for answer in answers)
