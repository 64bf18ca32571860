"""The tagging network, its data files and its training."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import DataError
from models.tagging import spelling
from models.tagging.codec import Sample, collate, encode
from models.tagging.schema import Assets, Instance
from models.tagging.train import attention as tagging_attention
from models.tagging.train.attention import WordAttention, WordAttentionConfig
from models.tagging.train.conllu import Sentence
from models.tagging.train.data import load
from models.tagging.train.net import TaggerConfig, TaggerNet
from models.tagging.train.recipe import RECIPES, TaggingLearner, cut_by_words, hide, hiding_chances, prepare
from models.training.loop import Recipe, fit, seed_everything

ATTENTION = WordAttentionConfig(heads=4, reach=2)
CONFIG = TaggerConfig(embedding=8, width=16, layers=2, attention=ATTENTION)
ASSETS = Assets(words=["a", "i", "saw"], clues=["4:w", "9:X"], tags=["DET", "NOUN", "PRON", "VERB"], layers=2, heads=4)
# "saw" is a verb after "I" and a noun after "a": only the neighbours tell.
GRAMMAR = [("I saw a saw", "PRON VERB DET NOUN"), ("a saw", "DET NOUN"), ("I saw I", "PRON VERB PRON")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine took twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encode_words(*words: str) -> Sample:
    return encode(Instance(tokens=list(words)), ASSETS)


def run(net: TaggerNet, *samples: Sample, columns: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and attention, with ``columns`` more of padding."""
    feeds = {name: torch.from_numpy(feed) for name, feed in collate(samples).items()}
    if columns:
        cells = torch.nn.functional.pad(torch.zeros_like(feeds["grid"]), (0, columns))
        width = cells.shape[1] - columns
        feeds["grid"] = torch.nn.functional.pad(feeds["grid"], (0, columns))
        feeds["keep"] = torch.nn.functional.pad(feeds["keep"], (0, columns))
        feeds["back"] = feeds["back"] // width * (width + columns) + feeds["back"] % width
    with torch.inference_mode():
        outputs = net(**feeds)
    return outputs["scores"], outputs["attention"]


@pytest.fixture
def net() -> TaggerNet:
    """A net with weights large enough for every word to matter."""
    seed_everything(0)
    net = TaggerNet(CONFIG, ASSETS, fine_tags=5).eval()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return net


def attend_slowly(attention: WordAttention, x: np.ndarray) -> np.ndarray:
    """Equation 1 of Vaswani et al. with a bias per distance, word by word, ``(T, D)`` float64 to the same."""
    weight = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    length, width = x.shape
    heads, size = ATTENTION.heads, width // ATTENTION.heads
    q, k, v = np.split(x @ weight["project.weight"].T + weight["project.bias"], 3, axis=1)
    mixed = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            scores = np.array([
                q[i, part] @ k[j, part] / np.sqrt(size)
                + weight["bias.bias"][np.clip(j - i, -ATTENTION.reach, ATTENTION.reach) + ATTENTION.reach, head]
                for j in range(length)
            ])  # fmt: skip
            shares = np.exp(scores - scores.max())
            mixed[i, part] = (shares / shares.sum()) @ v[:, part]
    return mixed @ weight["merge.weight"].T + weight["merge.bias"]


def test_attention_is_the_equation(net: TaggerNet) -> None:
    """On five words and their padded copy, attention equals a slow numpy form of the paper's equation."""
    attention = net.layers[0].look
    torch.nn.init.normal_(attention.bias.bias)
    x = torch.randn(5, CONFIG.width)
    feeds = collate([encode_words(*"abcde"), encode_words(*"ab")])
    grid, keep, back = (torch.from_numpy(feeds[name]) for name in ("grid", "keep", "back"))
    with torch.inference_mode():
        found, _ = attention(torch.cat([x, x[:2]]), net.arrange(grid, keep, back))
    assert found[:5].numpy() == pytest.approx(attend_slowly(attention, x.double().numpy()), abs=1e-5)
    assert found[5:].numpy() == pytest.approx(attend_slowly(attention, x[:2].double().numpy()), abs=1e-5)


def test_mates_and_padding_change_nothing(net: TaggerNet) -> None:
    """A sentence has the same scores and attention alone, among longer ones, and in a wider grid."""
    short, long, empty = encode_words("I", "saw"), encode_words(*["a", "x"] * 20), encode_words()
    scores, attention = run(net, short)
    for samples, row, start in (((short, long), 0, 0), ((long, empty, short), 2, 40)):
        together, weights = run(net, *samples)
        assert together[start : start + 2].numpy() == pytest.approx(scores.numpy(), abs=1e-6)
        assert weights[row, :, :, :2, :2].numpy() == pytest.approx(attention[0].numpy(), abs=1e-6)
    wide, _ = run(net, short, columns=5)
    assert wide.numpy() == pytest.approx(scores.numpy(), abs=1e-6)


def test_a_dropped_mask_shows(net: TaggerNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without the mask a mate changes the scores visibly."""
    monkeypatch.setattr(tagging_attention, "MASKED", 0.0)
    short, long = encode_words("I", "saw"), encode_words(*["a", "x"] * 20)
    assert (run(net, short, long)[0][:2] - run(net, short)[0]).abs().max() > 1e-2


def test_attention_is_shared_out_among_words(net: TaggerNet) -> None:
    """A word's weights sum to 1 over its sentence; padding gives and gets exactly 0."""
    _, attention = run(net, encode_words("I", "saw", "a"), encode_words(), encode_words("a"))
    assert attention.shape == (3, 2, 4, 3, 3)
    assert attention[0].sum(-1).numpy() == pytest.approx(1, abs=1e-6)
    assert attention[2, :, :, 0, 0].tolist() == [[1.0] * 4] * 2
    assert not attention[1].any()
    assert not attention[2, :, :, 1:].any()
    assert not attention[2, :, :, :, 1:].any()


def test_scores_are_probabilities(net: TaggerNet) -> None:
    """Every word's scores sum to 1, also in the longest sentence; no word, no scores."""
    scores, _ = run(net, encode_words(*["saw"] * 512), encode_words("zxqv"))
    assert scores.shape == (513, 4)
    assert scores.sum(-1).numpy() == pytest.approx(1, abs=1e-5)
    assert run(net, encode_words(), encode_words())[0].shape == (0, 4)


def test_order_matters(net: TaggerNet) -> None:
    """The same word at two places has different scores, though its own features are the same."""
    scores, _ = run(net, encode_words("a", "saw", "I", "saw"))
    assert (scores[1] - scores[3]).abs().max() > 1e-3


def conllu(sentences: list[tuple[str, str]]) -> str:
    """CoNLL-U of sentences given as words and tags."""
    blocks = []
    for words, tags in sentences:
        pairs = enumerate(zip(words.split(), tags.split(), strict=True), start=1)
        blocks.append("".join(f"{position}\t{word}\t_\t{tag}" + "\t_" * 6 + "\n" for position, (word, tag) in pairs))
    return "\n".join(blocks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own data: the tiny grammar as train, dev and test."""
    for part, times in (("train", 8), ("dev", 1), ("test", 1)):
        (tmp_path / f"my-{part}.conllu").write_text(conllu(GRAMMAR * times))
    return tmp_path


def small_recipe(**changes: float) -> Recipe:
    plan = replace(RECIPES[0].plan, **{"epochs": 3, "batch_size": 8, **changes})
    return replace(RECIPES[0], plan=plan, network=CONFIG)


def test_own_folder(folder: Path) -> None:
    """A folder of three files gives its splits, words seen twice, and tags in order."""
    data = load(folder)
    assert {split: len(sentences) for split, sentences in data.splits.items()} == {
        "train": 24, "validation": 3, "test": 3,
    }  # fmt: skip
    assert data.assets.words == ["a", "i", "saw"]
    assert data.assets.tags == ["DET", "NOUN", "PRON", "VERB"]
    assert set(data.provenance.sha256) == {"my-train.conllu", "my-dev.conllu", "my-test.conllu"}
    instance, truth = next(data.examples("test"))
    assert (instance.tokens, truth) == (["I", "saw", "a", "saw"], ["PRON", "VERB", "DET", "NOUN"])


def test_own_file_is_cut_by_seed(tmp_path: Path) -> None:
    """A single file is cut 80/10/10, every sentence once, the same way for the same seed."""
    file = tmp_path / "mine.conllu"
    file.write_text(conllu([(f"w{number}", "X") for number in range(50)]))
    first, again, other = (load(file, seed).splits for seed in (0, 0, 1))
    assert {split: len(sentences) for split, sentences in first.items()} == {
        "train": 40, "validation": 5, "test": 5,
    }  # fmt: skip
    words = [word for sentences in first.values() for sentence in sentences for word in sentence.words]
    assert sorted(words) == sorted(f"w{number}" for number in range(50))
    assert first == again != other


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a-train.conllu", "a-dev.conllu"], "found 0 files *test*.conllu, expected one"),
        (["train.conllu", "train2.conllu"], "found 2 files *train*.conllu, expected one"),
    ],
)
def test_own_folder_faults(tmp_path: Path, files: list[str], message: str) -> None:
    """A folder without exactly one file per split is refused by name."""
    for name in files:
        (tmp_path / name).write_text(conllu(GRAMMAR))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: {message}"


def test_own_file_faults(tmp_path: Path) -> None:
    """A file that is missing, or too small to cut, is refused by name."""
    file = tmp_path / "mine.conllu"
    with pytest.raises(DataError, match="found no such file or folder"):
        load(file)
    file.write_text(conllu(GRAMMAR))
    with pytest.raises(DataError, match="found 3 sentences, expected at least 10"):
        load(file)


def test_judge_counts_words(folder: Path) -> None:
    """One wrong word in four is 75 %, however the words fall into sentences."""
    predictions = [{"tags": ["DET"]}, {"tags": ["DET", "NOUN", "NOUN"]}]
    assert load(folder).judge(predictions, [["DET"], ["DET", "NOUN", "VERB"]]) == 75.0


def test_cut_by_words() -> None:
    """Ranges hold at most so many words, except for one longer sentence alone."""
    assert cut_by_words(np.array([2, 3, 3, 9, 1, 1]), 6) == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_hiding_prefers_rare_words() -> None:
    """Words seen rarely are hidden more often; reserved ids never."""
    sentence = Sentence([*"aaaaaaaaa", "saw", "zxqv"], ["DET"] * 11, ["X"] * 11)
    chances = hiding_chances(prepare([sentence], ASSETS, ["X"]), ASSETS.rows)
    assert not chances[: spelling.RESERVED].any()
    assert chances[spelling.RESERVED] == pytest.approx(0.25 / 9.25)
    assert chances[spelling.RESERVED + 2] == pytest.approx(0.25 / 1.25)


def test_hide_leaves_the_original() -> None:
    """Hidden words become unknown, hidden features absent, and the data stay as they were."""
    features = encode_words(*["saw"] * 1000).features
    before = features.copy()
    shown = hide(features, np.full(ASSETS.rows, 0.5), np.random.default_rng(0))
    assert np.array_equal(features, before)
    assert (shown[:, spelling.IDENTITY] == spelling.UNKNOWN).mean() == pytest.approx(0.4, abs=0.05)
    assert (shown[:, 1] == spelling.ABSENT).mean() == pytest.approx(0.2, abs=0.04)
    assert set(np.unique(shown)) <= {*np.unique(features), spelling.UNKNOWN, spelling.ABSENT}


def test_batches_hold_every_sentence_once(folder: Path) -> None:
    """An epoch has the announced number of batches, with every word and its tag once, in a drawn order."""
    learner = TaggingLearner(small_recipe(), folder, 0)
    epochs = [list(learner.batches(np.random.default_rng(seed))) for seed in (0, 0, 1)]
    truth = np.concatenate([lesson.tags for lesson in learner.lessons["train"]])
    assert {len(batches) for batches in epochs} == {learner.batch_count()}
    for batches in epochs:
        tags = torch.cat([batch.tags for batch in batches])
        assert torch.equal(tags.sort().values, torch.from_numpy(np.sort(truth)))
    same = [torch.equal(a.feeds["features"], b.feeds["features"]) for a, b in zip(*epochs[:2], strict=True)]
    assert all(same)


def test_two_steps_lower_the_loss(folder: Path) -> None:
    """Gradient descent on one batch goes down."""
    seed_everything(0)
    learner = TaggingLearner(small_recipe(), folder, 0)
    learner.net.eval()
    batch = next(learner.batches(np.random.default_rng(0)))
    optimizer = torch.optim.SGD(learner.net.parameters(), 0.02)
    losses = []
    for _ in range(3):
        loss = learner.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_a_saw_is_not_to_see(folder: Path, tmp_path: Path) -> None:
    """Trained on the tiny grammar through the common loop, the net tells the verb from the noun."""
    seed_everything(0)
    recipe = small_recipe(learning_rate=3e-2, epochs=12, batch_size=16)
    learner = TaggingLearner(recipe, folder, 0)
    report = fit(learner, recipe, seed=0, directory=tmp_path / "run", quiet=True)
    assert report["scores"] == {"train": 100.0, "validation": 100.0, "test": 100.0}
    assert report["unknown_words"] == {"share": 0.0, "accuracy": None}
    assert (tmp_path / "run" / "confusion.png").stat().st_size > 1000
