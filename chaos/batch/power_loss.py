"""Replay a log of disk operations with what was not synced left out, as after a power loss.

A file's bytes last once the file was synced, its name once its folder was; until then each may or may not be there.
SQLite's own writes are not in the log: it syncs them itself, so the ledger stands as its last commit left it, or, worse
than SQLite promises, as the one before did, or is gone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chaos.batch.faulty_disk import DiskEvent

LEDGERS = ("last", "previous", "none")
KEPT = ("nothing", "names", "bytes", "half of the bytes")


class DiskState(NamedTuple):
    """Describe what is on the disk, and how it came to be there."""

    kept: str
    ledger: str
    files: dict[Path, bytes]
    folders: frozenset[Path]


class DiskFile:
    """Its bytes as they are, and as they would be after a power loss."""

    def __init__(self) -> None:
        self.now = self.synced = b""

    def after_loss(self, kept: str) -> bytes:
        """Return what is left of it."""
        if kept == "half of the bytes" and self.now != self.synced:
            return self.now[: len(self.now) // 2]
        return self.now if kept == "bytes" else self.synced


class Platter:
    """A disk that remembers what is synced."""

    def __init__(self, root: Path) -> None:
        self._now: dict[Path, DiskFile] = {}
        self._synced: dict[Path, DiskFile] = {}
        self._folders, self._synced_folders = {root}, {root}
        self._ledgers: list[bytes] = []
        self._ledger = Path()

    def replay(self, event: DiskEvent) -> None:
        """One operation more."""
        {
            "make_folder": self._make_folder,
            "remove_folder": self._remove_folder,
            "create": self._create,
            "write": self._write,
            "sync": self._sync,
            "rename": self._rename,
            "remove": self._remove,
            "sync_folder": self._sync_folder,
            "ledger": self._note,
        }[event.name](event)

    def states(self) -> Iterator[DiskState]:
        """Yield what a power loss might leave at this moment."""
        for kept in KEPT:
            names = self._now if kept in ("names", "half of the bytes") else self._synced
            folders = frozenset(self._folders if names is self._now else self._synced_folders)
            files = {path: file.after_loss(kept) for path, file in names.items() if path.parent in folders}
            for ledger in LEDGERS:
                content = self._ledger_as(ledger)
                with_ledger = {**files, self._ledger: content} if content and self._ledger.parent in folders else files
                yield DiskState(kept, ledger, with_ledger, folders)

    def _ledger_as(self, which: str) -> bytes:
        kept_writes = {"last": 1, "previous": 2}.get(which, 0)
        return self._ledgers[-kept_writes] if 0 < kept_writes <= len(self._ledgers) else b""

    def _make_folder(self, event: DiskEvent) -> None:
        self._folders.add(event.target)

    def _remove_folder(self, event: DiskEvent) -> None:
        self._folders.discard(event.target)

    def _create(self, event: DiskEvent) -> None:
        self._now[event.target] = DiskFile()

    def _write(self, event: DiskEvent) -> None:
        self._now[event.target].now += event.content

    def _sync(self, event: DiskEvent) -> None:
        file = self._now[event.target]
        file.synced = file.now

    def _rename(self, event: DiskEvent) -> None:
        assert event.other is not None
        self._now[event.other] = self._now.pop(event.target)

    def _remove(self, event: DiskEvent) -> None:
        self._now.pop(event.target, None)
        if event.target == self._ledger:
            self._ledgers.clear()

    def _sync_folder(self, event: DiskEvent) -> None:
        folder = event.target
        self._synced = {path: file for path, file in self._synced.items() if path.parent != folder}
        self._synced |= {path: file for path, file in self._now.items() if path.parent == folder}
        self._synced_folders = {each for each in self._synced_folders if each.parent != folder}
        self._synced_folders |= {each for each in self._folders if each.parent == folder}

    def _note(self, event: DiskEvent) -> None:
        self._ledger = event.target
        self._ledgers.append(event.content)


def write_state(state: DiskState, root: Path, elsewhere: Path) -> None:
    """Put a state that was recorded below one folder into another."""
    for folder in sorted(state.folders - {root}):
        (elsewhere / folder.relative_to(root)).mkdir(parents=True, exist_ok=True)
    for path, content in state.files.items():
        (elsewhere / path.relative_to(root)).write_bytes(content)


def losses(events: Sequence[DiskEvent], root: Path) -> Iterator[tuple[int, DiskState]]:
    """Yield every state that a power loss before any of these operations, or after the last, may leave; each once."""
    platter, seen = Platter(root), set[int]()
    for number, event in enumerate([*events, None]):
        for state in platter.states():
            # After the last operation the same state is another matter: by then everything must last.
            fingerprint = hash((frozenset(state.files.items()), state.folders, event is None))
            if fingerprint not in seen:
                seen.add(fingerprint)
                yield number, state
        if event is not None:
            platter.replay(event)
