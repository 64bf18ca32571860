"""Folders and archives of pictures, CoNLL-U, graphs in the TU format; nothing outside of the input is ever read."""

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.errors import DataError, InputChanged
from models.graph.train.molecule_data import MUTAG, PARTS, load_molecules
from models.tagging.train.conllu import read_conllu
from models.tagging.train.data import EWT
from models.training.datasets import read
from service.scoring.inputs import conllu_source

Run = Callable[..., Any]


def picture(seed: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8)).save(file, form)
    return file.getvalue()


PICTURES = {"b/2.jpg": picture(2, "JPEG"), "a.png": picture(0), "b/1.PNG": picture(1), "c.webp": picture(3, "WEBP")}
OTHERS = {"notes.txt": b"not a picture", "b/._1.png": b"a fork of macOS"}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """Return a folder, zip or tar by the name."""
    if not path.suffix:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["in", "in.zip", "in.tar", "in.tar.gz", "in.tgz"])
def test_pictures(name: str, run: Run, alone: Any, prediction: Any, shipped: Any, tmp_path: Path) -> None:
    """Each picture gets the answer of its bytes sent to the service; the name is its column."""
    path = pack(tmp_path / name, {**PICTURES, **OTHERS})
    job = run("image", path, part_rows=3)
    order = [*PICTURES] if ".t" in name else sorted(PICTURES)
    assert [line["name"] for line in job.lines] == order
    instances = [shipped("image").card.instance(image=PICTURES[one]) for one in order]
    assert [prediction(line) for line in job.output.splitlines()] == alone("image", instances)
    assert run("image", path, to="parquet").table["name"].to_pylist() == order
    with pytest.raises(DataError, match="reads no pictures"):
        run("tagging", path)


@pytest.mark.parametrize("name", ["in", "in.zip", "in.tar"])
def test_bad_pictures(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated one, none at all, one too large to read: error rows among the good."""
    monkeypatch.setattr("service.scoring.inputs.folder.MAX_ROW_BYTES", 5000)
    monkeypatch.setattr("service.scoring.inputs.archives.MAX_ROW_BYTES", 5000)
    files = {"a.png": picture(0), "b.png": picture(1)[:300], "c.png": b"", "d.png": bytes(6000), "e.png": picture(2)}
    job = run("image", pack(tmp_path / name, files))
    assert job.codes == [None, "invalid_request", "invalid_request", "body_too_large", None]


def test_links(run: Run, tmp_path: Path) -> None:
    """A link out of a folder, to a file or a folder, is never followed; one within it is an ordinary name."""
    (tmp_path / "secret.png").write_bytes(picture(9))
    folder = pack(tmp_path / "in", {"a.png": picture(0)})
    (folder / "inside.png").symlink_to("a.png")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "gone.png").symlink_to("nowhere.png")
    job = run("image", folder)
    assert [line["name"] for line in job.lines] == ["a.png", "gone.png", "inside.png", "out.png"]
    assert [line.get("error_reason") for line in job.lines] == [
        None, "the file cannot be read: FileNotFoundError", None, "a link that leads out of the folder",
    ]  # fmt: skip


@pytest.mark.timeout(20)
def test_pipes(run: Run, tmp_path: Path) -> None:
    """Nobody waits for a pipe: as an input it is refused, in a folder it is an error row."""
    for name in ("in.jsonl", "in.csv", "in.parquet", "in.jsonl.gz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="found a pipe or a device, expected a file"):
            run("tagging", tmp_path / name)
    with pytest.raises(DataError, match="found a pipe or a device"):
        run("tagging", Path("/dev/zero"), input_format="jsonl")
    folder = pack(tmp_path / "in", {"a.png": picture(0)})
    os.mkfifo(folder / "b.png")
    assert run("image", folder).codes == [None, "invalid_request"]


def test_names_and_links_in_archives(run: Run, tmp_path: Path) -> None:
    """A name that climbs is but a name, and a link in a tar file is an error row: nothing is unpacked."""
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        member = tarfile.TarInfo("../../evil.png")
        member.size = len(picture(0))
        tar.addfile(member, io.BytesIO(picture(0)))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    job = run("image", tmp_path / "in.tar")
    assert [(line["name"], line.get("error_code")) for line in job.lines] == [
        ("../../evil.png", None),
        ("link.png", "invalid_request"),
    ]
    assert {one.name for one in tmp_path.iterdir()} == {"in.tar"}


def test_damaged_archives(run: Run, tmp_path: Path) -> None:
    """A member with a flipped bit is an error row; an archive without its end is refused as a whole."""
    path = pack(tmp_path / "in.zip", PICTURES)
    whole = path.read_bytes()
    start = whole.index(b"PK\x03\x04")
    path.write_bytes(whole[: start + 100] + bytes([whole[start + 100] ^ 255]) + whole[start + 101 :])
    assert sorted(filter(None, run("image", path).codes)) == ["invalid_request"]
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="torn end"):
        run("image", path)
    tar = pack(tmp_path / "in.tar", PICTURES)
    tar.write_bytes(tar.read_bytes()[:1500])
    with pytest.raises(DataError, match="torn end"):
        run("image", tar)


def test_a_zip_that_lies_about_a_size(run: Run, tmp_path: Path) -> None:
    """A member that says it is small and unpacks to much is cut where it said it ends."""
    path = pack(tmp_path / "in.zip", {"a.png": bytes(50 * 2**20)})
    whole = bytearray(path.read_bytes())
    position = whole.rindex(b"PK\x01\x02") + 24
    whole[position : position + 4] = struct.pack("<I", 1000)
    path.write_bytes(whole)
    assert run("image", path).codes == ["invalid_request"]


@pytest.mark.parametrize("name", ["in", "in.zip", "in.tar"])
def test_changed(name: str, run: Run, tmp_path: Path) -> None:
    """A picture that changed after the cut is found when its part is read."""
    path = pack(tmp_path / name, PICTURES)
    scorer = run("image", path).scorer
    cuts = [*scorer.source.cuts()]
    if path.is_dir():
        (path / "a.png").write_bytes(picture(7))
    else:
        content = path.read_bytes()
        position = content.index(PICTURES["a.png"][60:80])
        path.write_bytes(content[:position] + b"x" + content[position + 1 :])
    with pytest.raises(InputChanged):
        type(scorer.source)(scorer.spec).read(cuts[0])


CONLLU = """# sent_id = one
# text = Dont so
1-2\tDont\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t0\troot\t_\t_
2\tnt\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_
2.1\tgone\tgo\tVERB\tVB\t_\t_\t_\t_\t_
3\tso\tso\tADV\tRB\t_\t1\tadvmod\t_\t_

# newdoc id = x

# sent_id = two
1\tNo\tno\t_\t_\t_\t0\troot\t_\t_
3\tmore\tmore\t_\t_\t_\t1\tx\t_\t_

1\tThree

# sent_id = four
1\tLast\tlast\t_\t_\t_\t0\troot\t_\t_"""


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\n\n\n"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("part_rows", [1, 2, 100])
def test_conllu(ending: str, line_end: str, part_rows: int, run: Run) -> None:
    """Sentences are rows, words alone are tagged, and a bad sentence is an error row."""
    content = (CONLLU + ending).replace("\n", line_end).encode()
    job = run("tagging", "in.conllu", content, part_rows=part_rows)
    assert [line["sent_id"] for line in job.lines] == ["one", "two", None, "four"]
    assert job.lines[0]["prediction"]["tokens"] == ["Do", "nt", "so"]
    assert job.lines[0]["text"] == "Dont so"
    assert [line.get("error_reason") for line in job.lines] == [
        None, "tokens[1]: expected the id 2, found '3'", "word 1: expected 10 columns, found 2", None,
    ]  # fmt: skip


@given(
    st.lists(
        st.sampled_from(["1", "2", "3", "01", "1-2", "2.1", "1-", "x", "", "#", "# c"]).map(lambda one: one + "\tw" * 9)
        | st.sampled_from(["", "# text", "1\tw", "1" + "\tw" * 10, "2" + "\tw" * 9 + "\r", "\t" * 9, " "]),
        max_size=5,
    )
)
def test_conllu_at_once(lines: list[str]) -> None:
    """Where a sentence's words are found at once, they are those found line by line."""
    found = conllu_source.plain_words("\n".join(lines))
    assert found is None or found == conllu_source.words(lines)
    numbered = ["# c", *(f"{position}\tw{position}" + "\t_" * 8 for position in range(1, len(lines) + 2)), ""]
    assert conllu_source.plain_words("\n".join(numbered)) == conllu_source.words(numbered)


@pytest.mark.data(EWT)
def test_conllu_as_in_training(run: Run, alone: Any, prediction: Any, shipped: Any) -> None:
    """The treebank's test part: the same sentences as the reader of training data finds."""
    content = b"\n\n".join(read(EWT, "en_ewt-ud-test.conllu").split(b"\n\n")[:300]) + b"\n\n"
    job = run("tagging", "in.conllu", content, part_rows=64)
    sentences = read_conllu(content, "test")
    instances = [shipped("tagging").card.instance(tokens=one.words) for one in sentences]
    assert [prediction(line) for line in job.output.splitlines()] == alone("tagging", instances)


@pytest.mark.data(MUTAG)
def test_tu_as_in_training(run: Run, alone: Any, prediction: Any, tmp_path: Path) -> None:
    """MUTAG's files: the same molecules as the reader of training data finds."""
    for part in PARTS:
        (tmp_path / f"MUTAG_{part}.txt").write_bytes(read(MUTAG, f"MUTAG_{part}.txt"))
    job = run("molecule", tmp_path, part_rows=50)
    assert [prediction(line) for line in job.output.splitlines()] == alone("molecule", [*load_molecules().molecules])
    assert job.lines[-1]["graph"] == 188


@pytest.mark.parametrize(
    ("part", "content", "words"),
    [
        ("A", "1, 2\n1, x\n", "row 2: found '1, x', expected 2 whole numbers"),
        ("A", "1, 3\n", "row 1: found 1, 3, expected two atoms of one graph"),
        ("A", "1, 9\n", "row 1: found 1, 9, expected two atoms of one graph, 1 to 3"),
        ("node_labels", "0\n", "found 1 lines, expected 3"),
        ("graph_indicator", "1\n1\n0\n", "expected 1 and up"),
    ],
)
def test_bad_tu(part: str, content: str, words: str, run: Run, tmp_path: Path) -> None:
    """Files that do not fit together are refused as a whole, with file and line."""
    files = {"A": "1, 2\n2, 1\n", "graph_indicator": "1\n1\n2\n", "node_labels": "0\n0\n0\n"}
    for name, text in {**files, part: content}.items():
        (tmp_path / f"MUTAG_{name}.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        run("molecule", tmp_path)


def test_tu_rows(run: Run, tmp_path: Path) -> None:
    """A graph with an atom of a kind the model does not know is an error row, as is one without atoms."""
    (tmp_path / "X_A.txt").write_text("1, 2\n2, 1\n")
    (tmp_path / "X_graph_indicator.txt").write_text("3\n3\n1\n")
    (tmp_path / "X_node_labels.txt").write_text("C\nC\n0\n".replace("C", "1"))
    assert run("molecule", tmp_path).codes == ["invalid_request"] * 3
