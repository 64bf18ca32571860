"""Arrays in request bodies, as ``numpy.save`` writes them. Torch-free."""

import math
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.lib import format as npy_format

from models.card import Array
from models.errors import MalformedRequest

MEDIA_TYPE = "application/x-npy"
MAX_HEADER_BYTES = 512
_MAGIC = b"\x93NUMPY"
_HEADERS = {
    # Version: where the header's length stands, and how numpy reads it.
    b"\x01\x00": (slice(8, 10), npy_format.read_array_header_1_0),
    b"\x02\x00": (slice(8, 12), npy_format.read_array_header_2_0),
}


def read_array(body: bytes) -> Array:
    """Return the numbers of an ``.npy`` file, without copying them; read-only.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    Args:
        body: The whole file, format version 1 or 2, of signed or unsigned integers or floats.

    Returns:
        Any shape and numeric dtype, in C order.

    Raises:
        MalformedRequest: If it is anything else; pickled objects are never read.
    """
    header_offset, _ = _HEADERS.get(body[6:8], (None, None))
    if not body.startswith(_MAGIC) or header_offset is None:
        raise MalformedRequest("the body is not an array as numpy.save writes it, format version 1 or 2")
    start = header_offset.stop + int.from_bytes(body[header_offset], "little")
    if start > min(MAX_HEADER_BYTES, len(body)):
        raise MalformedRequest("the header of the array is cut off or too long")
    dtype, shape, is_fortran = _layout(body[:start])
    found, expected = len(body) - start, math.prod(shape) * dtype.itemsize
    if found != expected:
        raise MalformedRequest(f"the array has {found} bytes, its header says {expected}")
    flat = np.frombuffer(body, dtype, offset=start)
    return np.asarray(flat.reshape(shape, order="F" if is_fortran else "C"), order="C")


@lru_cache(maxsize=64)  # numpy takes 20 µs to read a header, and a client's headers are all alike
def _layout(header: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    if b"L" in header:  # a long integer of Python 2, which numpy reads with a warning in the log
        raise MalformedRequest("the header of the array cannot be read")
    try:
        shape, is_fortran, dtype = _HEADERS[header[6:8]][1](BytesIO(header[8:]), max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # numpy evaluates the header as Python text and raises what that raises
        raise MalformedRequest("the header of the array cannot be read") from error
    if dtype.kind not in "iuf" or min(shape, default=0) < 0:
        raise MalformedRequest("the array must hold integers or floats")
    return dtype, shape, is_fortran
