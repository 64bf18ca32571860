"""Arrays in bodies: what numpy saves is read back, and nothing else is."""

import io
import pickle
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, MalformedRequest
from models.image.schema import from_array as pictures
from models.payload.npy import read_array
from models.viewcount.schema import from_array as rows


def saved(array: Any, version: tuple[int, int] | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if version:
        np.lib.format.write_array(buffer, np.asarray(array), version)
    else:
        np.save(buffer, array, **options)
    return buffer.getvalue()


GOOD = saved(np.arange(112.0).reshape(2, 56))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i4", "<i8", "<u8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_round_trip(dtype: str, shape: tuple[int, ...], version: tuple[int, int]) -> None:
    """Every numeric type, shape, order and format version comes back as it was."""
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for one in (array, np.asfortranarray(array)):
        found = read_array(saved(one, version))
        assert found.dtype == one.dtype
        assert np.array_equal(found, one)


def header(text: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"{}",
        GOOD[:-1],
        GOOD + b"x",
        GOOD[:60],
        GOOD[:9],
        b"\x93NUMPX" + GOOD[6:],
        GOOD[:6] + b"\x03\x00" + GOOD[8:],
        saved(np.array([{}], object), allow_pickle=True),
        saved(np.array(["a"])),
        saved(np.array([1 + 2j])),
        saved(np.zeros(2, [("a", "f4"), ("b", "i4")])),
        saved(np.array(["2026-11-21"], "datetime64[D]")),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", b"\0" * 4),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**30,)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}"),
        header("{'descr': '<f4', 'shape': (1,)}", b"\0" * 4),
        header("(" * 400),
        header("__import__('os').abort()"),
        header("{" + " " * 60_000 + "}"),
        pickle.dumps([1.0] * 56),
    ],
    ids=range(23),
)
def test_refused(body: bytes) -> None:
    """What is cut off, lies about its size, or holds anything but numbers is refused as malformed."""
    with pytest.raises(MalformedRequest):
        read_array(body)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.booleans())
def test_any_flipped_byte(position: int, value: int, is_cut: bool) -> None:
    """Whatever byte is changed, the array is read or refused; nothing else is raised."""
    changed = bytearray(GOOD)
    changed[position] = value
    for reader in (rows, pictures):
        with suppress(MalformedRequest, InvalidRequest):
            reader(bytes(changed[:position] if is_cut else changed))


def test_views() -> None:
    """One row or many, of any numeric type, are instances with the default horizon."""
    table = np.arange(120).reshape(2, 60)
    found = rows(saved(table))
    assert [list(one.views) for one in found] == table.tolist()
    assert [one.horizon for one in found] == [7, 7]
    assert len(rows(saved(table[0].astype("f4")))) == 1


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.zeros((2, 55)), "expected rows of 56 to 3660 days, found (2, 55)"),
        (np.zeros((1, 3661)), "expected rows of 56 to 3660 days, found (1, 3661)"),
        (np.zeros((1, 2, 56)), "expected rows of 56 to 3660 days, found (1, 2, 56)"),
        (np.full((1, 56), np.nan), "expected a number from 0 to 1000000000"),
        (np.full((1, 56), np.inf), "expected a number from 0 to 1000000000"),
        (np.full((1, 56), -1), "expected a number from 0 to 1000000000"),
        (np.full((1, 56), 10**9 + 1), "expected a number from 0 to 1000000000"),
    ],
)
def test_views_out_of_bounds(table: Any, reason: str) -> None:
    """The bounds of the JSON form hold for arrays, too, and the place is told."""
    with pytest.raises(InvalidRequest) as caught:
        rows(saved(table))
    assert caught.value.faults[0].reason == reason
    assert len(caught.value.faults) <= 8


@pytest.mark.parametrize(
    "array",
    [np.zeros((1, 28, 28), "i1"), np.zeros((1, 28, 28), "f4"), np.zeros(28, "u1"), np.zeros((1, 1, 28, 28, 1), "u1")],
)
def test_pictures_out_of_bounds(array: Any) -> None:
    """Pictures are bytes with two to four axes."""
    with pytest.raises(InvalidRequest, match="instances: expected"):
        pictures(saved(array))


def test_long_integers_of_python_2() -> None:
    """What numpy would read with a warning in the log is refused without one."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(56))
    old = buffer.getvalue().replace(b"(56,), ", b"(56L,),")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MalformedRequest, match="the header of the array cannot be read"):
            read_array(old)
