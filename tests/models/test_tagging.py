"""The tagging family: words, features, the packed batch, what is refused."""

import unicodedata

import msgspec
import numpy as np
import pytest

from models.errors import Fault
from models.tagging import TAG, spelling
from models.tagging.codec import Sample, collate, cost, decode, encode
from models.tagging.schema import Assets, Instance, example, random_request, validate
from models.tagging.tokeniser import split_words

ASSETS = Assets(
    words=["a", "i", "saw", "straße"], clues=["2:saw", "5:aw", "9:Xx"], tags=["DET", "NOUN", "PRON", "VERB"]
)
FAMILY_EMOJI = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def encode_words(*words: str) -> Sample:
    return encode(Instance(tokens=list(words)), ASSETS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        (" \n\t ", ""),
        ("I saw a saw.", "I saw a saw ."),
        ("Don't! You can't, we won't.", "Do n't ! You ca n't , we wo n't ."),
        ("It’s the dogs' and she'd've", "It ’s the dogs ' and she 'd 've"),
        ("I cannot; gonna, dont, Im", "I can not ; gon na , do nt , I m"),
        ("a six-year term, non-stop e-mail", "a six - year term , non-stop e-mail"),
        ("and/or 24/7 on 11/28/2000", "and / or 24/7 on 11/28/2000"),
        ("$1,200.50 is 5% at 10:30am", "$ 1,200.50 is 5 % at 10:30 am"),
        ("the 4th, 1980s, '72", "the 4th , 1980s , '72"),
        ("Mr. Bush of the U.S. met Dr. W. Li.", "Mr. Bush of the U.S. met Dr. W. Li ."),
        ("See http://a.org/b?c=d.", "See http://a.org/b?c=d ."),
        ("(mail jo.e@enron.com, 713-853-3989)", "( mail jo.e@enron.com , 713-853-3989 )"),
        ("Great :-) ... really?!", "Great :-) ... really ?!"),
        ("Ba'athist O'Neill d'etat", "Ba'athist O'Neill d'etat"),
        (f"hi{FAMILY_EMOJI}!", f"hi {FAMILY_EMOJI} !"),
        ("<pad> [UNK]", "< pad > [ UNK ]"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
    ],
)
def test_words(text: str, words: str) -> None:
    """Text is cut as the English Web Treebank cuts it."""
    assert " ".join(split_words(text)) == words


def test_no_character_lost() -> None:
    """Whatever the text, its words laid end to end are the text without white space."""
    rng = np.random.default_rng(0)
    alphabet = list("abnt'’-./:@&1,!?()<= \n\u0301\u200d\u202e😀é")
    for _ in range(300):
        text = unicodedata.normalize("NFC", "".join(rng.choice(alphabet, rng.integers(0, 40))))
        assert "".join(split_words(text)) == "".join(text.split())


@pytest.mark.parametrize("unit", ["a.", "a-", "a@", "www.", "http://,", "n't", "(-", ":-(", "1-", "a'", "\u0301"])
@pytest.mark.timeout(10)
def test_long_text_is_cut_in_linear_time(unit: str) -> None:
    """Twenty thousand characters made to be scanned again and again are cut at once."""
    assert len(list(split_words((unit * 20_000)[:20_000]))) <= 20_000


def test_clues_known_by_heart() -> None:
    """Clues are the same in every version: a trained table depends on them."""
    clues = ["0:p", "1:pr", "2:pre", "3:pre-", "4:2", "5:22", "6:122", "7:-122", "8:e-122"]
    assert spelling.find_clues("Pre-122") == [*clues, "9:Xx-d", "10:Xxx-ddd", "11:7"]


def test_absent_clues() -> None:
    """A word of two characters has no third one from either end."""
    absent = [slot for slot, clue in enumerate(spelling.find_clues("of")) if not clue]
    assert absent == [2, 3, 6, 7, 8]


def test_ids_known_by_heart() -> None:
    """Reserved ids come first, then known words, then known clues."""
    word, *clues, position = encode_words("straws", "Saw").features[1]
    assert word == 3 + 2
    assert clues == [1, 1, 3 + 4 + 0, 0, 1, 3 + 4 + 1, 1, 0, 0, 3 + 4 + 2, 1, 1]
    assert position == 0
    assert ASSETS.rows == 3 + 4 + 3


def test_ids_in_range() -> None:
    """No text gives an id outside the table, where ONNX Runtime would fail or wrap around."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        word = "".join(map(chr, rng.integers(33, 0xD7FF, rng.integers(1, 30))))
        ids = encode_words(word, word[0], "Saw").features
        assert ids.shape == (3, spelling.FEATURES)
        assert (ids >= 0).all()
        assert (ids < ASSETS.rows).all()


@pytest.mark.parametrize("word", ["Café", "Ångström", "İstanbul", "naïve", "한국어"])
def test_composed_and_decomposed_spellings_are_one(word: str) -> None:
    """NFC and NFD spellings have the same features, given as words or as text."""
    forms = [unicodedata.normalize(form, word) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    ways = [Instance(tokens=[form]) for form in forms] + [Instance(text=form) for form in forms]
    features = [encode(way, ASSETS).features for way in ways]
    assert all(np.array_equal(features[0], other) for other in features)


def test_known_words_by_their_folded_form() -> None:
    """Case does not hide a known word, but shows in another feature."""
    upper, lower = encode_words("Saw").features[0], encode_words("saw").features[0]
    assert upper[spelling.IDENTITY] == lower[spelling.IDENTITY] == spelling.RESERVED + 2
    assert upper.tolist() != lower.tolist()


def test_encode_marks_the_opening_word_of_each_sentence() -> None:
    """Only the first word opens, also after another sentence of the same words."""
    for _ in range(2):
        assert encode_words("a", "a").features[:, spelling.PLACE].tolist() == [
            spelling.FIRST,
            spelling.ABSENT,
        ]


def test_collate_known_by_heart() -> None:
    """Sentences of 2, 0 and 3 words are packed end to end, with the way into the grid and back."""
    samples = [encode_words("I", "saw"), encode_words(), encode_words("a", "a", "saw")]
    feeds = collate(samples)
    assert feeds["features"].shape == (5, spelling.FEATURES)
    assert feeds["grid"].tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4]]
    assert feeds["keep"].tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert feeds["back"].tolist() == [0, 1, 6, 7, 8]
    assert {name: str(feed.dtype) for name, feed in feeds.items()} == {s.name: s.dtype for s in TAG.inputs}


def test_collate_only_empty_sentences() -> None:
    """No word at all is a batch too."""
    feeds = collate([encode_words()] * 2)
    assert feeds["features"].shape == (0, spelling.FEATURES)
    assert feeds["grid"].shape == feeds["keep"].shape == (2, 0)


def test_decode_known_by_heart() -> None:
    """Each sentence gets its own words' winners, and its own corner of the attention."""
    samples = [encode_words("I", "saw"), encode_words(), encode_words("saw")]
    scores = np.array([[0, 0, 0.9, 0.1], [0, 0.2, 0, 0.8], [0.1, 0.6, 0.2, 0.1]], np.float32)
    attention = np.arange(3 * 2 * 1 * 2 * 2, dtype=np.float32).reshape(3, 2, 1, 2, 2)
    first, empty, last = decode({"scores": scores, "attention": attention}, samples, ASSETS)
    assert (first["tokens"], first["tags"]) == (["I", "saw"], ["PRON", "VERB"])
    assert first["scores"].tolist() == pytest.approx([0.9, 0.8])
    assert np.array_equal(first["attention"], attention[0])
    assert (empty["tokens"], empty["tags"], empty["scores"].tolist()) == ([], [], [])
    assert empty["attention"].shape == (2, 1, 0, 0)
    assert last["tags"] == ["NOUN"]
    assert last["attention"].tolist() == [[[[16.0]]], [[[20.0]]]]
    assert "attention" not in decode({"scores": scores}, samples, ASSETS)[0]


def test_cost_counts_words() -> None:
    """A sentence costs its words, and never nothing."""
    assert [cost(encode_words(*words)) for words in (["a"] * 7, ["a"], [])] == [7, 1, 1]


@pytest.mark.parametrize(
    ("instance", "fault"),
    [
        (Instance(), Fault((), "expected exactly one of 'text' and 'tokens'")),
        (Instance(text="a", tokens=["a"]), Fault((), "expected exactly one of 'text' and 'tokens'")),
        (Instance(tokens=["a"] * 600), Fault(("tokens",), "expected at most 512 tokens, found 600")),
        (Instance(text="a " * 513), Fault(("text",), "expected at most 512 words, found more")),
        (Instance(tokens=["a", ""]), Fault(("tokens", 1), "expected a word, found an empty string")),
        (Instance(tokens=["\u2003 "]), Fault(("tokens", 0), "expected a word, found only white space")),
        (
            Instance(tokens=["a", "b", "c" * 513]),
            Fault(("tokens", 2), "expected at most 512 characters in a word, found 513"),
        ),
        (
            Instance(text="e" + "\u0301" * 10_000),
            Fault(("text",), "expected at most 512 characters in a word, found 10000"),
        ),
        (
            Instance(tokens=["a\x00"]),
            Fault(("tokens", 0), "expected no control characters, found U+0000 at position 1"),
        ),
        (
            Instance(tokens=["a\n"]),
            Fault(("tokens", 0), "expected no control characters, found U+000A at position 1"),
        ),
        (
            Instance(text="a \x1b[0m"),
            Fault(("text",), "expected no control characters, found U+001B at position 2"),
        ),
        (
            Instance(text="\ud800"),
            Fault(("text",), "expected no control characters, found U+D800 at position 0"),
        ),
    ],
)
def test_faults(instance: Instance, fault: Fault) -> None:
    """What cannot be tagged is refused with its place and the reason."""
    assert list(validate(instance, ASSETS)) == [fault]


def test_faults_are_bounded() -> None:
    """A hopeless request gets eight reasons, not five hundred."""
    assert len(list(validate(Instance(tokens=[""] * 500), ASSETS))) == 8


@pytest.mark.parametrize(
    "instance",
    [
        Instance(tokens=[]),
        Instance(text=""),
        Instance(text=" \r\n\t"),
        Instance(text="two\tcolumns\r\n"),
        Instance(tokens=["a"] * 512),
        Instance(tokens=["a" * 512]),
        Instance(tokens=["<pad>", "[UNK]", "10 000", "\u202etxet", FAMILY_EMOJI, "e\u0301\u0323", "\u200b"]),
        Instance(tokens=["zxqv"] * 3),
    ],
)
def test_ordinary_requests(instance: Instance) -> None:
    """Odd but honest text passes and is encoded word by word."""
    assert list(validate(instance, ASSETS)) == []
    assert encode(instance, ASSETS).features.shape == (len(instance.cut(ASSETS)), spelling.FEATURES)


@pytest.mark.parametrize(
    "body",
    [
        b'{"tokens": "a b"}',
        b'{"tokens": [1]}',
        b'{"tokens": [null]}',
        b'{"tokens": [["a"]]}',
        b'{"text": ["a"]}',
        b'{"text": "a", "language": "en"}',
        b'{"text": "' + b"a" * 20_001 + b'"}',
    ],
)
def test_wrong_types_are_refused_in_decoding(body: bytes) -> None:
    """Another type, an unknown key or too long a text does not become an instance."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=Instance)


def test_random_requests_are_valid() -> None:
    """Every drawn request is free of faults; both kinds and a lone word occur."""
    rng = np.random.default_rng(0)
    requests = [random_request(rng, ASSETS) for _ in range(100)]
    assert all(not list(validate(request, ASSETS)) for request in requests)
    assert {1, 120} <= {len(request.cut(ASSETS)) for request in requests}
    assert {request.tokens is msgspec.UNSET for request in requests} == {True, False}


def test_example() -> None:
    """The example has the same word twice."""
    assert example(ASSETS).cut(ASSETS) == ["I", "saw", "a", "saw"]
