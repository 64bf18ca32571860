"""The work folder of a job: where its parts lie until they are the output."""

from contextlib import suppress
from errno import ENOTEMPTY
from pathlib import Path
from typing import NamedTuple

from service.scoring.execution.disk import Disk

LEDGER, PARTS, LOCK = "ledger.sqlite", "parts", "lock"
ASIDE = ".aside"
# Says that what is in the place of a remote output is this job's.
UPLOAD = "upload"
# How often a folder is emptied that somebody goes on filling.
SWEEPS = 10


def aside_name(what: str, stamp: str) -> str:
    """Return what a runner calls something that is not finished."""
    return f"{what}.{stamp}{ASIDE}"


class Name(NamedTuple):
    """What a part's file is called once it is whole: whoever finds it can see whose it is, and that it is that.

    Attributes:
        stamp: The runner's whose worker wrote it.
    """

    number: int
    stamp: str
    errors: int
    digest: str


def read_name(name: str) -> Name | None:
    """Return what a file's name says; ``None`` if it was not finished."""
    if name.endswith(ASIDE):
        return None
    number, stamp, errors, digest = name.split(".")
    return Name(int(number), stamp, int(errors), digest)


class Workspace:
    """A job's folder; nobody but the runner that holds its lock changes it.

    Attributes:
        folder: Where it is.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self._disk = folder, disk

    @property
    def ledger(self) -> Path:
        """Return the ledger's file."""
        return self.folder / LEDGER

    @property
    def lock(self) -> Path:
        """Return the lock's file."""
        return self.folder / LOCK

    def part(self, name: str) -> Path:
        """Return where a part's file is."""
        return self.folder / PARTS / name

    def aside(self, number: int, stamp: str) -> Path:
        """Return where a runner's workers write a part: two runners never write the same file."""
        return self.folder / PARTS / aside_name(f"{number:06d}", stamp)

    def files(self) -> list[Path]:
        """Return everything where parts are, finished or not."""
        return sorted((self.folder / PARTS).iterdir())

    def prepare(self) -> None:
        """The folders are there, and outlast a power loss."""
        self._disk.make_folder(self.folder)
        self._disk.make_folder(self.folder / PARTS)
        self._disk.sync_folder(self.folder)
        self._disk.sync_folder(self.folder.parent)

    def settle(self) -> None:
        """The ledger's own name outlasts a power loss."""
        self._disk.sync_folder(self.folder)

    def settle_parts(self) -> None:
        """Names that parts were given outlast a power loss."""
        self._disk.sync_folder(self.folder / PARTS)

    def remove(self, path: Path) -> None:
        """Throw one file away."""
        self._disk.remove(path)

    def sweep(self) -> None:
        """Throw away an output and a manifest that were not finished."""
        for path in self.folder.glob(f"*{ASIDE}"):
            self._disk.remove(path)

    def clear(self) -> None:
        """The whole folder is gone: the job is done. The lock goes last, so that nobody else begins meanwhile."""
        # First of all: without it, what was uploaded says itself that it is done.
        if (self.folder / UPLOAD).exists():
            self._disk.remove(self.folder / UPLOAD)
            self._disk.sync_folder(self.folder)
        self._clear_parts()
        for path in sorted(self.folder.glob(f"{LEDGER}*")):
            self._disk.remove(path)
        self.sweep()
        self._disk.remove(self.lock)
        # Somebody's own file may lie here, or the next runner's lock.
        with suppress(OSError):
            self._disk.remove_folder(self.folder)

    def _clear_parts(self) -> None:
        for sweep in range(SWEEPS):
            for path in sorted((self.folder / PARTS).glob("*")):
                self._disk.remove(path)
            try:
                self._disk.remove_folder(self.folder / PARTS)
            except FileNotFoundError:
                return
            except OSError as error:
                # A station that was given up for lost may have begun to write here meanwhile.
                if error.errno != ENOTEMPTY or sweep + 1 == SWEEPS:
                    raise
            else:
                return


def apart(aside: str, name: str) -> str:
    """Return the same for one of several that may be writing the same part; whole, it has the same name."""
    return f"{aside.removesuffix(ASIDE)}.{name}{ASIDE}"


def whole(aside: Path, errors: int, digest: str) -> Path:
    """Return what a worker calls a part when its file is whole."""
    number, stamp, *_ = aside.name.removesuffix(ASIDE).split(".")
    return aside.with_name(f"{number}.{stamp}.{errors}.{digest}")


def default_folder(output: Path) -> Path:
    """Return a job's work folder, beside its output."""
    return output.with_name(f".{output.name}.job")
