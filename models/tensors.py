"""A task's samples as tensors, for protocols that carry tensors rather than instances. Torch-free."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import Fault, InvalidRequest

Array: TypeAlias = NDArray[Any]
Steps: TypeAlias = Mapping[str, int]
AssetsT = TypeVar("AssetsT")
SampleT = TypeVar("SampleT")

MAX_FAULTS = 8
ONE_ROW: Steps = {"batch": 1}


def _nothing(_: Any) -> Mapping[str, Array]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors(Generic[AssetsT, SampleT]):
    """What a card says of tensors: the session's inputs to samples, and which part of its outputs is a sample's.

    Attributes:
        samples: The samples in a session's inputs, whose names, types, ranks, static axes and common axes are right.
            Raises ``InvalidRequest`` unless they are what ``collate`` could have made: nothing else reaches a device.
        steps: How much of each dynamic axis of the outputs a sample takes.
        asked: Which of these steps a sample is about, by axis; all of an axis that is not named.
        payloads: The instance's fields that a user has as bytes, e.g. a file, and what of the bytes the field takes.
        listed: The payload that is listed as the model's input, where its tensors are nothing a user has.
        classes: Names of the places on the last axis of ``scores``, where the model has them.
    """

    samples: Callable[[Mapping[str, Array], AssetsT], list[SampleT]]
    steps: Callable[[SampleT], Steps]
    asked: Callable[[SampleT], Mapping[str, Array]] = _nothing
    payloads: Mapping[str, Callable[[bytes], Any]] = field(default_factory=dict)
    listed: str | None = None
    classes: Callable[[AssetsT], Sequence[str]] | None = None


def join(parts: Sequence[Array]) -> Array:
    """Parts of one output end to end; where their other axes differ, the shorter ones are filled up with zeros."""
    if len(parts) == 1:
        return parts[0]
    shape = np.max([part.shape[1:] for part in parts], axis=0, initial=0).tolist()
    if all(list(part.shape[1:]) == shape for part in parts):
        return np.concatenate(parts)
    whole = np.zeros((sum(map(len, parts)), *shape), parts[0].dtype)
    start = 0
    for part in parts:
        whole[(slice(start, start + len(part)), *map(slice, part.shape[1:]))] = part
        start += len(part)
    return whole


def demand(is_good: bool | np.bool_, name: str, reason: str) -> None:
    """Let a tensor pass of which something holds.

    Raises:
        InvalidRequest: If it does not.
    """
    if not is_good:
        raise InvalidRequest(faults=[Fault((name,), reason)])


def demand_each(is_good: NDArray[np.bool_], values: Array, name: str, reason: str) -> None:
    """Let a tensor pass of whose every element something holds.

    Raises:
        InvalidRequest: With the first elements of which it does not.
    """
    if is_good.all():
        return
    bad_elements = np.argwhere(~is_good)[:MAX_FAULTS].tolist()
    faults = [Fault((name, *element), f"{reason}, found {values[tuple(element)]}") for element in bad_elements]
    raise InvalidRequest(faults=faults)
