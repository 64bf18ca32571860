"""Inference requests that are nearly right: sizes that lie, bytes that are missing, numbers that nothing has."""

import json
import struct
from random import Random
from typing import Any, NamedTuple

import numpy as np

from benchmarks.oip.requests import HEAD_LENGTH, Request, feeds, of_instances, of_tensors
from chaos.fuzz.mutations import MOST_BYTES, mutate_bytes, mutate_tree
from models.runtime.predictor import Predictor

SIZES = [-(2**63), -(2**31), -1, 0, 1, 3, 4, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64]
DATATYPES = ["FP32", "FP64", "FP16", "BF16", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "BYTES", "", "fp32"]
NAMES = ["views", "pixels", "features", "grid", "edges", "text", "image", "instance", "scores", "attention", "x", ""]
KEYS = ["binary_data_size", "binary_data", "binary_data_output", "classification", "priority", "explain",
        "sequence_id", "shared_memory_region", "data", "shape", "name", "id", "outputs"]  # fmt: skip
NUMBERS = [np.float32(value).tobytes() for value in ("nan", "inf", "-inf", "-0.0", "1e38", "0.5", "-1")]
NUMBERS += [struct.pack("<q", value) for value in (-(2**63), -1, 2**31, 2**63 - 1, 4096, 10**6)]
NUMBERS += [struct.pack("<I", value) for value in (0, 1, 2**31, 2**32 - 1)] + [b"\x02", b"\xff"]
LENGTHS = ["-1", "+5", "0x10", "1e3", "", "9" * 30, "12, 12", "a", "00", "\u00b2"]


class OipCase(NamedTuple):
    """One request to a model, as its connection carries it."""

    model: str
    content: bytes


def make_case(rng: Random, model: str, predictor: Predictor) -> OipCase:
    """Return a request that is nearly right."""
    request = _good(rng, predictor)
    head: Any = json.loads(json.dumps(request.head))
    rest, lie = request.rest, rng.random()
    if lie < 0.55:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            head = _mutate_head(rng, head)
    if lie > 0.45 and rest:
        rest = _mutate_rest(rng, rest)
    text = json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass")
    text = mutate_bytes(rng, text) if rng.random() < 0.1 else text
    length = len(text) if rest or rng.random() < 0.5 else None
    return OipCase(model, _to_bytes(rng, model, text + rest, length))


def _good(rng: Random, predictor: Predictor) -> Request:
    numbers = np.random.default_rng(rng.getrandbits(32))
    drawn = [predictor.card.random_request(numbers, predictor.assets) for _ in range(rng.choice((1, 1, 2, 3)))]
    is_binary = rng.random() < 0.85
    if rng.random() < 0.3:
        return of_instances(drawn, is_binary=is_binary, id="r")
    return of_tensors(feeds(predictor, drawn), is_binary=is_binary, id="r")


def _mutate_head(rng: Random, head: Any) -> Any:
    kind = rng.randrange(8)
    inputs = head.get("inputs") if isinstance(head, dict) else None
    part = rng.choice(inputs) if isinstance(inputs, list) and inputs else None
    if kind >= 6 or not isinstance(part, dict):
        changed = mutate_tree(rng, head)
        return changed if len(json.dumps(changed)) < MOST_BYTES else {}
    parameters = part.get("parameters")
    size = parameters.get("binary_data_size", 0) if isinstance(parameters, dict) else 0
    if kind == 0:
        part["parameters"] = {"binary_data_size": rng.choice([*SIZES, 10**400])}
    elif kind == 1 and isinstance(size, int):
        part["parameters"] = {"binary_data_size": size + rng.choice((-9, -8, -4, -1, 1, 4, 8, 1000))}
    elif kind == 2:
        part["shape"] = [rng.choice(SIZES) if rng.random() < 0.5 else axis for axis in _list(part.get("shape"))]
    elif kind == 3:
        part["shape"] = rng.choice(([2**32] * 4, [2**31 - 1] * 8, [0], [], [1] * 9, [2**62, 4], [1.0], ["1"], [True]))
    elif kind == 4:
        part[rng.choice(("datatype", "name"))] = rng.choice(DATATYPES + NAMES)
    else:
        rng.choice((head, part)).update({rng.choice(KEYS): rng.choice([*SIZES, None, {}, [], "a", True, [{}]])})
    return head


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mutate_rest(rng: Random, rest: bytes) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return rest[: rng.randrange(len(rest))]
    if kind == 1:
        return rest + rng.randbytes(rng.choice((1, 4, 8, 5000)))
    if kind == 2:
        return mutate_bytes(rng, rest)
    number = rng.choice(NUMBERS)
    position = rng.randrange(0, len(rest), len(number)) if kind > 3 else 0
    return rest[:position] + number + rest[position + len(number) :]


def _to_bytes(rng: Random, model: str, body: bytes, head_length: int | None) -> bytes:
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    kind = rng.choice(("application/octet-stream",) * 4 + ("application/json",) * 2 + ("", "text/plain"))
    lines += [f"content-type: {kind}"] if kind else []
    if head_length is not None:
        lines += [f"{HEAD_LENGTH}: {value}" for value in _head_lengths(rng, head_length, len(body))]
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + body


def _head_lengths(rng: Random, right: int, body: int) -> list[Any]:
    kind = rng.randrange(12)
    if kind == 0:
        return [rng.choice((right - 1, right + 1, right // 2, right + 100, body, body + 1, 2 * body, 2**63, 2**64))]
    if kind == 1:
        return [rng.choice(LENGTHS)]
    if kind == 2:
        return rng.choice(([], [0], [right, right], [right, 0]))
    return [right]
