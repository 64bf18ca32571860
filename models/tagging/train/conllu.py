"""Sentences of CoNLL-U files, as they are tagged and as they are written. Torch-free."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from models.errors import DataError
from models.tagging.schema import MAX_TOKENS, find_flaw
from models.tagging.train.spacing import Surface, respaced

COLUMNS = 10
TEXT_COMMENT, NO_SPACE = "# text = ", "SpaceAfter=No"


class Sentence(NamedTuple):
    """Words, the tag (UPOS) of each, the treebank's own finer tag (XPOS; the tag where there is none), and the text."""

    words: list[str]
    tags: list[str]
    fine_tags: list[str]
    surfaces: Sequence[Surface] = ()


def read_conllu(content: bytes, name: Path | str) -> list[Sentence]:
    """Return the sentences of a CoNLL-U file (https://universaldependencies.org/format.html): FORM, UPOS and XPOS.

    UPOS is given to words: multi-word tokens (``3-4``), ``SpaceAfter=No`` and ``# text`` say how these are written.
    Empty nodes (``5.1``) are passed over, and so is a byte order mark.

    Raises:
        DataError: With the file and the row, counted from 1.
    """
    # The library ``conllu`` 6.0.0 takes rows of three columns and gaps in the ids silently, 18 times slower.
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError(name, row=row, found="bytes that are not UTF-8", expected="UTF-8") from error
    sentences = list(_split(lines, name))
    if not sentences:
        raise DataError(name, found="no sentence", expected="at least one")
    return sentences


@dataclass(slots=True)
class _Draft:
    """A sentence while its rows are read.

    Attributes:
        sentence: Its words and tags.
        is_spaced: Of each word, whether a space follows.
        ranges: Of the first word of a multi-word token: its last word, its form, and whether a space follows.
        text: As the comment has it.
    """

    sentence: Sentence = field(default_factory=lambda: Sentence([], [], []))
    is_spaced: list[bool] = field(default_factory=list)
    ranges: dict[int, tuple[int, str, bool]] = field(default_factory=dict)
    text: str = ""

    def finish(self) -> Sentence:
        """Return the sentence with its tokens as they are written."""
        words, surfaces, word_id = self.sentence.words, [], 1
        while word_id <= len(words):
            alone = word_id, words[word_id - 1], self.is_spaced[word_id - 1]
            last, form, is_spaced = self.ranges.get(word_id, alone)
            surfaces.append(Surface(form, tuple(words[word_id - 1 : last]), is_spaced))
            word_id = last + 1
        return self.sentence._replace(surfaces=respaced(surfaces, self.text))


def _split(lines: Iterable[str], name: Path | str) -> Iterator[Sentence]:
    draft = _Draft()
    for row, line in enumerate([*lines, ""], start=1):
        row_text = line.removesuffix("\r")
        if not row_text:
            if draft.sentence.words:
                yield draft.finish()
            draft = _Draft()
        elif row_text.startswith(TEXT_COMMENT):
            draft.text = row_text.removeprefix(TEXT_COMMENT)
        elif not row_text.startswith("#"):
            _add_row(draft, row_text.split("\t"), name, row)


def _add_row(draft: _Draft, columns: list[str], name: Path | str, row: int) -> None:
    if len(columns) != COLUMNS:
        raise DataError(name, row=row, found=f"{len(columns)} columns", expected=f"{COLUMNS}, apart by tabs")
    word_id, word = columns[:2]
    is_spaced = NO_SPACE not in columns[-1].split("|")
    expected = len(draft.sentence.words) + 1
    if "-" in word_id:
        first, _, last = word_id.partition("-")
        if first != str(expected) or not last.isdecimal() or int(last) < expected:
            raise DataError(name, row=row, found=f"id {word_id!r}", expected=f"a range from {expected} on")
        draft.ranges[expected] = int(last), word, is_spaced
    elif "." not in word_id:
        draft.is_spaced.append(is_spaced)
        _add_word(draft.sentence, columns, name, row)


def _add_word(sentence: Sentence, columns: list[str], name: Path | str, row: int) -> None:
    word_id, word, _, tag, fine_tag = columns[:5]
    expected = len(sentence.words) + 1
    if word_id != str(expected):
        raise DataError(name, row=row, found=f"id {word_id!r}", expected=f"{expected}")
    if expected > MAX_TOKENS:
        raise DataError(name, row=row, found=f"word {expected} of a sentence", expected=f"at most {MAX_TOKENS}")
    if flaw := find_flaw(word):
        raise DataError(name, row=row, found=f"a form with {flaw.found}", expected=flaw.expected)
    if tag in ("", "_"):
        raise DataError(name, row=row, found="no tag", expected="a tag in the fourth column (UPOS)")
    sentence.words.append(word)
    sentence.tags.append(tag)
    sentence.fine_tags.append(tag if fine_tag in ("", "_") else fine_tag)
