"""Requests that are nearly right: valid ones with something changed, anywhere from a number to a byte."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from models.runtime.predictor import Predictor

JSON = "application/json"
KEYS = ["instances", "explain", "views", "horizon", "text", "tokens", "image", "pixels", "words", "edges", "new",
        "node_ids", "cites", "atoms", "bonds", "x", ""]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 55, 255, 256, 1433, 2708, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    10**9, 10**400, -0.0, 0.5, 1e39, 1e308, 5e-324, float("nan"), float("inf"), -float("inf"), "", " ", "a", "1e5",
    "\0", "\u202e", "\ud800", "e\u0301" * 300, "http://127.0.0.1:1/", "iVBORw0KGgo=", [], [[]], {}, [1], [[1, 2]],
    [None], {"words": []}, [0] * 56, ["a"] * 600, [[0] * 28] * 28,
]  # fmt: skip
PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u00", b"\\ud800", b"NaN", b"1e999", b"\xff", b"\xc0\xaf",
    b"\xef\xbb\xbf", b"\0", b"null", b"-", b"0" * 5000, b"[" * 2000, b'"views":', b'"instances":[]', b" " * 70_000,
    b"{" * 500, b"/*", b"\r\n\r\n",
]  # fmt: skip
TYPES = [JSON, "application/x-npy", "image/png", "image/jpeg", "image/webp", "text/plain", "multipart/form-data", ""]
HEADERS = [
    "content-encoding: gzip", "content-encoding: identity", "x-request-timeout-ms: 20000", "x-request-timeout-ms: -1",
    "x-request-timeout-ms: 1e9", "x-request-id: a b", "x-request-id: r1", "accept: text/html", "content-type: a/b",
    "x-forwarded-for: 1.2.3.4", "cookie: " + "a" * 9000, "expect: 200-ok", "origin: null",
]  # fmt: skip


# Longer requests have tests of their own, and would make the others wait here.
MOST_BYTES = 2**20


class RestCase(NamedTuple):
    """One request to a model."""

    model: str
    media_type: str
    headers: list[str]
    body: bytes


def mutate_tree(rng: Random, value: Any, depth: int = 0) -> Any:
    """Return a JSON value with one thing in it changed."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85 - depth / 20:
        position = rng.choice([*value]) if isinstance(value, dict) else rng.randrange(len(value))
        changed = value.copy()
        changed[position] = mutate_tree(rng, value[position], depth + 1)
        return changed
    kind = rng.randrange(5)
    if isinstance(value, dict) and kind < 3:
        return _mutate_object(rng, value, kind)
    if isinstance(value, list) and kind < 4:
        position = rng.randint(0, len(value))
        many = 20 if value and isinstance(value[0], dict | list) else 700
        more: list[list[Any]] = [[], [rng.choice(VALUES)], value[:3] * 2, value[:1] * many]
        return value[:position] + more[kind] + value[position + (kind == 0) :]
    return rng.choice(VALUES) if kind < 4 else [value]


def _mutate_object(rng: Random, value: dict[str, Any], kind: int) -> dict[str, Any]:
    if kind == 0 and value:
        left = rng.choice([*value])
        return {key: part for key, part in value.items() if key != left}
    if kind == 1 and value:
        old = rng.choice([*value])
        return {rng.choice(KEYS) if key == old else key: part for key, part in value.items()}
    return value | {rng.choice(KEYS): rng.choice(VALUES)}


def mutate_bytes(rng: Random, content: bytes) -> bytes:
    """Bytes flipped, cut, moved, doubled, or with something put between them."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        start = rng.randint(0, len(changed))
        end = min(len(changed), start + rng.choice((1, 1, 4, 64, 4096)))
        kind = rng.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end]
        elif kind == 3:
            changed[start:start] = rng.choice(PIECES)
        elif kind == 4:
            changed[start:end] = rng.randbytes(end - start)
        else:
            del changed[start:]
    return bytes(changed)


def write(document: Any) -> bytes:
    """JSON, and what is like it: not finite numbers, lone surrogates."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def array_file(rng: Random, model: str) -> bytes:
    """Return an array such as the model reads, or nearly."""
    shape: Any = (rng.choice((1, 1, 3)), 56) if model == "viewcount" else (rng.choice((1, 2)), 28, 28)
    kinds = ["<i8", ">f4", "<f8", "|u1", "|u1", "<f2", "|b1", "<c16", "<U4", "<M8[s]"]
    buffer = io.BytesIO()
    np.save(buffer, np.full(shape, rng.choice((0, 7, 200))).astype(rng.choice(kinds)))
    return buffer.getvalue()


def picture_file(rng: Random) -> tuple[str, bytes]:
    """Return a small picture and its content type."""
    kind, mode = rng.choice(("PNG", "JPEG", "WEBP")), rng.choice(("L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "I;16"))
    plain = Image.frombytes("L", (9, 7), rng.randbytes(63))
    picture = plain.convert(mode) if mode != "I;16" else Image.frombytes("I;16", (9, 7), rng.randbytes(126))
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind, **({"progressive": True} if kind == "JPEG" and rng.random() < 0.5 else {}))
    except (OSError, KeyError):  # the format has no such mode
        buffer = io.BytesIO()
        plain.save(buffer, kind)
    return f"image/{kind.lower()}", buffer.getvalue()


def mutate_png(rng: Random, content: bytes) -> bytes:
    """Another chunk, or another number in one, with checksums that are right."""
    parts, start = [content[:8]], 8
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        parts.append(content[start + 4 : start + 8 + length])
        start += 12 + length
    position = rng.randrange(1, len(parts))
    kind = rng.randrange(4)
    if kind == 0:
        parts[position] = parts[position][:4] + mutate_bytes(rng, parts[position][4:])
    elif kind == 1:
        names = (b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"acTL", b"fcTL", b"PLTE", b"tRNS", b"IDAT", b"gAMA")
        parts.insert(position, rng.choice(names) + rng.choice((b"", b"x\0\0" + zlib.compress(bytes(9999)), bytes(17))))
    elif kind == 2:
        sizes = struct.pack(">II", rng.choice((0, 1, 13_000, 2**31)), rng.choice((0, 1, 5, 2**32 - 1)))
        parts[1] = b"IHDR" + sizes + parts[1][12:]
    else:
        parts.insert(position, parts[-position])
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts[1:])
    return parts[0] + b"".join(chunks)


def make_case(rng: Random, model: str, predictor: Predictor) -> RestCase:
    """Return a request that is nearly right."""
    headers = [rng.choice(HEADERS) for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 2)))]
    media_types = [kind for kind in predictor.card.from_media if rng.random() < 0.4]
    if media_types:
        media_type, body = _file_case(rng, model, media_types[0])
    else:
        media_type, body = JSON, _json_case(rng, predictor)
    if rng.random() < 0.05:
        media_type = rng.choice(TYPES)
    return RestCase(model, media_type, headers, body)


def _json_case(rng: Random, predictor: Predictor) -> bytes:
    numbers = np.random.default_rng(rng.getrandbits(32))
    count = rng.choice((1, 1, 1, 2, 5))
    drawn = [predictor.card.random_request(numbers, predictor.assets) for _ in range(count)]
    document: Any = json.loads(msgspec.json.encode({"instances": drawn}))
    if rng.random() < 0.2:
        document["explain"] = True
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        document = mutate_tree(rng, document)
        if len(write(document)) > MOST_BYTES:
            document = {"instances": []}
    body = write(document)
    return mutate_bytes(rng, body) if rng.random() < 0.35 else body


def _file_case(rng: Random, model: str, media_type: str) -> tuple[str, bytes]:
    mutate: Callable[[Random, bytes], bytes] = mutate_bytes
    if media_type.startswith("image/"):
        media_type, body = picture_file(rng)
        if media_type == "image/png" and rng.random() < 0.5:
            mutate = mutate_png
    else:
        body = array_file(rng, model)
    return media_type, mutate(rng, body) if rng.random() < 0.9 else body


def make_raw(rng: Random, good: bytes, model: str) -> bytes:
    """Return the bytes of a request, or of several, with the HTTP around the body changed."""
    body = good if rng.random() < 0.7 else mutate_bytes(rng, good)
    head = [
        f"{rng.choice(('POST',) * 6 + ('GET', 'PUT', 'OPTIONS', 'X'))} /v1/models/{model}/predict HTTP/1.1",
        "host: x", f"content-type: {rng.choice(TYPES[:1] * 5 + TYPES)}",
    ]  # fmt: skip
    head += [rng.choice(HEADERS) for _ in range(rng.choice((0, 0, 1)))]
    if rng.random() < 0.3:
        head.append("transfer-encoding: chunked")
        size = rng.choice((1, 7, 100, 10_000))
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    if rng.random() < 0.75:
        head.append(f"content-length: {rng.choice((len(body),) * 6 + (0, 1, len(body) - 1, len(body) + 9, -1, 2**40))}")
    rng.shuffle(tail := head[1:])
    content = "\r\n".join([head[0], *tail, "", ""]).encode() + body
    content = mutate_bytes(rng, content) if rng.random() < 0.5 else content
    # No more than a socket holds: what is broken is answered, and closed, before the rest has been sent.
    return content * rng.choice((1, 1, 1, 1, 2, 9)) if len(content) < 5000 else content
