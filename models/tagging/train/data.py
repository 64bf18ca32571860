"""Tagged sentences to learn from: UD English EWT, or a user's own CoNLL-U files. Torch-free."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from unicodedata import normalize

import numpy as np
from msgspec import structs

from models.card import Prediction
from models.errors import DataError
from models.reading import beside
from models.tagging.cutter import WordCutter
from models.tagging.schema import Assets, Instance, validate
from models.tagging.spelling import find_clues, fold
from models.tagging.train.conllu import Sentence, read_conllu
from models.tagging.train.spacing import aligned, f1, learn, text_of
from models.training.datasets import (
    ACCURACY,
    Dataset,
    Provenance,
    RemoteFile,
    ScoreMetric,
    own_provenance,
    provenance,
    read,
)

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
# A word seen once teaches more as an unknown one. A clue that fewer than three words share says little of
# others: with all clues hashed into 16,384 buckets, 2 % more of the unknown validation words were wrong.
MIN_COUNT = 2
# Of words cut out of the validation sentences' text. What stands for two words in one place and for one in another, as
# the French "des", costs any cutter a point; what is no way to cut costs ten. The certificate has the score of both.
MIN_WORD_F1 = 98.0
TEXT_F1 = ScoreMetric(name="F1 of words with tags", unit="%", is_better_high=True)
EXAMPLE_WORDS = range(3, 9)
MIN_WORDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingData:
    """Tagged sentences per split.

    Attributes:
        word_f1: Of a user's own data, how well the validation sentences' text is cut into words, in %.
    """

    provenance: Provenance
    assets: Assets
    splits: Mapping[str, Sequence[Sentence]]
    word_f1: float | None = None

    @property
    def metric(self) -> ScoreMetric:
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

    def rewritten(self) -> "Mapping[str, RunningText]":
        """Return the same sentences as ``text``, where models of it take that."""
        is_served = self.assets.cutter is not None and any(s.surfaces for s in self.splits["test"])
        return {"text": RunningText(self)} if is_served else {}


@dataclass(frozen=True, slots=True)
class RunningText:
    """Tagged sentences, asked for as running text: a word has to be cut out right to be tagged right."""

    data: TaggingData

    @property
    def provenance(self) -> Provenance:
        """That of the sentences."""
        return self.data.provenance

    @property
    def assets(self) -> Assets:
        """Those of the sentences."""
        return self.data.assets

    @property
    def metric(self) -> ScoreMetric:
        """Harmonic mean of precision and recall of words with their tags, as in CoNLL's shared tasks."""
        return TEXT_F1

    def examples(self, split: str) -> Iterator[tuple[Instance, tuple[list[str], list[str]]]]:
        """Requests as ``text``, but for sentences that are none; the truth is the words and their tags."""
        for sentence in self.data.splits[split]:
            instance = Instance(text=text_of(sentence.surfaces))
            if next(validate(instance, self.assets), None) is None:
                yield instance, (sentence.words, sentence.tags)

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[tuple[list[str], list[str]]]) -> float:
        """F1 in %, over the words of all sentences."""
        hits = found = true = 0
        for prediction, (words, tags) in zip(predictions, truths, strict=True):
            positions = aligned(prediction["tokens"], words)
            hits += sum(prediction["tags"][mine] == tags[theirs] for mine, theirs in positions)
            found, true = found + len(prediction["tokens"]), true + len(words)
        return f1(hits, found, true)


def load(path: Path | None = None, seed: int = 0, test: str = "") -> TaggingData:
    """Read EWT, or a user's CoNLL-U: a folder with one file each for train, dev and test, or a single file.

    A single file is shuffled by ``seed`` and cut into 80 % train, 10 % validation and 10 % test; a file ``test``, by
    its place beside ``path``, is the test part instead.

    Raises:
        DataError: With file, row, what was found and what was expected.
    """
    if path is None:
        contents = {split: f"en_ewt-ud-{part}.conllu" for split, part in PARTS.items()}
        splits = {split: read_conllu(read(EWT, name), name) for split, name in contents.items()}
        return _assemble(provenance(EWT), splits)
    given = beside(path, test)
    if path.is_dir():
        files = {split: given if split == "test" and given else _find_part(path, part) for split, part in PARTS.items()}
        splits = {split: read_conllu(file.read_bytes(), file) for split, file in files.items()}
        given_apart = [files.pop("test")] if given else []
        return _own(_assemble(own_provenance(*files.values(), test=given_apart), splits))
    if not path.is_file():
        raise DataError(path, found="no such file or folder", expected="a .conllu file, or a folder of three")
    splits = _cut(read_conllu(path.read_bytes(), path), path, seed, has_test=given is not None)
    if given is None:
        return _own(_assemble(own_provenance(path), splits))
    splits["test"] = read_conllu(given.read_bytes(), given)
    return _own(_assemble(own_provenance(path, test=[given]), splits))


def _find_part(folder: Path, part: str) -> Path:
    files = sorted(file for file in folder.glob("*.conllu") if part in file.name)
    if len(files) != 1:
        raise DataError(folder, found=f"{len(files)} files *{part}*.conllu", expected="one")
    return files[0]


def _cut(sentences: list[Sentence], path: Path, seed: int, *, has_test: bool) -> dict[str, list[Sentence]]:
    tenth = len(sentences) // 10
    if not tenth:
        raise DataError(path, found=f"{len(sentences)} sentences", expected="at least 10, to cut off two tenths")
    order = np.random.default_rng(seed).permutation(len(sentences))
    first = 0 if has_test else tenth
    test, validation, train = np.split(order, [first, first + tenth])
    chosen = {"train": train, "validation": validation, "test": test}
    return {split: [sentences[index] for index in np.sort(positions)] for split, positions in chosen.items()}


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


def _own(data: TaggingData) -> TaggingData:
    """Return the data with what their own spacing says of ``text``, and with an example of their own."""
    train, validation = ([s for s in data.splits[split] if s.surfaces] for split in ("train", "validation"))
    cutter = learn([sentence.surfaces for sentence in train])
    if cutter is None:
        note = "text: refused, only tokens are taken, for the data do not say which words stand together"
        note += " (SpaceAfter=No, or # text)"
        return replace(data, assets=_with_example(data, None), provenance=replace(data.provenance, notes=(note,)))
    share = _word_f1(cutter, validation)
    note = f"F1 of the words cut out of the validation sentences is {share:.2f} %, by rules of the data's own spacing"
    if share < MIN_WORD_F1:
        cutter, note = None, f"text: refused, only tokens are taken: {note}, and {MIN_WORD_F1:g} is the least"
    else:
        note = f"text: taken; {note}"
    origin = replace(data.provenance, notes=(note,))
    return replace(data, assets=_with_example(data, cutter), word_f1=share, provenance=origin)


def _word_f1(cutter: WordCutter, sentences: Sequence[Sentence]) -> float:
    hits = found = true = 0
    for sentence in sentences:
        words = list(cutter.split(text_of(sentence.surfaces)))
        expected = [normalize("NFC", word) for word in sentence.words]
        hits += len(words) if words == expected else sum(1 for _ in aligned(words, expected))
        found, true = found + len(words), true + len(expected)
    return f1(hits, found, true)


def _with_example(data: TaggingData, cutter: WordCutter | None) -> Assets:
    """The assets with a short sentence of common words, all of which stand in the artifact's vocabulary anyway."""
    assets = structs.replace(data.assets, cutter=cutter)
    counts = Counter(fold(word) for sentence in data.splits["train"] for word in sentence.words)
    known = set(assets.words)

    def rank(sentence: Sentence) -> int:
        return min(counts[fold(word)] for word in sentence.words)

    short = [s for s in data.splits["train"] if len(s.words) in EXAMPLE_WORDS and known.issuperset(map(fold, s.words))]
    if cutter is not None:
        short = [s for s in short if list(cutter.split(text_of(s.surfaces))) == s.words]
    if not short:
        return structs.replace(assets, example=assets.words[:5] or data.splits["train"][0].words[:1])
    best = max(short, key=rank)
    return structs.replace(assets, example=best.words if cutter is None else text_of(best.surfaces))
