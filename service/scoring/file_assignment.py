"""The assignment of the command line: a file, a model of the store, and what they become."""

import os
import platform
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from models.errors import ArtifactMismatch, DataError, printable
from models.runtime.device import Device
from service.scoring.addresses import is_local, local_path
from service.scoring.execution.interfaces import InputSource, OutputAssembly, PartScorer
from service.scoring.inputs.registry import complete, open_source
from service.scoring.inputs.storage import remote_mark, unreadable
from service.scoring.spec import InputOptions, JobSpec, make_spec, to_bytes
from service.settings import settings

# How parts are written, counted up when that changes: those of two ways do not go together into one output.
PARTS = "3"
# The distributions whose versions decide bytes.
STACK = ("onnxruntime", "onnxruntime-gpu", "numpy", "pyarrow", "pillow")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAssignment:
    """Describe what a job was asked.

    Attributes:
        asked: Everything that decides the output's bytes.
        folder: The model's, in the store.
        device: Where to compute.
    """

    asked: JobSpec
    folder: Path
    device: Device

    @property
    def spec(self) -> bytes:
        """Return the spec as JSON."""
        return to_bytes(self.asked)

    @property
    def identity(self) -> bytes:
        """Return the spec without the input's address, and what it says itself: its bytes count, not where they lie."""
        return to_bytes(msgspec.structs.replace(self.asked, source="", keys=()))

    def in_parts_of(self, rows: int) -> "FileAssignment":
        """Return the same in parts of so many rows: another job."""
        options = msgspec.structs.replace(self.asked.options, part_rows=rows)
        return replace(self, asked=msgspec.structs.replace(self.asked, options=options))

    def stack(self) -> dict[str, str]:
        """Versions, and the type of processor."""
        device = f"{self.device.value}+tf32" if settings().gpu_tf32 else self.device.value
        return {"cpu": cpu_type(), "device": device} | versions()

    def mark(self) -> str:
        """Size, times and inode of the file, or of everything in the folder; of something remote what it says."""
        if is_local(self.asked.source):
            return local_mark(local_path(self.asked.source))
        return remote_mark(self.asked.source)

    def source(self) -> InputSource:
        """Return the input."""
        return open_source(self.asked)

    def scorer(self) -> PartScorer:
        """Return the model, open, and the input."""
        from service.scoring.parts.scorer import ModelScorer

        # The store itself is not asked: that takes half a second, and the folder is known.
        return ModelScorer(self.asked, self.device, folder=self.folder)

    def assembly(self, file: BinaryIO) -> OutputAssembly:
        """Return the output."""
        from service.scoring.outputs.assembly import PartAssembly

        return PartAssembly(self.asked, file)


def ask(
    model: str,
    source: str,
    target: str,
    options: InputOptions,
    *,
    input_format: str,
    output_format: str,
    most_rows: int | None = None,
) -> FileAssignment:
    """Return what a command line asks of an input, which may have so many rows; ``None``: any number.

    Raises:
        LecternError: If there is no such model, a name tells no format, or the input has more rows.
    """
    from service.store.catalog import find_models

    if printable(source) != source:
        raise DataError(source, found="a path that is not UTF-8", expected="another name")
    address = str(local_path(source).absolute()) if is_local(source) else source
    (served,) = find_models([model])
    spec = make_spec(served.manifest, address, target, options, input_format=input_format, output_format=output_format)
    return FileAssignment(
        asked=complete(spec, most_rows), folder=served.folder, device=settings().device_for(served.manifest)
    )


def ask_again(spec: bytes) -> FileAssignment:
    """Return what an unfinished job was asked.

    Raises:
        ArtifactMismatch: If the model store holds another model under its tag by now.
    """
    from service.store.catalog import find_models

    asked = read_spec(spec)
    (served,) = find_models([asked.model])
    if served.manifest.digest != asked.manifest_digest:
        raise ArtifactMismatch(f"{asked.model}: not the model that the job was begun with")
    return FileAssignment(asked=asked, folder=served.folder, device=settings().device_for(served.manifest))


def read_spec(spec: bytes) -> JobSpec:
    """Return a spec from its JSON."""
    return msgspec.json.decode(spec, type=JobSpec)


def local_mark(path: Path) -> str:
    """Whoever changes a file changes one of these, unless he sets the machine's clock back for it."""
    try:
        found = [_mark(path)]
        for folder, names, files in os.walk(path):
            names.sort()
            found += [_mark(Path(folder, name)) for name in sorted(files)]
    except OSError as error:
        raise unreadable(path, error) from error
    return "\n".join(found) if len(found) < 2 else f"{len(found)} {hash_of(found)}"


def hash_of(lines: list[str]) -> str:
    """sha256 of lines."""
    import hashlib

    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _mark(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        found = path.lstat()  # a link that leads nowhere is no reason to refuse the folder it lies in
    return f"{path.name} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


@cache
def cpu_type() -> str:
    """As the kernel calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


@cache
def versions() -> dict[str, str]:
    """Of what computes and writes."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "parts": PARTS}
    for name in STACK:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
