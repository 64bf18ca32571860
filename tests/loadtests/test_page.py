import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from loadtests import page, words
from loadtests.result import Finding, MeasuredValue, TimeWindow
from loadtests.verdict import Exit, ReportComparison

Make = Callable[..., Any]


def render(found: Any, code: Exit = Exit.PASSED, **more: Any) -> str:
    return page.render(found, code, more.get("earlier"), more.get("comparisons", []), more.get("unlike", []))


def test_the_page_says_what_was_tested_on_what_and_that_it_passed(made: Make) -> None:
    text = render(made())
    for said in (
        ">Passed<",
        "A light load, to see whether it works, on viewcount:1.0.0: 100 requests counted over 1 s",
        "A, 2 cores, Linux",
        "99 of 100 requests are answered rightly within 100 ms",
        "Nothing broke.",
        "python -m loadtests run",
        "0123456789ab",
    ):
        assert said in text, said


def test_the_page_needs_nothing_from_anywhere_else(made: Make, part: Make) -> None:
    failed = part(outcomes={"ok": 9, "reset": 1}, failed_share=0.1)
    text = render(
        made(whole=failed, metrics=[MeasuredValue(name="lectern_x_seconds", labels={"a": "b"}, count=3, mean=0.1)])
    )
    found = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(\w+:)?//[^\s\"')]+", text))
    assert not found
    assert "<script" not in text
    assert not set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org", "http://127.0.0.1"}


def test_every_picture_is_drawn_and_their_names_do_not_meet(made: Make, part: Make) -> None:
    failed = part(outcomes={"ok": 9, "reset": 1}, failed_share=0.1)
    text = render(
        made(whole=failed, metrics=[MeasuredValue(name="lectern_x_seconds", labels={}, count=3, mean=0.1, p99=0.2)])
    )
    drawn = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawn) == 4
    names: list[str] = []
    for svg in drawn:
        names += [one.attrib["id"] for one in ElementTree.fromstring(svg).iter() if "id" in one.attrib]
    assert len(names) == len(set(names))


def test_what_broke_first_is_said_with_its_phase(made: Make, moment: Make) -> None:
    late = made(moments=[moment(0.5), moment(1.5, p99_ms=250.0), moment(1.75, failed_rate=3.0)])
    failed = made(moments=[moment(0.5, failed_rate=3.0), moment(1.5, p99_ms=250.0)])
    assert words.broke_first(late) == (
        "First, answers became late: at 1.5 s, with 100 requests/s due (smoke), p99 was 250 ms."
    )
    assert words.broke_first(failed) == "First, requests failed: at 0.5 s, with 100 requests/s due (warm-up)."


def test_a_capacity_shows_every_window_and_its_curve(made: Make, part: Make, used: Make) -> None:
    tried: dict[str, Any] = {"stage": "climb", "part": part(), "used": used(), "is_void": False}
    windows = [
        TimeWindow(rate=100.0, is_held=True, why="", **tried),
        TimeWindow(rate=200.0, is_held=False, why="a queue grows", **tried),
    ]
    finding = Finding(rate=100.0, failed_rate=200.0, upper_missed_share=0.003, knee="It holds.", limit="the CPU")
    text = render(made(profile="capacity", windows=windows, finding=finding))
    assert "Throughput and latency" in text
    assert "a queue grows" in text
    assert "<strong>100 requests per second</strong>" in text
    assert "It holds. What limited: the CPU." in text


def test_a_comparison_stands_in_the_page(made: Make) -> None:
    one = ReportComparison(name="p99, ms", earlier=8.0, now=20.0, bound=12.0, is_worse=True)
    text = render(made(), Exit.FAILED, earlier=made(), comparisons=[one], unlike=["the processor: B then, A now"])
    assert ">Failed<" in text
    assert "worse" in text
    assert "Not comparable: the processor: B then, A now." in text


def test_what_the_service_says_is_no_markup(made: Make, part: Make) -> None:
    text = render(made(whole=part(outcomes={"ok": 1, "500 <b>x</b>": 1}, offered=2)))
    assert "<b>x" not in text


def test_the_short_form_is_a_line_and_its_reasons(made: Make) -> None:
    assert words.summary(made(), Exit.PASSED) == (
        "Passed: smoke of viewcount, 100 requests at 100.0/s, p50 4.0 ms, p99 8.0 ms, p99.9 9.0 ms, 0.00% failed"
    )
    failed = made(verdict=["one thing", "another"])
    assert words.summary(failed, Exit.FAILED).splitlines()[1:] == ["one thing", "another"]
