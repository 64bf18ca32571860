"""Picture files as they are packed: what is told to the decoder, and what never reaches it. Standard library only.

Pillow reads a file's headers in Python, keeps or unpacks all that is said about a picture, and follows every pointer
in it: 16 MB of empty JPEG segments took it 6 s, and 64 kB of EXIF made it write 5,000 warnings. So a file is bounded
and stripped first; of all that is said about the picture, only its orientation is heeded.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAX_PARTS = 4096  # chunks or segments; a PNG of 16 MB as libpng writes it has 2,000, a photo of 16 MB 300
MAX_SCANS = 32  # of a progressive JPEG; encoders write 6 to 12, and 1,000 of them took 10 s
MAX_UNPACKED_BYTES = 2**20  # of texts and colour profiles
PNG, JPEG, RIFF, WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"WEBP"
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_PACKED = (b"iCCP", b"zTXt", b"iTXt")
_EXIF, _ORIENTATION, _SHORT = b"Exif\0\0", 0x0112, 3
# JPEG segments: JFIF and Adobe say how colours are meant; all other applications' segments and comments are left out.
_TOLD = frozenset((0xE0, 0xEE))
_UNTOLD = frozenset((*range(0xE0, 0xF0), 0xFE)) - _TOLD
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_SCAN = 0xDA


class UnreadablePicture(ValueError):
    """The bytes are not one still picture of a known format and bearable size.

    Attributes:
        pixels: How many were to be decoded before that was found.
    """

    pixels = 0


class Packed(NamedTuple):
    """A picture file without what is said about it.

    Attributes:
        format: ``"PNG"``, ``"JPEG"`` or ``"WEBP"``.
        data: The file for the decoder.
        exif: What it says in EXIF, empty if nothing.
    """

    format: str
    data: bytes
    exif: bytes


def find_format(data: bytes) -> str | None:
    """The format a file begins like."""
    if data.startswith(PNG):
        return "PNG"
    if data.startswith(JPEG):
        return "JPEG"
    return "WEBP" if data.startswith(RIFF) and data[8:12] == WEBP else None


def unpack(data: bytes) -> Packed:
    """Return a file's picture, without what else is in it.

    Raises:
        UnreadablePicture: If it is none, or not one still picture and nothing behind it.
    """
    read = {"PNG": _read_png, "JPEG": _read_jpeg, "WEBP": _read_webp}.get(find_format(data) or "")
    if read is None:
        raise UnreadablePicture("expected a PNG, JPEG or WebP file")
    return read(data)


def _damaged(kind: str) -> UnreadablePicture:
    return UnreadablePicture(f"the {kind} file is damaged or truncated")


def _read_png(data: bytes) -> Packed:
    """https://www.w3.org/TR/png-3/#5Chunk-layout ; a later IDAT's checksum is left to the decoder."""
    needed, exif, room = [PNG], b"", MAX_UNPACKED_BYTES
    for name, start, end in _png_chunks(data):
        if name == b"acTL":
            raise UnreadablePicture("expected one still picture, found an animation")
        if name in _PNG_NEEDED:
            needed.append(data[start:end])
        elif name in _PNG_PACKED:
            room -= _unpacked_bytes(data[start + 8 : end - 4], room)
        elif name == b"eXIf":
            exif = data[start + 8 : end - 4]
    return Packed("PNG", b"".join(needed), exif)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk."""
    start = len(PNG)
    for _ in range(MAX_PARTS):
        length, name = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + 12 + length
        if end > len(data):
            raise _damaged("PNG")
        yield name, start, end
        if name == b"IEND":
            if end < len(data):
                raise UnreadablePicture("expected nothing behind the picture, found more bytes")
            return
        start = end
    raise UnreadablePicture(f"expected at most {MAX_PARTS} chunks, found more")


def _unpacked_bytes(chunk: bytes, room: int) -> int:
    """Return how long a packed text or profile is: it stands behind a keyword and at most two more texts.

    Raises:
        UnreadablePicture: If it is longer than ``room``.
    """
    packed = chunk[chunk.find(b"\x78", chunk.find(b"\0") + 1) :]  # zlib's first byte
    unpacker = zlib.decompressobj()
    try:
        length = len(unpacker.decompress(packed, room + 1))
    except zlib.error:  # it is not packed, or nobody can unpack it
        return 0
    if length > room:
        raise UnreadablePicture(f"expected at most {MAX_UNPACKED_BYTES} bytes about the picture, found more")
    return length


def _read_jpeg(data: bytes) -> Packed:
    """ITU-T T.81, B.1. Behind the picture there may be more: phones append a second view, or a film."""
    needed, exif = [data[:2]], b""
    for marker, start, end in _jpeg_segments(data):
        if marker not in _UNTOLD:
            needed.append(data[start:end])
        elif not exif and marker == 0xE1 and data[start + 4 : start + 10] == _EXIF:
            exif = data[start + 4 : end]
    if needed[-1].count(b"\xff\xda") > MAX_SCANS:
        raise UnreadablePicture(f"expected at most {MAX_SCANS} scans, found more")
    return Packed("JPEG", b"".join(needed), exif)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment; the first scan and all behind it are the last."""
    start = 2
    for _ in range(MAX_PARTS):
        if data[start : start + 1] != b"\xff" or start + 4 > len(data):
            raise _damaged("JPEG")
        marker = data[start + 1]
        if marker == _SCAN:
            yield marker, start, len(data)
            return
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        end = start + 2 if marker in _ALONE else start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        yield marker, start, end
        start = end
    raise UnreadablePicture(f"expected at most {MAX_PARTS} segments, found more")


def _read_webp(data: bytes) -> Packed:
    """https://developers.google.com/speed/webp/docs/riff_container ; the decoder is not Pillow's own."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < end:
        raise _damaged("WEBP")
    if len(data) > end + end % 2:
        raise UnreadablePicture("expected nothing behind the picture, found more bytes")
    return Packed("WEBP", data, b"")


def read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1, which is upright, where there is none.

    Source: EXIF 2.32 (CIPA DC-008), 4.6.2 and 4.6.4 A.
    """
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}L", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    entries = tiff[start + 2 : start + 2 + 12 * min(count, MAX_PARTS)]
    for tag, kind, number, value in struct.iter_unpack(f"{order}HHLH2x", entries[: len(entries) // 12 * 12]):
        if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
            return value if 1 <= value <= 8 else 1
    return 1
