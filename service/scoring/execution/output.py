"""The output of a job and its manifest, side by side: there is none, or all of it."""

import glob
import hashlib
from pathlib import Path
from typing import Any

import msgspec

from models.errors import JobError
from service.scoring.execution.disk import Disk
from service.scoring.execution.workspace import aside_name

FORMAT = 1


class OutputManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe what an output was made of.

    Attributes:
        format: Of this file.
        job: Digest of everything that decides the output's bytes.
        identity: The same without the input's bytes.
        spec: What was asked: the model and its certificate's digest, the input's address, formats and options.
        input_sha256: Of the input.
        sha256: Of the output.
        bytes: Its size.
        errors: How many of its rows are error rows.
        passed_over: How many files of the input are none of its rows; not there if none are.
        notes: What was passed over, put in order or filled in of a series, a line each; not there if nothing was.
        parts: Rows, errors and sha256 of each part.
        stack: Versions and machine.
        digest: sha256 of this manifest, with nothing in this place.
    """

    format: int
    job: str
    identity: str
    spec: Any
    input_sha256: str
    sha256: str
    bytes: int
    rows: int
    errors: int
    parts: list[dict[str, Any]]
    stack: dict[str, str]
    digest: str = ""
    passed_over: int | msgspec.UnsetType = msgspec.UNSET
    notes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


def seal(manifest: OutputManifest) -> OutputManifest:
    """Return the manifest with its digest filled in."""
    return msgspec.structs.replace(manifest, digest=_digest(manifest))


def to_bytes(manifest: OutputManifest) -> bytes:
    """Canonical JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"


def read_manifest(path: Path) -> OutputManifest | None:
    """Return the manifest at a path; ``None`` if there is none.

    Raises:
        JobError: If it is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path | str) -> OutputManifest:
    """Return the manifest that was found at a path.

    Raises:
        JobError: If it is damaged.
    """
    try:
        manifest = msgspec.json.decode(content, type=OutputManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JobError(f"{path} is not a manifest ({error}); `run --overwrite` replaces it and its output") from error
    if manifest.digest != _digest(manifest) or to_bytes(manifest) != content:
        raise JobError(f"{path} was changed by hand; `run --overwrite` replaces it and its output")
    return manifest


def _digest(manifest: OutputManifest) -> str:
    return hashlib.sha256(to_bytes(msgspec.structs.replace(manifest, digest=""))).hexdigest()


class LocalOutput:
    """A file of this machine.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path, self._disk = path, disk

    @property
    def manifest_path(self) -> Path:
        """Beside it."""
        return self.path.with_name(f"{self.path.name}.manifest.json")

    def folders(self) -> list[Path]:
        """Return what must be there to write to."""
        return [self.path.parent]

    def aside(self, what: str, stamp: str, workspace: Path) -> Path:
        """Where ``output`` or ``manifest`` is put together: in the work folder, or, if that is elsewhere, beside it."""
        name = aside_name(what, stamp)
        if workspace.stat().st_dev == self.path.parent.stat().st_dev:
            return workspace / name
        return self.path.with_name(f"{self._hidden}{name}")

    def sweep(self) -> None:
        """Throw away what an earlier runner left beside it."""
        for what in ("output", "manifest"):
            for path in self.path.parent.glob(glob.escape(self._hidden) + aside_name(what, "*")):
                self._disk.remove(path)

    @property
    def _hidden(self) -> str:
        return f".{self.path.name}.job."

    def exists(self) -> bool:
        """Return whether something is in its place."""
        return self.path.exists() or self.path.is_symlink()

    def sha256(self) -> str | None:
        """Of what is in its place; ``None`` if nothing is."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def manifest(self) -> OutputManifest | None:
        """Return the manifest beside it; ``None`` if there is none."""
        return read_manifest(self.manifest_path)

    def commit(self, output: Path, manifest: Path) -> None:
        """Both get their places; both are written and synced.

        The output's name is the last thing that changes: whoever finds an output of this job finds its manifest, and
        the job is done. A manifest without its output says only what was about to come.
        """
        for source, target in ((manifest, self.manifest_path), (output, self.path)):
            self._disk.rename(source, target)
            self._disk.sync_folder(target.parent)
