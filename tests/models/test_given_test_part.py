"""The test part given by its owner: all of --data learns and validates, and only what was given tests."""

from datetime import date, timedelta
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from models.errors import DataError
from models.image.train.data import load as load_pictures
from models.tagging.train.data import load as load_sentences
from models.train.__main__ import choose_recipe, reading_of
from models.viewcount.train.data import LearningOptions
from models.viewcount.train.data import load as load_views


def sentences(*words: str) -> str:
    return "\n".join(f"1\t{word}\t_\tX" + "\t_" * 6 + "\n" for word in words)


def test_sentences(tmp_path: Path) -> None:
    """Beside a single file and beside a folder, the given file alone tests."""
    (tmp_path / "all.conllu").write_text(sentences(*(f"w{number}" for number in range(20))))
    (tmp_path / "other.conllu").write_text(sentences("a", "b"))
    data = load_sentences(tmp_path / "all.conllu", test="../other.conllu")
    sizes = {split: len(found) for split, found in data.splits.items()}
    assert sizes == {"train": 18, "validation": 2, "test": 2}
    assert list(data.provenance.sha256) == ["all.conllu", "test: other.conllu"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for part in ("train", "dev"):
        (folder / f"x-{part}.conllu").write_text(sentences("a", "b", "c"))
    data = load_sentences(folder, test="../other.conllu")
    assert [sentence.words for sentence in data.splits["test"]] == [["a"], ["b"]]
    assert [*data.provenance.sha256] == ["x-train.conllu", "x-dev.conllu", "test: other.conllu"]


def write_views(path: Path, first: date, count: int) -> Path:
    days = [first + timedelta(days=day) for day in range(count)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("date,views\n" + "".join(f"{day},{100 + number % 7}\n" for number, day in enumerate(days)))
    return path


def test_views(tmp_path: Path) -> None:
    """A second table that goes on where the first ends tests, and is named; any other first day is refused."""
    path = write_views(tmp_path / "a" / "views.csv", date(2024, 1, 1), 200)
    write_views(tmp_path / "b" / "views.csv", date(2024, 7, 19), 10)
    data = load_views(path, LearningOptions(test="../../b/views.csv"))
    assert (data.bounds, len(data.views)) == ((200 - 28, 200, 210), 210)
    assert [*data.target_days("test")] == [*range(200, 210)]
    assert data.provenance.notes == ("the 10 days from 2024-07-19 on test, from views.csv",)
    assert [*data.provenance.sha256] == ["views.csv", "test: views.csv"]
    for day in (date(2024, 7, 18), date(2024, 7, 20)):
        write_views(tmp_path / "b" / "views.csv", day, 10)
        message = f"b.views.csv: found {day} as the first day, expected 2024-07-19, the day after the last of --data"
        with pytest.raises(DataError, match=message):
            load_views(path, LearningOptions(test="../../b/views.csv"))


def write_pictures(folder: Path, count: int, *classes: str) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(np.full((9, 9), number, np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_pictures(tmp_path: Path) -> None:
    """A folder with the same classes tests; other classes, and IDX files' own test part, are refused."""
    write_pictures(tmp_path / "own", 10, "cat", "dog")
    write_pictures(tmp_path / "apart", 2, "cat", "dog")
    data = load_pictures(tmp_path / "own", test="../apart")
    assert {split: len(ids) for split, (_, ids) in data.splits.items()} == {"train": 18, "validation": 2, "test": 4}
    assert len(data.provenance.sha256) == 24
    write_pictures(tmp_path / "apart", 2, "cow")
    with pytest.raises(DataError, match="apart: found cow in one of the two, expected the class folders of --data"):
        load_pictures(tmp_path / "own", test="../apart")


def test_paths_are_kept_from_the_data_on(tmp_path: Path) -> None:
    """What is written down of a test part says nothing of where on a machine it lies; without data it is refused."""
    recipe = choose_recipe("tagging", "t", None)
    data, test = tmp_path / "a" / "train.conllu", tmp_path / "b" / "test.conllu"
    assert reading_of(recipe, data, {"test": str(test), "folds": None}) == {"test": "../../b/test.conllu"}
    with pytest.raises(click.UsageError, match="--test is for your own data: give --data, too"):
        reading_of(recipe, None, {"test": str(test)})
    with pytest.raises(click.UsageError, match="--folds says nothing to tagging"):
        reading_of(recipe, data, {"folds": "3"})
