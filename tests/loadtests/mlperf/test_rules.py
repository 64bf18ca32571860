import click
import pytest

from loadtests.mlperf.library import SampleLibrary, head_of
from loadtests.mlperf.page import Accuracy
from loadtests.mlperf.scenario import Scenario, ScenarioSettings, least_queries
from loadtests.mlperf.served import Address
from loadtests.mlperf.trial import highest


@pytest.mark.parametrize("capacity", [4.0, 97.0, 100.0, 1000.0])
def test_the_search_ends_below_the_capacity(capacity: float) -> None:
    found = highest(lambda rate: rate <= capacity, 100.0)
    assert 0.85 * capacity <= found <= capacity


def test_a_service_that_holds_nothing_ends_the_search() -> None:
    """Not at once, and not at rates where a try would take minutes."""
    tried: list[float] = []
    assert highest(lambda rate: bool(tried.append(rate)), 320.0) == 10.0
    assert len(tried) == 6


@pytest.mark.parametrize(
    ("found", "certified", "is_better_high", "passes"),
    [
        (99.0, 100.0, True, True),
        (98.9, 100.0, True, False),
        (100.0, 99.0, False, True),
        (101.1, 100.0, False, False),
        (None, 100.0, True, True),
    ],
)
def test_quality_is_99_percent_of_the_certificate(
    found: float | None, certified: float, is_better_high: bool, passes: bool
) -> None:
    """An error may be larger by as much as an accuracy may be smaller; nobody judges random requests."""
    mark = Accuracy(
        metric="",
        unit="",
        certified=certified,
        found=found,
        is_better_high=is_better_high,
        answers=7,
        samples=7,
        failures={},
    )
    assert mark.passed is passes


def test_a_missing_answer_is_no_quality() -> None:
    mark = Accuracy(
        metric="", unit="", certified=1.0, found=None, is_better_high=True, answers=6, samples=7, failures={"503": 1}
    )
    assert not mark.passed


@pytest.mark.parametrize(
    ("scenario", "samples", "queries"),
    [
        (Scenario.OFFLINE, 100_000, 24_576),
        (Scenario.OFFLINE, 19, 19),
        (Scenario.MULTI_STREAM, 19, 662),
        (Scenario.SERVER, 19, 600),
        (Scenario.SINGLE_STREAM, 19, 100),
    ],
)
def test_the_rules_say_how_many_queries(scenario: Scenario, samples: int, queries: int) -> None:
    assert least_queries(scenario, samples) == queries


def test_settings_speak_of_their_own_scenario() -> None:
    """LoadGen reads milliseconds for latencies, and nothing that another scenario's rules say."""
    stream = ScenarioSettings(scenario=Scenario.SINGLE_STREAM, seconds=10, expected=2e6, bound_ms=15.0, queries=100)
    assert stream.to_config().splitlines() == [
        "*.SingleStream.min_duration = 10000",
        "*.SingleStream.min_query_count = 100",
        "*.SingleStream.target_latency = 2.0",
        "*.SingleStream.sample_concatenate_permutation = 0",
    ]
    server = ScenarioSettings(
        scenario=Scenario.SERVER, seconds=10, expected=500.0, bound_ms=15.0, queries=100, is_uneven=True
    )
    assert "*.Server.target_qps = 500.0\n" in server.to_config()
    assert "*.Server.target_latency = 15.0\n" in server.to_config()
    assert "*.Server.sample_concatenate_permutation = 1\n" in server.to_config()


def test_a_request_shows_the_key_and_says_its_length() -> None:
    """The key is in no text that may be printed."""
    address = Address.of("http://somewhere:3001", "secret")
    library = SampleLibrary(head=head_of("/predict", address.headers), source="", samples=[b"{}", b"[]"], costs=[1, 1])
    head, _, body = library.request([1, 0]).partition(b"\r\n\r\n")
    assert body == b'{"instances":[[],{}]}'
    assert head.split(b"\r\n") == [
        b"POST /predict HTTP/1.1",
        b"host: somewhere:3001",
        b"x-load-test: 1",
        b"authorization: Bearer secret",
        b"content-type: application/json",
        b"content-length: 21",
    ]
    assert "secret" not in repr((address, library))


@pytest.mark.parametrize(
    ("url", "said"), [("https://somewhere", "only plain HTTP is measured here"), ("http://", "the host must be")]
)
def test_only_plain_http_is_measured(url: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        Address.of(url)
