"""Running text in a tagger's own language: cut as its treebank writes, or refused; never cut as English."""

import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from export.certify import certify, torch_predictor
from export.checks import check_score
from models.errors import DataError, InvalidRequest
from models.runtime.predictor import Predictor
from models.tagging import TAG
from models.tagging.schema import Assets, Instance, example, random_request, validate
from models.tagging.tokeniser import split_words
from models.tagging.train import data
from models.tagging.train.attention import WordAttentionConfig
from models.tagging.train.conllu import read_conllu
from models.tagging.train.data import TaggingData, load
from models.tagging.train.net import TaggerConfig
from models.tagging.train.recipe import RECIPES, TaggingLearner
from models.tagging.train.spacing import Surface, aligned, f1, learn, respaced

Token = tuple[str, str] | tuple[str, list[tuple[str, str]]]
GLUED = ("l'", "d'", "qu'", "s'")


def french() -> list[list[Token]]:
    """Made-up sentences in the manner of French treebanks: elided words, inverted pronouns, contractions, stops."""
    subjects: list[list[Token]] = [
        [("l'", "DET"), ("homme", "NOUN")],
        [("l'", "DET"), ("école", "NOUN")],
        [("le", "DET"), ("week-end", "NOUN")],
    ]
    verbs: list[list[Token]] = [[("parle", "VERB")], [("s'", "PRON"), ("arrête", "VERB")], [("va", "VERB")]]
    objects: list[list[Token]] = [
        [("du", [("de", "ADP"), ("le", "DET")]), ("roi", "NOUN")],
        [("aux", [("à", "ADP"), ("les", "DET")]), ("rois", "NOUN")],
        [("d'", "ADP"), ("or", "NOUN")],
        [("aujourd'hui", "ADV")],
    ]
    asked: list[Token] = [("parle", "VERB"), ("-t-il", "PRON")]
    found: list[list[Token]] = []
    for subject, verb, thing in product(subjects, verbs, objects):
        found.append([*subject, *verb, *thing, (".", "PUNCT")])
        found.append([*asked, *thing, ("?", "PUNCT")])
        found.append([("qu'", "SCONJ"), ("il", "PRON"), *verb, (",", "PUNCT"), *verb, *thing, ("!", "PUNCT")])
    return [found[position] for position in np.random.default_rng(0).permutation(len(found))]


def is_spaced(form: str, following: str | None) -> bool:
    return form not in GLUED and following is not None and following[0] not in ".,?!-"


def conllu(sentences: list[list[Token]], *, marks: bool = True, texts: bool = False) -> str:
    """Sentences as CoNLL-U, their spacing as ``SpaceAfter=No``, as ``# text``, or not at all."""
    blocks = []
    for tokens in sentences:
        lines, text, position = [], "", 1
        for token, after in zip(tokens, [*(t[0] for t in tokens[1:]), None], strict=True):
            form, tagged = token[0], token[1]
            spaced = is_spaced(form, after)
            text += form + " " * spaced
            misc = "SpaceAfter=No" if marks and not spaced else "_"
            words = [(form, tagged)] if isinstance(tagged, str) else tagged
            if isinstance(tagged, list):
                lines.append(f"{position}-{position + len(words) - 1}\t{form}" + "\t_" * 7 + f"\t{misc}")
                misc = "_"
            for word, tag in words:
                lines.append(f"{position}\t{word}\t_\t{tag}" + "\t_" * 5 + f"\t{misc}")
                position += 1
        blocks.append("\n".join([f"# text = {text.strip()}"] * texts + lines) + "\n")
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A French-like treebank in one file."""
    file = tmp_path_factory.mktemp("french") / "fr.conllu"
    file.write_text(conllu(french()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def learned(treebank: Path) -> TaggingData:
    """Its data."""
    return load(treebank)


def faults(instance: Instance, assets: Assets) -> list[str]:
    return [f"{fault.loc}: {fault.reason}" for fault in validate(instance, assets)]


def test_text_is_cut_as_the_treebank_writes(learned: TaggingData) -> None:
    """Elided words, inverted pronouns and contractions are cut as in the data, as English rules do not."""
    assert learned.word_f1 == 100.0
    (note,) = learned.provenance.notes
    assert note.startswith("text: taken; F1 of the words cut out of the validation sentences is 100.00 %")
    text = "Qu'il s'arrête aujourd'hui, l’école du roi parle-t-il aux rois?"
    words = "Qu' il s' arrête aujourd'hui , l’ école de le roi parle -t-il à les rois ?"
    assert " ".join(Instance(text=text).cut(learned.assets)) == words
    english = " ".join(split_words(text))
    assert english != words
    assert "-t-il" not in english.split()


def test_one_text_in_two_models(learned: TaggingData) -> None:
    """A request that another version of the model is asked, too, is cut as that one cuts."""
    instance = Instance(text="qu'il parle")
    english = msgspec.structs.replace(learned.assets, cutter=msgspec.UNSET)
    assert [instance.cut(assets) for assets in (learned.assets, english, learned.assets)] == [
        ["qu'", "il", "parle"], ["qu'il", "parle"], ["qu'", "il", "parle"],
    ]  # fmt: skip


def test_contractions_keep_their_case(learned: TaggingData) -> None:
    """What stands for two words is written as the text writes it."""
    words = ["De", "le", "roi", "À", "LES", "rois", "de", "le"]
    assert Instance(text="Du roi AUX rois du").cut(learned.assets) == words


def test_text_comment_is_enough(tmp_path: Path, learned: TaggingData) -> None:
    """Spacing that only the ``# text`` comments have teaches the same; comments of other words are passed over."""
    file = tmp_path / "fr.conllu"
    file.write_text(conllu(french(), marks=False, texts=True), encoding="utf-8")
    assert load(file).assets.cutter == learned.assets.cutter
    surfaces = [Surface("a", ("a",), True), Surface(".", (".",), True)]
    assert [s.is_spaced for s in respaced(surfaces, "a. ")] == [False, True]
    assert respaced(surfaces, "b.") == respaced(surfaces, "a. b") == surfaces


def test_unknown_spacing_refuses_text(tmp_path: Path) -> None:
    """A treebank that does not say which words stand together gives a model of tokens only, and says so everywhere."""
    file = tmp_path / "fr.conllu"
    file.write_text(conllu(french(), marks=False), encoding="utf-8")
    found = load(file)
    (note,) = found.provenance.notes
    assert note.startswith("text: refused, only tokens are taken, for the data do not say which words stand together")
    check_tokens_only(found)


def test_text_without_spaces_is_refused(tmp_path: Path) -> None:
    """Where spaces say little about words, rules of spacing are not good enough, and text is refused by its figure."""
    rng = np.random.default_rng(0)
    characters = [chr(0x4E00 + position) for position in range(60)]
    words = ["".join(rng.choice(characters, rng.integers(1, 4))) for _ in range(400)]
    rows = []
    for _ in range(80):
        picked = rng.choice(words, 8).tolist()
        rows += [f"{n}\t{w}\t_\tX" + "\t_" * 5 + "\tSpaceAfter=No" for n, w in enumerate(picked, 1)] + [""]
    file = tmp_path / "zh.conllu"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = load(file)
    assert found.word_f1 is not None
    assert found.word_f1 < data.MIN_WORD_F1
    (note,) = found.provenance.notes
    assert note.startswith("text: refused, only tokens are taken: F1 of the words cut out")
    check_tokens_only(found)


def check_tokens_only(found: TaggingData) -> None:
    """Requests, example, load and schema of a model that has not learned to cut."""
    assets = found.assets
    assert assets.cutter is None
    message = "('text',): this model takes tokens only: it has not learned to cut text into words"
    assert faults(Instance(text="l'homme"), assets) == [message]
    assert faults(Instance(tokens=["l'", "homme"]), assets) == []
    assert isinstance(example(assets).tokens, list)
    rng = np.random.default_rng(0)
    assert all(isinstance(random_request(rng, assets).tokens, list) for _ in range(50))
    assert TAG.narrow(assets).instance["text"] is None
    assert found.rewritten() == {}


def test_example_is_the_models_own(learned: TaggingData) -> None:
    """The documentation's example is a sentence of the model's own language, of words its vocabulary has."""
    shown = example(learned.assets)
    assert isinstance(shown.text, str)
    words = shown.cut(learned.assets)
    assert {word.lower() for word in words} <= set(learned.assets.words)
    assert TAG.narrow(learned.assets).prediction["tags"]["items"]["enum"] == learned.assets.tags


def test_models_without_a_cutter_stay_as_they_were() -> None:
    """Constants from before there were cutters are English, and are written with the same bytes."""
    old = b'{"words":["saw"],"clues":[],"tags":["NOUN"],"layers":2,"heads":8}'
    assets = msgspec.json.decode(old, type=Assets)
    assert msgspec.json.encode(assets) == old
    assert Instance(text="I can't.").cut(assets) == ["I", "ca", "n't", "."]
    assert example(assets) == Instance(text="I saw a saw")
    description = TAG.narrow(assets).instance["text"]
    assert description == {"description": "Running text in English, of at most 512 words."}


def test_constants_survive_json(learned: TaggingData) -> None:
    """A cutter that was written and read cuts alike."""
    again = msgspec.json.decode(msgspec.json.encode(learned.assets), type=Assets)
    assert again == learned.assets
    text = "L'homme s'arrête-t-il du week-end?"
    assert Instance(text=text).cut(again) == Instance(text=text).cut(learned.assets)


SMALL = replace(
    RECIPES[0],
    plan=replace(RECIPES[0].plan, epochs=3, batch_size=200),
    network=TaggerConfig(embedding=8, width=16, layers=1, attention=WordAttentionConfig(heads=2)),
)


def test_scores_say_what_they_are_of(treebank: Path) -> None:
    """A score is by tokens or by text; text cut as English lowers the second, and leaves the first as it was."""
    torch.manual_seed(0)
    learner = TaggingLearner(SMALL, treebank, 0)
    fit_quickly(learner)
    predictor = torch_predictor(learner.net, TAG, learner.data)
    by_tokens = check_score(learner.data, predictor, predictor)
    by_text = check_score(learner.data.rewritten()["text"], predictor, predictor)
    assert (by_tokens.measured_on, by_text.measured_on) == ("tokens", "text")
    assert (by_text.onnx, by_text.instances) == (by_tokens.onnx, by_tokens.instances)
    assert by_text.onnx > 60

    english = replace(learner.data, assets=msgspec.structs.replace(learner.data.assets, cutter=msgspec.UNSET))
    predictor = torch_predictor(learner.net, TAG, english)
    assert check_score(english, predictor, predictor) == by_tokens
    assert check_score(english.rewritten()["text"], predictor, predictor).onnx < by_text.onnx - 10


def fit_quickly(learner: TaggingLearner) -> None:
    optimizer = torch.optim.Adam(learner.net.parameters(), 0.02)
    for epoch in range(6):
        for batch in learner.batches(np.random.default_rng(epoch)):
            optimizer.zero_grad()
            learner.loss(batch).backward()
            optimizer.step()
    learner.net.eval()


@pytest.mark.slow
def test_certificate_has_both_scores(treebank: Path) -> None:
    """The certificate has a score by tokens, and beside it one by text."""
    learner = TaggingLearner(SMALL, treebank, 0)
    _, certificate = certify(learner.net, TAG, learner.data)
    (by_text,) = certificate.other_scores
    assert (certificate.score.measured_on, by_text.measured_on) == ("tokens", "text")


@pytest.mark.parametrize("unit", ["a", "a'", "l'", ".", "a.", "-t-", "aujourd'hui", "x@y.z/", "du ", "ａ", "\u0301"])
def test_cutting_takes_linear_time(learned: TaggingData, unit: str) -> None:
    """The longest text of anything is cut in well under a second, into no word too many."""
    text = (unit * 20_000)[:20_000]
    started = time.process_time()
    Instance(text=text).cut(learned.assets)
    assert time.process_time() - started < 1.5


def test_no_character_is_lost(learned: TaggingData) -> None:
    """Whatever the text, its words laid end to end are the text without spaces, but for contractions."""
    rng = np.random.default_rng(0)
    alphabet = list("aléqu'’-t.,?!0 \u0301\u0130😀/@:")
    for _ in range(300):
        text = "".join(rng.choice(alphabet, rng.integers(0, 40)))
        words = Instance(text=text).cut(learned.assets)
        normal = "".join(Instance(text=text).cut(msgspec.structs.replace(learned.assets, cutter=learn([ROW]))))
        assert "".join(words) == normal == "".join(unicode_nfc(text).split())
        assert faults(Instance(text=text), learned.assets) == []


ROW = [Surface("a", ("a",), False), Surface(".", (".",), True)]


def unicode_nfc(text: str) -> str:
    from unicodedata import normalize

    return normalize("NFC", text)


def test_a_mark_is_read_over(tmp_path: Path, treebank: Path) -> None:
    """A byte order mark before CoNLL-U changes nothing but the file's digest."""
    file = tmp_path / "fr.conllu"
    file.write_bytes(b"\xef\xbb\xbf" + treebank.read_bytes())
    assert load(file).splits == load(treebank).splits


@pytest.mark.parametrize("position", ["3-4", "1-0", "1-x", "-2"])
def test_broken_ranges(position: str) -> None:
    """A multi-word token that does not begin at the next word, or ends before it, is refused by its row."""
    row = f"{position}\tdu" + "\t_" * 8 + "\n"
    with pytest.raises(DataError, match=rf"f, row 1: found id '{position}', expected a range from 1 on"):
        read_conllu(row.encode(), "f")


def test_alignment() -> None:
    """Words count once, in order; F1 of two of three found and two of four true is 4 of 7."""
    assert list(aligned(["a", "b", "c"], ["a", "x", "c", "d"])) == [(0, 0), (2, 2)]
    assert f1(2, 3, 4) == pytest.approx(100 * 4 / 7)


def test_served_text_of_a_tokens_model_is_refused(tmp_path: Path) -> None:
    """Through the one scoring path the refusal is a located fault, not an answer."""
    file = tmp_path / "fr.conllu"
    file.write_text(conllu(french(), marks=False), encoding="utf-8")
    assets = load(file).assets

    def run(feeds: Any, names: list[str]) -> dict[str, Any]:
        raise AssertionError("nothing is to be computed")

    predictor = Predictor(card=TAG, assets=assets, outputs=frozenset({"scores"}), run=run)
    with pytest.raises(InvalidRequest) as caught:
        predictor.predict([Instance(text="l'homme")])
    assert "this model takes tokens only" in caught.value.faults[0].reason
