"""Check that a server's answers are the in-process ones, and that this check would notice if they were not."""

import copy
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.harness.environments import Unavailable
from benchmarks.harness.servers import Server, ask, without_paths
from benchmarks.harness.workloads import BenchmarkWorkload
from benchmarks.peers.codec import open_codec

AT_ONCE = 32
TOLERANCE = 1e-5


def find_difference(found: Any, expected: Any, json_path: str = "answer") -> str | None:
    """Return where two answers differ first and how, ``None`` when they agree.

    Numbers may differ by 1e-5 of their size, or by 1e-5 below one; everything else must be the same.
    """
    if isinstance(expected, float) and isinstance(found, float | int) and not isinstance(found, bool):
        is_near = math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return None if is_near else f"{json_path}: {found} instead of {expected}"
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        pairs = [(found[key], value, f"{json_path}.{key}") for key, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(found[at], value, f"{json_path}[{at}]") for at, value in enumerate(expected)]
    else:
        return None if type(found) is type(expected) and found == expected else f"{json_path}: not the same"
    return next((gap for pair in pairs if (gap := find_difference(*pair)) is not None), None)


def expected_answers(workload: BenchmarkWorkload) -> list[Any]:
    """Return the in-process predictions of each checked body; none for a form that this commit does not read."""
    codec = open_codec(workload.model)
    if workload.media_type not in codec.bodies.media_types:
        return []
    answers = [codec.write(codec.answer([codec.read(body, workload.media_type)])[0]) for body in workload.checks]
    return [json.loads(answer)["predictions"] for answer in answers]


def check(server: Server, workload: BenchmarkWorkload, expected: Sequence[Any]) -> None:
    """Ask the checked bodies 32 at a time, twice, and compare.

    Raises:
        Unavailable: If an answer is missing or wrong.
    """
    envelope = server.peer.envelope

    def predictions(body: bytes) -> Any:
        status, answer = ask(server.port, envelope.call(workload.model, body, workload.media_type))
        if status != 200:
            raise Unavailable(f"not served: {status}")
        return envelope.unwrap(answer)

    if not expected:
        predictions(workload.checks[0])
        raise Unavailable("nothing to compare with")
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(predictions, [*workload.checks, *workload.checks]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(without_paths(f"no usable answer: {type(error).__name__}: {error}")) from error
    gap = find_difference(found, [*expected, *expected])
    if gap is not None:
        raise Unavailable(f"wrong {gap}")
    prove(found, [*expected, *expected])


def prove(found: list[Any], expected: list[Any]) -> None:
    """Spoil good answers in every known way; the comparison must notice each.

    Raises:
        AssertionError: If it does not.
    """
    for spoil in SPOILERS:
        spoilt = spoil(copy.deepcopy(found))
        if find_difference(spoilt, expected) is None:
            raise AssertionError(f"the check does not notice {spoil.__name__}")


def _shifted(answers: list[Any]) -> list[Any]:
    """The first number is off by 1e-4."""
    return [_shift(answers[0]), *answers[1:]]


def _shift(value: Any) -> Any:
    if isinstance(value, float):
        return value * (1 + 1e-4) + 1e-4
    if isinstance(value, list):
        return [_shift(one) for one in value]
    return {key: _shift(one) for key, one in value.items()} if isinstance(value, dict) else value


def _exchanged(answers: list[Any]) -> list[Any]:
    """Two callers got each other's answers."""
    other = next((at for at, answer in enumerate(answers) if answer != answers[0]), None)
    if other is None:  # all callers asked the same
        return []
    answers[0], answers[other] = answers[other], answers[0]
    return answers


def _missing(answers: list[Any]) -> list[Any]:
    """Return the last caller got no answer."""
    return answers[:-1]


SPOILERS: tuple[Callable[[list[Any]], list[Any]], ...] = (_shifted, _exchanged, _missing)
