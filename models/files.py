"""Limit what decoding the files of a request may cost. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.errors import Fault

InstanceT = TypeVar("InstanceT")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBudget(Generic[InstanceT]):
    """How much one request may have decoded of the files in its instances; how short they are says nothing of it.

    Attributes:
        unit: What is counted, e.g. ``"pixels"``.
        request: Most units in the files of one request.
        field: The field that holds an instance's file.
        cost: Units of an instance that was validated, whether its file was good or not; 0 without a file.
    """

    unit: str
    request: int
    field: str
    cost: Callable[[InstanceT], int]

    def fault(self, index: int, units: int) -> Fault | None:
        """Refuse the instance with which a request came to ``units``, if that is too much."""
        if units <= self.request:
            return None
        reason = f"expected at most {self.request:,} {self.unit} in one request, found {units:,} up to here"
        return Fault(("instances", index, self.field), reason)
