"""The network of the tagging family: spelling features, then self-attention with relative positions."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.tagging import spelling
from models.tagging.schema import Assets

# Added to the scores of empty cells: their weights underflow to exactly 0; -inf would make empty rows NaN.
MASKED = -1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerConfig:
    """Sizes of ``TaggerNet``.

    Attributes:
        embedding: Channels of one feature's embedding.
        width: Channels of a word.
        layers: Encoder layers.
        heads: Attention heads.
        expansion: Hidden units of the feed-forward part per channel.
        reach: Distances beyond this many words share one relative bias.
        dropout: After attention, feed-forward and norms.
        attention_dropout: On attention weights and hidden units.
    """

    embedding: int = 48
    width: int = 128
    layers: int = 2
    heads: int = 8
    expansion: int = 2
    reach: int = 6
    dropout: float = 0.3
    attention_dropout: float = 0.1


class Layout(NamedTuple):
    """Where packed words lie in the padded grid, as ``codec.collate`` describes it.

    Attributes:
        grid: ``(S, W)`` int64.
        mask: ``(S, 1, 1, W)`` float32, 0 for a word and ``MASKED`` for an empty cell.
        back: ``(T,)`` int64.
        offsets: ``(W * W,)`` int64, the row of the relative bias for each pair of columns.
    """

    grid: Tensor
    mask: Tensor
    back: Tensor
    offsets: Tensor


class RelativeAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762, eq. 1) with a bias per distance.

    The bias per head and clipped distance (Raffel et al. 2020, arXiv:1910.10683, section 2.1) has no longest
    sentence. It starts out in favour of neighbours: six heads look one or two words to the left or right.

    Shapes: packed words ``(T, D)`` to ``(T, D)`` and weights ``(S, H, W, W)``.
    """

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.heads, self.scale = config.heads, (config.width // config.heads) ** -0.5
        self.project = nn.Linear(config.width, 3 * config.width)
        self.merge = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.attention_dropout)
        bias = torch.zeros(2 * config.reach + 1, config.heads)
        for head, distance in zip(range(config.heads), (-1, 1, -2, 2, -1, 1), strict=False):
            bias[config.reach + distance, head] = 3.0
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        rows, columns = layout.grid.shape
        cells = self.project(x).index_select(0, layout.grid.reshape(-1))  # (S * W, 3 * D)
        split = cells.reshape(rows, columns, 3, self.heads, x.shape[1] // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (S, H, W, D/H)
        bias = self.bias.index_select(0, layout.offsets).reshape(columns, columns, self.heads)
        scores = q @ k.transpose(-1, -2) * self.scale + bias.permute(2, 0, 1) + layout.mask  # (S, H, W, W)
        weights = scores.softmax(-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).reshape(rows * columns, x.shape[1])
        return self.merge(mixed.index_select(0, layout.back)), weights


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a skip connection.

    Shapes: ``(T, D)`` to ``(T, D)`` and weights ``(S, H, W, W)``.
    """

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.norm = nn.LayerNorm(width)
        self.attend = RelativeAttention(config)
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(config.attention_dropout),
            nn.Linear(hidden, width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        change, weights = self.attend(self.norm(x), layout)
        x = x + self.dropout(change)
        return x + self.dropout(self.think(x)), weights


class TaggerNet(nn.Module):
    """A tag's probability for each word, from its spelling and the words around it.

    A word's features are embedded by one table and laid side by side, so that one matrix product joins them
    and no sum over them can depend on the batch. Words stay packed; only attention sees the padded grid.

    Shapes: features ``(T, F)``, grid and keep ``(S, W)``, back ``(T,)`` to scores ``(T, K)``, probabilities,
    and attention ``(S, layers, H, W, W)``: rows of words sum to 1 over words; everything else is 0.
    """

    def __init__(self, config: TaggerConfig, assets: Assets, fine_tags: int) -> None:
        super().__init__()
        self.reach = config.reach
        self.table = nn.Embedding(assets.rows, config.embedding)
        nn.init.normal_(self.table.weight, std=0.1)
        self.join = nn.Linear(spelling.FEATURES * config.embedding, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.width)
        self.classifier = nn.Linear(config.width, len(assets.tags))
        self.fine_classifier = nn.Linear(config.width, fine_tags)
        self.dropout = nn.Dropout(config.dropout)

    def arrange(self, grid: Tensor, keep: Tensor, back: Tensor) -> Layout:
        columns = torch.arange(grid.shape[1], device=grid.device)
        distances = (columns - columns[:, None]).clamp(-self.reach, self.reach)  # (W, W), right is positive
        mask = torch.where(keep, 0.0, MASKED)[:, None, None]  # (S, 1, 1, W)
        return Layout(grid, mask, back, (distances + self.reach).reshape(-1))

    def attend(self, features: Tensor, layout: Layout) -> tuple[Tensor, list[Tensor]]:
        x = self.join(self.table(features).flatten(1))  # (T, D)
        x = self.dropout(self.norm(x))
        attention = []
        for layer in self.layers:
            x, weights = layer(x, layout)
            attention.append(weights)
        return self.dropout(self.last_norm(x)), attention

    def logits(self, features: Tensor, grid: Tensor, keep: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        """Of the tags ``(T, K)`` and, for training only, of the fine tags ``(T, K')``."""
        x, _ = self.attend(features, self.arrange(grid, keep, back))
        return self.classifier(x), self.fine_classifier(x)

    def forward(self, features: Tensor, grid: Tensor, keep: Tensor, back: Tensor) -> dict[str, Tensor]:
        x, weights = self.attend(features, self.arrange(grid, keep, back))
        cells = keep[:, None, None, :, None] & keep[:, None, None, None, :]  # (S, 1, 1, W, W)
        attention = torch.where(cells, torch.stack(weights, 1), 0.0)
        return {"scores": self.classifier(x).softmax(-1), "attention": attention}
