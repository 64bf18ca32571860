"""The page's files: exactly these, as what they are, kept by browsers, and with nothing in them from elsewhere."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.paths import REPOSITORY
from service.auth.access import Access
from service.auth.api_keys import line_of
from service.demo.__main__ import address
from service.demo.pages import STATIC, DemoPages
from service.server.context import ServerContext
from service.server.routes import Application
from service.settings import Settings

FILES = sorted(path for path in STATIC.iterdir() if path.suffix != ".LICENSE")
OURS = [path for path in FILES if not path.name.startswith("d3.")]
Get = Callable[..., "Answer"]


class Answer:
    """Describe what came back, as ASGI messages."""

    def __init__(self, messages: list[Any]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])


async def inner(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing of the page is BentoML's")


def make_get(**wanted: Any) -> Get:
    """Asks a front without models; ``demo=None`` is one without the page."""
    access = Access(Settings(**wanted["settings"])) if "settings" in wanted else None
    gateway: Any = SimpleNamespace(endpoints={}, is_draining=False)
    context = ServerContext(gateway=gateway, access=access)
    front = Application(inner, lambda: context, demo=wanted.get("demo", DemoPages()))

    def get(path: str, method: str = "GET", **headers: str) -> Answer:
        told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": told, "client": ("127.0.0.1", 1)}
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        asyncio.run(front(scope, receive, send))
        return Answer(messages)

    return get


@pytest.fixture(scope="module")
def get() -> Get:
    return make_get()


def path_of(file: Path) -> str:
    return "/demo/" if file.name == "index.html" else f"/demo/{file.name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files(get: Get, file: Path) -> None:
    """Each file comes whole, with its type, a policy and a tag by which it is not sent again."""
    answer = get(path_of(file))
    assert (answer.status, answer.body) == (200, file.read_bytes())
    kind = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}[file.suffix]
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["cache-control"] == "no-cache"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    tag = answer.headers["etag"]
    for known in (tag, f'"x", {tag}', f"W/{tag}"):
        again = get(path_of(file), if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert get(path_of(file), if_none_match='"x"').status == 200
    head = get(path_of(file), "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


def test_tags_follow_the_bytes(get: Get, tmp_path: Path) -> None:
    """No two files have one tag, and one changed byte is another tag: no browser keeps an old page."""
    assert len({get(path_of(file)).headers["etag"] for file in FILES}) == len(FILES)
    for file in FILES:
        (tmp_path / file.name).write_bytes(file.read_bytes() + b" ")
    changed = make_get(demo=DemoPages(tmp_path))
    assert [
        file.name for file in FILES if changed(path_of(file)).headers["etag"] == get(path_of(file)).headers["etag"]
    ] == []


def test_the_page_without_its_slash(get: Get) -> None:
    """It leads to the page, wherever a proxy has put the service."""
    answer = get("/demo")
    assert (answer.status, answer.headers["location"]) == (308, "./demo/")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(get: Get, method: str) -> None:
    """Only GET and HEAD."""
    answer = get("/demo/app.js", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


STRANGE = """
/demo/nothing.js /demo/index.html /demo/d3.LICENSE /demo//app.js /demo/app.js/ /demo/static/app.js /demox /DEMO/
/demo/../app.py /demo/../../pyproject.toml /demo/%2e%2e/app.py /demo/..%2fapp.py /demo/app.js\0
"""


@pytest.mark.parametrize("path", STRANGE.split())
def test_nothing_else(get: Get, path: str) -> None:
    """No other path below it is anything."""
    answer = get(path)
    assert (answer.status, b"unknown_route" in answer.body) == (404, True)


def test_switched_off() -> None:
    """Without the setting nothing of it is there."""
    get = make_get(demo=None)
    assert {get(path).status for path in ("/demo", "/demo/", "/demo/app.js")} == {404}
    assert Settings().demo is False


def test_with_keys() -> None:
    """The page needs no key, or nobody could tell it one; everything else does; switched off, it does as well."""
    keys = {"keys": line_of("k" * 40, "somebody", ["predict"])}
    get = make_get(settings=keys)
    assert {get(path_of(file)).status for file in FILES} == {200}
    assert {get(path).status for path in ("/demo/nothing.js", "/v1/models", "/metrics", "/")} == {401}
    off = make_get(settings=keys, demo=None)
    assert {off(path).status for path in ("/demo", "/demo/", "/demo/app.js")} == {401}


def test_whoever_asks_too_often_has_the_page() -> None:
    """Loading the page takes nothing from the rate of its visitor, which its questions need."""
    get = make_get(settings={"requests_per_second": 0.001})
    assert [get("/demo/app.js").status for _ in range(5)] == [200] * 5
    assert [get("/nothing").status for _ in range(2)] == [404, 429]


def foreign(text: str) -> list[str]:
    """Addresses on other hosts, and what a strict policy would refuse: scripts, styles and listeners in the markup."""
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace("http://www.w3.org/2000/svg", ""))
    return addresses + re.findall(r"<script>|<style|\sstyle=|\son\w+=|javascript:|innerHTML|\beval\(", text)


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_nothing_from_elsewhere(file: Path) -> None:
    """No file names another host, nor makes markup of text."""
    assert foreign(file.read_text()) == []


def test_what_is_foreign_is_found() -> None:
    """The control."""
    flaws = (
        '<link href="https://fonts.example.com/x.css">',
        "//cdn.example.org/d3.js",
        '<b style="x">',
        "a.innerHTML = b",
    )
    assert [text for text in flaws if not foreign(text)] == []


def test_sizes() -> None:
    """Files of ours stay under 300 lines, and the page with its library under 450 kB."""
    assert {path.name for path in OURS if len(path.read_text().splitlines()) > 300} == set()
    assert sum(path.stat().st_size for path in FILES) < 450_000


def test_the_library_is_what_notice_says() -> None:
    """D3's file has the sha256 and the version of NOTICE, and its licence lies beside it."""
    notice = (REPOSITORY / "NOTICE").read_text()
    version, digest = re.findall(r"D3 (\d+\.\d+\.\d+).*?sha256\s+([0-9a-f]{64})", notice, re.DOTALL)[0]
    body = (STATIC / "d3.min.js").read_bytes()
    assert hashlib.sha256(body).hexdigest() == digest
    assert f"v{version} ".encode() in body[:100]
    assert "Permission to use, copy, modify" in (STATIC / "d3.LICENSE").read_text()


def test_every_file_is_used() -> None:
    """Each is asked for by another one."""
    texts = "\n".join(path.read_text() for path in OURS)
    assert {path.name for path in FILES if path.name not in texts} == {"index.html"}


def test_address() -> None:
    """What is opened in the browser is where the service listens."""
    assert address(Settings()) == "http://127.0.0.1:3000/demo/"
    assert address(Settings(host="0.0.0.0", port=3001)) == "http://127.0.0.1:3001/demo/"
    assert address(Settings(host="::1")) == "http://[::1]:3000/demo/"
    assert address(Settings(host="::", tls_certificate="c", tls_key="k")) == "https://[::1]:3000/demo/"
