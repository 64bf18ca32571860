"""The page as a whole: quick, for everybody, from this host alone, with keys, and true in what it says of itself."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route

from service.auth.api_keys import line_of
from tests.e2e.conftest import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TABS = ("viewcount", "tagging", "image", "molecule", "citation")
SERIOUS = ("serious", "critical")
PAINT_MS, ANSWER_SECONDS = 2000, 0.5
PHONE = {"width": 360, "height": 740}
KEY, LOOKER = "lectern_" + "k" * 43, "lectern_" + "m" * 43


def violations(page: Page, part: str | None = None) -> list[str]:
    """Return what axe calls serious or critical, in the page or a part of it."""
    found = Axe().run(page, context=part).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def test_accessible(look: Any) -> None:
    """Axe finds nothing serious on any tab, light or dark, with everything unfolded and with a fault told."""
    visit = look()
    for tab in TABS:
        page = visit.open(tab)
        page.wait_for_selector(".one summary")
        page.evaluate(f"() => document.querySelectorAll('#{tab} details').forEach(one => {{ one.open = true; }})")
        check_schemes(visit, tab)
    page.evaluate("() => document.querySelectorAll('aside details').forEach(one => { one.open = true; })")
    page.wait_for_selector(".one:last-child dl dd")
    check_schemes(visit, "status", None)
    visit.blunder("citation", lambda: page.fill("#paper", "99999"))
    check_schemes(visit, "fault")


def check_schemes(visit: Any, name: str, part: str | None = "main") -> None:
    """What is seen now, light and dark."""
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        assert violations(visit.page, part) == [], (name, scheme)
        visit.picture(f"{name}-{scheme}")


def test_axe_sees(look: Any) -> None:
    """A pale text, a field without a label and a button without a name are found."""
    page = look().open("viewcount")
    assert violations(page, "main") == []
    for flaw in (
        "document.querySelector('.hint').style.color = 'rgb(200 200 200)'",
        "document.querySelector('#views').id = 'nothing'",
        "document.querySelector('#tab-tagging').textContent = ''",
    ):
        before = len(violations(page, "main"))
        page.evaluate(f"() => {{ {flaw}; }}")
        assert len(violations(page, "main")) > before, flaw


def test_phone(look: Any) -> None:
    """At 360 points nothing is wider than the screen."""
    visit = look(viewport=PHONE, has_touch=True, is_mobile=True)
    for tab in TABS:
        page = visit.open(tab)
        page.wait_for_selector(".one summary")
        assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"], tab
        visit.picture(f"{tab}-phone")


def test_first_paint(look: Any) -> None:
    """A new visitor sees something within two seconds; the median of three."""
    script = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
    paints = [look().open("viewcount").evaluate(script) for _ in range(3)]
    assert median(paints) <= PAINT_MS


def test_answers_follow(visit: Any) -> None:
    """On every tab an answer is shown within half a second of the act; the median of three."""
    acts: dict[str, Callable[[Page, int], object]] = {
        "viewcount": lambda page, turn: page.fill("#horizon", str(20 + turn)),
        "tagging": lambda page, turn: page.fill("#sentence", f"He saw {turn} saws and said nothing."),
        "image": lambda page, turn: page.select_option("#picture-sample", index=1 + turn),
        "molecule": lambda page, turn: page.select_option("#molecule-sample", index=1 + turn),
        "citation": lambda page, turn: page.fill("#paper", str(100 + turn)),
    }
    for tab, act in acts.items():
        page = visit.open(tab)
        seconds = [visit.act(tab, partial(act, page, turn)) for turn in range(3)]
        assert median(seconds) <= ANSWER_SECONDS, (tab, seconds)


def test_nobody_else_is_asked(look: Any, demo: Any) -> None:
    """Over all tabs no request goes to another host; one that does is heard; and the page's policy forbids it."""
    visit = look()
    for tab in TABS:
        visit.open(tab)
    page = visit.page
    assert len(visit.asked) > 30
    assert [url for url in visit.asked if not url.startswith(demo.url)] == []
    refused = page.evaluate("() => fetch('http://lectern-trap.invalid/').then(() => '', error => error.name)")
    assert refused == "TypeError"
    assert "lectern-trap" not in "".join(visit.asked)  # the policy, not the network
    page.goto(f"{demo.url}/v1/models")
    page.evaluate("() => fetch('http://lectern-trap.invalid/').catch(() => {})")
    assert "http://lectern-trap.invalid/" in visit.asked


def test_requests_to_copy(look: Any, tmp_path: Path) -> None:
    """What the copy button gives does what the page did: the service says the same."""
    visit = look(permissions=["clipboard-read", "clipboard-write"])
    (tmp_path / "it's a picture.png").write_bytes(PIXEL)
    for tab in (*TABS[:3], "image-vit", *TABS[3:]):
        panel, model = tab.split("-")[0], {"image": "image", "image-vit": "image-vit"}.get(tab)
        with visit.page.expect_response(lambda answer: answer.url.endswith("/predict")) as answer:
            page = visit.open(panel) if tab in TABS else visit.page
            if model == "image-vit":
                page.select_option("#image .model", model)
        if model == "image":
            with page.expect_response(lambda answer: answer.url.endswith("/predict")) as answer:
                visit.drop("#image form", "it's a picture.png", "image/png", PIXEL)
        expected = answer.value.json()
        for form in ("curl", "python"):
            assert run_copied(page, panel, form, tmp_path) == expected, (tab, form)


def run_copied(page: Page, panel: str, form: str, folder: Path) -> Any:
    """Return what comes of the text that the copy button gives."""
    page.click(f"#{panel} .request [data-form={form}]")
    page.click(f"#{panel} .request .copy")
    page.wait_for_selector(f"#{panel} .request .copy >> text=Copied")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    command = ["bash", "-c", copied] if form == "curl" else [sys.executable, "-c", copied]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if form == "curl" else ast.literal_eval(done.stdout)


# A PNG file of one grey point.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000008200"
    "8177cd72b60000000049454e44ae426082"
)


def test_keyboard(look: Any) -> None:
    """Arrow keys change tabs, and everything on the molecule's board can be done without a mouse."""
    visit = look()
    page = visit.open("viewcount")
    page.focus("#tab-viewcount")
    for expected in ("tagging", "image", "graph", "viewcount", "graph"):
        page.keyboard.press("ArrowLeft" if expected == "graph" and page.url.endswith("viewcount") else "ArrowRight")
        assert page.evaluate("() => document.activeElement.getAttribute('aria-controls')") == expected
        assert page.is_visible(f"#{expected}")
    visit.settle("molecule")
    page.focus(".atom[data-number='8']")
    visit.act("molecule", lambda: page.keyboard.press("Delete"))
    assert page.input_value("#atoms") == "C C C C C C N O"
    page.focus(".atom[data-number='0']")
    page.keyboard.press("Enter")
    page.focus(".atom[data-number='3']")
    visit.act("molecule", lambda: page.keyboard.press("Enter"))
    assert page.input_value("#bonds").endswith("0-3")
    page.click("#tab-image")
    visit.settle("image")
    before = page.evaluate("() => document.querySelector('#sketch').toDataURL()")
    page.focus("#sketch")
    page.keyboard.press("ArrowDown")
    visit.act("image", lambda: page.keyboard.press("Space"))
    assert page.evaluate("() => document.querySelector('#sketch').toDataURL()") != before


def test_keys(look: Any, launch: Any) -> None:
    """Where keys are asked for the page says so, takes one, and shows each what it may see; the end is told as well."""
    lines = [line_of(KEY, "caller", ["predict"]), line_of(LOOKER, "looker", ["predict", "metrics"])]
    locked = launch(LECTERN_DEMO="true", LECTERN_KEYS=";".join(lines), LECTERN_MODELS="viewcount")
    assert locked.get("/v1/models").status_code == 401
    assert locked.get("/demo/nothing.js").status_code == 401
    visit = look(url=locked.url)
    page = visit.page
    page.goto(f"{locked.url}/demo/")
    page.wait_for_selector("#viewcount .fault >> text=This service answers only with a key.")
    page.click("#tab-image")
    assert page.inner_text("#image .fault").startswith("This service answers only with a key.")
    page.click("#tab-viewcount")
    page.fill("#key", "wrong")
    page.wait_for_selector("#viewcount .fault >> text=The service does not know this key.")
    page.fill("#key", KEY)
    visit.settle("viewcount")
    page.wait_for_selector("text=This key may not read the metrics")
    assert '-H "x-api-key: $LECTERN_KEY"' in page.inner_text("#viewcount .request pre")
    assert KEY not in page.content()
    page.fill("#key", LOOKER)
    page.wait_for_selector("text=/Figures of the last \\d+ seconds/")
    page.click("#tab-tagging")
    assert page.inner_text("#tagging .fault") == "The service has no model of this kind."
    assert not page.is_visible("#sentence")
    visit.picture("keys")
    locked.stop()
    page.click("#tab-viewcount")
    told = visit.blunder("viewcount", lambda: page.fill("#horizon", "3"))
    assert told == "The service does not answer. Is it still running?"
    page.wait_for_selector("#pulse.off")


def test_the_page_is_announced(demo: Any, run: Any) -> None:
    """What ``make demo`` runs beside the service says where the page is; without the service it ends by itself."""
    no_display = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    said = run("-m", "service.demo", home=demo.home, LECTERN_PORT=str(demo.port), **no_display)
    assert (said.returncode, said.stdout) == (0, f"Try every model in the browser: {demo.url}/demo/\n")
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    alone = run("-m", "service.demo", gone, home=demo.home, timeout=20, LECTERN_PORT=str(free_port()), **no_display)
    assert (alone.returncode, alone.stdout) == (0, "")


def test_percentile(visit: Any) -> None:
    """The 99th percentile of counts known by heart: the bucket of what came between two readings, and no nearer."""
    page = visit.open("viewcount")
    script = """async ([then, now]) => {
        const { p99 } = await import('/demo/metrics.js');
        const read = pairs => ({ buckets: new Map(pairs.map(([bound, count]) => [bound ?? Infinity, count])) });
        return p99(read(then), read(now))?.map(bound => bound === Infinity ? null : bound) ?? null;
    }"""
    now = [[0.1, 50], [0.2, 100], [None, 100]]
    none = [[0.1, 0], [0.2, 0], [None, 0]]
    assert page.evaluate(script, [none, now]) == [0.1, 0.2]
    assert page.evaluate(script, [[[0.1, 0], [0.2, 50], [None, 50]], now]) == [0, 0.1]
    assert page.evaluate(script, [now, now]) is None
    assert page.evaluate(script, [none, [[0.1, 5], [None, 100]]]) == [0.1, None]


def test_versions_are_added_up(visit: Any) -> None:
    """Requests and buckets of a model are those of all its versions together."""
    page = visit.open("viewcount")
    script = """async text => {
        const { read } = await import('/demo/metrics.js');
        const { requests, buckets } = read(text).get('viewcount');
        return [requests, [...buckets.values()]];
    }"""
    lines = [
        f'{name}{{model="viewcount",version="1.0.{patch}"{more}}} 5.0'
        for patch in (0, 1)
        for name, more in (
            ("lectern_requests_total", ',outcome="ok"'),
            ("lectern_request_seconds_bucket", ',le="0.1"'),
            ("lectern_request_seconds_bucket", ',le="+Inf"'),
        )
    ]
    assert page.evaluate(script, "\n".join(lines)) == [10, [10, 10]]


def fulfil(route: Route, **answer: Any) -> None:
    """Answer in the service's place."""
    route.fulfill(**answer)


ALARM = """lectern_feature_stability_index{feature="level",model="viewcount"} 0.81
lectern_feature_stability_limit{feature="level",model="viewcount"} 0.25
lectern_feature_window_instances{model="viewcount"} 2000
"""


def test_alarms_look_like_alarms(visit: Any) -> None:
    """Drift above its limit is told in words and in the colour of faults; below it, it is not."""
    page = visit.page
    for index, is_alarm in (("0.81", True), ("0.11", False)):
        page.route("**/metrics", partial(fulfil, body=ALARM.replace("0.81", index)))
        page = visit.open("viewcount")
        told = page.wait_for_selector(f".one[data-model=viewcount] p >> text=level {index}")
        assert told.inner_text().startswith("⚠ unlike its training data") is is_alarm
        colour, wanted = (page.evaluate(f"() => {script}") for script in COLOURS)
        assert (colour == wanted) is is_alarm
        page.unroute("**/metrics")


COLOURS = (
    "getComputedStyle(document.querySelector('.one[data-model=viewcount] .figures + p')).color",
    "(() => { const one = document.createElement('p'); one.style.color = 'var(--bad)'; document.body.append(one);"
    " return getComputedStyle(one).color; })()",
)


def test_a_wrong_key_is_asked_for_again(look: Any, launch: Any) -> None:
    """The field is marked while the service wants another key, also for one that no header can hold."""
    locked = launch(LECTERN_DEMO="true", LECTERN_KEYS=line_of(KEY, "caller", ["predict"]), LECTERN_MODELS="viewcount")
    visit = look(url=locked.url)
    page = visit.page
    page.goto(f"{locked.url}/demo/")
    page.wait_for_selector("#key[aria-invalid=true]")
    assert page.evaluate("() => document.activeElement.id") == "key"
    page.fill("#key", "schlüssel ☃")
    page.wait_for_selector("#viewcount .fault >> text=The service does not know this key.")
    page.fill("#key", KEY)
    visit.settle("viewcount")
    page.wait_for_selector("#key[aria-invalid=false]")
    assert not visit.complaints
