"""What is wrong with a request whatever its family: syntax, keys, numbers, content types, compression."""

import gzip
from typing import Any

import pytest

from models.errors import Fault

DAYS = ",".join(["5"] * 55)
GOOD = f'{{"instances":[{{"views":[5,{DAYS}]}}]}}'
VIEW = ["instances", 0, "views", 0]
NOT_JSON = (400, "malformed_request", None, None)
NOT_READ = "the content type must be one of application/json, application/x-npy"


def first(value: str, rest: str = "") -> bytes:
    """Return a request whose first view count, and what follows the views, is this."""
    return f'{{"instances":[{{"views":[{value},{DAYS}]{rest}}}]}}'.encode()


def wrong(loc: list[Any], reason: str) -> tuple[int, str, list[Any], str]:
    return 422, "invalid_request", loc, reason


BODIES: dict[str, tuple[bytes, tuple[int, str, Any, Any]]] = {
    "empty": (b"", NOT_JSON),
    "white space": (b" \n", NOT_JSON),
    "truncated": (GOOD.encode()[:-1], NOT_JSON),
    "trailing junk": (GOOD.encode() + b"x", NOT_JSON),
    "two documents": (GOOD.encode() * 2, NOT_JSON),
    "trailing comma": (first("5,")[:-4] + b",]}]}", NOT_JSON),
    "comment": (GOOD.encode() + b"//", NOT_JSON),
    "single quotes": (GOOD.replace('"', "'").encode(), NOT_JSON),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), NOT_JSON),
    "UTF-16": (GOOD.encode("utf-16"), NOT_JSON),
    "bad UTF-8": (b'{"instances":[{"view\xff":[]}]}', NOT_JSON),
    "surrogate in UTF-8": (b'{"instances":[{"view\xed\xa0\x80":[]}]}', NOT_JSON),
    "lone surrogate": (b'{"instances":[{"\\ud800":[]}]}', NOT_JSON),
    "NaN": (first("NaN"), NOT_JSON),
    "Infinity": (first("Infinity"), NOT_JSON),
    "-Infinity": (first("-Infinity"), NOT_JSON),
    "leading zero": (first("01"), NOT_JSON),
    "plus sign": (first("+1"), NOT_JSON),
    "hexadecimal": (first("0x1"), NOT_JSON),
    "underscore": (first("1_0"), NOT_JSON),
    "null": (b"null", wrong([], "expected object, got null")),
    "list": (b"[]", wrong([], "expected object, got array")),
    "text": (b'"a"', wrong([], "expected object, got str")),
    "empty object": (b"{}", wrong([], "object missing required field instances")),
    "no instances": (b'{"instances":[]}', wrong(["instances"], "expected array of length >= 1")),
    "null instance": (b'{"instances":[null]}', wrong(["instances", 0], "expected object, got null")),
    "depth 200": (b"[" * 200 + b"]" * 200, wrong([], "expected object, got array")),
    "depth 10^5": (b'{"instances":' + b"[" * 100_000, wrong(["instances", 0], "expected object, got array")),
    "depth 10^5 of objects": (b'{"instances":[' + b'{"views":' * 100_000, NOT_JSON),
    "depth 10^5 in a value": (first("[" * 100_000), wrong(VIEW, "expected float, got array")),
    "unknown key": (first("5", ',"x":1'), wrong(["instances", 0], "unknown field")),
    "unknown key outside": (GOOD.encode()[:-1] + b',"x":1}', wrong([], "unknown field")),
    "key twice": (first("5", f',"views":[7,{DAYS}]'), wrong(["instances", 0, "views"], "given more than once")),
    "key twice, the same": (first("5", f',"views":[5,{DAYS}]'), wrong(VIEW[:3], "given more than once")),
    "key twice, escaped": (first("5", f',"\\u0076iews":[5,{DAYS}]'), wrong(VIEW[:3], "given more than once")),
    "instances twice": (f'{GOOD[:-1]},{GOOD[1:]}'.encode(), wrong(["instances"], "given more than once")),
    "explain twice": (GOOD.encode()[:-1] + b',"explain":false,"explain":false}',
                      wrong(["explain"], "given more than once")),
    "explain is no bool": (GOOD.encode()[:-1] + b',"explain":1}', wrong(["explain"], "expected bool, got int")),
    "explain without attention": (GOOD.encode()[:-1] + b',"explain":true}',
                                  wrong(["explain"], "this model has no attention to explain its answers with")),
    "10^400": (first("1" + "0" * 400), wrong(VIEW, "number out of range")),
    "1e400": (first("1e400"), wrong(VIEW, "number out of range")),
    "5,000 digits": (first("9" * 5000), wrong(VIEW, "number out of range")),
    "5,000 digits of an int": (first("5", ',"horizon":' + "9" * 5000),
                               wrong(["instances", 0, "horizon"], "integer value out of range")),
    "endless exponent": (first("1e" + "9" * 5000), wrong(VIEW, "number out of range")),
    "1,025 instances": (('{"instances":[' + ",".join([f'{{"views":[5,{DAYS}]}}'] * 1025) + "]}").encode(),
                        wrong(["instances"], "expected array of length <= 1024")),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_body(name: str, refuse: Any) -> None:
    """Broken syntax is 400, what is not allowed is 422, says where and why, and says it in a line, too."""
    body, (status, code, loc, reason) = BODIES[name]
    found = refuse("viewcount", body, status, code).json
    assert found["errors"] == ([] if loc is None else [{"loc": loc, "reason": reason}])
    assert found["error"] == ("the body is not JSON" if status == 400 else str(Fault(tuple(loc or ()), reason or "")))


TYPES: dict[str, tuple[str | None, tuple[str, ...], str]] = {
    "missing": (None, (), NOT_READ),
    "empty": ("", (), NOT_READ),
    "text": ("text/plain", (), NOT_READ),
    "pickle": ("application/vnd.bentoml+pickle", (), NOT_READ),
    "a form": ("application/x-www-form-urlencoded", (), NOT_READ),
    "multipart without a boundary": ("multipart/form-data", (), NOT_READ),
    "multipart with a long boundary": ("multipart/form-data; boundary=" + "a" * 60_000, (), NOT_READ),
    "problem": ("application/problem+json", (), NOT_READ),
    "another model's": ("image/png", (), NOT_READ),
    "two of them": ("application/json", ("content-type: application/json",), NOT_READ),
    "a list": ("application/json, text/plain", (), NOT_READ),
    "not ASCII": ("application/json\xff", (), NOT_READ),
    "gzip": ("application/json", ("content-encoding: gzip",), "compressed"),
    "GZIP": ("application/json", ("Content-Encoding:GZIP ",), "compressed"),
    "brotli": ("application/json", ("content-encoding: br",), "compressed"),
    "two encodings": ("application/json", ("content-encoding: identity, gzip",), "compressed"),
}


@pytest.mark.parametrize("name", TYPES)
def test_content_type(name: str, refuse: Any) -> None:
    """What the model does not read is 415, and says what it reads."""
    media_type, headers, message = TYPES[name]
    answer = refuse("viewcount", GOOD.encode(), 415, "unsupported_media_type", media_type, *headers)
    assert message in answer.json["error"]
    assert answer.json["errors"] == []


def test_compressed_bomb(refuse: Any) -> None:
    """A gigabyte of zeros in a megabyte is not unpacked: with the header 415, without it no JSON."""
    bomb = gzip.compress(bytes(2**27), 9)
    refuse("viewcount", bomb, 415, "unsupported_media_type", "application/json", "content-encoding: gzip")
    refuse("viewcount", bomb, 400, "malformed_request")


@pytest.mark.parametrize("name", ["identity", "parameters", "upper case"])
def test_allowed_headers(name: str, way: Any, good: Any) -> None:
    """Control: no compression by its name, parameters and case of the content type change nothing."""
    media_type, header = {
        "identity": ("application/json", ("content-encoding: Identity",)),
        "parameters": ("application/json ; charset=utf-8", ()),
        "upper case": ("APPLICATION/JSON", ()),
    }[name]
    body, expected = good("viewcount")
    assert way.ask("viewcount", body, media_type, *header).body == expected


@pytest.mark.parametrize("number", ["0." + "0" * 5000, "5e" + "0" * 5000, "0." + "0" * 5000 + "1e5001", "5.0", "50e-1"])
def test_long_but_plain_numbers(number: str, way: Any) -> None:
    """Control: a number may be written as long as it likes."""
    short = str(float(number)) if "e5001" not in number else "1"
    assert way.ask("viewcount", first(number)).body == way.ask("viewcount", first(short)).body


def test_nothing_is_echoed(way: Any) -> None:
    """No refusal repeats what was sent, nor names a file or a line of code."""
    marker = "zq7Xmarker"
    for body in (marker, f'{{"{marker}":1}}', f'{{"instances":["{marker}"]}}', f'{{"instances":[{{"{marker}":1}}]}}'):
        answer = way.ask("viewcount", body.encode())
        assert answer.status in (400, 422)
        assert marker.encode() not in answer.body
        assert b".py" not in answer.body
        assert b"Traceback" not in answer.body
