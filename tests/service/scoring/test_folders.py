"""What else lies in people's folders and archives: names that are no text, links to nowhere, other files, nothing."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from models.errors import DataError, JobError
from service.scoring.execution.destination import open_output
from service.scoring.execution.disk import Disk
from service.scoring.execution.job import Job
from service.scoring.execution.output import LocalOutput
from service.scoring.execution.planning import read_through
from service.scoring.execution.workspace import Workspace
from service.scoring.file_assignment import ask, local_mark
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.pictures import from_json, to_json
from service.scoring.spec import InputOptions
from tests.service.scoring.stand_in import Doubling, Here

Run = Callable[..., Any]
LATIN = os.fsdecode(b"boots/caf\xe9.png")


def picture(form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(file, form)
    return file.getvalue()


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture())
    return folder


def pack_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            tar.addfile(member, io.BytesIO(picture()))
    return path


@pytest.mark.parametrize("is_tar", [False, True])
def test_names_that_are_no_text(is_tar: bool, run: Run, tmp_path: Path) -> None:
    """A picture whose name is not UTF-8 is scored, and shown with a sign in its place; the ledger can hold it."""
    names = (LATIN, "boots/é.png")
    path = pack_tar(tmp_path / "in.tar", *names) if is_tar else fill(tmp_path / "in", *names)
    job = run("image", path)
    assert sorted(line["name"] for line in job.lines) == ["boots/caf\ufffd.png", "boots/é.png"]
    assert job.codes == [None, None]
    (cut,) = job.scorer.source.cuts()
    source = type(job.scorer.source)(job.scorer.spec)
    assert source.read(msgspec.json.decode(msgspec.json.encode(cut), type=PartSpec)).count == 2


@pytest.mark.parametrize("name", ["a.png", "é.png", LATIN, "\ufffd"])
def test_names_in_json(name: str) -> None:
    """Every name comes back."""
    assert from_json(to_json(name)) == name


def test_marks_of_odd_folders(tmp_path: Path) -> None:
    """Names that are no text and links to nowhere have a mark; it changes with what a good link leads to."""
    folder = fill(tmp_path / "in", LATIN, "a.png")
    (folder / ".#notes.txt").symlink_to("me@host.1234:170000")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "good.png").symlink_to("a.png")
    first = local_mark(folder)
    assert local_mark(folder) == first
    (folder / "a.png").write_bytes(b"another")
    assert local_mark(folder) != first


def test_a_path_that_is_no_text() -> None:
    """An input whose own path is not UTF-8 is refused in words that can be printed anywhere."""
    with pytest.raises(DataError, match="not UTF-8") as refused:
        ask("tagging", os.fsdecode(b"caf\xe9.jsonl"), "out.csv", InputOptions(), input_format="", output_format="")
    assert str(refused.value).encode()


@pytest.mark.parametrize("name", ["in", "in.tar"])
def test_nothing_to_read(name: str, run: Run, tmp_path: Path) -> None:
    """Where no file is a picture nothing is done, and nobody says that it is; others are counted."""
    pack: Any = pack_tar if name == "in.tar" else fill
    with pytest.raises(DataError, match=r"no PNG, JPEG or WebP file \(2 others or hidden\)"):
        run("image", pack(tmp_path / name, "notes.txt", ".ipynb_checkpoints/a.png"))
    job = run("image", pack(tmp_path / f"good-{name}", "a.png", "a.gif", "web.jfif", "__MACOSX/a.png"))
    assert [line["name"] for line in job.lines] == ["a.png", "web.jfif"]
    assert job.scorer.source.passed_over == 2


def test_a_folder_of_tables(run: Run, tmp_path: Path) -> None:
    """A folder of Parquet files is refused in words that say so."""
    with pytest.raises(DataError, match=r"found a folder or archive of files .* expected one file"):
        run("tagging", fill(tmp_path / "x.parquet", "part-0.parquet"))


class Passing(Doubling):
    """Files were passed over."""

    def source(self) -> Any:
        lines = super().source()
        lines.passed_over = 3
        return lines


@pytest.mark.parametrize("kind", [Passing, Doubling])
def test_passed_over_in_the_manifest(kind: Any, tmp_path: Path) -> None:
    """The manifest says how many files were passed over, and is as it ever was where none were."""
    (tmp_path / "in").write_text("1\n2\n")
    asked, disk = kind(tmp_path / "in"), Disk()
    output = LocalOutput(tmp_path / "out", disk)
    job = Job(assignment=asked, output=output, workspace=Workspace(tmp_path / ".out.job", disk), disk=disk)
    assert read_through(job).passed_over == (3 if kind is Passing else 0)
    manifest, _ = job.run(lambda aside: Here(asked, disk, aside))
    assert (manifest.passed_over or 0) == (3 if kind is Passing else 0)
    assert output.manifest() == manifest
    assert (b"passed_over" in output.manifest_path.read_bytes()) == (kind is Passing)


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """A device, a pipe or a folder in the output's place, or in its manifest's, is refused, through a link too."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "x.manifest.json").mkdir()
    for name in ("folder", "pipe", "null", "/dev/null", "x"):
        with pytest.raises(JobError, match="give the output another name"):
            open_output(tmp_path / name, tmp_path, Disk())
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    for name in ("link", "file", "new"):
        open_output(tmp_path / name, tmp_path, Disk())
