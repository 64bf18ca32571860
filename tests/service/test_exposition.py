"""The page says what the client's own page says, and what the dead have counted is neither lost nor counted twice."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from models.datasets import REPOSITORY
from service.exposition import Page
from service.remains import Remains

WRITER = r"""
import sys
from prometheus_client import Counter, Gauge, Histogram
n = float(sys.argv[1])
Counter("x_total", 'A "quoted" \\ text\nof two lines.', ["model"]).labels('a"b\\c\nd').inc(n)
Counter("plain_total", "No labels.").inc(n)
Gauge("depth", "D.", ["model"], multiprocess_mode="livesum").labels("m").set(n)
Gauge("loaded", "L.", ["model"], multiprocess_mode="livemax").labels("m").set(n)
Gauge("least", "L.", multiprocess_mode="livemin").set(n)
spread = Histogram("took_seconds", "T.", ["model", "stage"], buckets=(0.1, 1, 10))
for stage in ("a", "b"):
    for amount in (0.05, 0.5, n, 100):
        spread.labels("m", stage).observe(amount)
print("written", flush=True)
sys.stdin.read()
"""


class Writer:
    """A process that has written its metrics and lives on."""

    def __init__(self, folder: Path, number: int) -> None:
        environment = {"PYTHONPATH": str(REPOSITORY), "PROMETHEUS_MULTIPROC_DIR": str(folder), "PATH": "/bin"}
        command = [sys.executable, "-c", WRITER, str(number)]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"written\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def writers(tmp_path: Path) -> Any:
    made = [Writer(tmp_path, number) for number in (1, 2, 4)]
    yield made
    for one in made:
        one.kill()


def read(page: bytes) -> dict[str, float]:
    """Every sample by name and labels, and each metric's kind and text."""
    found: dict[str, Any] = {}
    for metric in text_string_to_metric_families(page.decode()):
        found[metric.name] = (metric.type, metric.documentation)
        for sample in metric.samples:
            found[f"{sample.name}{sorted(sample.labels.items())}"] = sample.value
    return found


def clients(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return read(generate_latest(registry))


def test_the_page_is_the_clients(tmp_path: Path, writers: list[Writer]) -> None:
    """Names, kinds, texts, escapes, sums, largest and smallest, buckets: as the client writes them."""
    page = Page(tmp_path)
    found = read(page.render())
    assert found == clients(tmp_path)
    assert found["depth[('model', 'm')]"] == 7
    assert found["took_seconds_bucket[('le', '+Inf'), ('model', 'm'), ('stage', 'a')]"] == 12
    writers.append(Writer(tmp_path, 8))
    assert read(page.render()) == clients(tmp_path)


def test_the_dead(tmp_path: Path, writers: list[Writer]) -> None:
    """Counters and histograms go on; gauges are of the living; no series is lost or new."""
    page = Page(tmp_path)
    before = read(page.render())
    writers[2].kill()
    after = read(page.render())
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert changed == {"depth[('model', 'm')]", "loaded[('model', 'm')]"}
    assert (after["depth[('model', 'm')]"], after["loaded[('model', 'm')]"]) == (3, 2)
    for one in writers:
        one.kill()
    nobody = read(page.render())
    assert (nobody["depth[('model', 'm')]"], nobody["plain_total[]"]) == (0, 7)


def test_the_dead_are_gathered(tmp_path: Path, writers: list[Writer]) -> None:
    """Their files become one of a kind, again and again, and the page stays the same."""
    page, number = Page(tmp_path), 7
    for one in writers[:2]:
        one.kill()
    before = read(page.render())
    for _ in range(3):
        Remains(tmp_path).gather()
        assert read(page.render()) == before == read(Page(tmp_path).render())
    assert len([*tmp_path.glob("*.db")]) == 2 + 5  # of the dead, and of the one that lives
    for more in (8,):
        Writer(tmp_path, more).kill()
        Remains(tmp_path).gather()
        number += more
        assert read(page.render())["plain_total[]"] == number
    assert len([*tmp_path.glob("*.db")]) == 7


def test_totals_are_over_all_versions(tmp_path: Path) -> None:
    """The statistics of a model add up what its versions have counted."""
    script = """if True:
        from prometheus_client import Counter
        counter = Counter("asked_total", "A.", ["model", "version", "outcome"])
        for version in ("1.0.0", "1.0.1"):
            counter.labels("m", version, "ok").inc(3)
    """
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": "/bin"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert Page(tmp_path).totals() == {"m": {("asked_total", "ok"): 6.0}}


STEPS = ("replace", "unlink")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes have left that were killed."""
    folder = tmp_path_factory.mktemp("dead")
    for number in (1, 2, 4):
        Writer(folder, number).kill()
    return folder


@pytest.mark.parametrize("last", range(20))
def test_killed_while_gathering(tmp_path: Path, dead: Path, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step is the last of a process that gathers, the page says the same, and the next one finishes."""
    shutil.copytree(dead, tmp_path, dirs_exist_ok=True)
    before, left = read(Page(tmp_path).render()), last

    def dying(name: str) -> Any:
        real = getattr(Path, name)

        def step(self: Path, *rest: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(self, *rest, **more)

        return step

    with monkeypatch.context() as killing:
        for name in STEPS:
            killing.setattr(Path, name, dying(name))
        try:
            Remains(tmp_path).gather()
        except KeyboardInterrupt:
            pass
        else:
            assert last > 15
    assert read(Page(tmp_path).render()) == before
    Remains(tmp_path).gather()
    assert read(Page(tmp_path).render()) == before
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["counter_0.db", "histogram_0.db"]
    assert not [*tmp_path.glob("*.json*")]


def test_a_scrape_is_quick(tmp_path: Path, writers: list[Writer]) -> None:
    """What was read once is not read again: the second page parses no key."""
    page = Page(tmp_path)
    page.render()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.exposition.json.loads", lambda text: pytest.fail("a key was parsed again"))
        patch.setattr("service.exposition.read_file", lambda path: pytest.fail("a file's keys were read again"))
        page.render()
