"""Tagged sentences to learn from: UD English EWT, or a user's own CoNLL-U files. Torch-free."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.datasets import (
    ACCURACY,
    Dataset,
    Metric,
    Provenance,
    RemoteFile,
    own_provenance,
    provenance,
    read,
)
from models.errors import DataError
from models.family import Prediction
from models.tagging.schema import MAX_TOKENS, Assets, Instance, find_flaw
from models.tagging.spelling import find_clues, fold

_URL = "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/r2.16"
EWT = Dataset(
    name="UD English EWT 2.16",
    folder="tagging/ud_english_ewt_r2.16",
    licence="CC-BY-SA-4.0",
    attribution="Silveira et al. 2014, Stanford and Universal Dependencies; texts in part (c) Google, Yahoo!",
    files={
        f"en_ewt-ud-{part}.conllu": RemoteFile(
            sha256=sha256,
            url=f"{_URL}/en_ewt-ud-{part}.conllu",
        )
        for part, sha256 in {
            "train": "3fb78e2b55482c8ee00caa653af436c88c9e5bc9a73ce26e4ae3ddc79d2b7e7b",
            "dev": "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
            "test": "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
        }.items()
    },
)
# The name of each split in CoNLL-U file names.
PARTS = {"train": "train", "validation": "dev", "test": "test"}
COLUMNS = 10
# A word seen once teaches more as an unknown one. A clue that fewer than three words share says little of
# others: with all clues hashed into 16,384 buckets, 2 % more of the unknown validation words were wrong.
MIN_COUNT = 2
MIN_WORDS = 3


class Sentence(NamedTuple):
    """Words, the tag (UPOS) of each, and the treebank's own finer tag (XPOS; the tag where there is none)."""

    words: list[str]
    tags: list[str]
    fine_tags: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingData:
    """Tagged sentences per split."""

    provenance: Provenance
    assets: Assets
    splits: Mapping[str, Sequence[Sentence]]

    @property
    def metric(self) -> Metric:
        """Share of words with the right tag."""
        return ACCURACY

    def examples(self, split: str) -> Iterator[tuple[Instance, list[str]]]:
        """Requests as ``tokens``; the truth is the list of tags."""
        for sentence in self.splits[split]:
            yield Instance(tokens=sentence.words), sentence.tags

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[list[str]]) -> float:
        """Accuracy over all words in %."""
        hits = [
            found == true
            for prediction, truth in zip(predictions, truths, strict=True)
            for found, true in zip(prediction["tags"], truth, strict=True)
        ]
        return 100 * float(np.mean(hits))


def load(path: Path | None = None, seed: int = 0) -> TaggingData:
    """Read EWT, or a user's CoNLL-U: a folder with one file each for train, dev and test, or a single file.

    A single file is shuffled by ``seed`` and cut into 80 % train, 10 % validation and 10 % test.

    Raises:
        DataError: With file, row, what was found and what was expected.
    """
    if path is None:
        contents = {split: f"en_ewt-ud-{part}.conllu" for split, part in PARTS.items()}
        splits = {split: read_conllu(read(EWT, name), name) for split, name in contents.items()}
        return _assemble(provenance(EWT), splits)
    if path.is_dir():
        files = {split: _find_part(path, part) for split, part in PARTS.items()}
        splits = {split: read_conllu(file.read_bytes(), file) for split, file in files.items()}
        return _assemble(own_provenance(*files.values()), splits)
    if not path.is_file():
        raise DataError(path, found="no such file or folder", expected="a .conllu file, or a folder of three")
    return _assemble(own_provenance(path), _cut(read_conllu(path.read_bytes(), path), path, seed))


def _find_part(folder: Path, part: str) -> Path:
    files = sorted(file for file in folder.glob("*.conllu") if part in file.name)
    if len(files) != 1:
        raise DataError(folder, found=f"{len(files)} files *{part}*.conllu", expected="one")
    return files[0]


def _cut(sentences: list[Sentence], path: Path, seed: int) -> dict[str, list[Sentence]]:
    tenth = len(sentences) // 10
    if not tenth:
        raise DataError(path, found=f"{len(sentences)} sentences", expected="at least 10, to cut off two tenths")
    order = np.random.default_rng(seed).permutation(len(sentences))
    test, validation, train = np.split(order, [tenth, 2 * tenth])
    chosen = {"train": train, "validation": validation, "test": test}
    return {split: [sentences[place] for place in np.sort(places)] for split, places in chosen.items()}


def _assemble(origin: Provenance, splits: Mapping[str, list[Sentence]]) -> TaggingData:
    tags = chain.from_iterable(sentence.tags for sentences in splits.values() for sentence in sentences)
    counts = Counter(word for sentence in splits["train"] for word in sentence.words)
    folded: Counter[str] = Counter()
    for word, count in counts.items():
        folded[fold(word)] += count
    clues = Counter(clue for word in counts for clue in find_clues(word) if clue)
    assets = Assets(
        words=sorted(word for word, count in folded.items() if count >= MIN_COUNT),
        clues=sorted(clue for clue, words in clues.items() if words >= MIN_WORDS),
        tags=sorted(set(tags)),
    )
    return TaggingData(provenance=origin, assets=assets, splits=splits)


def read_conllu(content: bytes, name: Path | str) -> list[Sentence]:
    """The sentences of a CoNLL-U file (https://universaldependencies.org/format.html): FORM, UPOS and XPOS.

    Lines of multi-word tokens (``3-4``) and empty nodes (``5.1``) are passed over: UPOS is given to words.

    Raises:
        DataError: With the file and the row, counted from 1.
    """
    # The library ``conllu`` 6.0.0 takes rows of three columns and gaps in the ids silently, 18 times slower.
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError(name, row=row, found="bytes that are not UTF-8", expected="UTF-8") from error
    sentences = list(_split(lines, name))
    if not sentences:
        raise DataError(name, found="no sentence", expected="at least one")
    return sentences


def _split(lines: Iterable[str], name: Path | str) -> Iterator[Sentence]:
    sentence = Sentence([], [], [])
    for row, line in enumerate([*lines, ""], start=1):
        row_text = line.removesuffix("\r")
        if not row_text:
            if sentence.words:
                yield sentence
            sentence = Sentence([], [], [])
        elif not row_text.startswith("#"):
            _add_word(sentence, row_text.split("\t"), name, row)


def _add_word(sentence: Sentence, columns: list[str], name: Path | str, row: int) -> None:
    if len(columns) != COLUMNS:
        raise DataError(name, row=row, found=f"{len(columns)} columns", expected=f"{COLUMNS}, apart by tabs")
    place, word, _, tag, fine_tag = columns[:5]
    if "-" in place or "." in place:
        return
    expected = len(sentence.words) + 1
    if place != str(expected):
        raise DataError(name, row=row, found=f"id {place!r}", expected=f"{expected}")
    if expected > MAX_TOKENS:
        raise DataError(name, row=row, found=f"word {expected} of a sentence", expected=f"at most {MAX_TOKENS}")
    if flaw := find_flaw(word):
        raise DataError(name, row=row, found=f"a form with {flaw.found}", expected=flaw.expected)
    if tag in ("", "_"):
        raise DataError(name, row=row, found="no tag", expected="a tag in the fourth column (UPOS)")
    sentence.words.append(word)
    sentence.tags.append(tag)
    sentence.fine_tags.append(tag if fine_tag in ("", "_") else fine_tag)
