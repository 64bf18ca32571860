"""Self-attention over patches: oracles by heart, and what each setting of it changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.image.schema import Assets
from models.image.train.net import NETS, ConvolutionConfig, DenseConfig
from models.image.train.patch_net import (
    ConvolutionStem,
    DistanceDecay,
    EncoderLayer,
    PatchAttentionConfig,
    PatchAttentionNet,
    SelfAttention,
)
from models.image.train.recipe import ImageMethod, augment, erase

ASSETS = Assets(classes=["a", "b", "c"], height=8, width=8, patch=4, heads=2)
SMALL = PatchAttentionConfig(width=8, layers=2, heads=2, dropout=0.0)


def random_pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)


def build(config: PatchAttentionConfig, assets: Assets = ASSETS) -> PatchAttentionNet:
    torch.manual_seed(0)
    return PatchAttentionNet(config, assets, 128.0, 64.0).eval()


def test_patches_by_heart() -> None:
    """A picture is cut into patches row by row, each flattened row by row."""
    assets = Assets(classes=["a", "b"], height=4, width=6, patch=2, heads=1)
    config = PatchAttentionConfig(patch=2, width=8, layers=1, heads=1)
    net = PatchAttentionNet(config, assets, 0.0, 1.0)
    cut = net.stem.cut(torch.arange(24.0).reshape(1, 1, 4, 6))  # type: ignore[operator, union-attr]
    assert cut[0].tolist() == [
        [0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23],
    ]  # fmt: skip
    assert assets.sizes["patches"] == 6


def test_attention_by_hand() -> None:
    """Self-attention agrees with the paper's equation written out in loops."""
    torch.manual_seed(0)
    layer, x = SelfAttention(6, 2), torch.randn(1, 4, 6)
    with torch.inference_mode():
        found = layer(x)[0]
        q, k, v = layer.project(x)[0].split(6, dim=1)
        mixed = torch.zeros(4, 6)
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            for row in range(4):
                weights = torch.exp(torch.stack([q[row, part] @ k[other, part] / 3**0.5 for other in range(4)]))
                mixed[row, part] = sum(w / weights.sum() * v[other, part] for other, w in enumerate(weights))
        torch.testing.assert_close(found, layer.merge(mixed), rtol=1e-5, atol=1e-6)


def test_attention_net_reads_out_what_it_weighs() -> None:
    """Rows of attention sum to 1, and a query that loves one patch makes that patch the whole answer."""
    torch.manual_seed(0)
    assets = Assets(classes=["a", "b", "c"], height=8, width=8, patch=4, heads=2)
    net = PatchAttentionNet(PatchAttentionConfig(width=8, layers=1, heads=2), assets, 128.0, 64.0).eval()
    with torch.inference_mode():
        out = net(random_pixels(5))
        assert out["attention"].shape == (5, 2, 4)
        torch.testing.assert_close(out["attention"].sum(-1), torch.ones(5, 2))
        torch.testing.assert_close(out["scores"].sum(-1), torch.ones(5))
        net.query.weight.zero_()
        assert torch.equal(net(random_pixels(1))["attention"], torch.full((1, 2, 4), 0.25))


def test_decay_by_hand() -> None:
    """On a grid of 2 x 3 the bias is minus lambda times the distance, and lambda is positive and learned per head."""
    decay = DistanceDecay(2, 3, heads=2)
    with torch.no_grad():
        decay.raw.copy_(torch.tensor([0.0, 2.0]))
        found = decay()
    slopes = np.log1p(np.exp([0.0, 2.0]))
    # Patch 0 is row 0, column 0; patch 5 is row 1, column 2; patch 4 is row 1, column 1.
    assert found[:, 0, 5].numpy() == pytest.approx(-slopes * 5**0.5, rel=1e-6)
    assert found[:, 0, 4].numpy() == pytest.approx(-slopes * 2**0.5, rel=1e-6)
    assert (found.diagonal(dim1=1, dim2=2) == 0).all()
    assert decay.raw.requires_grad


def test_decay_makes_weights_local() -> None:
    """With a steep decay a patch sees itself alone: attention is then the merged values."""
    torch.manual_seed(0)
    decay = DistanceDecay(2, 2, heads=2)
    with torch.no_grad():
        decay.raw.fill_(100.0)
    layer, x = SelfAttention(6, 2, decay), torch.randn(1, 4, 6)
    with torch.inference_mode():
        values = layer.project(x)[..., 12:]
        torch.testing.assert_close(layer(x), layer.merge(values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("position", "is_decaying"), [("none", False), ("patch", False), ("axes", False), ("none", True)]
)
def test_only_positions_tell_places(position: str, is_decaying: bool) -> None:
    """Without positions a picture with its patches exchanged has the same scores; with any kind it has not."""
    net = build(replace(SMALL, position=position, is_decaying=is_decaying))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(4)
    pixels = random_pixels(1)
    exchanged = torch.cat([pixels[..., 4:], pixels[..., :4]], 3)  # left and right patches
    exchanged[..., :4, :], exchanged[..., 4:, :] = exchanged[..., :4, :].clone(), exchanged[..., 4:, :].clone()
    exchanged[..., :4, 4:] = pixels[..., :4, 4:]
    exchanged[..., :4, :4] = pixels[..., 4:, :4]
    exchanged[..., 4:, :4] = pixels[..., :4, :4]
    exchanged[..., 4:, 4:] = pixels[..., 4:, 4:]
    with torch.inference_mode():
        moved = (net(pixels)["scores"] - net(exchanged)["scores"]).abs().max()
    assert (moved < 1e-6) == (position == "none" and not is_decaying)


def test_axes_are_rows_plus_columns() -> None:
    """The position of a patch is its row's vector plus its column's, row by row."""
    net = build(replace(SMALL, position="axes"))
    rows, columns = net.positions
    total = net.position()
    assert isinstance(total, torch.Tensor)
    assert torch.equal(total, torch.stack([rows[r, 0] + columns[0, c] for r in range(2) for c in range(2)]))


def test_stem_keeps_places() -> None:
    """A bright pixel moves the vectors of its patch and of patches within reach, and no others."""
    torch.manual_seed(0)
    stem = ConvolutionStem(1, 8).eval()
    black = torch.zeros(1, 1, 28, 28)
    spot = black.clone()
    spot[..., 13, 13] = 5.0  # row 3, column 3 of 7 x 7 patches
    with torch.inference_mode():
        moved = (stem(spot) - stem(black)).abs().amax(2)[0].reshape(7, 7) > 0
    assert moved[3, 3]
    assert not moved[:2].any()
    assert not moved[5:].any()
    assert not moved[:, :2].any()
    assert not moved[:, 5:].any()


def test_stem_needs_patches_of_four() -> None:
    """Two pools make patches of 4 x 4, so another size is refused."""
    with pytest.raises(ValueError, match="not of 2 x 2"):
        build(replace(SMALL, stem="convolution", patch=2))


def test_skipped_parts() -> None:
    """While learning, a picture either passes a part by or gets it scaled up; at test time all are whole."""
    torch.manual_seed(0)
    layer = EncoderLayer(replace(SMALL, skip_rate=0.5), None)
    x, change = torch.zeros(400, 4, 8), torch.ones(400, 4, 8)
    with torch.inference_mode():
        found = layer.train()._add(x, change)
        assert set(found.flatten().tolist()) == {0.0, 2.0}
        assert (found == found[:, :1, :1]).all()
        assert found.mean().item() == pytest.approx(1, abs=0.15)
        assert torch.equal(layer.eval()._add(x, change), change)


@pytest.mark.parametrize(
    "config",
    [
        DenseConfig(widths=(8,)),
        ConvolutionConfig(widths=(2, 4)),
        ConvolutionConfig(widths=(2, 4), is_pooled=False),
        ConvolutionConfig(widths=(2, 4), is_normalised=False),
        SMALL,
        replace(SMALL, stem="convolution"),
        replace(SMALL, patch=1),
    ],
    ids=repr,
)
def test_nets_ignore_batch_mates(config: object) -> None:
    """In evaluation a picture's scores are probabilities that do not depend on its batch-mates."""
    torch.manual_seed(0)
    net = NETS[type(config)](config, ASSETS, 128.0, 64.0).eval()
    pictures = random_pixels(4)
    with torch.inference_mode():
        together = net(pictures)["scores"]
        alone = torch.cat([net(picture[None])["scores"] for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(together.sum(1), torch.ones(4))


def test_pools_and_norms_are_settings() -> None:
    """Without pools the last features keep the picture's size; without normalisation there is no such layer."""
    picture = torch.zeros(1, 1, 8, 8)
    sizes = {}
    for is_pooled in (True, False):
        net = NETS[ConvolutionConfig](ConvolutionConfig(widths=(2, 4), is_pooled=is_pooled), ASSETS, 0.0, 1.0).eval()
        sizes[is_pooled] = net.features(picture).shape[-1]  # type: ignore[operator, union-attr]
    assert sizes == {True: 4, False: 8}
    plain = NETS[ConvolutionConfig](ConvolutionConfig(widths=(2,), is_normalised=False), ASSETS, 0.0, 1.0)
    assert not [layer for layer in plain.modules() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_erase_by_heart() -> None:
    """About the wanted share of pictures has a rectangle of noise, all else is as it was, and so is the original."""
    pictures = np.full((1000, 1, 28, 28), 7, np.uint8)
    found = erase(pictures, 0.25, np.random.default_rng(0))
    changed = (found != 7)[:, 0]
    assert changed.any((1, 2)).mean() == pytest.approx(0.25, abs=0.05)
    assert (pictures == 7).all()
    rows, columns = np.nonzero(changed[changed.any((1, 2))][0])
    tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(tall, wide) <= 14
    assert changed[changed.any((1, 2))][0].sum() > 0.9 * tall * wide


def test_augment_does_what_the_method_says() -> None:
    """Nothing, when neither is wanted; each alone, when it alone is."""
    pictures = np.random.default_rng(1).integers(0, 256, (8, 1, 12, 12)).astype(np.uint8)
    still = augment(pictures, ImageMethod(is_moved=False), np.random.default_rng(0))
    assert np.array_equal(still, pictures)
    erased = augment(pictures, ImageMethod(is_moved=False, erased=1.0), np.random.default_rng(0))
    assert 0 < (erased == pictures).mean() < 1
    assert not np.array_equal(augment(pictures, ImageMethod(), np.random.default_rng(0)), pictures)
