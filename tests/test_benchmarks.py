"""The benchmark's own parts: what it asks, whether it would notice a wrong answer or a fall, and what it writes."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch import memory
from benchmarks.harness import checks, environments, results, servers, wrk
from benchmarks.harness.closed_loop import ClosedLoopPlan, Drive
from benchmarks.harness.measure import LoadClient
from benchmarks.harness.peers import PAIR, PEERS, Peer
from benchmarks.harness.protocols import BARE, PLAIN, TRITON, V2
from benchmarks.harness.results import Bound, Heading, RateSample, ResultCell, ResultRow, Results
from benchmarks.harness.upper_bound import BoundTask, measure, measure_burst
from benchmarks.harness.workloads import examples, make
from benchmarks.peers.codec import open_codec
from benchmarks.serving import regression_gate, report
from benchmarks.serving.regression_gate import Floor, Mark
from benchmarks.serving.rounds import Rounds

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
REQUEST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n\r\n{}"
Serve = Callable[[list[list[bytes]]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that gives the listed answers in turn, each as a list of writes; an empty one hangs up."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def start(answers: list[list[bytes]]) -> int:
        turn = iter(range(10**9))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(len(REQUEST)):
                parts = answers[next(turn) % len(answers)]
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not parts:
                    break
            writer.close()

        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(answer, "127.0.0.1", 0), loop).result()
        return int(server.sockets[0].getsockname()[1])

    yield start
    asyncio.run_coroutine_threadsafe(cancel_all(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def cancel_all() -> None:
    """End the connections that are still open."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def make_plan(port: int, **more: Any) -> ClosedLoopPlan:
    usual: dict[str, Any] = {"requests": [REQUEST], "connections": 4, "total": 40}
    return ClosedLoopPlan(port=port, **usual | more)


def test_client_counts_answers_and_times(serve: Serve) -> None:
    """Every answer is counted once, with a latency that fits into the run."""
    tally = Drive(make_plan(serve([[OK]]))).run()
    assert (tally.answers, tally.statuses, tally.errors) == (40, {"200": 40}, 0)
    assert 0 < tally.p50_ms <= tally.p99_ms <= 1000 * tally.seconds


def test_client_counts_by_status(serve: Serve) -> None:
    """What is not a 200 is an error, and is still an answer."""
    busy = OK.replace(b"200 OK", b"503 Busy")
    tally = Drive(make_plan(serve([[OK], [busy], [OK], [OK]]))).run()
    assert (tally.answers, tally.statuses, tally.errors) == (40, {"200": 30, "503": 10}, 10)


def test_client_puts_answers_together(serve: Serve) -> None:
    """An answer may come in pieces, cut anywhere."""
    pieces = [OK[at : at + 7] for at in range(0, len(OK), 7)]
    assert Drive(make_plan(serve([pieces]))).run().statuses == {"200": 40}


def test_client_counts_hang_ups(serve: Serve) -> None:
    """A connection that ends is an error; the client opens another and goes on."""
    tally = Drive(make_plan(serve([[OK], []]), connections=1, total=10)).run()
    assert tally.statuses == {"200": 5, "closed": 5}
    assert tally.errors == 5


def test_client_stops_in_time(serve: Serve) -> None:
    """Without a number of answers the time ends the run."""
    tally = Drive(make_plan(serve([[OK]]), total=None, seconds=0.05)).run()
    assert tally.answers > 0
    assert 0.05 <= tally.seconds < 1


def test_client_says_what_is_missing(serve: Serve) -> None:
    """Answers that do not come are not waited for without end."""
    with pytest.raises(TimeoutError, match="0 of 40 answers"):
        Drive(make_plan(serve([[b"HTTP/1.1 200 OK\r\n"]]), seconds=0.05)).run()


def test_client_sends_in_turn_and_again(serve: Serve) -> None:
    """A burst sends each request once, as often as it is repeated."""
    drive = Drive(make_plan(serve([[OK]]), connections=8, total=8))
    assert [drive.run().answers for _ in range(3)] == [8, 8, 8]


GOOD = [{"label": "a", "id": 1, "scores": [0.25, 0.75]}, {"label": "b", "id": 2, "scores": [0.5, 0.5]}]


@pytest.mark.parametrize(
    ("found", "gap"),
    [
        ([GOOD[0], GOOD[1]], None),
        ([GOOD[0] | {"scores": [0.250001, 0.75]}, GOOD[1]], None),
        ([GOOD[0] | {"scores": [0.2501, 0.75]}, GOOD[1]], "answer[0].scores[0]: 0.2501 instead of 0.25"),
        ([GOOD[0] | {"label": "A"}, GOOD[1]], "answer[0].label: not the same"),
        ([GOOD[0] | {"id": True}, GOOD[1]], "answer[0].id: not the same"),
        ([GOOD[0] | {"scores": [0.25]}, GOOD[1]], "answer[0].scores: not the same"),
        ([GOOD[0] | {"scores": [0.25, float("nan")]}, GOOD[1]], "answer[0].scores[1]: nan instead of 0.75"),
        ([{"label": "a"}, GOOD[1]], "answer[0]: not the same"),
        ([GOOD[1], GOOD[0]], "answer[0].label: not the same"),
        (GOOD[:1], "answer: not the same"),
        ([], "answer: not the same"),
    ],
)
def test_check_finds_differences(found: list[Any], gap: str | None) -> None:
    """The first difference is named; one of 1e-5 is none."""
    assert checks.find_difference(found, GOOD) == gap


def test_check_proves_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spoilt answers are noticed, and a check that notices nothing is."""
    checks.prove(GOOD, GOOD)
    checks.prove(GOOD[:1], GOOD[:1])
    monkeypatch.setattr(checks, "find_difference", lambda found, expected: None)
    with pytest.raises(AssertionError, match="does not notice _shifted"):
        checks.prove(GOOD, GOOD)


FLOOR = Floor(marks={"cell": Mark(ratio=4.0, noise=0.25)}, commit="0123456789abcdef", command="x", machine="y")


@pytest.mark.parametrize(("ratio", "is_good"), [(4.0, True), (3.0, True), (9.0, True), (2.99, False), (0.0, False)])
def test_verdict(ratio: float, is_good: bool) -> None:
    """A ratio may lose its noise, and no more."""
    sentences = regression_gate.verdict({"cell": ratio}, FLOOR)
    assert bool(sentences) is not is_good
    assert all("less than 3.00 is no noise" in sentence for sentence in sentences)


@pytest.mark.parametrize("found", [{}, {"other": 9.0}, {"cell": float("nan")}])
def test_verdict_of_nothing(found: dict[str, float]) -> None:
    """What was not measured did not pass."""
    assert len(regression_gate.verdict(found, FLOOR)) == 1


def test_ratio_is_the_median_of_rounds() -> None:
    """One disturbed round does not count, neither does one lucky one."""
    assert regression_gate.ratio([40, 10, 400], [10, 10, 10]) == 4.0


def make_sample(rate: float, **more: float) -> RateSample:
    usual = {"p50_ms": 1.5, "p99_ms": 20.25, "server_us": 50, "server_cores": 0.99, "client_cores": 0.3}
    return RateSample(rate=rate, **usual | {"other_cores": 0.0, "errors": 0.0} | more)


def make_results() -> Results:
    cells = [
        ResultCell(
            peer="lectern", workload="work", connections=64, samples=[make_sample(rate) for rate in (900, 1000, 1100)]
        ),
        ResultCell(peer="lectern", workload="work", connections=1, samples=[make_sample(123.45)]),
        ResultCell(peer="other", workload="work", connections=64, samples=[make_sample(2000, errors=0.5)]),
    ]
    return Results(
        command="python -m benchmarks.serving", commit="c0ffee", date="2026-01-01",
        machine={"cpu": "X", "cores": 2, "system": "Linux", "python": "3.11.7"}, client="wrk", seconds=2, rounds=3,
        workloads=[Heading(key="work", title="Work", connections=[1, 64], unit="tokens", units=10)],
        rows=[
            ResultRow(key="lectern", title="**Lectern**", ready_seconds=[1, 2],
                      memory_mb=[{"rss": 9, "pss": 8, "uss": 7}]),
            ResultRow(key="other", title="Other"),
            ResultRow(key="broken", title="Broken", reason="cannot be installed: no wheel"),
            ResultRow(key="wrong", title="Wrong", refused={"work": "wrong answer[0].label: not the same"}),
        ],
        bounds=[Bound(workload="work", engine={"8": [9000.0]}, codec={"1": [100.0], "4": [1900.0, 2000.0, 2100.0]})],
        cells=cells,
    )  # fmt: skip


def test_table() -> None:
    """Fastest first, limits on top, and those who could not be measured are there with the reason."""
    found = make_results()
    assert report.workload_table(found, found.workloads[0]).splitlines() == [
        "|  | c=1 | c=64 | µs | spread | % of codec | tokens/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| *ONNX Runtime alone, in process* | 9,000, 8 in a batch |  |  |  |  | 90,000 |",
        "| *codec + ONNX Runtime, in process* | 2,000, 4 in a batch |  |  |  |  | 20,000 |",
        "| Other | – | 2,000 (1.50 / 20.2)! 50.0 % errors | 50.0 | 2,000..2,000 | 100 | 20,000 |",
        "| **Lectern** | 123 (1.50 / 20.2) | 1,000 (1.50 / 20.2) | 50.0 | 900..1,100 | 50 | 10,000 |",
        "| Broken | cannot be installed: no wheel | – | – | – | – | – |",
        "| Wrong | wrong answer[0].label: not the same | – | – | – | – | – |",
    ]


def test_page_is_whole() -> None:
    """Every row of the start and memory table is there, measured or not, and every reason."""
    page = report.markdown(make_results())
    assert "| **Lectern** | 1.50 | 9.00 | 8.00 | 7.00 |" in page
    assert "| Broken | cannot be installed: no wheel | – | – | – |" in page
    assert "- Broken: cannot be installed: no wheel\n- Wrong, work: wrong answer[0].label: not the same" in page
    assert "`python -m benchmarks.serving` at `c0ffee`" in page


@pytest.mark.parametrize(
    ("samples", "marks"),
    [
        ([make_sample(1)], ""),
        ([make_sample(1, client_cores=0.97, server_cores=0.6)], "†"),
        ([make_sample(1, client_cores=0.97, server_cores=0.99)], ""),
        ([make_sample(1, errors=0.1), make_sample(2)], "!"),
        ([make_sample(1, other_cores=0.5, server_cores=0.5)], "~"),
        ([make_sample(1, other_cores=0.5, server_cores=0.99)], ""),
    ],
)
def test_marks(samples: list[RateSample], marks: str) -> None:
    """Errors, a client without time, a machine that others used."""
    assert ResultCell(peer="p", workload="w", connections=1, samples=samples).marks == marks


def test_disturbed_rounds_do_not_count() -> None:
    """The median is over the quiet rounds, while there are any."""
    noisy = [make_sample(1, other_cores=0.5, server_cores=0.5), make_sample(2, other_cores=0.5, server_cores=0.5)]
    assert ResultCell(peer="p", workload="w", connections=1, samples=[*noisy, make_sample(9)]).middle("rate") == 9
    assert ResultCell(peer="p", workload="w", connections=1, samples=noisy).middle("rate") == 1.5


def test_results_come_back(tmp_path: Path) -> None:
    """What was written can be read, and is the same."""
    results.write(make_results(), tmp_path / "serving.json")
    assert results.load(tmp_path / "serving.json") == make_results()


def test_reasons_have_no_paths() -> None:
    """A result does not say where it was made."""
    text = "ERROR: /home/me/x/requirements.txt (/tmp/a-b/c.py:10): no such file"
    assert servers.without_paths(text) == "ERROR: requirements.txt (c.py:10): no such file"


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.is_ours], ids=lambda peer: peer.key)
def test_needs_are_pinned(peer: Any) -> None:
    """Every peer says what it needs, to the version."""
    needs = environments.needs_of(peer.module)
    assert len(needs.pins) > 4
    assert all("==" in pin for pin in needs.pins)


def test_keys_are_unique() -> None:
    """No two rows share a key."""
    keys = [peer.key for peer in PEERS + PAIR]
    assert len(set(keys)) == len(keys)


ANSWER = b'{"model":"m:1","predictions":["\xc3\xa9"]}'


@pytest.mark.parametrize(
    ("envelope", "answer"),
    [
        (PLAIN, ANSWER),
        (BARE, '["é"]'.encode()),
        (V2, json.dumps({"outputs": [{"name": "answer", "data": [ANSWER.decode()]}]}).encode()),
        (TRITON, b'{"outputs":[{"parameters":{"binary_data_size":45}}]}' + len(ANSWER).to_bytes(4, "little") + ANSWER),
    ],
)
def test_envelopes(envelope: Any, answer: bytes) -> None:
    """Predictions come out of every envelope, and requests say how long they are."""
    assert envelope.unwrap(answer) == ["é"]
    request = envelope.call("image", '{"x": "é"}'.encode()).to_bytes()
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert b"image" in head.splitlines()[0]


def test_wrk_script_has_any_bytes(tmp_path: Path) -> None:
    """Bodies are quoted so that Lua reads the same bytes."""
    wrk.write_script([PLAIN.call("m", b'a"\\\n\x00\xff')], tmp_path / "script.lua")
    assert r'local bodies = {"a\034\092\010\000\255"}' in (tmp_path / "script.lua").read_text()


def test_limits_of_one_model() -> None:
    """Every batch size has both rates; the model alone is never the slower one by far."""
    work = make(["viewcount"])[0]
    found = measure(BoundTask(model=work.model, bodies=work.bodies, seconds=0.001))
    assert found.engine.keys() == found.codec.keys() == {1, 2, 4, 8, 16, 32, 64, 128, 256}
    assert found.engine[64] > found.codec[64] > 0
    assert found.alone > 0


def test_limits_of_a_burst() -> None:
    """One by one and together."""
    found = measure_burst(BoundTask(model="molecule", bodies=[examples()["molecule"]] * 4, is_burst=True))
    assert found.burst_ms.keys() == {"one by one", "one micro-batch"}


def test_checked_bodies_are_distinct() -> None:
    """64 different inputs, or one request of 32."""
    works = {work.key: work for work in make(["viewcount", "viewcount-32", "image", "tagging"])}
    assert all(len(set(works[key].checks)) == checks_wanted for key, checks_wanted in
               [("viewcount", 64), ("image", 64), ("tagging", 64), ("viewcount-32", 1)])  # fmt: skip


def test_a_repeated_table_has_one_header(tmp_path: Path) -> None:
    """A large table is the small one's rows again and again, whole, under its header."""
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    times = memory.repeat(tmp_path / "table.csv", tmp_path / "in.csv", 25)
    assert times == 3
    assert (tmp_path / "in.csv").read_text() == "a,b\n" + 3 * "1,2\n3,4\n"


@pytest.mark.parametrize(("megabytes", "is_flat"), [([390, 420], True), ([390, 440], False)])
def test_memory_that_grows_is_seen(megabytes: list[int], is_flat: bool) -> None:
    """A tenth more is noise, more is growth."""
    assert memory.is_flat([{"memory_mb": one} for one in megabytes]) is is_flat


def test_peers_may_hand_over_views() -> None:
    """A peer whose framework reads into shared memory asks as everybody does: mosec hands a memoryview over."""
    codec, body = open_codec("viewcount"), examples()["viewcount"]
    views = codec.answer([codec.read(memoryview(body))])
    assert codec.write(views[0]) == codec.reply(body)


def test_a_peer_that_does_not_start_is_wrong(tmp_path: Path) -> None:
    """Asking every peer once names the one that ended before it answered, with the end of its log."""
    rounds = Rounds(make_results(), [], [], {"viewcount": b"{}"}, LoadClient("python", tmp_path), tmp_path)
    broken = Peer(key="gone", title="Gone", module="serve_nothing")
    assert "No module named benchmarks.peers.serve_nothing" in rounds.ask_all({broken: Path(sys.executable)})["gone"]
