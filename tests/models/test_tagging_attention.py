"""Ways of looking at the other words: each against a slow form of its equation, and alone as among others."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.tagging.codec import collate, encode
from models.tagging.schema import Assets, Instance
from models.tagging.train.attention import (
    LinearAttention,
    ScoreBias,
    SentenceLayout,
    WordAttention,
    WordAttentionConfig,
    sinusoids,
)
from models.tagging.train.experiments import LADDER
from models.tagging.train.net import Recurrent, TaggerConfig, TaggerNet, WindowLayer
from models.training.loop import seed_everything

ASSETS = Assets(words=["a", "i", "saw"], clues=["4:w", "9:X"], tags=["DET", "NOUN", "PRON", "VERB"], layers=1, heads=2)
PLAIN = WordAttentionConfig(heads=2, is_relative=False)
WIDTH = 8


def layout(*lengths: int) -> SentenceLayout:
    """Return the layout of sentences of these lengths."""
    samples = [encode(Instance(tokens=["a"] * length), ASSETS) for length in lengths]
    feeds = {name: torch.from_numpy(feed) for name, feed in collate(samples).items()}
    columns = torch.arange(feeds["grid"].shape[1])
    return SentenceLayout(feeds["grid"], feeds["keep"], feeds["back"], columns - columns[:, None])


def softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def heads_of(attention: WordAttention, x: torch.Tensor) -> np.ndarray:
    """Queries, keys and values of one sentence, ``(3, H, T, D/H)`` float64."""
    with torch.inference_mode():
        projected = attention.project(x).double().numpy()
    return projected.reshape(len(x), 3, attention.heads, -1).transpose(1, 2, 0, 3)


def merged(attention: WordAttention, mixed: np.ndarray) -> np.ndarray:
    """Heads ``(H, T, D/H)`` side by side through the last matrix."""
    weight, bias = (parameter.detach().double().numpy() for parameter in attention.merge.parameters())
    return mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1) @ weight.T + bias


def build(config: WordAttentionConfig) -> tuple[WordAttention, torch.Tensor]:
    seed_everything(0)
    kind = LinearAttention if config.score == "linear" else WordAttention
    return kind(config, WIDTH).eval(), torch.randn(5, WIDTH)


def test_additive_is_the_equation() -> None:
    """The score of a pair is v . tanh(q_i + k_j)."""
    attention, x = build(replace(PLAIN, score="additive"))
    q, k, v = heads_of(attention, x)
    vector = attention.vector.detach().double().numpy()[:, 0, 0]  # type: ignore[union-attr]
    scores = np.array([
        [[vector[h] @ np.tanh(q[h, i] + k[h, j]) for j in range(5)] for i in range(5)] for h in range(2)
    ])  # fmt: skip
    with torch.inference_mode():
        found, weights = attention(x, layout(5))
    assert weights[0].numpy() == pytest.approx(softmax(scores), abs=1e-6)
    assert found.numpy() == pytest.approx(merged(attention, softmax(scores) @ v), abs=1e-5)


def test_linear_is_the_equation() -> None:
    """Every pair of words weighs phi(q_i) . phi(k_j), over its sum."""
    attention, x = build(replace(PLAIN, score="linear"))
    q, k, v = heads_of(attention, x)

    def phi(z: np.ndarray) -> np.ndarray:
        return np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))

    weights = phi(q) @ phi(k).transpose(0, 2, 1)
    weights /= weights.sum(-1, keepdims=True)
    with torch.inference_mode():
        found, shown = attention(torch.cat([x, x[:2]]), layout(5, 2))
        alone, _ = attention(x[:2], layout(2))
    assert shown is None
    assert found[:5].numpy() == pytest.approx(merged(attention, weights @ v), abs=1e-5)
    assert found[5:].numpy() == pytest.approx(alone.numpy(), abs=1e-6)


def test_decay_multiplies_the_weights() -> None:
    """Weights are those without decay times exp(-lambda |i - j|), normed again."""
    attention, x = build(replace(PLAIN, is_decaying=True))
    plain = WordAttention(PLAIN, WIDTH).eval()
    plain.load_state_dict({name: value for name, value in attention.state_dict().items() if "decay" not in name})
    decay = attention.bias.decay
    assert decay is not None
    slopes = np.log1p(np.exp(decay.detach().double().numpy()))
    distances = np.abs(np.subtract.outer(range(5), range(5)))
    with torch.inference_mode():
        found, before = attention(x, layout(5))[1], plain(x, layout(5))[1]
    wanted = before[0].double().numpy() * np.exp(-slopes[:, None, None] * distances)
    assert found[0].numpy() == pytest.approx(wanted / wanted.sum(-1, keepdims=True), abs=1e-6)
    assert (slopes > 0).all()
    assert slopes[0] < slopes[1]


def test_span_cuts_and_keeps() -> None:
    """Beyond the span a weight is exactly 0; within it, it is not."""
    attention, x = build(replace(PLAIN, span=1))
    with torch.inference_mode():
        _, weights = attention(x, layout(5))
    far = np.abs(np.subtract.outer(range(5), range(5))) > 1
    assert ((weights[0].numpy() == 0) == far).all()


def test_bias_by_heart() -> None:
    """A new relative bias favours the neighbours; distances beyond the reach share one; an empty cell is masked."""
    bias = ScoreBias(WordAttentionConfig(heads=2, reach=2))
    with torch.inference_mode():
        found = bias(layout(4, 1))
    assert found.shape == (2, 2, 4, 4)
    assert found[0, 0, 2].tolist() == [0.0, 3.0, 0.0, 0.0]
    assert found[0, 1, 2].tolist() == [0.0, 0.0, 0.0, 3.0]
    assert (found[1, :, :, 1:] < -1e8).all()
    with torch.no_grad():
        bias.bias[0, 0] = 5.0  # type: ignore[index]
    assert bias(layout(4))[0, 0, 3].tolist() == [5.0, 5.0, 3.0, 0.0]


@pytest.mark.parametrize("size", [3, 5])
def test_window_is_one_matrix(size: int) -> None:
    """A word and its neighbours side by side, zeros beyond the ends, also of a sentence among longer ones."""
    seed_everything(0)
    window, x = WindowLayer(TaggerConfig(width=WIDTH, window=size)).eval(), torch.randn(6, WIDTH)
    zeros, side = np.zeros((size // 2, WIDTH)), size // 2
    wanted = []
    for part in (x[:4].numpy(), x[4:].numpy()):
        padded = np.concatenate([zeros, part, zeros])
        wanted += [padded[position : position + 2 * side + 1].reshape(-1) for position in range(len(part))]
    weight, bias = (parameter.detach().numpy() for parameter in window.join.parameters())
    with torch.inference_mode():
        found, _ = window(x, layout(4, 2))
    assert found.numpy() == pytest.approx(np.stack(wanted) @ weight.T + bias, abs=1e-5)


def test_recurrent_reads_from_both_ends() -> None:
    """As torch's own bidirectional LSTM gives for each sentence alone, whatever its company."""
    seed_everything(0)
    recurrent, x = Recurrent(TaggerConfig(width=WIDTH)).eval(), torch.randn(7, WIDTH)
    both = torch.nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)
    state = dict(recurrent.forwards.state_dict())
    state |= {f"{name}_reverse": value for name, value in recurrent.backwards.state_dict().items()}
    both.load_state_dict(state)
    with torch.inference_mode():
        found, _ = recurrent(x, layout(2, 4, 1))
        wanted = torch.cat([both(part[None])[0][0] for part in (x[:2], x[2:6], x[6:])])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_sinusoids_by_heart() -> None:
    """Place 0 has sines 0 and cosines 1; the first frequency is one radian a word, the last near 1/10,000."""
    found = sinusoids(3, 8)
    assert found.shape == (3, 8)
    assert found[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found[2, 0].item() == pytest.approx(np.sin(2))
    assert found[2, 4].item() == pytest.approx(np.cos(2))
    assert found[1, 3].item() == pytest.approx(np.sin(10_000 ** (-6 / 8)), rel=1e-5)


def scores(net: TaggerNet, *sentences: Sequence[str]) -> np.ndarray:
    samples = [encode(Instance(tokens=list(words)), ASSETS) for words in sentences]
    with torch.inference_mode():
        found: np.ndarray = net(**{n: torch.from_numpy(f) for n, f in collate(samples).items()})["scores"].numpy()
    return found


NETWORKS = [
    pytest.param(rung.recipe.network, id=rung.recipe.name)
    for rung in LADDER.rungs
]  # fmt: skip


def tiny(network: TaggerConfig) -> TaggerNet:
    seed_everything(0)
    net = TaggerNet(replace(network, embedding=8, width=16), ASSETS, fine_tags=5).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return net


@pytest.mark.parametrize("network", NETWORKS)
def test_every_rung_ignores_its_company(network: TaggerConfig) -> None:
    """A sentence's scores are the same alone and among longer ones; without a word there is nothing."""
    net = tiny(network)
    alone = scores(net, ["I", "saw", "x"])
    together = scores(net, ["a", "x"] * 9, [], ["I", "saw", "x"])
    assert together[18:] == pytest.approx(alone, abs=1e-5)
    assert alone.sum(-1) == pytest.approx(1, abs=1e-5)
    assert scores(net, []).shape == (0, 4)


@pytest.mark.parametrize("network", NETWORKS)
def test_what_each_rung_can_see(network: TaggerConfig) -> None:
    """A word alone sees no other; a window sees its reach; the rest see the whole sentence, or their span."""
    net = tiny(network)
    reach: dict[str, Any] = {"window": network.window // 2 * network.layers, "recurrent": 30}
    seen = reach.get(network.context, network.attention.span or 30) if network.layers else 0
    before, after = scores(net, ["a"] * 12), scores(net, ["a"] * 11 + ["I"])
    moved = np.abs(before - after).max(-1)[:11] > 0
    assert moved.tolist() == [11 - position <= seen for position in range(11)]


@pytest.mark.parametrize("network", NETWORKS)
def test_longest_sentence(network: TaggerConfig) -> None:
    """512 words have scores, also where places have vectors of their own."""
    if network.attention.score == "additive":
        network = replace(network, attention=replace(network.attention, heads=1))
    assert np.isfinite(scores(tiny(network), ["saw"] * 512)).all()
