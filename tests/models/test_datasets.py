"""Where data comes from: a local folder first, a checked download else, one clear line when neither works."""

import gzip
import hashlib
import importlib
import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pooch
import pytest
from click.testing import CliRunner

from models.errors import DataError
from models.paths import REPOSITORY
from models.train.download import DATASETS, main
from models.training.datasets import (
    ACCURACY,
    Dataset,
    RemoteFile,
    data_root,
    find_local,
    is_local,
    own_provenance,
    provenance,
    read,
)
from models.viewcount.train.data import ERROR

SOURCES = sorted(path for path in REPOSITORY.glob("models/*/train/*.py") if re.search(r"\bDataset\(", path.read_text()))
CONTENT = b"three\nlines\nof data\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def one_file(url: str = "https://example.org/lines.txt", member: str | None = None) -> Dataset:
    return Dataset(
        name="Lines",
        folder="text/lines",
        licence="CC0-1.0",
        attribution="nobody",
        files={"lines.txt": RemoteFile(sha256=SHA256, url=url, member=member)},
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; a download is a failed test unless the test allows it."""

    def no_network(*arguments: Any, **options: Any) -> str:
        raise AssertionError("a test must not download")

    monkeypatch.setenv("LECTERN_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", no_network)
    (tmp_path / "text" / "lines").mkdir(parents=True)
    return tmp_path


def offline(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr(pooch, "retrieve", fail)


def online(monkeypatch: pytest.MonkeyPatch, folder: Path, content: bytes) -> list[Any]:
    """Return a network that has one file; returns what was asked of it."""
    asked: list[Any] = []

    def retrieve(url: str, **options: Any) -> str:
        assert options["path"] == folder / "text/lines"
        asked.append((url, options["known_hash"], options["fname"], options["progressbar"]))
        path = folder / "text/lines" / str(options["fname"])
        path.write_bytes(content)
        return str(path)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return asked


def test_local_first(root: Path) -> None:
    """A plain file below ``LECTERN_DATA`` is read without a download."""
    dataset = one_file()
    assert find_local(dataset, "lines.txt") is None
    assert not is_local(dataset)
    (root / "text/lines/lines.txt").write_bytes(CONTENT)
    assert find_local(dataset, "lines.txt") == root / "text/lines/lines.txt"
    assert is_local(dataset)
    assert read(dataset, "lines.txt") == CONTENT


def test_local_gzip(root: Path) -> None:
    """A gzipped file is unpacked, and what is checked is the content; the plain file comes before it."""
    packed = root / "text/lines/lines.txt.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    assert read(one_file(), "lines.txt") == CONTENT
    (root / "text/lines/lines.txt").write_bytes(b"other")
    with pytest.raises(DataError, match=r"lines\.txt: found sha256"):
        read(one_file(), "lines.txt")


@pytest.mark.parametrize("is_packed", [False, True])
def test_wrong_digest(is_packed: bool, root: Path) -> None:
    """Content with another sha256 is refused, and both digests are named."""
    other = CONTENT + b"\n"
    path = root / ("text/lines/lines.txt.gz" if is_packed else "text/lines/lines.txt")
    path.write_bytes(gzip.compress(other) if is_packed else other)
    with pytest.raises(DataError) as caught:
        read(one_file(), "lines.txt")
    assert str(caught.value) == f"{path}: found sha256 {hashlib.sha256(other).hexdigest()}, expected {SHA256}"


@pytest.mark.parametrize(
    "damage", [lambda packed: b"no gzip", lambda packed: packed[:-9], lambda packed: packed[:12] + b"\xff" * 20]
)
def test_damaged_gzip(damage: Callable[[bytes], bytes], root: Path) -> None:
    """A gzipped file that does not unpack is bad data, not a traceback."""
    path = root / "text/lines/lines.txt.gz"
    path.write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(DataError, match=r"lines\.txt\.gz: found"):
        read(one_file(), "lines.txt")


@pytest.mark.parametrize("error", [OSError("no route to host"), ValueError("bad hash"), ConnectionError("refused")])
def test_offline(error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither there nor to be had: one line with the wanted place, the address and the setting."""
    offline(monkeypatch, error)
    with pytest.raises(DataError) as caught:
        read(one_file(), "lines.txt")
    assert str(caught.value) == (
        f"{root}/text/lines/lines.txt: found no such file, and its download failed ({type(error).__name__}), "
        "expected the file, "
        "or a connection to https://example.org/lines.txt; LECTERN_DATA names another folder"
    )


@pytest.mark.parametrize(
    ("url", "member", "content", "name"),
    [
        ("https://example.org/lines.txt", None, CONTENT, "lines.txt"),
        ("https://example.org/lines.txt.gz", None, gzip.compress(CONTENT), "lines.txt.gz"),
        ("https://example.org/all.zip", "inside/lines.txt", None, "all.zip"),
    ],
)
def test_download(
    url: str, member: str | None, content: bytes | None, name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download is unpacked, plain, gzipped or out of an archive, and its content checked."""
    if content is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("inside/lines.txt", CONTENT)
        content = buffer.getvalue()
    asked = online(monkeypatch, root, content)
    assert read(one_file(url, member), "lines.txt", progress=False) == CONTENT
    assert asked == [(url, None, name, False)]
    assert is_local(one_file(url, member))
    assert read(one_file(url, member), "lines.txt") == CONTENT
    assert len(asked) == 1


def test_download_of_something_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login page instead of the data is refused by its digest."""
    online(monkeypatch, root, b"<html>please log in</html>")
    with pytest.raises(DataError, match=f"expected {SHA256}$"):
        read(one_file(), "lines.txt")


def test_damaged_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is none, or lacks the member, is bad data, not a traceback."""
    dataset = one_file("https://example.org/all.zip", "inside/lines.txt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("elsewhere.txt", CONTENT)
    for content in (b"<html>", buffer.getvalue()):
        online(monkeypatch, root, content)
        with pytest.raises(DataError, match=r"all\.zip: found"):
            read(dataset, "lines.txt")


@pytest.mark.parametrize(
    ("data", "home", "expected"),
    [
        ("/somewhere", "/home", "/somewhere"),
        ("", "/home", "/home/data"),
        (None, "/home", "/home/data"),
        (None, "", "/cache/lectern/data"),
        ("", None, "/cache/lectern/data"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's cache folder is not said by a variable")
def test_data_root(data: str | None, home: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``LECTERN_DATA`` rules, then ``LECTERN_HOME``; else it is in the user's cache, not beside the checkout."""
    for name, value in {"LECTERN_DATA": data, "LECTERN_HOME": home, "XDG_CACHE_HOME": "/cache"}.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    assert data_root() == Path(expected)


def test_provenance(tmp_path: Path) -> None:
    """What the certificate says of public data is its published digests, of one's own the digests of its files."""
    public = provenance(one_file())
    assert (public.name, public.licence, public.sha256) == ("Lines", "CC0-1.0", {"lines.txt": SHA256})
    path = tmp_path / "mine.csv"
    path.write_bytes(CONTENT)
    mine = own_provenance(path)
    assert (mine.name, mine.licence, mine.sha256) == ("mine.csv", "the owner's", {"mine.csv": SHA256})


def test_metrics() -> None:
    """Better is strictly better in the metric's own direction; a NaN beats nothing, anything beats the worst."""
    nan = float("nan")
    assert [ACCURACY.is_better(*pair) for pair in ((2, 1), (1, 2), (1, 1), (nan, 1), (nan, ACCURACY.worst))] == [
        True, False, False, False, False,
    ]  # fmt: skip
    assert [ERROR.is_better(*pair) for pair in ((2, 1), (1, 2), (1, 1), (nan, 1), (nan, ERROR.worst))] == [
        False, True, False, False, False,
    ]  # fmt: skip
    assert ACCURACY.is_better(-1e9, ACCURACY.worst)
    assert ERROR.is_better(1e9, ERROR.worst)


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_public_datasets_are_described(dataset: Dataset) -> None:
    """The families' public data name a licence, who made them, secure digests and where to get them."""
    for remote in dataset.files.values():
        assert len(bytes.fromhex(remote.sha256)) == 32
        assert remote.url.startswith(("https://", "http://fashion-mnist."))  # whose publisher has no other
    assert dataset.licence
    assert dataset.attribution


def test_every_dataset_is_downloaded() -> None:
    """``make data`` forgets no dataset that a family's code describes."""
    modules = [
        importlib.import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts)) for path in SOURCES
    ]
    described = {id(value) for module in modules for value in vars(module).values() if isinstance(value, Dataset)}
    assert described == {id(dataset) for dataset in DATASETS}


def test_a_download_that_fails_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make data`` without a network says what it wanted, and from where."""
    offline(monkeypatch, ConnectionError("no route to host"))
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {root}/{DATASETS[0].folder}/")
    assert "its download failed (ConnectionError), expected the file, or a connection to https://" in done.output
