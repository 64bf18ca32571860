"""Any still picture to the pixels a model reads. Pillow and numpy only."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from models.image.container import PNG, UnreadablePicture, read_orientation, unpack

# Not ``Image.open``, which has the formats guess, and reads a JPEG's index of further pictures.
READERS: dict[str, Callable[[BytesIO], Image.Image]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
}
# The largest ordinary picture of today's phones (5712 x 4284) and cameras (6016 x 4016, 6240 x 4160); its decoded RGBA
# form is 104 MB, far below what a bomb would take.
MAX_PIXELS = 26_000_000
Image.MAX_IMAGE_PIXELS = None  # ours is tighter, and says what it found
# What Pillow raises on damaged files, as found by fuzzing its three decoders.
DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# EXIF's orientations 2 to 8 (CIPA DC-008, 4.6.4 A): how to bring such a picture upright.
UPRIGHT = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)  # fmt: skip


# A PNG as most small ones are: bit depth 8, grey or RGB, nothing that changes how its samples are read.
_PLAIN_HEAD = struct.Struct(">L4sLLBBBBBL")
_BEGIN = [13, b"IHDR"]
_PLAIN_MODES = {0: "L", 2: "RGB"}
_END = b"\0\0\0\0IEND\xaeB`\x82"


def _open_plain(data: bytes) -> Image.Image | None:
    """Return a PNG of three chunks by Pillow's decoder alone; ``None`` if it is another, or anything is wrong with it.

    Pillow reads a file's chunks in Python, which takes three times as long as the pixels of a small picture.
    """
    head = len(PNG)
    *begin, width, height, depth, colour, packing, filtering, interlacing, check = _PLAIN_HEAD.unpack_from(data, head)
    mode = _PLAIN_MODES.get(colour)
    if begin != _BEGIN or (depth, packing, filtering, interlacing) != (8, 0, 0, 0) or mode is None:
        return None
    start = head + _PLAIN_HEAD.size
    length = int.from_bytes(data[start : start + 4], "big")
    end = start + 8 + length
    if data[start + 4 : start + 8] != b"IDAT" or data[end + 4 :] != _END or not 0 < width * height <= MAX_PIXELS:
        return None
    if zlib.crc32(data[head + 4 : start - 4]) != check:
        return None
    if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
        return None
    try:
        return Image.frombytes(mode, (width, height), data[start + 8 : end], "zip", mode)
    except DECODER_ERRORS:  # what is wrong with it, the whole reader says
        return None


def open_picture(data: bytes) -> Image.Image:
    """Decode a PNG, JPEG or WebP file, upright.

    The declared size is read and bounded before a single pixel is decoded.

    Raises:
        UnreadablePicture: With the reason, without echoing input.
    """
    if data.startswith(PNG) and len(data) > len(PNG) + _PLAIN_HEAD.size:
        plain = _open_plain(data)
        if plain is not None:
            return plain
    packed = unpack(data)
    try:
        picture: Image.Image = READERS[packed.format](BytesIO(packed.data))
    except DECODER_ERRORS as error:
        raise UnreadablePicture("expected a PNG, JPEG or WebP file") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise UnreadablePicture(f"expected at most {MAX_PIXELS:,} pixels, found {width} x {height}")
    if getattr(picture, "n_frames", 1) > 1:
        raise UnreadablePicture("expected one still picture, found an animation")
    try:
        picture.load()
    except DECODER_ERRORS as error:
        damaged = UnreadablePicture(f"the {packed.format} file is damaged or truncated")
        damaged.pixels = width * height
        raise damaged from error
    turn = UPRIGHT.get(read_orientation(packed.exif or picture.info.get("exif", b"")))
    return picture if turn is None else picture.transpose(turn)


def to_pixels(picture: Image.Image, *, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """Bring a picture to the model's colours and size.

    Transparent parts become black, the background of the training pictures. The picture keeps its proportions and is
    padded with black. One that already has the model's mode and size passes unchanged.

    Returns:
        ``(channels, height, width)`` uint8.
    """
    picture = _flatten(picture)
    mode = "L" if channels == 1 else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != (width, height):
        picture = ImageOps.pad(picture, (width, height), Image.Resampling.LANCZOS, color=0)
    # What ``np.asarray`` does, in a third of the time.
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(height, width, channels)
    return pixels.transpose(2, 0, 1)


def _flatten(picture: Image.Image) -> Image.Image:
    """Sixteen bits to eight by scaling (Pillow's own conversion saturates), transparency onto black."""
    if picture.mode.startswith(("I", "F")):
        wide = np.array(picture, np.float64)
        wide /= 257  # in place, all three: each copy of a large picture takes 208 MB
        np.clip(np.rint(wide, out=wide), 0, 255, out=wide)
        return Image.fromarray(wide.astype(np.uint8))
    if picture.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
    return picture
