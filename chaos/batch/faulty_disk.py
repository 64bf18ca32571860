"""Disks that break: one that ends the process between two operations, and one whose every operation is written down.

A process that has ended does nothing more: after its crash a ``CrashingDisk`` refuses everything, so that no clean-up
on the way out of the functions can make the test kinder than a SIGKILL.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from service.scoring.execution.disk import Disk

if TYPE_CHECKING:
    from typing_extensions import Buffer

ResultT = TypeVar("ResultT")


class Crash(BaseException):
    """The process ends here."""


class CrashingDisk(Disk):
    """Ends the process before its operation number ``at``, or half-way through it if that is a write.

    Attributes:
        done: The operations that were carried out, by name.
    """

    def __init__(self, at: int | None = None, *, is_half: bool = False, error: OSError | None = None) -> None:
        self.done: list[str] = []
        self._at, self._is_half, self._error = at, is_half, error
        self._is_dead = False

    def _carry_out(self, name: str, operation: Callable[[], ResultT]) -> ResultT:
        if self._is_dead:
            raise Crash
        if len(self.done) == self._at and not self._is_half:
            self._break()
        self.done.append(name)
        return operation()

    def _break(self) -> None:
        if self._error is not None:
            self._at = None  # a full disk breaks an operation, not the process
            raise self._error
        self._is_dead = True
        raise Crash

    def make_folder(self, folder: Path) -> None:
        """See ``Disk``."""
        self._carry_out("make_folder", lambda: super(CrashingDisk, self).make_folder(folder))

    def create(self, path: Path) -> int:
        """See ``Disk``."""
        return self._carry_out("create", lambda: super(CrashingDisk, self).create(path))

    def write(self, opened: int, content: "Buffer") -> int:
        """See ``Disk``."""
        if len(self.done) == self._at and self._is_half and not self._is_dead:
            view = memoryview(content)
            os.write(opened, view[: len(view) // 2])
            self._break()
        return self._carry_out("write", lambda: super(CrashingDisk, self).write(opened, content))

    def sync(self, opened: int) -> None:
        """Only counted: what a crash of the process alone leaves behind does not hang on it."""
        self._carry_out("sync", lambda: None)

    def rename(self, source: Path, target: Path) -> None:
        """See ``Disk``."""
        self._carry_out("rename", lambda: super(CrashingDisk, self).rename(source, target))

    def remove(self, path: Path) -> None:
        """See ``Disk``."""
        self._carry_out("remove", lambda: super(CrashingDisk, self).remove(path))

    def remove_folder(self, folder: Path) -> None:
        """See ``Disk``."""
        self._carry_out("remove_folder", lambda: super(CrashingDisk, self).remove_folder(folder))

    def sync_folder(self, folder: Path) -> None:
        """Only counted."""
        self._carry_out("sync_folder", lambda: None)


class DiskEvent(NamedTuple):
    """One operation: its name, what it was done to, and what was written."""

    name: str
    target: Path
    other: Path | None = None
    content: bytes = b""


class RecordingDisk(Disk):
    """Does and writes down everything; before each operation also what the ledger's file holds, if that is new.

    Attributes:
        events: What was done, in order.
    """

    def __init__(self, ledger: Path) -> None:
        self.events: list[DiskEvent] = []
        self._ledger, self._ledger_bytes = ledger, b""
        self._names: dict[int, Path] = {}

    def _note(self, event: DiskEvent) -> None:
        content = self._ledger.read_bytes() if self._ledger.exists() else b""
        if content and content != self._ledger_bytes:
            self._ledger_bytes = content
            self.events.append(DiskEvent("ledger", self._ledger, content=content))
        self.events.append(event)

    def make_folder(self, folder: Path) -> None:
        """See ``Disk``."""
        self._note(DiskEvent("make_folder", folder))
        super().make_folder(folder)

    def create(self, path: Path) -> int:
        """See ``Disk``."""
        self._note(DiskEvent("create", path))
        opened = super().create(path)
        self._names[opened] = path
        return opened

    def write(self, opened: int, content: "Buffer") -> int:
        """See ``Disk``."""
        self._note(DiskEvent("write", self._names[opened], content=bytes(content)))
        return super().write(opened, content)

    def sync(self, opened: int) -> None:
        """See ``Disk``."""
        self._note(DiskEvent("sync", self._names[opened]))

    def rename(self, source: Path, target: Path) -> None:
        """See ``Disk``."""
        self._note(DiskEvent("rename", source, target))
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        """See ``Disk``."""
        self._note(DiskEvent("remove", path))
        super().remove(path)

    def remove_folder(self, folder: Path) -> None:
        """See ``Disk``."""
        self._note(DiskEvent("remove_folder", folder))
        super().remove_folder(folder)

    def sync_folder(self, folder: Path) -> None:
        """See ``Disk``."""
        self._note(DiskEvent("sync_folder", folder))
