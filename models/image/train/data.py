"""Pictures to learn from: Fashion-MNIST, IDX files like it, or a folder with one subfolder per class. Torch-free."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.card import Prediction
from models.errors import DataError
from models.image.container import UnreadablePicture
from models.image.idx import read_head
from models.image.picture import open_picture, to_pixels
from models.image.schema import Assets, Instance
from models.picture_names import is_hidden, is_picture
from models.reading import beside
from models.training.datasets import (
    ACCURACY,
    Dataset,
    Provenance,
    RemoteFile,
    ScoreMetric,
    own_provenance,
    provenance,
    read,
    unpack,
)

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MNIST = Dataset(
    name="Fashion-MNIST",
    folder="image/fashion_mnist",
    licence="MIT",
    attribution="Xiao, Rasul and Vollgraf 2017, Zalando SE, arXiv:1708.07747",
    files={
        name: RemoteFile(sha256=sha256, url=f"{_URL}{name}.gz")
        for name, sha256 in {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        }.items()
    },
)
FASHION_CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
LEAST_CLASSES, LEAST_PICTURES = 2, 3

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """Pictures ``(N, C, H, W)`` uint8 and class ids ``(N,)`` int64 per split."""

    provenance: Provenance
    assets: Assets
    splits: dict[str, Split]

    @property
    def metric(self) -> ScoreMetric:
        """Share of pictures with the right class."""
        return ACCURACY

    def examples(self, split: str) -> Iterator[tuple[Instance, int]]:
        """Requests as ``pixels``; the truth is the class id."""
        pictures, labels = self.splits[split]
        for picture, label in zip(pictures, labels.tolist(), strict=True):
            yield Instance(pixels=picture[0].tolist()), label

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[int]) -> float:
        """Accuracy in %."""
        hits = [p["class_id"] == truth for p, truth in zip(predictions, truths, strict=True)]
        return 100 * float(np.mean(hits))


def load(path: Path | None = None, seed: int = 0, test: str = "") -> ImageData:
    """Read Fashion-MNIST, or a user's folder: IDX files named as Fashion-MNIST's, or ``<class>/<picture>``.

    The validation pictures are drawn from the training ones, stratified by class: 5,000 of Fashion-MNIST, a tenth of
    a user's. A user's folder without a test part gives another tenth for it, unless ``test`` is the place beside it of
    a folder with the same classes.

    Raises:
        DataError: With file, what was found and what was expected.
    """
    if path is None:
        files = {name: read(FASHION_MNIST, name) for name in FASHION_MNIST.files}
        return _from_idx(files, FASHION_CLASSES, provenance(FASHION_MNIST), share=1 / 12, seed=seed)
    names = {name: next(path.glob(f"{name}*"), None) for name in FASHION_MNIST.files}
    paths = [found for found in names.values() if found is not None]
    given = beside(path, test)
    if len(paths) == len(names) and given is not None:
        raise DataError(given, found="a test part", expected="none beside IDX files, which bring their own")
    if len(paths) == len(names):
        files = {name: unpack(found) for name, found in names.items() if found is not None}
        return _from_idx(files, None, own_provenance(*paths), share=0.1, seed=seed)
    return _from_folder(path, seed, given)


def read_idx(content: bytes, name: str, axes: int) -> NDArray[np.uint8]:
    """Return an IDX file's array (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        DataError: If the header or the length is not an unsigned-byte IDX file's.
    """
    shape, header = read_head(content, name, axes), 4 + 4 * axes
    if len(content) - header != np.prod(shape):
        raise DataError(name, found=f"{len(content) - header} bytes", expected=f"{shape} values")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _from_idx(
    files: dict[str, bytes], classes: list[str] | None, origin: Provenance, *, share: float, seed: int
) -> ImageData:
    parts: dict[str, Split] = {}
    for part in ("train", "t10k"):
        pictures = read_idx(files[f"{part}-images-idx3-ubyte"], f"{part}-images-idx3-ubyte", 3)
        labels = read_idx(files[f"{part}-labels-idx1-ubyte"], f"{part}-labels-idx1-ubyte", 1).astype(np.int64)
        if len(pictures) != len(labels):
            raise DataError(part, found=f"{len(labels)} labels", expected=f"{len(pictures)} as there are pictures")
        parts[part] = pictures[:, None], labels
    images, ids = parts["train"]
    _check_parts(images, ids, *parts["t10k"])
    classes = classes or [str(label) for label in range(int(ids.max()) + 1)]
    fit, validation = stratified(ids, share, seed)
    return ImageData(
        provenance=origin,
        assets=Assets(classes=classes, height=images.shape[2], width=images.shape[3]),
        splits={
            "train": (images[fit], ids[fit]),
            "validation": (images[validation], ids[validation]),
            "test": parts["t10k"],
        },
    )


def _check_parts(
    images: NDArray[np.uint8], ids: NDArray[np.int64], tested: NDArray[np.uint8], answers: NDArray[np.int64]
) -> None:
    if not len(ids) or not len(answers):
        raise DataError("train, t10k", found=f"{len(ids)} and {len(answers)} pictures", expected="some of each")
    if images.shape[1:] != tested.shape[1:]:
        raise DataError("t10k", found=f"pictures of {tested.shape[2:]}", expected=f"{images.shape[2:]} as in train")
    unknown = np.setdiff1d(answers, ids)
    if len(unknown):
        raise DataError("t10k", found=f"class {unknown[0]}", expected="classes that train has too")


def stratified(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the rest and of a ``share`` of every class (at least one), both sorted."""
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held.append(members[: max(1, round(len(members) * share))])
    chosen = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


class _Folder(NamedTuple):
    """What a folder with one subfolder per class holds: pictures, their class ids, their files, and what is none."""

    images: NDArray[np.uint8]
    ids: NDArray[np.int64]
    files: list[Path]
    others: int


def _from_folder(path: Path, seed: int, given: Path | None) -> ImageData:
    """Read a folder with one subfolder per class; all pictures are brought to 28 x 28 grey."""
    classes = _class_folders(path)
    assets = Assets(classes=classes)
    own = _read_folder(path, assets, least=LEAST_PICTURES)
    origin = own_provenance(*own.files, root=path)
    if given is None:
        rest, test = stratified(own.ids, 0.1, seed)
        tested = own.images[test], own.ids[test]
    else:
        rest, apart = np.arange(len(own.ids)), _test_folder(given, assets)
        tested = apart.images, apart.ids
        digests = own_provenance(*apart.files, root=given).sha256
        origin = replace(origin, sha256=origin.sha256 | {f"test: {name}": one for name, one in digests.items()})
    fit, validation = stratified(own.ids[rest], 0.1, seed + 1)
    counts = ", ".join(f"{name} {count}" for name, count in zip(classes, np.bincount(own.ids).tolist(), strict=True))
    over = f"; {own.others} other files in them passed over" if own.others else ""
    chosen = {
        split: (own.images[rows], own.ids[rows])
        for split, rows in (("train", rest[fit]), ("validation", rest[validation]))
    }
    return ImageData(
        provenance=replace(origin, notes=(f"pictures by class: {counts}{over}",)),
        assets=assets,
        splits={**chosen, "test": tested},
    )


def _read_folder(path: Path, assets: Assets, *, least: int) -> _Folder:
    images, labels, files, passed = [], [], [], 0
    for label, name in enumerate(assets.classes):
        members, others = _pictures(path / name)
        if len(members) < least:
            raise DataError(path / name, found=f"{len(members)} pictures", expected=f"at least {least}")
        images += [_picture(file, assets) for file in members]
        labels += [label] * len(members)
        files += members
        passed += others
    return _Folder(np.stack(images), np.asarray(labels, np.int64), files, passed)


def _test_folder(path: Path, assets: Assets) -> _Folder:
    classes = _class_folders(path)
    if classes != assets.classes:
        odd = sorted({*classes} ^ {*assets.classes})
        raise DataError(path, found=f"{', '.join(odd[:8])} in one of the two", expected="the class folders of --data")
    return _read_folder(path, assets, least=1)


def _class_folders(path: Path) -> list[str]:
    """Return the names of the classes' folders; what is hidden is passed over, as in scoring."""
    folders = [entry for entry in _entries(path) if entry.is_dir()] if path.is_dir() else []
    classes = sorted(entry.name for entry in folders if not is_hidden(entry.name))
    if len(classes) < LEAST_CLASSES:
        expected = f"at least {LEAST_CLASSES}, or four IDX files"
        raise DataError(path, found=f"{len(classes)} class folders", expected=expected)
    for name in classes:
        if not name.isprintable():  # nor are bytes that are no UTF-8
            found = f"a class folder {name!a}"
            raise DataError(path, found=found, expected="a name of printable characters in UTF-8: rename it")
    return classes


def _pictures(folder: Path) -> tuple[list[Path], int]:
    """What scoring would take as pictures, too, in subfolders as well, and how many other files are not hidden."""
    members: list[Path] = []
    others = 0
    for entry in _entries(folder):
        if is_hidden(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            inside, more = _pictures(entry)
            members, others = members + inside, others + more
        elif is_picture(entry.name) and not entry.is_dir():
            members.append(entry)
        else:
            others += 1
    return sorted(members), others


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(
            folder, found=f"a folder that cannot be read ({error.strerror})", expected="pictures"
        ) from error


def _picture(file: Path, assets: Assets) -> NDArray[np.uint8]:
    try:
        picture = open_picture(file.read_bytes())
    except OSError as error:
        found = f"a file that cannot be read ({error.strerror})"
        raise DataError(file, found=found, expected="a picture, or no such name") from error
    except UnreadablePicture as error:
        reason = str(error)
        if reason.startswith("expected "):
            raise DataError(file, found="something else", expected=reason.removeprefix("expected ")) from error
        raise DataError(file, found=f"that {reason}", expected="a whole picture") from error
    return to_pixels(picture, channels=assets.channels, height=assets.height, width=assets.width)
