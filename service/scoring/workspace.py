"""The work folder of a job: where its parts lie until they are the output."""

from contextlib import suppress
from pathlib import Path

from service.scoring.disk import Disk

LEDGER, PARTS, LOCK = "ledger.sqlite", "parts", "lock"
ASIDE = ".aside"


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

    @property
    def output(self) -> Path:
        """Where the output is put together."""
        return self.folder / f"output{ASIDE}"

    @property
    def manifest(self) -> Path:
        """Where the manifest is written."""
        return self.folder / f"manifest{ASIDE}"

    def part(self, number: int) -> Path:
        """A part's place, once it is whole."""
        return self.folder / PARTS / f"{number:06d}"

    def aside(self, number: int, runner: int) -> Path:
        """Where a runner's workers write a part: two runners never write the same file."""
        return self.folder / PARTS / f"{number:06d}.{runner}{ASIDE}"

    def prepare(self) -> None:
        """The folders are there, and outlast a power loss."""
        self._disk.make_folder(self.folder)
        self._disk.make_folder(self.folder / PARTS)
        self._disk.sync_folder(self.folder)
        self._disk.sync_folder(self.folder.parent)

    def settle(self) -> None:
        """The ledger's own name outlasts a power loss."""
        self._disk.sync_folder(self.folder)

    def adopt(self, number: int, aside: Path) -> None:
        """A part that is written and synced gets its place."""
        self._disk.rename(aside, self.part(number))
        self._disk.sync_folder(self.folder / PARTS)

    def sweep(self) -> None:
        """Throw away what was not finished."""
        for path in (*self.folder.glob(f"*{ASIDE}"), *self.folder.glob(f"{PARTS}/*{ASIDE}")):
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


def default_folder(output: Path) -> Path:
    """A job's work folder, beside its output."""
    return output.with_name(f".{output.name}.job")
