"""What is wrong with a sentence, and what only looks wrong."""

import json
import unicodedata
from typing import Any

import pytest

AT = ["instances", 0]
TEXT, TOKENS = [*AT, "text"], [*AT, "tokens"]
ONE_OF = "expected exactly one of 'text' and 'tokens'"
LONGEST = "expected at most 512 characters in a word, found "
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def sentence(**instance: Any) -> bytes:
    return json.dumps({"instances": [instance]}).encode()


REFUSED: dict[str, tuple[bytes, list[Any], str]] = {
    "neither": (sentence(), AT, ONE_OF),
    "both": (sentence(text="a", tokens=["a"]), AT, ONE_OF),
    "text is a list": (sentence(text=["a"]), TEXT, "expected str, got array"),
    "tokens are a text": (sentence(tokens="a b"), TOKENS, "expected array, got str"),
    "a number": (sentence(tokens=["a", 5]), [*TOKENS, 1], "expected str, got int"),
    "null": (sentence(tokens=[None]), [*TOKENS, 0], "expected str, got null"),
    "nested": (sentence(tokens=[["a"]]), [*TOKENS, 0], "expected str, got array"),
    "empty token": (sentence(tokens=["a", ""]), [*TOKENS, 1], "expected a word, found an empty string"),
    "space": (sentence(tokens=[" "]), [*TOKENS, 0], "expected a word, found only white space"),
    "no-break space": (sentence(tokens=["\u00a0"]), [*TOKENS, 0], "expected a word, found only white space"),
    "NUL": (sentence(tokens=["a\0"]), [*TOKENS, 0], "expected no control characters, found U+0000 at position 1"),
    "NUL in a text": (sentence(text="a\0"), TEXT, "expected no control characters, found U+0000 at position 1"),
    "513 tokens": (sentence(tokens=["a"] * 513), TOKENS, "expected at most 512 tokens, found 513"),
    "100,000 tokens": (sentence(tokens=["a"] * 100_000), TOKENS, "expected at most 512 tokens, found 100000"),
    "513 characters": (sentence(tokens=["a" * 513]), [*TOKENS, 0], LONGEST + "513"),
    "a megabyte": (sentence(tokens=["a" * 10**6]), [*TOKENS, 0], LONGEST + "1000000"),
    "10^4 combining marks": (sentence(tokens=["e" + "\u0301" * 10_000]), [*TOKENS, 0], LONGEST + "10001"),
    "10^4 marks in a text": (sentence(text="e" + "\u0301" * 10_000), TEXT, LONGEST + "10000"),  # NFC joins the first
    "20,001 characters": (sentence(text="a " * 10_001), TEXT, "expected str of length <= 20000"),
    "513 words": (sentence(text="a " * 513), TEXT, "expected at most 512 words, found more"),
    "10^4 sentences": (json.dumps({"instances": [{"text": "a"}] * 10_000}).encode(), AT[:1],
                       "expected array of length <= 1024"),
    "129 words explained": (json.dumps({"instances": [{"tokens": ["a"] * 129}], "explain": True}).encode(), AT,
                            "expected at most 128 tokens to explain, found 129"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, refuse: Any) -> None:
    """Each is refused at its place."""
    body, loc, reason = REFUSED[name]
    assert refuse("tagging", body, 422, "invalid_request").json["errors"] == [{"loc": loc, "reason": reason}]


@pytest.mark.parametrize(
    "text",
    [
        b"\\ud800", b"\\udc00\\ud800", b"\xed\xa0\x80", b"\\x41", b"a\nb", b"a\tb", b"\xc0\xaf", b"\xf5\x80\x80\x80",
        b"\\u12", b"\\u{12}", b"\\",
    ],
    ids=["high surrogate", "pair reversed", "raw surrogate", "foreign escape", "line end", "tab", "overlong",
         "beyond Unicode", "cut escape", "braced escape", "nothing escaped"],
)  # fmt: skip
def test_no_text(text: bytes, refuse: Any) -> None:
    """What is no text in JSON is broken syntax."""
    refuse("tagging", b'{"instances":[{"text":"' + text + b'"}]}', 400, "malformed_request")


SLOW_PATTERNS = [
    "a.", "a-", ".", "1", "1,", "a'", "x@", "n't", "non-", "a@b.", "_", "don", "(-:", "can", "http://x.", "e\u0301",
    "a" * 63 + ".", "www.!", ("1" * 20 + "-") * 3, "no.1", "\U0001f468\u200d", "do" * 100 + "nt ",
]  # fmt: skip


@pytest.mark.parametrize("pattern", SLOW_PATTERNS, ids=range(len(SLOW_PATTERNS)))
def test_no_pattern_is_slow(pattern: str, way: Any) -> None:
    """Cutting 20,000 characters into words takes no longer than it should, whatever they are."""
    before = way.live.seconds
    answer = way.ask("tagging", sentence(text=(pattern * 20_000)[:20_000]))
    assert way.live.seconds - before < 0.1
    assert answer.status in (200, 422)


ALLOWED: dict[str, list[str]] = {
    "nothing": [],
    "bidirectional override": ["\u202eabc"],
    "ZWJ emoji": [FAMILY],
    "zero-width space": ["\u200b"],
    "padding by name": ["<pad>", "[UNK]", "<unk>", "[PAD]"],
    "all unknown": ["xqzzy", "wvvvk"],
    "longest word": ["a" * 512],
    "marks": ["e" + "\u0301" * 511],
    "markup": ["<script>alert(1)</script>", "{{7*7}}", "'; --"],
    "most words": ["a", "saw"] * 256,
    "a URL": ["http://127.0.0.1:1/secret", "file:///etc/passwd"],
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, way: Any, live: Any) -> None:
    """What only looks wrong is tagged as text, the same in JSON of ASCII and of UTF-8."""
    tokens = ALLOWED[name]
    session = live.endpoints["tagging"].predictor
    (wanted,) = session.predict([session.card.instance(tokens=tokens)])
    found = way.ask("tagging", sentence(tokens=tokens))
    assert found.prediction["tokens"] == tokens
    assert found.prediction["tags"] == wanted["tags"]
    assert len(found.prediction["scores"]) == len(tokens)
    plain = json.dumps({"instances": [{"tokens": tokens}]}, ensure_ascii=False).encode()
    assert way.ask("tagging", plain).body == found.body


@pytest.mark.parametrize("text", ["", " ", "\t\n\r", "\u3000"])
def test_text_without_words(text: str, way: Any) -> None:
    """There is nothing to tag in white space."""
    assert way.ask("tagging", sentence(text=text)).prediction == {"tokens": [], "tags": [], "scores": []}


def test_composed_and_decomposed(way: Any) -> None:
    """However its accents are written, a word has one tag, and comes back as it came."""
    words = ["the", "na\u00efve", "caf\u00e9", "\u00e5ngstr\u00f6m"]
    apart = [unicodedata.normalize("NFD", word) for word in words]
    assert apart != words
    one, other = (way.ask("tagging", sentence(tokens=tokens)).prediction for tokens in (words, apart))
    assert (one["tags"], one["scores"]) == (other["tags"], other["scores"])
    assert (one["tokens"], other["tokens"]) == (words, apart)


def test_short_beside_the_longest(way: Any) -> None:
    """A sentence of one word beside one of 512 has the answer it has alone, to the last bit."""
    alone = way.ask("tagging", sentence(tokens=["saw"])).prediction
    body = json.dumps({"instances": [{"tokens": ["saw"]}, {"tokens": ["a"] * 512}]}).encode()
    assert way.ask("tagging", body).json["predictions"][0] == alone


def test_surrogate_pair(way: Any) -> None:
    """Control: a pair of surrogates in the right order is one character."""
    assert way.ask("tagging", b'{"instances":[{"tokens":["\\ud83d\\ude00"]}]}').prediction["tokens"] == ["\U0001f600"]
