"""The output of a job at an address of fsspec's: put together here, and uploaded once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from models.errors import JobError
from service.scoring.execution.disk import Disk, Writer
from service.scoring.execution.output import OutputManifest, parse_manifest
from service.scoring.execution.workspace import UPLOAD, aside_name

_BLOCK_BYTES = 2**20


def locate(address: str) -> tuple[Any, str]:
    """Return the store of an address, and the path there.

    Raises:
        JobError: If there is no such store.
    """
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise JobError(f"{address}: {error}") from error
    return store, path


class RemoteOutput:
    """An object of a store, which appears whole or not at all, with its manifest as one more beside it.

    The data goes first and its manifest last: a manifest says that the job is done. A mark in the work folder, which
    lasts before the first byte leaves, says that what is in the output's place from then on is this job's: whoever goes
    on with it uploads both anew.

    Args:
        address: Where it will be.
        work: The job's work folder.
        disk: Where that is.

    Attributes:
        path: The address.
    """

    def __init__(self, address: str, work: Path, disk: Disk) -> None:
        self.path, self._work, self._disk = address, work, disk

    @property
    def manifest_path(self) -> str:
        """Beside it."""
        return f"{self.path}.manifest.json"

    @cached_property
    def _files(self) -> Any:
        return locate(self.path)[0]

    @contextmanager
    def _told(self, address: str) -> Iterator[None]:
        """What stores say when something goes wrong, as ours; what is simply not there is left to the caller."""
        try:
            yield
        except (FileNotFoundError, JobError):
            raise
        except Exception as error:  # every store has its own
            raise JobError(f"{address}: {type(error).__name__}: {error}") from error

    def folders(self) -> list[Path]:
        """None of this machine's need be there."""
        return []

    def aside(self, what: str, stamp: str, workspace: Path) -> Path:
        """Return where ``output`` or ``manifest`` is put together: in the work folder."""
        return workspace / aside_name(what, stamp)

    def sweep(self) -> None:
        """Nothing to throw away: unfinished files lie in the work folder only."""

    def exists(self) -> bool:
        """Return whether something that is not this job's is in its place."""
        if (self._work / UPLOAD).exists():
            return False
        with self._told(self.path):
            self._files.invalidate_cache()
            return bool(self._files.exists(self.path))

    def sha256(self) -> str | None:
        """Of what is in its place; ``None`` if nothing is."""
        found = hashlib.sha256()
        try:
            with self._told(self.path), self._files.open(self.path, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    found.update(block)
        except FileNotFoundError:
            return None
        return found.hexdigest()

    def manifest(self) -> OutputManifest | None:
        """Return the manifest beside it; ``None`` if there is none."""
        try:
            with self._told(self.manifest_path):
                self._files.invalidate_cache()
                content = self._files.cat_file(self.manifest_path)
        except FileNotFoundError:
            return None
        return parse_manifest(content, self.manifest_path)

    def commit(self, output: Path, manifest: Path) -> None:
        """Both are uploaded; both are written and synced."""
        with Writer(self._disk, self._work / UPLOAD) as mark:
            mark.finish()
        self._disk.sync_folder(self._work)
        # An older job's manifest must not stand beside this one's data, should it end here.
        self._remove(self.manifest_path)
        for source, target in ((output, self.path), (manifest, self.manifest_path)):
            with self._told(target):
                self._files.put_file(str(source), target)
                self._files.invalidate_cache()
                size = self._files.size(target)
            if size != source.stat().st_size:
                raise JobError(f"{target}: {size} bytes arrived of {source.stat().st_size}")
        for source in (output, manifest):
            self._disk.remove(source)

    def _remove(self, address: str) -> None:
        with self._told(address):
            try:
                self._files.rm_file(address)
            except FileNotFoundError:
                return
