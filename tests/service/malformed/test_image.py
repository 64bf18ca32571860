"""What is wrong with a picture, and what only looks wrong."""

import base64
import ctypes
import json
import random
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

M_MMAP_THRESHOLD = -3
AT = ["instances", 0]
IMAGE, PIXELS = [*AT, "image"], [*AT, "pixels"]
UNKNOWN = "expected a PNG, JPEG or WebP file"
BEHIND = "expected nothing behind the picture, found more bytes"
ABOUT = "expected at most 1048576 bytes about the picture, found more"
ONE_OF = "expected exactly one of 'image' and 'pixels'"
BASE64 = "invalid base64 encoded string"
GREY = np.arange(784, dtype=np.uint8).reshape(28, 28)
PICTURE = Image.fromarray(GREY)


def to_file(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def zeros(count: int) -> bytes:
    packer, lengths = zlib.compressobj(9), (min(2**20, count - done) for done in range(0, count, 2**20))
    return b"".join([packer.compress(bytes(length)) for length in lengths]) + packer.flush()


def drawn(width: int, height: int, bits: int, *more: bytes) -> bytes:
    """Return a black PNG without anything drawn."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    rows = zeros(height * (1 + (width * bits + 7) // 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def scans(count: int) -> bytes:
    whole = to_file(Image.new("L", (2000, 2000), 7), "JPEG", progressive=True)
    return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * count + whole[-2:]


PNG, JPEG = to_file(PICTURE), to_file(PICTURE, "JPEG", quality=95)
BOMB = drawn(13_000, 13_000, 1)
ANIMATION = {"save_all": True, "append_images": [Image.new("L", (28, 28), 200)], "duration": 100}
DAMAGED, ANIMATED = "the PNG file is damaged or truncated", "expected one still picture, found an animation"

FILES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", UNKNOWN),
    "noise": (random.Random(1).randbytes(5000), UNKNOWN),
    "truncated": (PNG[: len(PNG) // 2], DAMAGED),
    "end cut": (PNG[:-1], DAMAGED),
    "magic only": (PNG[:8], DAMAGED),
    "bad checksum": (PNG[:29] + b"\0\0\0\0" + PNG[33:], UNKNOWN),
    "bad checksum of the rows": (PNG[:-20] + bytes((PNG[-20] ^ 255,)) + PNG[-19:], DAMAGED),
    "bomb of 20 kB": (BOMB, "expected at most 26,000,000 pixels, found 13000 x 13000"),
    "width 2^31 - 1": (PNG[:8] + chunk(b"IHDR", b"\x7f\xff\xff\xff\0\0\0\1\x08\0\0\0\0") + PNG[33:],
                       "expected at most 26,000,000 pixels, found 2147483647 x 1"),
    "width 0": (drawn(0, 5, 8), UNKNOWN),
    "profile bomb": (drawn(4, 4, 8, chunk(b"iCCP", b"x\0\0" + zeros(2**28))), ABOUT),
    "text bomb": (drawn(4, 4, 8, chunk(b"zTXt", b"x\0\0" + zeros(2**28))), ABOUT),
    "animated PNG": (to_file(PICTURE, **ANIMATION), ANIMATED),
    "animated WebP": (to_file(PICTURE, "WEBP", **ANIMATION), ANIMATED),
    "animated GIF": (to_file(PICTURE, "GIF", **ANIMATION), UNKNOWN),
    "GIF": (to_file(PICTURE, "GIF"), UNKNOWN),
    "BMP": (to_file(PICTURE, "BMP"), UNKNOWN),
    "TIFF": (to_file(PICTURE, "TIFF"), UNKNOWN),
    "PDF": (to_file(PICTURE, "PDF"), UNKNOWN),
    "EPS": (to_file(PICTURE, "EPS"), UNKNOWN),
    "FITS": (b"SIMPLE  =                    T".ljust(2880), UNKNOWN),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:1/"/></svg>', UNKNOWN),
    "ZIP": (b"PK\x05\x06" + bytes(18), UNKNOWN),
    "1,000 scans": (scans(1000), "expected at most 32 scans, found more"),
    "PNG and ZIP": (PNG + b"PK\x05\x06" + bytes(18), BEHIND),
    "two files": (PNG + PNG, BEHIND),
    "4 million segments": (JPEG[:2] + b"\xff\xe5\0\2" * 4_000_000 + JPEG[2:],
                           "expected at most 4096 segments, found more"),
}  # fmt: skip


def label(content: bytes) -> str:
    return "image/jpeg" if content.startswith(b"\xff\xd8") else "image/webp" if content[:4] == b"RIFF" else "image/png"


def image(**instance: Any) -> bytes:
    return json.dumps({"instances": [instance]}).encode()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("name", FILES)
def test_file(name: str, refuse: Any) -> None:
    """Each is refused with its reason, as a body and in base64 alike."""
    content, reason = FILES[name]
    for model in ("image", "image-vit"):
        found = refuse(model, content, 422, "invalid_request", label(content)).json["errors"]
        assert found == [{"loc": IMAGE, "reason": reason}]
    if len(content) < 2**20:
        found = refuse("image", image(image=in_base64(content)), 422, "invalid_request").json["errors"]
        assert found == [{"loc": IMAGE, "reason": reason}]


@pytest.mark.parametrize(("media_type", "found"), [("image/jpeg", "PNG"), ("image/png", "JPEG"), ("image/webp", "PNG")])
def test_label(media_type: str, found: str, refuse: Any) -> None:
    """A file of another format than its content type is refused."""
    content, expected = PNG if found == "PNG" else JPEG, media_type[6:].upper()
    (fault,) = refuse("image", content, 422, "invalid_request", media_type).json["errors"]
    assert fault == {
        "loc": IMAGE, "reason": f"expected a {expected} file, as the content type says, found {found}"
    }  # fmt: skip


ROWS = GREY.tolist()
BODIES: dict[str, tuple[bytes, list[Any], str]] = {
    "nothing": (image(), AT, ONE_OF),
    "both": (image(image=in_base64(PNG), pixels=ROWS), AT, ONE_OF),
    "a URL": (image(image="http://127.0.0.1:1/a.png"), IMAGE, BASE64),
    "a file's URL": (image(image="file:///etc/passwd"), IMAGE, BASE64),
    "data URL": (image(image="data:image/png;base64," + in_base64(PNG)), IMAGE, BASE64),
    "URL-safe base64": (image(image="_-8="), IMAGE, BASE64),
    "base64 without padding": (image(image="iVBORw0"), IMAGE, BASE64),
    "an object": (image(image={"url": "http://127.0.0.1:1/"}), IMAGE, "expected bytes, got object"),
    "bytes as numbers": (image(image=[137, 80]), IMAGE, "expected bytes, got array"),
    "value 256": (image(pixels=[[256]]), [*PIXELS, 0, 0], "expected int <= 255"),
    "value -1": (image(pixels=[[-1]]), [*PIXELS, 0, 0], "expected int >= 0"),
    "value 1.0": (image(pixels=[[1.0]]), [*PIXELS, 0, 0], "expected int, got float"),
    "value true": (image(pixels=[[True]]), [*PIXELS, 0, 0], "expected int, got bool"),
    "27 rows": (image(pixels=ROWS[:27]), PIXELS, "expected 28 rows, found 27"),
    "short row": (image(pixels=[*ROWS[:27], [1]]), [*PIXELS, 27], "expected 28 values, found 1"),
    "flat": (image(pixels=GREY.ravel().tolist()), [*PIXELS, 0], "expected array, got int"),
    "colours": (image(pixels=[[[1, 2, 3]] * 28] * 28), [*PIXELS, 0, 0], "expected int, got array"),
    "no rows": (image(pixels=[]), PIXELS, "expected 28 rows, found 0"),
}


@pytest.mark.parametrize("name", BODIES)
def test_body(name: str, refuse: Any) -> None:
    """Each is refused at its place, and no address is ever looked at."""
    body, loc, reason = BODIES[name]
    assert refuse("image", body, 422, "invalid_request").json["errors"] == [{"loc": loc, "reason": reason}]


def rgba(red: int, alpha: int) -> Image.Image:
    return Image.new("RGBA", (28, 28), (red, 0, 0, alpha))


def flat(grey: int) -> Image.Image:
    return Image.new("L", (28, 28), grey)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return to_file(PICTURE, exif=exif)


# What only looks wrong, and the grey picture it means.
ALLOWED: dict[str, tuple[bytes, Image.Image]] = {
    "one pixel": (to_file(Image.new("L", (1, 1), 90)), flat(90)),
    "one bit": (to_file(Image.new("1", (28, 28), 1)), flat(255)),
    "grey with alpha": (to_file(Image.new("LA", (28, 28), (200, 0))), flat(0)),
    "hidden red": (to_file(rgba(255, 0)), flat(0)),
    "red": (to_file(rgba(255, 255)), flat(76)),
    "palette": (to_file(PICTURE.convert("P")), PICTURE),
    "transparent palette": (to_file(Image.new("P", (28, 28), 1), transparency=1), flat(0)),
    "16 bits": (to_file(Image.fromarray(np.full((28, 28), 300, np.uint16))), flat(1)),
    "CMYK": (to_file(Image.new("CMYK", (28, 28), (0, 0, 0, 255)), "JPEG"), flat(0)),
    "orientation 6": (turned(6), PICTURE.transpose(Image.Transpose.ROTATE_270)),
    "orientation 3": (turned(3), PICTURE.transpose(Image.Transpose.ROTATE_180)),
    "long and narrow": (drawn(50_000, 1, 8), flat(0)),
    "text": (PNG[:33] + chunk(b"tEXt", b"url\0http://127.0.0.1:1/") + PNG[33:], PICTURE),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, way: Any) -> None:
    """It has the answer of the picture that it means."""
    content, meant = ALLOWED[name]
    found = way.ask("image", content, label(content))
    wanted = way.ask("image", image(pixels=np.asarray(meant).tolist()))
    assert wanted.status == 200
    assert found.body == wanted.body


def peak_bytes(ask: Any) -> int:
    """Return how much the process grows while this is asked, as the kernel counts it."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**17)  # what is large is given back at once, not kept for the next
    libc.malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak begins here
    before = psutil.Process().memory_info().rss
    ask()
    with open("/proc/self/status") as status:
        (peak,) = (line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 - before


def test_memory(way: Any) -> None:
    """A bomb of 20 kB takes no memory; control: a picture of 16 megapixels takes 16 MB, and is seen to."""
    large = drawn(4000, 4000, 8)
    assert len(BOMB) < 25_000
    assert peak_bytes(lambda: way.ask("image", BOMB, "image/png")) < 8 * 2**20
    assert peak_bytes(lambda: way.ask("image", large, "image/png")) > 12 * 2**20


def test_memory_of_many(way: Any) -> None:
    """Six pictures of 16 megapixels in one request take little more memory than one."""
    large = in_base64(drawn(4000, 4000, 8))
    body = json.dumps({"instances": [{"image": large}] * 6}).encode()
    assert peak_bytes(lambda: way.ask("image", body)) < 64 * 2**20
