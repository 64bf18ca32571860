"""The files of the page, and how they are answered.

The page has no part in an answer: it asks ``/v1`` and ``/metrics`` as any other caller would, with the caller's key.
Its own files hold no secret, so they need no key; a browser could not send one before it has the page that asks for it.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import MethodNotAllowed
from service.messages.request_id import request_id
from service.messages.response import Headers, make_response

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ROUTE = "/demo"
STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# Nothing from elsewhere, nothing inline, nothing evaluated, and nobody else's frame.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS: Headers = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class StaticFile(NamedTuple):
    """One file as it is sent."""

    media_type: bytes
    body: bytes
    tag: bytes


class DemoPages:
    """The page's files, read once: no path of a request ever reaches the disk."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files = {f"{ROUTE}/{path.name}": _read(path) for path in folder.iterdir() if path.suffix in MEDIA_TYPES}
        self._files[f"{ROUTE}/"] = self._files.pop(f"{ROUTE}/{INDEX}")

    def __contains__(self, path: str) -> bool:
        """Return whether this path is the page's."""
        return path == ROUTE or path in self._files

    async def answer(self, scope: MutableMapping[str, Any], send: Send) -> None:
        """One request for a path that is the page's."""
        headers = dict(scope["headers"])
        if scope["method"] not in ("GET", "HEAD"):
            refusal = make_response(MethodNotAllowed("only GET is allowed here", "GET, HEAD"), request_id(headers))
            await _put(send, refusal.status, refusal.all_headers, refusal.body)
            return
        status, more, body = self._find(scope["path"], headers.get(b"if-none-match", b""))
        named = [*more, *GUARDS, (b"x-request-id", request_id(headers))]
        await _put(send, status, named, b"" if scope["method"] == "HEAD" else body)

    def _find(self, path: str, known: bytes) -> tuple[int, Headers, bytes]:
        """Status, headers and body; ``known`` are the versions that the caller has."""
        if path == ROUTE:
            # From "/demo" the page's relative addresses would miss its files; behind a proxy there may be a prefix.
            return 308, [(b"location", b"." + ROUTE.encode() + b"/"), (b"content-length", b"0")], b""
        file = self._files[path]
        kept = [(b"etag", file.tag), (b"cache-control", b"no-cache")]
        if file.tag in [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]:
            return 304, kept, b""
        return 200, [(b"content-type", file.media_type), (b"content-length", b"%d" % len(file.body)), *kept], file.body


def _read(path: Path) -> StaticFile:
    body = path.read_bytes()
    return StaticFile(MEDIA_TYPES[path.suffix], body, b'"%s"' % sha256(body).hexdigest()[:32].encode())


async def _put(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
