"""Sentences of a part read and scored at once: the very bytes of sentences read one by one, whatever stands in them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import HttpError
from service.scoring.inputs import conllu_columns, conllu_source, word_columns
from service.scoring.spec import InputOptions, make_spec

Run = Callable[..., Any]
FORMS = ("jsonl", "csv", "arrow", "parquet")
REST = "\t_" * 8


def sentence(*forms: str, comments: str = "# sent_id = s\n# text = I saw\n") -> str:
    """Return a plain one."""
    return comments + "".join(f"{position}\t{form}{REST}\n" for position, form in enumerate(forms, 1)) + "\n"


PLAIN = [
    sentence("I", "saw", "a", "saw"),
    sentence("Dogs", "bark", comments=""),
    sentence("Ökonomen", "“streiten”", "."),
]
TWO = f"1\ta{REST}\n2\tb{REST}\n\n"
STRANGE = {
    "CRLF": TWO.replace("\n", "\r\n"),
    "CRLF once": TWO.replace("\n", "\r\n", 1),
    "a lone CR": TWO.replace("a", "a\rb"),
    "a line of CR": f"1\ta{REST}\n\r\r\n2\tb{REST}\n\n",
    "blank by CR": f"1\ta{REST}\n\r\n1\tb{REST}\n\n",
    "NBSP": sentence("a\xa0b", "c", comments="# text = \xa0a b\xa0\n#\xa0sent_id\xa0=\xa0x\n"),
    "a word of NBSP": sentence("a", "\xa0"),
    "no word": sentence("a", ""),
    "no id": TWO.replace("2\tb", "\tb"),
    "a missing id": TWO.replace("2\tb", "3\tb"),
    "an id twice": TWO.replace("2\tb", "1\tb"),
    "leading zeros": TWO.replace("1\ta", "01\ta"),
    "id zero": TWO.replace("1\ta", "0\ta"),
    "a long id": TWO.replace("1\ta", "10000000000000000000001\ta"),
    "a signed id": TWO.replace("1\ta", "+1\ta"),
    "an id with space": TWO.replace("1\ta", "1 \ta"),
    "digits that are not ours": TWO.replace("1\ta", "١\ta"),
    "multiword": f"1-2\tab{REST}\n" + TWO,
    "a long multiword": f"10-11\tab{REST}\n" + TWO,
    "half a multiword": f"1-\tab{REST}\n" + TWO,
    "an empty node": f"0.1\te{REST}\n1\ta{REST}\n1.1\tf{REST}\n2\tb{REST}\n\n",
    "only an empty node": f"0.1\te{REST}\n\n",
    "nine columns": TWO.replace("\t_\n", "\n"),
    "nine columns once": TWO.replace("_\n", "\n", 1).replace("\t\n", "\n", 1),
    "eleven columns": TWO.replace("_\n", "_\t_\n", 1),
    "a comment among words": TWO.replace("2\tb", "# a\tb\n2\tb"),
    "a word like a comment": TWO.replace("2\tb", "2\t#b"),
    "comments alone": "# text = alone\n\n",
    "comments twice": "# text = a\n#text=b \n# text\n# sent_id = 1\n# sent_id  = 2\n" + TWO,
    "other comments": "# text_en = x\n# sent_idx = y\n# = z\n#\n#text\n# Text = Z\n## text = w\n" + TWO,
    "an equals sign": "# text = a = b\n# sent_id = = \n" + TWO,
    "empty comments": "# text = \n# sent_id =\n" + TWO,
    "tabs in comments": "# text = \ta\tb\t\n# sent_id = \x1f1\x1f\n" + TWO,
    "a narrow space": "# text = a\u2003\n# sent_id = \u2028b\n" + TWO,
    "blank lines": "\n\n" + TWO + "\n\r\n\n",
    "512 words": sentence(*["w"] * 512),
    "513 words": sentence(*["w"] * 513),
    "1001 words": sentence(*["w"] * 1001),
    "a long word": sentence("a" * 512, "b"),
    "too long a word": sentence("a" * 513, "b"),
    "a control character": sentence("a", "b\x07"),
    "NUL": sentence("a\0b"),
    "a separator": sentence("a\u2028b", "c\x1dd"),
    "a byte order mark": "\ufeff" + TWO,
    "space before": " " + TWO,
    "an emoji": sentence("👩‍🚀", "e\u0301"),
}
DAMAGED = {
    "Latin": TWO.encode().replace(b"a", b"\xe4"),
    "a Latin comment": b"# text = \xe4 \n# sent_id = 7\n" + TWO.encode(),
    "a surrogate": TWO.encode().replace(b"a", b"\xed\xa0\x80"),
    "half a letter": "é".encode()[:1] + TWO.encode(),
}
# As it was before lines were read at once.
BLANK, HAS_WORDS = re.compile(rb"\n\r?\n"), re.compile(rb"^[^#\r\n]", re.MULTILINE)


def ends_one_by_one(text: bytes) -> Any:
    """Return where sentences end, blank line by blank line."""
    ends, start = [], 0
    for blank in BLANK.finditer(text):
        if HAS_WORDS.search(text, start, blank.start() + 1) is not None:
            ends.append(blank.end())
            start = blank.end()
    return np.array(ends, np.int64)


@contextmanager
def line_by_line() -> Iterator[None]:
    """Sentences are found, and comments read, one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conllu_source, "sentence_ends", ends_one_by_one)
        patch.setattr(conllu_source.ConlluRows, "_readable", (None, [0]))
        yield


@pytest.fixture
def agree(run: Run) -> Callable[..., Any]:
    """Scores bytes both ways into some formats; the last job."""

    def check(content: bytes, forms: tuple[str, ...] = FORMS, **options: Any) -> Any:
        for to in forms:
            fast = run("tagging", "in.conllu", content, to=to, **options)
            with line_by_line():
                slow = run("tagging", "in.conllu", content, to=to, one_by_one=True, **options)
            assert (fast.parts, fast.output, fast.errors) == (slow.parts, slow.output, slow.errors)
        return fast

    return check


@pytest.mark.parametrize("strange", [*(text.encode() for text in STRANGE.values()), *DAMAGED.values()],
                         ids=[*STRANGE, *DAMAGED])  # fmt: skip
def test_a_strange_sentence(strange: bytes, agree: Any) -> None:
    """One among plain ones, and one alone; at the end of the file, and without its end."""
    plain = [text.encode() for text in PLAIN]
    agree(b"".join([plain[0], strange, *plain]))
    agree(strange, ("arrow",))
    agree(b"".join([*plain, strange]).rstrip(b"\n"), ("jsonl",))


def test_all_of_them_together(agree: Any) -> None:
    """In one part, and in parts of three; about half of them are errors."""
    content = "".join(text + PLAIN[position % 3] for position, text in enumerate(STRANGE.values())).encode()
    content += b"".join(DAMAGED.values())
    job = agree(content)
    assert 20 < job.errors < len(job.table) - 40
    agree(content, ("jsonl", "parquet"), part_rows=3)
    agree(content.replace(b"\r", b"").replace(b"\n", b"\r\n"))


PIECES = [
    b"\n", b"\r", b"\r\n", b"\n\n", b"\t", b"#", b"# text = ", b"# sent_id=", b"=", b" ", b"1", b"2\t", b"3-4\t", b"0",
    b"1.1\t", b"-", b".", b"\xc2\xa0", b"\xc3\xa9", b"\xff", b"\0", b"\x1c", b"", b"\xef\xbb\xbf",
]  # fmt: skip


@st.composite
def texts(draw: Any) -> bytes:
    """Sentences with pieces put in, and taken out."""
    sentences = draw(st.lists(st.sampled_from([*PLAIN, *STRANGE.values()][:-9] + PLAIN * 5), max_size=6))
    content = bytearray("".join(sentences).encode())
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 3))] = draw(st.sampled_from(PIECES))
    return bytes(content)


def rows_of(content: bytes, manifest: Any, path: Path) -> list[conllu_source.ConlluRows]:
    path.write_bytes(content)
    source = conllu_source.ConlluSource(make_spec(manifest, str(path), "out.jsonl", InputOptions(part_rows=3)))
    return [source.read(cut) for cut in [*source.cuts()]]


def disagreement(content: bytes, manifest: Any, path: Path) -> str | None:
    """Return what a part read at once says else than its sentences."""
    parts = rows_of(content, manifest, path)
    with line_by_line():
        expected = [(rows.count, rows.table()) for rows in rows_of(content, manifest, path)]
    for rows, (count, table) in zip(parts, expected, strict=True):
        words = rows.words("tokens")
        assert words is not None
        if rows.count != count or not rows.table().equals(table):
            return "rows or comments"
        rows.table().validate(full=True)
        for row in set(range(count)).difference(words.missing):
            try:
                found = rows.instance(row).tokens
            except HttpError:
                return "no sentence"
            if words.values.take(words.places(np.array([row]))).to_pylist() != found:
                return "other words"
    return None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=texts())
def test_any_text_is_read_alike(content: bytes, shipped_session: Any, tmp_path: Path) -> None:
    """Sentences, words and comments of damaged files."""
    assert disagreement(content, shipped_session("tagging").manifest, tmp_path / "in.conllu") is None
    assert np.array_equal(conllu_columns.sentence_ends(content), ends_one_by_one(content))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=texts(), form=st.sampled_from(FORMS))
def test_any_text_is_scored_alike(content: bytes, form: str, agree: Any) -> None:
    """And all that becomes of them."""
    agree(content, (form,))


LOOSER: dict[str, tuple[Any, str, Any]] = {
    "any id is passed over": (conllu_columns, "NO_WORD", re.compile(rb".*", re.DOTALL)),
    "any number of columns": (conllu_columns, "TABS", 8),
    "white space is text": (conllu_columns, "_is_plain", lambda content: content < 256),
    "carriage returns are text": (conllu_columns, "RETURN", 256),
    "bytes are text": (conllu_source, "is_utf8", lambda text: True),
    "ids are not looked at": (
        conllu_columns.ConlluLines,
        "_numbers",
        lambda self, starts, lengths: np.ones(len(starts), int),
    ),
}


@pytest.mark.parametrize("name", LOOSER)
def test_a_looser_reader_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch, agree: Any) -> None:
    """The control of the tests above."""
    monkeypatch.setattr(*LOOSER[name])
    content = "".join([*PLAIN, *STRANGE.values()]).encode()
    damaged = content + b"".join(DAMAGED.values())
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        [agree(one, ("jsonl",)) for one in (content, damaged)]


def test_only_strange_sentences_are_read_by_themselves(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is plain is read at once, also with Windows' line ends, multiword tokens, and strange ones beside it."""
    read: list[int] = []
    instance = conllu_source.ConlluRows.instance
    monkeypatch.setattr(
        conllu_source.ConlluRows, "instance", lambda self, row: (read.append(row), instance(self, row))[1]
    )
    plain = [*PLAIN, STRANGE["multiword"], STRANGE["an empty node"], STRANGE["512 words"], STRANGE["an emoji"]]
    for line_end in ("\n", "\r\n"):
        run("tagging", "in.conllu", "".join(plain).replace("\n", line_end).encode())
    assert read == []
    job = run("tagging", "in.conllu", "".join([*plain, STRANGE["a missing id"], *plain, STRANGE["NUL"]]).encode())
    assert read == [len(plain), 2 * len(plain) + 1]
    assert job.errors == 2


@pytest.mark.parametrize("start", [0, 3])
def test_spread(start: int) -> None:
    """Numbers from each start on."""
    found = word_columns.spread(np.array([7, start, 1]), np.array([2, 0, 3]))
    assert found.tolist() == [7, 8, 1, 2, 3]
    assert word_columns.spread(np.array([], int), np.array([], int)).tolist() == []
