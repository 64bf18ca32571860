"""What is wrong with the HTTP around a request: lengths, chunks, headers, paths."""

import socket
from typing import Any

import msgspec
import pytest

ROUTE = b"/v1/models/viewcount/predict"
DAYS = b",".join([b"5"] * 56)
BODY = b'{"instances":[{"views":[' + DAYS + b"]}]}"
SIZE = b"content-length: %d" % len(BODY)
CHUNKED = b"transfer-encoding: chunked"


def raw(*headers: bytes, body: bytes = BODY, path: bytes = ROUTE, kind: bytes = b"application/json") -> bytes:
    lines = (b"POST %b HTTP/1.1" % path, b"host: x", b"content-type: " + kind, *headers, b"", b"")
    return b"\r\n".join(lines) + body


def chunks(count: int) -> bytes:
    """Return the body in so many chunks, most of them white space."""
    return b"%x\r\n%b\r\n" % (len(BODY), BODY) + b"1\r\n \r\n" * (count - 1) + b"0\r\n\r\n"


# What is no HTTP any more is refused by the parser, in uvicorn's own words.
BROKEN = {
    "both CL and TE": raw(SIZE, CHUNKED, body=chunks(1)),
    "two lengths": raw(SIZE, b"content-length: 5"),
    "negative length": raw(b"content-length: -1"),
    "length with a sign": raw(b"content-length: +5"),
    "length in words": raw(b"content-length: five"),
    "empty length": raw(b"content-length:"),
    "list of lengths": raw(SIZE + b", 5"),
    "hexadecimal length": raw(b"content-length: 0x10"),
    "chunk of -1": raw(CHUNKED, body=b"-1\r\n"),
    "chunk of no number": raw(CHUNKED, body=b"zz\r\n"),
    "huge chunk": raw(CHUNKED, body=b"f" * 20 + b"\r\n"),
    "folded header": raw(SIZE, b"x: a\r\n b"),
    "NUL in a header": raw(SIZE, b"x: \0"),
    "space before the colon": raw(b"content-length : 5"),
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str, way: Any, good: Any) -> None:
    """It is a 400, the connection ends there, and the next one works."""
    with socket.create_connection(way.address, 5) as line:
        line.sendall(BROKEN[name])
        received = read_all(line)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    request, expected = good("viewcount")
    assert way.ask("viewcount", request).body == expected


PROBLEMS: dict[str, tuple[bytes, int, str]] = {
    "over the limit": (raw(b"content-length: 16777217", body=b""), 413, "body_too_large"),
    "length of 5,000 digits": (raw(b"content-length: " + b"9" * 19, body=b""), 413, "body_too_large"),
    "no length": (raw(body=b""), 400, "malformed_request"),
    "no chunks": (raw(CHUNKED, body=b"0\r\n\r\n"), 400, "malformed_request"),
    "gzip over chunks": (raw(b"content-encoding: gzip", CHUNKED, body=chunks(1)), 415, "unsupported_media_type"),
    "bad time limit": (raw(SIZE, b"x-request-timeout-ms: soon"), 400, "malformed_request"),
    "dots": (raw(SIZE, path=b"/v1/models/../models/viewcount/predict"), 404, "unknown_route"),
    "dots, escaped": (raw(SIZE, path=b"/v1/models/%2e%2e/predict"), 404, "unknown_route"),
    "slash, escaped": (raw(SIZE, path=b"/v1/models/..%2f..%2fetc/predict"), 404, "unknown_route"),
    "NUL, escaped": (raw(SIZE, path=b"/v1/models/a%00/predict"), 404, "unknown_route"),
    "line end, escaped": (raw(SIZE, path=b"/v1/models/a%0a/predict"), 404, "unknown_route"),
    "long path": (raw(SIZE, path=b"/" + b"a" * 30_000), 404, "unknown_route"),
    "unknown model": (raw(SIZE, path=b"/v1/models/gpt/predict"), 404, "unknown_model"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem(name: str, way: Any, problem: Any, good: Any) -> None:
    """Well-formed HTTP with something wrong about it has a problem for an answer."""
    content, status, code = PROBLEMS[name]
    problem(way.raw(content), status, code)
    request, expected = good("viewcount")
    assert way.ask("viewcount", request).body == expected


@pytest.mark.parametrize("count", [1, 2, 65_537])
def test_chunks(count: int, way: Any, good: Any) -> None:
    """However many chunks it comes in, a body is one body, and costs no more than it should."""
    before = way.live.seconds
    answer = way.raw(raw(CHUNKED, body=chunks(count)))
    assert way.live.seconds - before < 0.5
    assert answer.body == way.ask("viewcount", BODY).body


def read_all(line: socket.socket) -> bytes:
    received = b""
    while data := line.recv(65_536):
        received += data
    return received


def test_short_length(way: Any, good: Any) -> None:
    """What is left over of a body is no request: nothing but 400, and the end."""
    with socket.create_connection(way.address, 5) as line:
        line.sendall(raw(b"content-length: 9"))
        answers = read_all(line).split(b"HTTP/1.1 ")[1:]
    assert answers
    assert all(answer.startswith(b"400 ") for answer in answers)
    request, expected = good("viewcount")
    assert way.ask("viewcount", request).body == expected


def test_allowed_header(way: Any) -> None:
    """Control: a long header that is whole changes nothing."""
    assert way.raw(raw(SIZE, b"x: " + b"a" * 30_000)).body == way.ask("viewcount", BODY).body


def test_every_model_after_all(way: Any, live: Any) -> None:
    """After all of this every model answers its example right, and nothing is left waiting."""
    for name, endpoint in live.endpoints.items():
        example = endpoint.predictor.card.example(endpoint.predictor.assets)
        body = msgspec.json.encode({"instances": [example]})
        assert way.ask(name, body).body == endpoint.payloads.write(endpoint.predictor.predict([example]))
        assert endpoint.batcher.queue.backlog == 0
