"""What is wrong with a request for a forecast, and what only looks wrong."""

import io
import json
from typing import Any

import numpy as np
import pytest

DAYS = ",".join(["5"] * 55)
VIEW = ["instances", 0, "views", 0]
VIEWS = VIEW[:3]
HORIZON = ["instances", 0, "horizon"]
SHORT, LONG = "expected array of length >= 56", "expected array of length <= 3660"


def first(value: str, rest: str = "") -> bytes:
    return f'{{"instances":[{{"views":[{value},{DAYS}]{rest}}}]}}'.encode()


def views(value: Any) -> bytes:
    return json.dumps({"instances": [{"views": value}]}).encode()


def fractional(value: str) -> str:
    return f"expected a whole number of views, found {value}"


REFUSED: dict[str, tuple[bytes, list[Any], str]] = {
    "no days": (views([]), VIEWS, SHORT),
    "one day": (views([1]), VIEWS, SHORT),
    "55 days": (views([1] * 55), VIEWS, SHORT),
    "3,661 days": (views([1] * 3661), VIEWS, LONG),
    "10^6 days": (views([1] * 10**6), VIEWS[:2], "expected at most 262144 values, found 999999"),
    "7 × 8": (views([[1] * 8] * 7), VIEW, "expected float, got array"),
    "ragged": (views([[1] * 8, [1]]), VIEW, "expected float, got array"),
    "views by day": (views({"0": 1}), VIEWS, "expected array, got object"),
    "views as text": (views("1,2,3"), VIEWS, "expected array, got str"),
    "1e39": (first("1e39"), VIEW, "expected float <= 1000000000.0"),
    "1e308": (first("1e308"), VIEW, "expected float <= 1000000000.0"),
    "10^9 + 1": (first("1000000001"), VIEW, "expected float <= 1000000000.0"),
    "2^53 + 1": (first("9007199254740993"), VIEW, "expected float <= 1000000000.0"),
    "-1": (first("-1"), VIEW, "expected float >= 0.0"),
    "-5e-324": (first("-5e-324"), VIEW, "expected float >= 0.0"),
    "5e-324": (first("5e-324"), VIEW, fractional("5e-324")),
    "1.5": (first("1.5"), VIEW, fractional("1.5")),
    "true": (first("true"), VIEW, "expected float, got bool"),
    "text": (first('"1e5"'), VIEW, "expected float, got str"),
    "cell of a table": (first('"1,234"'), VIEW, "expected float, got str"),
    "null": (first("null"), VIEW, "expected float, got null"),
    "object": (first("{}"), VIEW, "expected float, got object"),
    "complex": (first('"1+2j"'), VIEW, "expected float, got str"),
    "complex as a pair": (first("[1,2]"), VIEW, "expected float, got array"),
    "horizon 0": (first("5", ',"horizon":0'), HORIZON, "expected int >= 1"),
    "horizon 29": (first("5", ',"horizon":29'), HORIZON, "expected int <= 28"),
    "horizon true": (first("5", ',"horizon":true'), HORIZON, "expected int, got bool"),
    "horizon 1.0": (first("5", ',"horizon":1.0'), HORIZON, "expected int, got float"),
    "horizon null": (first("5", ',"horizon":null'), HORIZON, "expected int, got null"),
    "horizon 2^63": (first("5", ',"horizon":9223372036854775808'), HORIZON, "expected int <= 28"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, refuse: Any) -> None:
    """Each is refused at its place."""
    body, loc, reason = REFUSED[name]
    assert refuse("viewcount", body, 422, "invalid_request").json["errors"] == [{"loc": loc, "reason": reason}]


def test_no_more_than_eight_faults(refuse: Any) -> None:
    """A request with thousands of faults is told of the first."""
    errors = refuse("viewcount", views([0.5] * 3660), 422, "invalid_request").json["errors"]
    assert [fault["loc"][-1] for fault in errors] == [*range(8)]
    body = json.dumps({"instances": [{"views": [0.5] * 56}] * 100}).encode()
    assert len(refuse("viewcount", body, 422, "invalid_request").json["errors"]) == 32


ALLOWED: dict[str, tuple[bytes, list[float]]] = {
    "-0.0": (first("-0.0"), [0.0] + [5.0] * 55),
    "2^24 + 1": (first("16777217"), [16777217.0] + [5.0] * 55),
    "all zero": (views([0] * 56), [0.0] * 56),
    "all maximal": (views([10**9] * 56), [1e9] * 56),
    "57 days": (first("5,5"), [5.0] * 56),
    "3,660 days": (views([7] * 3604 + [5] * 56), [5.0] * 56),
    "a number with a point": (first("5.0"), [5.0] * 56),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, way: Any, live: Any) -> None:
    """What only looks wrong has the answer of its last 56 days, all of it finite."""
    body, last = ALLOWED[name]
    session = live.endpoints["viewcount"].predictor
    feeds = {"views": np.asarray([last], np.float32)}
    wanted = session.run(feeds, ["forecast", "lower", "upper"])
    found = way.ask("viewcount", body).prediction
    for part, values in wanted.items():
        assert np.isfinite(values).all()
        assert np.array_equal(np.asarray(found[part], np.float32), values[0, :7])


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **options)
    return buffer.getvalue()


ROW = np.full(56, 5)
NPY = npy(ROW)
ARRAYS: dict[str, tuple[bytes, int, list[Any] | None]] = {
    "empty": (b"", 400, None),
    "JSON": (views([5] * 56), 400, None),
    "cut": (NPY[:-1], 400, None),
    "longer": (NPY + b"\0", 400, None),
    "header cut": (NPY[:20], 400, None),
    "version 3": (NPY[:6] + b"\x03\x00" + NPY[8:], 400, None),
    "objects": (npy(np.asarray([None] * 56, object)), 400, None),
    "complex": (npy(ROW.astype(complex)), 400, None),
    "text": (npy(ROW.astype(str)), 400, None),
    "bool": (npy(ROW.astype(bool)), 400, None),
    "negative shape": (NPY.replace(b"(56,), ", b"(-56,),"), 400, None),
    "huge shape": (NPY.replace(b"(56,), ", b"(2**62,"), 400, None),
    "code in the header": (NPY.replace(b"(56,), ", b"exit(),"), 400, None),
    "scalar": (npy(5), 422, ["instances"]),
    "three axes": (npy(np.full((1, 1, 56), 5)), 422, ["instances"]),
    "55 days": (npy(ROW[:55]), 422, ["instances"]),
    "no rows": (npy(np.zeros((0, 56))), 422, ["instances"]),
    "NaN": (npy([np.nan] * 56), 422, [*VIEWS, 0]),
    "infinite": (npy([5.0] * 55 + [np.inf]), 422, [*VIEWS, 55]),
    "negative": (npy(-ROW), 422, [*VIEWS, 0]),
    "fractional": (npy(ROW + 0.5), 422, [*VIEWS, 0]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_refused(name: str, refuse: Any) -> None:
    """The same as arrays; nothing in a header is evaluated, and no object is unpickled."""
    body, status, loc = ARRAYS[name]
    code = "malformed_request" if status == 400 else "invalid_request"
    errors = refuse("viewcount", body, status, code, "application/x-npy").json["errors"]
    assert (errors[0]["loc"] if errors else None) == loc


@pytest.mark.parametrize(
    "body",
    [npy(ROW.astype(kind)) for kind in ("<i8", ">i8", "<f8", ">f4", "u1", "<f2")]
    + [npy(ROW, version=(2, 0)), npy(np.asfortranarray(np.full((1, 56), 5)))],
    ids=["i8", "big-endian i8", "f8", "big-endian f4", "u1", "f2", "version 2", "Fortran order"],
)
def test_array_allowed(body: bytes, way: Any) -> None:
    """Any numeric type and order of the same numbers has the same answer as JSON."""
    assert way.ask("viewcount", body, "application/x-npy").body == way.ask("viewcount", views([5] * 56)).body
