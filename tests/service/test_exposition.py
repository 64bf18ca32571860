"""The page says what the client's own page says, and what the dead have counted is neither lost nor counted twice."""

import gzip
import shutil
import subprocess
import sys
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from models.paths import REPOSITORY
from service.messages.request_id import REQUEST_ID
from service.server.scrape import scrape
from service.telemetry.dead_processes import DeadProcessMetrics
from service.telemetry.exemplars import Exemplar, Exemplars
from service.telemetry.exposition import MEDIA_TYPE, OPEN_MEDIA_TYPE, MetricsPage

TRACED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

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
    """Return every sample by name and labels, and each metric's kind and text."""
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
    page = MetricsPage(tmp_path)
    found = read(page.render())
    assert found == clients(tmp_path)
    assert found["depth[('model', 'm')]"] == 7
    assert found["took_seconds_bucket[('le', '+Inf'), ('model', 'm'), ('stage', 'a')]"] == 12
    writers.append(Writer(tmp_path, 8))
    assert read(page.render()) == clients(tmp_path)


def test_the_dead(tmp_path: Path, writers: list[Writer]) -> None:
    """Counters and histograms go on; gauges are of the living; no series is lost or new."""
    page = MetricsPage(tmp_path)
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
    page, number = MetricsPage(tmp_path), 7
    for one in writers[:2]:
        one.kill()
    before = read(page.render())
    for _ in range(3):
        DeadProcessMetrics(tmp_path).gather()
        assert read(page.render()) == before == read(MetricsPage(tmp_path).render())
    assert len([*tmp_path.glob("*.db")]) == 2 + 5  # of the dead, and of the one that lives
    for more in (8,):
        Writer(tmp_path, more).kill()
        DeadProcessMetrics(tmp_path).gather()
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
    assert MetricsPage(tmp_path).totals() == {"m": {("asked_total", "ok"): 6.0}}


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
    before, left = read(MetricsPage(tmp_path).render()), last

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
            DeadProcessMetrics(tmp_path).gather()
        except KeyboardInterrupt:
            pass
        else:
            assert last > 15
    assert read(MetricsPage(tmp_path).render()) == before
    DeadProcessMetrics(tmp_path).gather()
    assert read(MetricsPage(tmp_path).render()) == before
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["counter_0.db", "histogram_0.db"]
    assert not [*tmp_path.glob("*.json*")]


def test_a_scrape_is_quick(tmp_path: Path, writers: list[Writer]) -> None:
    """What was read once is not read again: the second page parses no key."""
    page = MetricsPage(tmp_path)
    page.render()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.telemetry.exposition.json.loads", lambda text: pytest.fail("a key was parsed again"))
        patch.setattr(
            "service.telemetry.exposition.read_file", lambda path: pytest.fail("a file's keys were read again")
        )
        page.render()


def opened(page: bytes) -> dict[str, Any]:
    """As ``read``, of OpenMetrics, by the client's own strict parser; exemplars by series."""
    found: dict[str, Any] = {}
    for metric in open_families(page.decode()):
        found[metric.name] = (metric.type, metric.documentation)
        for sample in metric.samples:
            found[f"{sample.name}{sorted(sample.labels.items())}"] = sample.value
            if sample.exemplar is not None:
                found[f"{sample.name}{sorted(sample.labels.items())} exemplar"] = sample.exemplar
    return found


class Looked(Collector):
    """Describe what is looked up at the scrape."""

    def collect(self) -> Any:
        yield CounterMetricFamily("looked", "Looked up.", value=3)


def drift(text: str) -> str:
    return text + "# HELP more More.\n# TYPE more gauge\nmore 1.0\n"


def test_openmetrics_says_the_same(tmp_path: Path, writers: list[Writer]) -> None:
    """Whoever accepts OpenMetrics gets it, well-formed, with the same names, kinds, texts and numbers."""
    page = MetricsPage(tmp_path, [Looked()])
    plain = read(page.render(drift))
    assert opened(page.render(drift, is_open=True)) == plain
    assert {"looked_total[]", "more[]", "plain_total[]"} <= plain.keys()
    assert page.render(drift, is_open=True).endswith(b"\n# EOF\n")
    assert b"# EOF" not in page.render(drift)


def test_exemplars(tmp_path: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bucket shows the last request that fell into it, in the series it was kept for, only in OpenMetrics."""
    monkeypatch.setattr("service.telemetry.exemplars._KEPT", {})
    kept = Exemplars("took_seconds", (0.1, 1.0, 10.0, inf), model="m", stage="a")
    for request_id, parent, seconds in ((b"first", b"", 0.5), (b"la.st-1", TRACED, 1.0), (b"slow", b"", 99.0)):
        kept.note(request_id, parent, seconds, 1700000000.1234)
    page = MetricsPage(tmp_path)
    found = {name: one for name, one in opened(page.render(is_open=True)).items() if name.endswith(" exemplar")}
    bucket = "took_seconds_bucket[('le', '{}'), ('model', 'm'), ('stage', 'a')] exemplar"
    traced = {"request_id": "la.st-1", "trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert {name: (one.labels, one.value) for name, one in found.items()} == {
        bucket.format("1.0"): (traced, 1.0),
        bucket.format("+Inf"): ({"request_id": "slow"}, 99.0),
    }
    assert {float(one.timestamp) for one in found.values()} == {1700000000.123}
    assert read(page.render()) == clients(tmp_path)


def test_exemplars_are_short() -> None:
    """The longest request id that is taken over, with a trace, is within the 128 characters of OpenMetrics."""
    longest = next(length for length in range(200, 0, -1) if REQUEST_ID.fullmatch(b"a" * length))
    labels = Exemplar(b"a" * longest, TRACED, 1.0, 1.0).labels
    assert labels.keys() == {"request_id", "trace_id"}
    assert sum(map(len, (*labels, *labels.values()))) <= 128
    assert Exemplar(b"a", b"no trace", 1.0, 1.0).labels.keys() == {"request_id"}


OF_PROMETHEUS = (
    b"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
ACCEPTED: dict[bytes | None, bytes] = {
    None: MEDIA_TYPE,
    b"*/*": MEDIA_TYPE,
    b"text/plain;version=0.0.4": MEDIA_TYPE,
    b"text/html,application/xhtml+xml;q=0.9": MEDIA_TYPE,
    b"application/openmetrics-text": OPEN_MEDIA_TYPE,
    OF_PROMETHEUS: OPEN_MEDIA_TYPE,
}


def test_what_a_scraper_accepts(tmp_path: Path, writers: list[Writer]) -> None:
    """The form and the encoding are what the request's headers ask for; without them all is as ever."""
    page, wanted = MetricsPage(tmp_path), clients(tmp_path)
    for accept, encoding in product(ACCEPTED, (None, b"identity", b"gzip", b"deflate, gzip;q=0.5")):
        asked = {b"accept": accept, b"accept-encoding": encoding}
        answer = scrape(page, None, [(name, value) for name, value in asked.items() if value is not None], b"id")
        headers, is_packed = dict(answer.headers), encoding is not None and b"gzip" in encoding
        assert headers[b"content-type"] == ACCEPTED[accept]
        assert headers.get(b"content-encoding") == (b"gzip" if is_packed else None)
        body = gzip.decompress(answer.body) if is_packed else answer.body
        assert (opened if ACCEPTED[accept] == OPEN_MEDIA_TYPE else read)(body) == wanted
