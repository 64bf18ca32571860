"""The work folder of a job: where its parts lie until they are the output."""

import hashlib
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.scoring.disk import Disk

LEDGER, PARTS, LOCK = "ledger.sqlite", "parts", "lock"
ASIDE = ".aside"


class Whole(NamedTuple):
    """A part's file under the name its worker gave it."""

    path: Path
    number: int
    errors: int
    digest: str
    size: int


class Workspace:
    """A job's folder; nobody but the runner that holds its lock changes it.

    Attributes:
        folder: Where it is.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self._disk = folder, disk

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / LEDGER

    @property
    def lock(self) -> Path:
        """The lock's file."""
        return self.folder / LOCK

    def output(self, stamp: str) -> Path:
        """Where a runner puts the output together: two runners never write the same file."""
        return self.folder / f"output.{stamp}{ASIDE}"

    def manifest(self, stamp: str) -> Path:
        """Where a runner writes the manifest."""
        return self.folder / f"manifest.{stamp}{ASIDE}"

    def part(self, number: int) -> Path:
        """A part's place, once it is whole."""
        return self.folder / PARTS / f"{number:06d}"

    def aside(self, number: int, stamp: str) -> Path:
        """Where a runner's workers write a part."""
        return self.folder / PARTS / f"{number:06d}.{stamp}{ASIDE}"

    def find_whole(self, stamps: Set[str]) -> Iterator[Whole]:
        """Parts that workers of these runners had finished, and nobody had noted; what is damaged is left out."""
        for path in sorted((self.folder / PARTS).glob(f"*{ASIDE}.*")):
            number, stamp, _, errors, digest = path.name.split(".")
            with path.open("rb") as file:
                if stamp in stamps and hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    size = path.stat().st_size
                    yield Whole(path=path, number=int(number), errors=int(errors), digest=digest, size=size)

    def prepare(self) -> None:
        """The folders are there, and outlast a power loss."""
        self._disk.make_folder(self.folder)
        self._disk.make_folder(self.folder / PARTS)
        self._disk.sync_folder(self.folder)
        self._disk.sync_folder(self.folder.parent)

    def settle(self) -> None:
        """The ledger's own name outlasts a power loss."""
        self._disk.sync_folder(self.folder)

    def adopt(self, number: int, found: Path) -> None:
        """A part that is written and synced gets its place."""
        self._disk.rename(found, self.part(number))
        self._disk.sync_folder(self.folder / PARTS)

    def sweep(self) -> None:
        """Throw away what was not finished."""
        for path in (*self.folder.glob(f"*{ASIDE}*"), *self.folder.glob(f"{PARTS}/*{ASIDE}*")):
            self._disk.remove(path)

    def clear(self) -> None:
        """The whole folder is gone: the job is done. The lock goes last, so that nobody else begins meanwhile."""
        for path in sorted((self.folder / PARTS).glob("*")):
            self._disk.remove(path)
        with suppress(FileNotFoundError):
            self._disk.remove_folder(self.folder / PARTS)
        for path in sorted(self.folder.glob(f"{LEDGER}*")):
            self._disk.remove(path)
        self.sweep()
        self._disk.remove(self.lock)
        # Somebody's own file may lie here, or the next runner's lock.
        with suppress(OSError):
            self._disk.remove_folder(self.folder)


def whole(aside: str, errors: int, digest: str) -> Path:
    """What a worker calls a part when its file is whole: whoever finds it can see what it is, and that it is that."""
    return Path(f"{aside}.{errors}.{digest}")


def default_folder(output: Path) -> Path:
    """A job's work folder, beside its output."""
    return output.with_name(f".{output.name}.job")
