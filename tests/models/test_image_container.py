"""Picture files as they are packed: what is said about a picture costs nothing, and what is too much is refused."""

import struct
import time
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.errors import InvalidRequest
from models.image.container import MAX_PARTS, MAX_SCANS, UnreadablePicture, read_orientation, unpack
from models.image.picture import open_picture
from models.image.schema import Assets, Instance, from_file, validate

SMALL = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
ASSETS = Assets(classes=["a"])


def to_file(kind: str, picture: Image.Image = SMALL, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPEG, WEBP = to_file("PNG"), to_file("JPEG", quality=95), to_file("WEBP", lossless=True)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(*chunks: bytes) -> bytes:
    """Return the PNG with chunks behind its header."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def pointers(count: int, size: int) -> bytes:
    """EXIF data whose every entry points to all the rest, so that they stand for a thousand times their length."""
    entries = b"".join(struct.pack("<HHLL", 1000 + number, 7, size, 8) for number in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)


def scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan stands in it many times more."""
    whole = to_file("JPEG", progressive=True)
    last = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + last * (count - whole.count(b"\xff\xda")) + whole[-2:]


MORE = "expected nothing behind the picture, found more bytes"
ABOUT = "expected at most 1048576 bytes about the picture, found more"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PNG + b"PK\x03\x04", MORE),
        (PNG + PNG, MORE),
        (WEBP + b"\0\0\0", MORE),
        (PNG[:-12], "the PNG file is damaged or truncated"),
        (PNG[:-1], "the PNG file is damaged or truncated"),
        (WEBP[:-2], "the WEBP file is damaged or truncated"),
        (JPEG[:3] + b"\xe0", "the JPEG file is damaged or truncated"),
        (with_chunks(chunk(b"iCCP", b"x\0\0" + zeros(2**30))), ABOUT),
        (with_chunks(chunk(b"zTXt", b"x\0\0" + zeros(2**21))), ABOUT),
        (with_chunks(chunk(b"iTXt", b"x\0\1\0\0\0" + zeros(2**21))), ABOUT),
        (with_chunks(*[chunk(b"zTXt", b"x\0\0" + zeros(2**19))] * 3), ABOUT),
        (with_chunks(*[chunk(b"tEXt", b"x\0y")] * MAX_PARTS), f"expected at most {MAX_PARTS} chunks, found more"),
        (with_segments(*[segment(0xE5, b"")] * 4_000_000), f"expected at most {MAX_PARTS} segments, found more"),
        (with_segments(*[segment(0xFE, b"")] * MAX_PARTS), f"expected at most {MAX_PARTS} segments, found more"),
        (with_segments(b"\xff" * 16_000_000), f"expected at most {MAX_PARTS} segments, found more"),
        (scans(1000), f"expected at most {MAX_SCANS} scans, found more"),
    ],
    ids=[
        "PNG and ZIP", "two PNGs", "WebP and more", "PNG without its end", "PNG cut", "WebP cut", "JPEG cut",
        "iCCP bomb", "zTXt bomb", "iTXt bomb", "texts", "chunks", "segments", "comments", "fill bytes", "scans",
    ],
)  # fmt: skip
def test_refused(content: bytes, reason: str) -> None:
    """What is no picture and nothing but that, or bears too much, is refused within a tenth of a second."""
    started = time.process_time()
    with pytest.raises(UnreadablePicture) as caught:
        open_picture(content)
    assert time.process_time() - started < 0.1
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "content",
    [
        with_chunks(chunk(b"iCCP", b"x\0\0" + zeros(2**20))),
        with_chunks(chunk(b"zTXt", b"x\0\0no zlib")),
        with_chunks(chunk(b"tEXt", b"x\0" + b"a" * 100_000)),
        with_chunks(chunk(b"eXIf", pointers(5000, 60_000))),
        with_chunks(*[chunk(b"teSt", b"")] * 4000),
    ],
    ids=["1 MiB profile", "broken text", "plain text", "EXIF pointers", "4,000 chunks"],
)
def test_png_bears_what_it_may(content: bytes) -> None:
    """Control: what stays within the bounds changes no pixel, and writes no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(open_picture(content)), np.asarray(SMALL))


@pytest.mark.parametrize(
    "content",
    [
        with_segments(segment(0xE1, b"Exif\0\0" + pointers(5000, 60_000))),
        with_segments(segment(0xE2, b"MPF\0" + pointers(5000, 60_000))),
        with_segments(*[segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000))] * 9, segment(0xFE, b"a comment")),
        with_segments(b"\xff\xff\xff"),
        JPEG + b"a film",
    ],
    ids=["EXIF pointers", "MPF pointers", "profile", "fill bytes", "film behind"],
)
def test_jpeg_bears_what_it_may(content: bytes) -> None:
    """Control: likewise for JPEG, where phones append more."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(open_picture(content)), np.asarray(open_picture(JPEG)))


def test_as_many_scans_as_may_be() -> None:
    """Control: a progressive JPEG with the most scans is read."""
    assert open_picture(scans(MAX_SCANS)).size == (8, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [0, *range(1, 10)])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_orientation_is_pillow_s(kind: str, orientation: int, endian: str) -> None:
    """Each orientation is what Pillow's slow reader makes of it, in both byte orders; others change nothing."""
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112] = "maker", orientation
    content = to_file(kind, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    assert np.array_equal(np.asarray(open_picture(content)), np.asarray(wanted))


@pytest.mark.parametrize(
    "exif",
    [b"", b"II", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0", b"II*\0\x08\0\0\0\xff\xff", b"XX*\0" + bytes(20)],
)
def test_broken_orientation(exif: bytes) -> None:
    """Broken EXIF says nothing."""
    assert read_orientation(exif) == read_orientation(b"Exif\0\0" + exif) == 1


def test_label() -> None:
    """A file of another format than its content type says is refused; one of no known format, where it is read."""
    files = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP}
    for expected in files:
        for found, content in files.items():
            if found == expected:
                assert from_file(content, expected)[0].image == content
                continue
            with pytest.raises(InvalidRequest) as caught:
                from_file(content, expected)
            (fault,) = caught.value.faults
            assert fault.loc == ("instances", 0, "image")
            assert fault.reason == f"expected a {expected} file, as the content type says, found {found}"
        assert from_file(b"GIF89a", expected)[0].image == b"GIF89a"


def test_only_the_model_s_pixels_are_kept() -> None:
    """What is decoded is let go: a picture of 24 MB leaves the model's 784 pixels behind."""
    instance = Instance(image=to_file("PNG", Image.new("L", (4000, 4000), 7)))
    assert list(validate(instance, ASSETS)) == []
    (kept,) = (value for value in vars(instance).values() if not isinstance(value, int))
    assert kept.nbytes == 784
    assert kept.base is None or kept.base.nbytes == 784


def test_what_is_needed_is_kept() -> None:
    """Palette, transparency and the signs of CMYK reach the decoder."""
    packed = unpack(to_file("PNG", SMALL.convert("P"), transparency=3))
    assert b"PLTE" in packed.data
    assert b"tRNS" in packed.data
    assert b"Adobe" in unpack(to_file("JPEG", SMALL.convert("CMYK"))).data
