"""A folder of pictures, at any depth, sorted by name; links that lead out of it are not followed."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from models.errors import DataError, HttpError, InputChanged, InvalidRequest
from service.scoring.addresses import is_local, local_path
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.pictures import (
    SCHEMA,
    FileReader,
    FileRows,
    from_json,
    nothing_to_read,
    pictures_of,
    to_json,
    too_large,
)
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES
from service.scoring.inputs.storage import BLOCK_BYTES, open_file
from service.scoring.spec import JobSpec

OUTSIDE = "a link that leads out of the folder"


class FolderSource:
    """A folder."""

    schema = SCHEMA

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._reader = spec, FileReader(spec)
        self.digest, self.passed_over, self.notes = "", 0, ()
        self._files: _Files = _LocalFiles(spec.source) if is_local(spec.source) else _RemoteFiles(spec.source)

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of the sorted listing, by rows and by bytes."""
        options, listing = self._spec.options, hashlib.sha256()
        names: list[str] = []
        lines: list[str] = []
        index = first = size = 0
        found, self.passed_over = self._files.names()
        if not found:
            raise nothing_to_read(self._spec, self.passed_over)
        for name in found:
            line, length = self._files.line(name)
            listing.update(line.encode(errors="surrogatepass"))
            names.append(name)
            lines.append(line)
            size += length
            if len(names) >= options.most_rows or size >= options.part_bytes:
                yield _cut(index, first, names, lines)
                index, first, size, names, lines = index + 1, first + len(names), 0, [], []
        if names:
            yield _cut(index, first, names, lines)
        self.digest = listing.hexdigest()

    def read(self, cut: PartSpec) -> FileRows:
        """Return the files of a part."""
        names = [*map(from_json, cut.place["names"])]
        contents: list[bytes | HttpError] = []
        lines = []
        for name in names:
            content, digest = self._files.content(name)
            contents.append(content)
            lines.append(_line(name, digest))
        if _digest(lines) != cut.digest:
            raise InputChanged(f"{self._spec.source}: changed since it was cut into parts")
        return self._reader.rows(names, contents)


def _cut(index: int, first: int, names: list[str], lines: list[str]) -> PartSpec:
    return PartSpec(
        index=index, first_row=first, rows=len(names), digest=_digest(lines), place={"names": [*map(to_json, names)]}
    )


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def _line(name: str, digest: str) -> str:
    return f"{digest} {name}\n"


class _Files:
    """The files of a folder; what is opened, and whether it may be, is each kind's own."""

    address: str

    def names(self) -> tuple[list[str], int]:
        """Those of pictures, sorted, with ``/``, from the folder on; and how many others there are."""
        raise NotImplementedError

    def open(self, name: str) -> Any:
        """Return the file, or ``None`` if it is a link out of the folder."""
        raise NotImplementedError

    def line(self, name: str) -> tuple[str, int]:
        """Return the file's line of the listing, and how long it is."""
        digest, size = hashlib.sha256(), 0
        try:
            stored = self.open(name)
        except OSError:
            return _line(name, "unreadable"), 0
        if stored is None:
            return _line(name, "outside"), 0
        with stored:
            while block := stored.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return _line(name, digest.hexdigest()), min(size, MAX_ROW_BYTES)

    def content(self, name: str) -> tuple[bytes | HttpError, str]:
        """Return the file, and its digest."""
        try:
            stored = self.open(name)
        except OSError as error:
            return InvalidRequest(f"the file cannot be read: {type(error).__name__}"), "unreadable"
        if stored is None:
            return InvalidRequest(OUTSIDE), "outside"
        with stored:
            content: bytes = stored.read(MAX_ROW_BYTES + 1)
            digest = hashlib.sha256(content)
            if len(content) <= MAX_ROW_BYTES:
                return content, digest.hexdigest()
            while block := stored.read(BLOCK_BYTES):
                digest.update(block)
        return too_large(), digest.hexdigest()


class _LocalFiles(_Files):
    def __init__(self, address: str) -> None:
        self.address, self._root = address, local_path(address)
        if not self._root.is_dir():
            raise DataError(address, found="no folder", expected="a folder of pictures")
        self._real = self._root.resolve()

    def names(self) -> tuple[list[str], int]:
        found = []
        for folder, _, files in os.walk(self._root):  # which does not follow links to folders
            inside = os.path.relpath(folder, self._root)
            found += [name if inside == "." else f"{inside}/{name}" for name in files]
        return pictures_of(name.replace(os.sep, "/") for name in found)

    def open(self, name: str) -> Any:
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._real):
            return None
        return open_file(path)


class _RemoteFiles(_Files):
    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        try:
            self._system, self._root = fsspec.core.url_to_fs(address)
            if not self._system.isdir(self._root):
                raise DataError(address, found="no folder", expected="a folder of pictures")
        except (OSError, ValueError, ImportError) as error:
            raise DataError(address, found=type(error).__name__, expected="a folder that can be read") from error

    def names(self) -> tuple[list[str], int]:
        root = self._root.rstrip("/") + "/"
        return pictures_of(name.removeprefix(root) for name in self._system.find(self._root))

    def open(self, name: str) -> Any:
        return self._system.open(f"{self._root.rstrip('/')}/{name}", "rb")
