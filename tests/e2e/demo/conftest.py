"""A real Chromium on the page that a real server serves."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from models.paths import REPOSITORY

PICTURES = REPOSITORY / "runs" / "demo"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 10_000
# An answer is there when it is no longer pale, or when a fault is told.
SETTLED = """panel => {
    const tab = document.getElementById(panel);
    const isAnswered = tab.querySelector('.answered').textContent !== '' && !tab.querySelector('.result.stale');
    return isAnswered || !tab.querySelector('.fault').hidden;
}"""


@dataclass
class Visit:
    """One look at the page: what was asked for meanwhile, and what the page complained of."""

    page: Page
    url: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, tab: str) -> Page:
        """Return the page with this tab's first answer."""
        self.page.goto(f"{self.url}/demo/#/{tab}")
        self.settle(tab)
        return self.page

    def settle(self, tab: str) -> None:
        self.page.wait_for_function(SETTLED, arg=tab)

    def act(self, tab: str, work: Callable[[], object]) -> float:
        """Do something that asks a model, wait until the page shows what came of it, and say how long that took."""
        begun = time.perf_counter()
        with self.page.expect_response(lambda answer: answer.url.endswith("/predict")):
            work()
        self.settle(tab)
        return time.perf_counter() - begun

    def blunder(self, tab: str, work: Callable[[], object]) -> str:
        """Do something wrong, and return what the page says of it."""
        self.page.evaluate("tab => { document.querySelector(`#${tab} .fault`).hidden = true; }", tab)
        work()
        self.page.wait_for_selector(f"#{tab} .fault", state="visible")
        return self.page.inner_text(f"#{tab} .fault")

    def drop(self, selector: str, name: str, kind: str, content: bytes) -> None:
        """Drop a file on an element, as a browser tells of it."""
        script = """([name, kind, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: kind }));
            return data;
        }"""
        data = self.page.evaluate_handle(script, [name, kind, list(content)])
        self.page.dispatch_event(selector, "drop", {"dataTransfer": data})

    def picture(self, name: str) -> None:
        """Keep what the page looks like, to be looked at."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    def bars(self, selector: str) -> dict[str, str]:
        """Names and shares of bars."""
        rows = self.page.eval_on_selector_all(
            f"{selector} li", "rows => rows.map(row => [row.firstChild.textContent, row.lastChild.textContent])"
        )
        return dict(rows)

    def table(self, selector: str) -> list[list[str]]:
        """Return the cells of a table's rows, its head left out."""
        script = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        found: list[list[str]] = self.page.eval_on_selector_all(f"{selector} tbody tr", script)
        return found


Look = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; one per module, because while Playwright runs nobody else can have an event loop."""
    if not CHROMIUM:
        pytest.skip("no chromium on the path; as root, make browser installs Debian's")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def demo(launch: Any) -> Any:
    """A server with the page."""
    return launch(LECTERN_DEMO="true")


@pytest.fixture
def look(browser: Browser, demo: Any) -> Iterator[Look]:
    """Opens the page as a new visitor."""
    contexts = []

    def begin(url: str = demo.url, **wanted: Any) -> Visit:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **wanted})
        contexts.append(context)
        return Visit(context.new_page(), url)

    yield begin
    for one in contexts:
        one.close()


@pytest.fixture
def visit(look: Look) -> Iterator[Visit]:
    """One visitor, who at the end has asked nobody else and met no error of the page."""
    found = look()
    yield found
    assert not found.complaints
    assert {url for url in found.asked if not url.startswith((found.url, "blob:"))} == set()
