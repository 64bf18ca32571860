"""Pictures to learn from: IDX files, folders, and one clear line for each bad one."""

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import DataError
from models.image.train.data import FASHION_MNIST, load, read_idx, stratified
from models.image.train.net import ConvolutionConfig
from models.image.train.patch_net import PatchAttentionConfig
from models.image.train.recipe import RECIPES, ImageLearner
from models.training.loop import Recipe, seed_everything

NAMES = list(FASHION_MNIST.files)


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(folder: Path, train: int = 40, test: int = 10, **contents: bytes) -> Path:
    """Four IDX files of two classes; the picture of class c is filled with 100 c + its number."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 2
        pictures = (100 * labels + np.arange(count))[:, None, None] * np.ones((1, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pictures))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    for name, content in contents.items():
        (folder / name.replace("_", "-")).write_bytes(content)
    return folder


def write_pictures(folder: Path, cats: int = 12, dogs: int = 12) -> Path:
    for name, count, colour in (("cat", cats, 50), ("dog", dogs, 200)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            kind = (".png", ".jpg", ".webp")[number % 3]
            Image.new("RGB", (30 + number, 40), (colour,) * 3).save(folder / name / f"{number}{kind}")
    return folder


def test_idx_by_heart() -> None:
    """Header, big-endian sizes, values row by row."""
    content = bytes.fromhex("00000803 00000002 00000001 00000003") + bytes([1, 2, 3, 4, 5, 6])
    assert read_idx(content, "x", 3).tolist() == [[[1, 2, 3]], [[4, 5, 6]]]
    assert read_idx(idx(np.arange(7)), "x", 1).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x: found header , expected 00000803"),
        (b"\x00\x00\x08", "x: found header 000008, expected 00000803"),
        (idx(np.zeros((2, 2))), "x: found header 00000802, expected 00000803"),
        (b"\x89PNG" + bytes(40), "x: found header 89504e47, expected 00000803"),
        (bytes.fromhex("00000d03") + bytes(40), "x: found header 00000d03, expected 00000803"),
        (idx(np.zeros((2, 3, 4)))[:-1], "x: found 23 bytes, expected (2, 3, 4) values"),
        (idx(np.zeros((2, 3, 4))) + b"\0", "x: found 25 bytes, expected (2, 3, 4) values"),
        (bytes.fromhex("00000803") + b"\xff" * 12, f"x: found 0 bytes, expected {(2**32 - 1,) * 3} values"),
    ],
)  # fmt: skip
def test_bad_idx(content: bytes, message: str) -> None:
    """A wrong header or length is told with what was found and expected."""
    with pytest.raises(DataError) as caught:
        read_idx(content, "x", 3)
    assert str(caught.value) == message


@pytest.mark.parametrize("is_packed", [False, True])
def test_own_idx(is_packed: bool, tmp_path: Path) -> None:
    """Four IDX files of one's own load, plain or gzipped; classes are numbers, a tenth validates."""
    folder = write_idx(tmp_path / "own")
    if is_packed:
        for path in list(folder.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    found = load(folder)
    assert found.assets.classes == ["0", "1"]
    assert {split: len(labels) for split, (_, labels) in found.splits.items()} == {
        "train": 36, "validation": 4, "test": 10,
    }  # fmt: skip
    for pictures, labels in found.splits.values():
        assert pictures.shape[1:] == (1, 28, 28)
        assert (pictures[:, 0, 0, 0] // 100 == labels).all()
        assert len(set(labels.tolist())) == 2
    assert len(found.provenance.sha256) == 4


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"train_images_idx3_ubyte": b""}, "train-images-idx3-ubyte: found header , expected 00000803"),
        ({"t10k_labels_idx1_ubyte": idx(np.zeros(9))}, "t10k: found 9 labels, expected 10 as there are pictures"),
        # Of a class the model never learns, of another size than it reads, and of nothing at all.
        ({"t10k_labels_idx1_ubyte": idx(np.full(10, 7))}, None),
        ({"t10k_images_idx3_ubyte": idx(np.zeros((10, 27, 28)))}, None),
        ({"train_images_idx3_ubyte": idx(np.zeros((0, 28, 28))), "train_labels_idx1_ubyte": idx(np.zeros(0))}, None),
    ],
    ids=["header", "label count", "unknown class", "other size", "nothing"],
)
def test_bad_own_idx(contents: dict[str, bytes], message: str | None, tmp_path: Path) -> None:
    """IDX files that do not fit together get one clear line."""
    with pytest.raises(DataError) as caught:
        load(write_idx(tmp_path / "own", **contents))
    assert message in (None, str(caught.value))


@pytest.mark.parametrize("damage", [lambda packed: b"no gzip", lambda packed: packed[:-9], lambda packed: packed[:20]])
def test_damaged_gzip(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A gzipped IDX file that does not unpack is bad data, not a traceback."""
    folder = write_idx(tmp_path / "own")
    plain = folder / NAMES[0]
    (folder / f"{NAMES[0]}.gz").write_bytes(damage(gzip.compress(plain.read_bytes())))
    plain.unlink()
    with pytest.raises(DataError, match=f"{NAMES[0]}.gz: found"):
        load(folder)


def test_own_folder(tmp_path: Path) -> None:
    """A folder per class loads: names are the classes, pictures of any size become 28 x 28, splits do not overlap."""
    folder = write_pictures(tmp_path / "pets", cats=30)
    (folder / "dog" / "notes.txt").write_text("not a picture")
    (folder / "README").write_text("not a class")
    found = load(folder)
    assert found.assets.classes == ["cat", "dog"]
    sizes = {split: len(labels) for split, (_, labels) in found.splits.items()}
    assert sum(sizes.values()) == 42
    assert sizes["test"] == 4
    for pictures, labels in found.splits.values():
        assert pictures.shape[1:] == (1, 28, 28)
        assert set(labels.tolist()) == {0, 1}
        bright = pictures[:, 0, 14, 14] > 125
        assert np.array_equal(bright, labels == 1)
    requests, truths = zip(*found.examples("test"), strict=True)
    assert found.judge([{"class_id": truth} for truth in truths[:2]] + [{"class_id": 9}] * 2, truths) == 50.0
    assert requests[0].pixels == found.splits["test"][0][0, 0].tolist()


def test_provenance_names_every_file(tmp_path: Path) -> None:
    """The certificate has the digest of every picture, also of two in different classes with one name."""
    found = load(write_pictures(tmp_path / "pets"))
    assert len(found.provenance.sha256) == 24


def test_folder_is_repeatable(tmp_path: Path) -> None:
    """The same folder is cut the same way twice, and another way with another seed."""
    folder = write_idx(tmp_path / "own", train=200)
    first, second, other = load(folder), load(folder), load(folder, seed=1)
    assert np.array_equal(first.splits["validation"][0], second.splits["validation"][0])
    assert not np.array_equal(first.splits["validation"][0], other.splits["validation"][0])


def test_stratified_by_heart() -> None:
    """Of every class its share is held, at least one, and nothing is lost."""
    labels = np.array([0] * 40 + [1] * 20 + [2] * 3)
    rest, held = stratified(labels, 0.1, 0)
    assert np.bincount(labels[held]).tolist() == [4, 2, 1]
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(63))


def test_bad_folder(tmp_path: Path) -> None:
    """One class, a file instead of a folder, a missing folder, too few pictures: one clear line each."""
    one = tmp_path / "one"
    (one / "cat").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for path, count in ((one, 1), (tmp_path / "file", 0), (tmp_path / "nothing", 0)):
        with pytest.raises(DataError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: found {count} class folders, expected at least 2, or four IDX files"
    few = write_pictures(tmp_path / "few", dogs=2)
    with pytest.raises(DataError) as caught:
        load(few)
    assert str(caught.value) == f"{few / 'dog'}: found 2 pictures, expected at least 3"


def test_what_scoring_passes_over(tmp_path: Path) -> None:
    """Hidden files and folders, macOS's forks and a folder with a picture's name are no class and no picture."""
    folder = write_pictures(tmp_path / "pets")
    expected = load(folder)
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        shutil.copytree(folder / "dog", folder / name)
    (folder / "dog" / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    (folder / "dog" / "odd.png").mkdir()
    (folder / "dog" / "odd.png" / "readme").write_text("")
    (folder / "dog" / "notes.txt").write_text("")
    found = load(folder)
    assert found.assets.classes == ["cat", "dog"]
    assert found.provenance.sha256 == expected.provenance.sha256
    assert expected.provenance.notes == ("pictures by class: cat 12, dog 12",)
    assert found.provenance.notes == (f"{expected.provenance.notes[0]}; 2 other files in them passed over",)


def test_subfolders(tmp_path: Path) -> None:
    """Pictures below a class's folder are its pictures however deep, as in scoring; links to folders are none."""
    folder = write_pictures(tmp_path / "pets")
    expected = load(folder)
    deep = folder / "dog" / "2026" / "May"
    deep.mkdir(parents=True)
    moved = sorted(path for path in (folder / "dog").iterdir() if path.is_file())[3:6]
    for path in moved:
        path.rename(deep / path.name)
    shutil.copytree(folder / "cat", folder / "dog" / ".thumbnails")
    (folder / "dog" / "2026" / "all").symlink_to(folder)
    found = load(folder)
    assert found.provenance.notes == ("pictures by class: cat 12, dog 12; 1 other files in them passed over",)
    digests = {Path(name).name: one for name, one in found.provenance.sha256.items() if name.startswith("dog")}
    assert f"dog/2026/May/{moved[0].name}" in found.provenance.sha256
    assert digests == {Path(n).name: one for n, one in expected.provenance.sha256.items() if n.startswith("dog")}


def test_jfif_is_a_picture(tmp_path: Path) -> None:
    """What Chrome saves is learned from."""
    folder = write_pictures(tmp_path / "pets")
    for path in (folder / "dog").iterdir():
        path.rename(path.with_suffix(".jfif"))
    assert load(folder).assets.classes == ["cat", "dog"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A dangling link is one line, not a traceback."""
    folder = write_pictures(tmp_path / "pets")
    (folder / "dog" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError) as caught:
        load(folder)
    found = "found a file that cannot be read (No such file or directory), expected a picture, or no such name"
    assert str(caught.value) == f"{folder / 'dog' / 'gone.png'}: {found}"


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"a\x1b[0m"])
def test_class_names_are_refused_before_the_training(tmp_path: Path, name: bytes) -> None:
    """A class folder whose name is no printable text is refused at once, not by the picture or the certificate."""
    folder = write_pictures(tmp_path / "pets")
    os.rename(bytes(folder / "dog"), bytes(folder) + b"/" + name)
    with pytest.raises(DataError, match="expected a name of printable characters in UTF-8: rename it") as caught:
        load(folder)
    assert str(caught.value).isprintable()


def test_file_names_of_any_bytes(tmp_path: Path) -> None:
    """Pictures whose names are no UTF-8 are learned from, and each has its digest in a certificate that is UTF-8."""
    folder = write_pictures(tmp_path / "pets")
    for path, name in zip(sorted((folder / "dog").iterdir()), (b"caf\xe8.png", b"caf\xe9.png"), strict=False):
        os.rename(bytes(path), bytes(folder / "dog") + b"/" + name)
    provenance = load(folder).provenance
    assert len(provenance.sha256) == 24
    assert json.dumps(provenance.record(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected a PNG, JPEG or WebP file"),
        (None, "the PNG file is damaged or truncated"),
    ],
)
def test_damaged_picture(content: bytes | None, reason: str, tmp_path: Path) -> None:
    """A picture that cannot be read is named with the reason."""
    folder = write_pictures(tmp_path / "pets")
    path = folder / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(DataError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{path}: found ")
    assert reason in message
    assert "expected expected" not in message
    assert "expected the" not in message


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_learner(recipe: Recipe, tmp_path: Path) -> None:
    """Both networks take two steps on a folder of one's own, the loss falls, and whole batches are shown."""
    network = (
        ConvolutionConfig(widths=(4, 8), dropout=0.0)
        if recipe is RECIPES[0]
        else PatchAttentionConfig(width=8, layers=1, heads=2, dropout=0.0)
    )
    small = replace(recipe, network=network)
    small = replace(small, plan=replace(small.plan, batch_size=16))
    seed_everything(0)
    learner = ImageLearner(small, write_idx(tmp_path / "own", train=60), 0)
    assert learner.batch_count() == 54 // 16
    batches = list(learner.batches(np.random.default_rng(0)))
    assert [len(labels) for _, labels in batches] == [16] * 3
    optimizer = torch.optim.Adam(learner.net.parameters(), 0.01)
    before = learner.loss(batches[0]).item()
    for _ in range(3):
        optimizer.zero_grad()
        learner.loss(batches[0]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert learner.loss(batches[0]).item() < before
    learner.net.eval()
    assert 0 <= learner.score("test") <= 100
    assert learner.finish(tmp_path) == {}
    assert learner.pooled() is None
    assert ("patches" in learner.data.assets.sizes) == (recipe is RECIPES[1])
