"""The torture harness itself: its arithmetic, its open-loop client, its books, and how faults are planted."""

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from chaos.service import report
from chaos.service.__main__ import TRIALS, hold
from chaos.service.arithmetic import goodput, percentile, schedule
from chaos.service.counters import differences, parse
from chaos.service.faults import after_import
from chaos.service.harness import Harness, one_request
from chaos.service.open_loop import OpenLoopPlan
from chaos.service.records import ChaosPhase, ChaosReport, LoadPlan
from chaos.service.verdict import ChaosVerdict, Trials, number

OK = b"HTTP/1.1 200 OK\r\nx-model-digest: aa\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
RUDE = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
REQUEST = one_request("/", {}, b"{}")
Answer = Callable[[int], tuple[bytes, float]]
Serve = Callable[[Answer], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers its n-th request with ``answer(n)``: the bytes, and seconds to wait before them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def start(answer: Answer) -> int:
        turn = count()

        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(len(REQUEST)):
                content, pause = answer(next(turn))
                await asyncio.sleep(pause)
                writer.write(content)
                if not content or content == LAST:
                    break
            writer.close()

        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(reply, "127.0.0.1", 0), loop).result()
        return int(server.sockets[0].getsockname()[1])

    async def stop() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    yield start
    asyncio.run_coroutine_threadsafe(stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def offer(port: int, rate: float = 200, seconds: float = 0.5, **more: float) -> ChaosReport:
    """Return what a short offer finds."""
    options = {"patience_seconds": 2.0, **more}
    return OpenLoopPlan(
        LoadPlan(port=port, requests=[REQUEST], phases=[ChaosPhase(rate=rate, seconds=seconds)], **options)
    ).run()  # type: ignore[arg-type]


def test_a_schedule_is_a_poisson_process() -> None:
    """The rate is the one asked for, gaps spread as they should, and a seed gives the same again."""
    times = schedule(1000, 50, seed=3)
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert times[-1] < 50
    assert len(times) == pytest.approx(50_000, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (schedule(1000, 50, seed=3) == times).all()
    assert not np.array_equal(schedule(1000, 50, seed=4)[:10], times[:10])


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0), (0.991, 100.0)])
def test_percentiles_are_values_that_were_seen(share: float, value: float) -> None:
    """Nearest rank: of 1 to 100 the 99th percentile is 99."""
    assert percentile([float(one) for one in range(100, 0, -1)], share) == value


def test_a_percentile_of_nothing_is_zero() -> None:
    """No answer, no latency."""
    assert percentile([], 0.99) == 0


def test_goodput_counts_until_the_last_answer() -> None:
    """Answers that come after the offer do not come for free; an early end does not make it faster."""
    assert goodput(100, began=10, last_answer=20, seconds=5) == 10
    assert goodput(100, began=10, last_answer=12, seconds=5) == 20


def test_every_request_ends_in_one_status(serve: Serve) -> None:
    """Good answers, refusals with and without Retry-After, hang-ups and closing connections are told apart."""
    answers = [OK, BUSY, RUDE, b"", LAST]
    report = offer(serve(lambda turn: (answers[turn % 5], 0.0)))
    found, sent = report.phases[0], report.phases[0].offered
    assert sum(found.statuses.values()) == sent == pytest.approx(100, rel=0.5)
    fifth = pytest.approx(sent / 5, abs=1)
    assert found.statuses == {
        "200": pytest.approx(2 * sent / 5, abs=2),
        "503": pytest.approx(2 * sent / 5, abs=2),
        "closed": fifth,
    }
    assert found.without_retry_after == fifth
    assert sum(report.good_ticks) == found.statuses["200"]
    assert sum(report.bad_ticks) == sent - found.statuses["200"]
    assert len(report.failures) == found.statuses["closed"]


def test_latency_counts_from_the_intended_start(serve: Serve) -> None:
    """A server that stalls once delays all that should have left meanwhile: with one connection they wait for it."""
    report = offer(serve(lambda turn: (OK, 0.4 if turn == 5 else 0.0)), most_connections=1)
    group = report.phases[0].groups["200"]
    assert group.count == report.phases[0].offered
    assert group.worst_ms >= 400
    late = sum(schedule(200, 0.5, seed=1) > schedule(200, 0.5, seed=1)[5])
    assert late > 50
    assert group.p50_ms > 30  # a closed loop would see one slow answer of a hundred, and a median below 1 ms


def test_an_open_loop_does_not_wait(serve: Serve) -> None:
    """With connections to spare, slow answers do not slow the offer down."""
    report = offer(serve(lambda _: (OK, 0.3)))
    assert report.phases[0].late_p99_ms < 150
    assert report.phases[0].groups["200"].p50_ms == pytest.approx(300, rel=0.3)


def test_no_server_and_no_answer() -> None:
    """Refused connections are refusals, not silence."""
    report = offer(1, seconds=0.1)
    assert set(report.statuses) == {"refused"}


def test_silence_is_counted(serve: Serve) -> None:
    """A request without an answer when patience ends is counted too."""
    report = offer(serve(lambda _: (OK, 30.0)), rate=100, seconds=0.2, patience_seconds=0.3)
    assert set(report.statuses) == {"silent"}
    assert sum(report.statuses.values()) == report.phases[0].offered


def test_answers_are_kept_by_digest_and_body(serve: Serve) -> None:
    """What a hot swap is judged on."""
    report = offer(serve(lambda _: (OK, 0.0)), seconds=0.1, keeps_answers=True)
    ((answer, number_of_them),) = report.answers.items()
    assert answer.startswith("200 aa ")
    assert number_of_them == report.phases[0].offered


PAGE = """# HELP lectern_requests_total x
lectern_requests_total{model="image",outcome="ok"} 7.0
lectern_requests_total{model="tagging",outcome="ok"} 2.0
lectern_requests_total{model="image",outcome="overloaded"} 3.0
lectern_batch_instances_count{model="image"} 4.0
lectern_batch_instances_sum{model="image"} 9.0
"""


def test_the_page_of_metrics_is_read() -> None:
    """Outcomes of all models together, batches, instances, series."""
    found = parse(PAGE)
    assert found.outcomes == {"ok": 9, "overloaded": 3}
    assert (found.batches, found.instances, found.series) == (4, 9, 5)
    assert found.since(parse(PAGE.replace(" 3.0", " 1.0"))) == {"overloaded": 2}


@pytest.mark.parametrize(
    ("client", "server", "found"),
    [
        ({"200": 5, "503": 1}, {"ok": 5, "overloaded": 1}, []),
        ({"200": 5, "500": 2}, {"ok": 5, "internal": 1, "runner_failed": 1}, []),
        ({"200": 5}, {"ok": 6}, ["200: client 5, server 6"]),
        ({"200": 5, "504": 1}, {"ok": 5}, ["504: client 1, server 0"]),
        ({"200": 5, "closed": 1}, {"ok": 5}, []),
        ({"200": 5, "closed": 1}, {"ok": 5, "disconnected": 1}, []),
        ({"200": 5}, {"ok": 5, "disconnected": 1}, ["disconnected: client 0, server 1"]),
        ({"200": 5, "refused": 3}, {"ok": 5}, []),
        ({"200": 5}, {"ok": 5, "unheard_of": 1}, ["unheard_of: client 0, server 1"]),
    ],
)
def test_the_books_are_compared(client: dict[str, int], server: dict[str, int], found: list[str]) -> None:
    """Each status of the client's is the server's outcomes of that status."""
    assert differences(client, server) == found


def test_a_verdict_knows_its_bars() -> None:
    """No bar at all is no success; one missed bar is a failure."""
    verdict = ChaosVerdict(trial="x")
    assert not verdict.is_met
    verdict.at_most("waste", 1.0, 1.0)
    verdict.at_least("speed", 0.95, 0.95)
    assert verdict.is_met
    verdict.at_most("waste", math.inf, 1.0)
    assert not verdict.is_met


@pytest.mark.parametrize(("value", "text"), [(0.95, "0.95"), (1234.5, "1,234"), (12.0, "12"), (math.inf, "inf")])
def test_numbers_are_short(value: float, text: str) -> None:
    """As long as they matter."""
    assert number(value) == text


def test_results_are_kept(tmp_path: Path) -> None:
    """What is written can be read, a later verdict takes the place of an earlier one, and missed bars stand out."""
    found = Trials(date="2026-11-21", machine={"cpu": "c", "cores": 2, "system": "s", "python": "3"})
    for value in (math.inf, 2.0):
        verdict = ChaosVerdict(trial="x", title="the x", measured={"most_s": value})
        verdict.at_most("time", value, 1.0, " s")
        found.add(verdict)
    report.save(found, tmp_path)
    assert report.load(tmp_path / "torture.json").verdicts[0].bars == found.verdicts[0].bars
    assert len(found.verdicts) == 1
    assert "| **no** | time ≤ 1 s | 2 s |" in (tmp_path / "torture.md").read_text()


def test_a_control_that_meets_its_bars_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A trial that cannot fail proves nothing, nor does a control that breaks; a trial that breaks is a missed bar."""

    class Blind:
        TITLE, CONTROL = "blind", "a defect"

        @staticmethod
        def run(_: Harness) -> ChaosVerdict:
            verdict = ChaosVerdict(trial="blind")
            verdict.expect("all is well", "well", is_met=True)
            return verdict

        control = run

    class Broken(Blind):
        CONTROL = ""

        @staticmethod
        def run(_: Harness) -> ChaosVerdict:
            raise OSError("the server is gone")

    monkeypatch.setitem(TRIALS, "blind", Blind)  # type: ignore[misc]

    class Helpless(Blind):
        control = Broken.run

    monkeypatch.setitem(TRIALS, "broken", Broken)  # type: ignore[misc]
    monkeypatch.setitem(TRIALS, "helpless", Helpless)  # type: ignore[misc]
    ground = Harness(folder=tmp_path)
    assert hold("blind", ground, has_control=False).is_met
    assert not hold("blind", ground, has_control=True).is_met
    assert not hold("helpless", ground, has_control=True).is_met
    broken = hold("broken", ground, has_control=True)
    assert not broken.is_met
    assert "the server is gone" in broken.bars[0].found


def test_faults_are_planted_before_anything_runs() -> None:
    """A module is changed as soon as it is imported, and nothing is when nothing is named."""
    code = "import models.payload.json_payload; print(models.payload.json_payload.JsonPayloads.write.__name__)"
    for names, found in (("leak", "leaky"), ("", "write")):
        environment = {"PYTHONPATH": "chaos/service/planted:.", "TORTURE_FAULTS": names}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == found, done.stderr


def test_after_import_changes_a_module_once() -> None:
    """The finder takes itself away; the module is otherwise as ever."""
    before = len(sys.meta_path)
    after_import("colorsys", lambda module: setattr(module, "planted", True))
    sys.modules.pop("colorsys", None)
    import colorsys

    assert colorsys.planted  # type: ignore[attr-defined]
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    assert len(sys.meta_path) == before
    sys.modules.pop("colorsys")
