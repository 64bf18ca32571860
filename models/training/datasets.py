"""Find data: in a local folder, else by a checked download. Torch-free.

A dataset's files are looked for in the data folder (``LECTERN_DATA``, else ``data`` below ``LECTERN_HOME``, else below
the platform's folder for caches), plain, gzipped or in the archive they are published in, and otherwise downloaded into
it once from their canonical address. The sha256 of the *unpacked* content is checked every time, wherever the bytes
come from.
"""

import gzip
import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from models.card import Assets, Prediction
from models.errors import DataError, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file: the sha256 of its unpacked content and where it is published.

    Attributes:
        sha256: Of the content after gunzip or unzip.
        url: Canonical address.
        member: Path inside the archive, when ``url`` is a zip file.
    """

    sha256: str
    url: str
    member: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A public dataset.

    Attributes:
        name: Short name.
        folder: Where it lies below the data root.
        licence: SPDX identifier or a sentence.
        attribution: Who made it.
        files: By name.
    """

    name: str
    folder: str
    licence: str
    attribution: str
    files: Mapping[str, RemoteFile] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Describe what a model was trained on, as the manifest records it.

    Attributes:
        name: Short name.
        licence: SPDX identifier or a sentence.
        attribution: Who made it.
        sha256: Of each file's content, by name.
        notes: What was passed over, filled in or found out when it was read, a line each.
    """

    name: str
    licence: str
    attribution: str
    sha256: dict[str, str]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Plain values; without notes where there are none."""
        return {key: value for key, value in asdict(self).items() if key != "notes" or value}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMetric:
    """Describe what a model is judged by.

    Attributes:
        name: E.g. ``"accuracy"``.
        unit: E.g. ``"%"``.
        is_better_high: Direction.
    """

    name: str
    unit: str
    is_better_high: bool

    def is_better(self, new: float, old: float) -> bool:
        """Return whether ``new`` beats ``old`` strictly; a NaN beats nothing."""
        return new > old if self.is_better_high else new < old

    @property
    def worst(self) -> float:
        """Return what any score beats."""
        return -math.inf if self.is_better_high else math.inf


ACCURACY = ScoreMetric(name="accuracy", unit="%", is_better_high=True)


class Data(Protocol):
    """A dataset cut into train, validation and test, as its family's ``data.py`` loads it. Torch-free."""

    @property
    def provenance(self) -> Provenance:
        """Return what it is and where it came from."""
        ...

    @property
    def assets(self) -> Assets:
        """Return what a codec trained on it needs."""
        ...

    @property
    def metric(self) -> ScoreMetric:
        """Return what models of it are judged by."""
        ...

    def examples(self, split: str) -> Iterator[tuple[Any, Any]]:
        """Requests with their true answers, for ``"train"``, ``"validation"`` or ``"test"``."""
        ...

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[Any]) -> float:
        """Return the metric over served predictions and true answers."""
        ...


@runtime_checkable
class Rewritable(Protocol):
    """Data of which a request can ask in more than one field, with other answers."""

    def rewritten(self) -> Mapping[str, Data]:
        """Return the same data asked for by other fields, by field; each has its own metric."""
        ...


def data_root() -> Path:
    """Return the data folder; the one place where ``LECTERN_DATA`` and ``LECTERN_HOME`` are read."""
    if named := os.environ.get("LECTERN_DATA"):
        return Path(named)
    return Path(os.environ.get("LECTERN_HOME") or _cache_folder()) / "data"


def _cache_folder() -> Path:
    import platformdirs  # only training needs it; serving installs without

    return platformdirs.user_cache_path("lectern")


def read(dataset: Dataset, name: str, *, progress: bool = True) -> bytes:
    """Return the unpacked content of one file of a dataset.

    Raises:
        DataError: If it can be found nowhere, or its sha256 is not the published one.
    """
    remote = dataset.files[name]
    path = find_local(dataset, name) or _download(dataset, name, progress=progress)
    content = unpack(path, remote.member)
    found = hashlib.sha256(content).hexdigest()
    if found != remote.sha256:
        raise DataError(path, found=f"sha256 {found}", expected=remote.sha256)
    return content


def find_local(dataset: Dataset, name: str) -> Path | None:
    """Return the file, plain, gzipped or in the archive it is published in, below the data folder, if it is there."""
    folder = data_root() / dataset.folder
    names = (name, f"{name}.gz", _published_name(dataset, name))
    return next((path for path in (folder / one for one in names) if path.is_file()), None)


def is_local(dataset: Dataset) -> bool:
    """Return whether every file can be read without a download."""
    return all(find_local(dataset, name) for name in dataset.files)


def provenance(dataset: Dataset) -> Provenance:
    """Return what the manifest says of a public dataset."""
    return Provenance(
        name=dataset.name,
        licence=dataset.licence,
        attribution=dataset.attribution,
        sha256={name: remote.sha256 for name, remote in dataset.files.items()},
    )


def own_provenance(*paths: Path, root: Path | None = None, test: Sequence[Path] = ()) -> Provenance:
    """Return what the manifest says of a user's own files, named by their place below ``root`` where there is one.

    Files of a test part that was given apart, ``test``, may have the same names and are called so.
    """
    listed_names = [str(path.relative_to(root)) if root else path.name for path in paths]
    listed_names += [f"test: {path.name}" for path in test]
    # Names that are no UTF-8 have signs for their bytes: the certificate is UTF-8, and made after the training.
    names = [file_name.encode("utf-8", "backslashreplace").decode() for file_name in listed_names]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (*paths, *test)]
    return Provenance(
        name=printable(root.name) if root else names[0],
        licence="the owner's",
        attribution="the owner",
        sha256=dict(zip(names, digests, strict=True)),
    )


def unpack(path: Path, member: str | None = None) -> bytes:
    """Return a file's content, gunzipped or taken out of its archive by what its name says.

    Raises:
        DataError: If it cannot be read or does not unpack.
    """
    try:
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        if path.suffix == ".zip" and member is not None:
            with zipfile.ZipFile(path) as archive:
                return archive.read(member)
        return path.read_bytes()
    except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        found = f"{type(error).__name__} on reading it"
        raise DataError(path, found=found, expected=f"a whole {path.suffix or 'readable'} file") from error


def _download(dataset: Dataset, name: str, *, progress: bool) -> Path:
    import pooch  # only training needs it; serving installs without

    url, folder = dataset.files[name].url, data_root() / dataset.folder
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=None,  # the unpacked content's is checked by ``read``
                fname=_published_name(dataset, name),
                path=folder,
                progressbar=progress,
            )
        )
    except (OSError, ValueError) as error:
        raise DataError(
            folder / name,
            found=f"no such file, and its download failed ({type(error).__name__})",
            expected=f"the file, or a connection to {url}; LECTERN_DATA names another folder",
        ) from error


def _published_name(dataset: Dataset, name: str) -> str:
    """Return what a download is called: the archive's own name, or the file's with the ending of what packs it."""
    published = dataset.files[name].url.rsplit("/", 1)[-1]
    if published.endswith(".zip"):
        return published
    return f"{name.removesuffix('.gz')}.gz" if published.endswith(".gz") else name
