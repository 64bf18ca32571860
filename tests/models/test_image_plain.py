"""Plain PNG files are read by a shorter way: the same pixels, and the same refusals, as by the whole reader."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.image import picture
from models.image.container import UnreadablePicture
from models.image.picture import open_picture

MODES = ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"]


def png(mode: str, size: tuple[int, int], seed: int = 0, **options: Any) -> bytes:
    """Return a picture of noise with some even ground, so that every filter is used."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (size[1], size[0]), np.uint8)
    grey[: size[1] // 2] = np.arange(size[0], dtype=np.uint8)
    made = Image.fromarray(grey.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    if mode == "RGB":
        made = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    file = BytesIO()
    made.save(file, "PNG", **options)
    return file.getvalue()


def seen(data: bytes) -> tuple[str, Any, bytes] | str:
    """Return what comes of a file."""
    try:
        found = open_picture(data)
    except UnreadablePicture as error:
        return str(error)
    return found.mode, found.size, found.tobytes()


def slowly(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any, bytes] | str:
    """Return the same by the whole reader."""
    with monkeypatch.context() as patch:
        patch.setattr(picture, "_open_plain", lambda _: None)
        return seen(data)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (3, 90), (400, 300)], ids=str)
def test_every_kind(mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All modes, sizes and ways of packing."""
    options: dict[str, Any]
    for options in ({}, {"optimize": True}, {"compress_level": 0}, {"dpi": (72, 72)}):
        data = png(mode, size, **options)
        assert seen(data) == slowly(data, monkeypatch)
    is_plain = picture._open_plain(png(mode, size)) is not None
    assert is_plain == (mode in ("L", "RGB") and size != (400, 300)) or size == (400, 300)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))


def made(rows: bytes, *, head: tuple[int, ...] = (4, 4, 8, 0, 0, 0, 0), more: bytes = b"", begin: bytes = b"") -> bytes:
    """Return a file of these rows as they are packed."""
    packed = zlib.compress(rows) + more
    chunks = [(b"IHDR", struct.pack(">LLBBBBB", *head)), (b"IDAT", packed), (b"IEND", b"")]
    return picture.PNG + begin + b"".join(_chunk(*one) for one in chunks)


ROWS = b"\1abcd" * 4
ODD = {
    "plain": made(ROWS),
    "short": made(ROWS[:-1]),
    "long": made(ROWS * 3),
    "behind": made(ROWS, more=b"xyz"),
    "no filter": made(b"\7abcd" * 4),
    "interlaced": made(ROWS, head=(4, 4, 8, 0, 0, 0, 1)),
    "packing": made(ROWS, head=(4, 4, 8, 0, 1, 0, 0)),
    "filtering": made(ROWS, head=(4, 4, 8, 0, 0, 1, 0)),
    "deep": made(b"\1" + b"abcdefgh" + b"\1abcdefgh" * 3, head=(4, 4, 16, 0, 0, 0, 0)),
    "no pixels": made(ROWS, head=(0, 4, 8, 0, 0, 0, 0)),
    "huge": made(ROWS, head=(2**31, 2**31, 8, 0, 0, 0, 0)),
    "large": made(ROWS, head=(5000, 5000, 8, 0, 0, 0, 0)),
    "palette": made(ROWS, head=(4, 4, 8, 3, 0, 0, 0)),
    "something first": made(ROWS, begin=_chunk(b"tIME", b"1234567")),
    "more behind": made(ROWS) + b"\0",
    "twice": made(ROWS) + made(ROWS),
    "half": made(ROWS)[:40],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files nobody's encoder writes."""
    assert seen(ODD[name]) == slowly(ODD[name], monkeypatch)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_changed_byte(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of a file changed, or the file cut off there: as before."""
    data = png(mode, (6, 5))
    for position in range(len(data)):
        for change in (1, 0x20, 0xFF):
            changed = bytearray(data)
            changed[position] ^= change
            assert seen(bytes(changed)) == slowly(bytes(changed), monkeypatch), (position, change)
        assert seen(data[:position]) == slowly(data[:position], monkeypatch)


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: small pictures do not come to the whole reader at all."""
    monkeypatch.setattr(picture, "unpack", lambda _: pytest.fail("the whole reader"))
    assert seen(png("L", (28, 28)))
