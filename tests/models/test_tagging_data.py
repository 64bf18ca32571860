"""The tagging family's files: CoNLL-U, and the treebank itself."""

import pytest

from models.errors import DataError
from models.tagging.train.conllu import read_conllu
from models.tagging.train.data import EWT, load


def rows(*lines: str) -> bytes:
    """CoNLL-U with the columns ID, FORM, UPOS and, if given, XPOS."""
    filled = []
    for line in lines:
        position, word, *tags = line.split(" ") if line else ("", "")
        columns = [position, word, "_", *tags, *["_"] * (7 - len(tags))]
        filled.append("\t".join(columns) if line else "")
    return ("\n".join(filled) + "\n").encode()


def test_conllu_known_by_heart() -> None:
    """Words and tags, and how they are written: multi-word tokens, spaces; empty nodes are passed over."""
    content = b"# text = I can't\r\n" + rows(
        "1 I PRON", "2-3 can't _", "2 ca AUX MD", "3 n't PART", "3.1 go VERB", "", "1 Go VERB"
    )
    first, second = read_conllu(content, "x")
    assert first[:3] == (["I", "ca", "n't"], ["PRON", "AUX", "PART"], ["PRON", "MD", "PART"])
    assert first.surfaces == [("I", ("I",), True), ("can't", ("ca", "n't"), True)]
    assert second == (["Go"], ["VERB"], ["VERB"], [("Go", ("Go",), True)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.conllu: found no sentence, expected at least one"),
        (b"# one\n1\tI\tPRON\n", "f.conllu, row 2: found 3 columns, expected 10, apart by tabs"),
        (rows("1 I PRON", "3 a DET"), "f.conllu, row 2: found id '3', expected 2"),
        (rows("1 I PRON", "1 a DET"), "f.conllu, row 2: found id '1', expected 2"),
        (
            rows("1 I PRON", "", "1 a _"),
            "f.conllu, row 3: found no tag, expected a tag in the fourth column (UPOS)",
        ),
        (
            rows("1  PRON"),
            "f.conllu, row 1: found a form with an empty string, expected a word",
        ),
        (rows("1 I PRON") + b"\n\n2\xff", "f.conllu, row 4: found bytes that are not UTF-8, expected UTF-8"),
        (
            rows(*(f"{position} a DET" for position in range(1, 514))),
            "f.conllu, row 513: found word 513 of a sentence, expected at most 512",
        ),
    ],
)
def test_conllu_faults(content: bytes, message: str) -> None:
    """A broken file is refused with its name, the row, what was found and what was expected."""
    with pytest.raises(DataError) as caught:
        read_conllu(content, "f.conllu")
    assert str(caught.value) == message


@pytest.mark.data(EWT)
def test_ewt_is_the_published_one() -> None:
    """Counts are those of the release's own statistics."""
    data = load()
    counts = {split: (len(s), sum(len(x.words) for x in s)) for split, s in data.splits.items()}
    assert counts == {"train": (12_544, 204_577), "validation": (2_001, 25_147), "test": (2_077, 25_094)}
    assert len(data.assets.tags) == 17
    assert data.splits["validation"][0][:3] == (
        ["From", "the", "AP", "comes", "this", "story", ":"],
        ["ADP", "DET", "PROPN", "VERB", "DET", "NOUN", "PUNCT"],
        ["IN", "DT", "NNP", "VBZ", "DT", "NN", ":"],
    )
