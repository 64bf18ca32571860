"""Attend to the other words of a sentence: scores, positions, and masks."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

# Added to the scores of empty cells: their weights underflow to exactly 0; -inf would make empty rows NaN.
MASKED = -1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class WordAttentionConfig:
    """Kind and sizes of the attention.

    Attributes:
        heads: Attention heads.
        score: Of a pair of words: the product of query and key, a small net of their sum (``"additive"``), or a product
            without softmax that never forms the matrix of all pairs (``"linear"``).
        is_relative: Whether a learned bias per distance is added to the scores.
        reach: Distances beyond this many words share one relative bias.
        span: Words farther away than this are not seen; ``None`` for the whole sentence.
        is_decaying: Whether weights fall off with the distance.
        dropout: On attention weights.
    """

    heads: int = 8
    score: Literal["dot", "additive", "linear"] = "dot"
    is_relative: bool = True
    reach: int = 6
    span: int | None = None
    is_decaying: bool = False
    dropout: float = 0.1


class SentenceLayout(NamedTuple):
    """Describe where packed words lie in the padded grid, as ``codec.collate`` describes it.

    Attributes:
        grid: ``(S, W)`` int64.
        keep: ``(S, W)`` bool.
        back: ``(T,)`` int64.
        distances: ``(W, W)`` int64, of each pair of columns; right is positive.
    """

    grid: Tensor
    keep: Tensor
    back: Tensor
    distances: Tensor

    def spread(self, x: Tensor) -> Tensor:
        """Packed words ``(T, D)`` to cells ``(S, W, D)``; empty cells hold the first word."""
        rows, columns = self.grid.shape
        return x.index_select(0, self.grid.reshape(-1)).reshape(rows, columns, x.shape[1])

    def pack(self, cells: Tensor) -> Tensor:
        """Cells ``(S, W, D)`` to packed words ``(T, D)``."""
        return cells.reshape(-1, cells.shape[-1]).index_select(0, self.back)


class ScoreBias(nn.Module):
    """Describe what is added to the scores of a pair whatever its words: mask, span, distance.

    The bias per head and clipped distance (Raffel et al. 2020, arXiv:1910.10683, section 2.1) has no longest sentence.
    It starts out in favour of neighbours: six heads look one or two words to the left or right. A decay multiplies the
    weights by ``exp(-lambda_h |i - j|)`` before they are normed, ``lambda_h > 0`` learned per head (a fixed one is
    ALiBi, Press et al. 2022, arXiv:2108.12409); heads start from far- to near-sighted.

    Shapes: a layout to ``(S, 1 or H, 1 or W, W)``.
    """

    def __init__(self, config: WordAttentionConfig) -> None:
        super().__init__()
        self.reach, self.span, self.heads = config.reach, config.span, config.heads
        self.bias: nn.Parameter | None = None
        if config.is_relative:
            bias = torch.zeros(2 * config.reach + 1, config.heads)
            for head, distance in zip(range(config.heads), (-1, 1, -2, 2, -1, 1), strict=False):
                bias[config.reach + distance, head] = 3.0
            self.bias = nn.Parameter(bias)
        self.decay = nn.Parameter(torch.linspace(-3.0, 0.5, config.heads)) if config.is_decaying else None

    def forward(self, layout: SentenceLayout) -> Tensor:
        columns = layout.grid.shape[1]
        total = torch.where(layout.keep, 0.0, MASKED)[:, None, None]  # (S, 1, 1, W)
        if self.span is not None:
            total = total + torch.where(layout.distances.abs() <= self.span, 0.0, MASKED)
        if self.bias is not None:
            rows = (layout.distances.clamp(-self.reach, self.reach) + self.reach).reshape(-1)
            bias = self.bias.index_select(0, rows).reshape(columns, columns, self.heads)
            total = total + bias.permute(2, 0, 1)
        if self.decay is not None:
            slope = nn.functional.softplus(self.decay)[:, None, None]
            total = total - slope * layout.distances.abs().to(slope.dtype)
        return total


class WordAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762, eq. 1), with a choice of scores.

    Dot: ``q_i . k_j / sqrt(d)``. Additive: ``v . tanh(q_i + k_j)`` (Bahdanau et al. 2015, arXiv:1409.0473, A.1.2).

    Shapes: packed words ``(T, D)`` to ``(T, D)`` and weights ``(S, H, W, W)``.
    """

    def __init__(self, config: WordAttentionConfig, width: int) -> None:
        super().__init__()
        self.heads, self.size = config.heads, width // config.heads
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.bias = ScoreBias(config)
        self.vector: nn.Parameter | None = None
        if config.score == "additive":
            self.vector = nn.Parameter(torch.randn(config.heads, 1, 1, self.size) * self.size**-0.5)

    def split(self, x: Tensor, layout: SentenceLayout) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``(S, H, W, D/H)``."""
        rows, columns = layout.grid.shape
        split = layout.spread(self.project(x)).reshape(rows, columns, 3, self.heads, self.size)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Of every pair, ``(S, H, W, W)``."""
        if self.vector is not None:
            return ((q.unsqueeze(3) + k.unsqueeze(2)).tanh() * self.vector).sum(-1)
        scale: float = self.size**-0.5
        return q @ k.transpose(-1, -2) * scale

    def forward(self, x: Tensor, layout: SentenceLayout) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x, layout)
        weights = (self.scores(q, k) + self.bias(layout)).softmax(-1)  # (S, H, W, W)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).flatten(2)  # (S, W, D)
        return self.merge(layout.pack(mixed)), weights


class LinearAttention(WordAttention):
    """Attention in time linear in the length (Katharopoulos et al. 2020, arXiv:2006.16236, eq. 4-6).

    With ``phi(x) = elu(x) + 1``: ``phi(q_i) . sum_j phi(k_j) v_j^T / phi(q_i) . sum_j phi(k_j)``. No distances.

    Shapes: packed words ``(T, D)`` to ``(T, D)``; there is no matrix of weights.
    """

    def forward(self, x: Tensor, layout: SentenceLayout) -> tuple[Tensor, None]:  # type: ignore[override]
        q, k, v = self.split(x, layout)
        q, k = self._positive(q), self._positive(k) * layout.keep[:, None, :, None]
        # The norm is one more column of the values: ONNX Runtime's sum over words depends on the padding.
        sums = k.transpose(-1, -2) @ torch.cat([v, torch.ones_like(v[..., :1])], -1)  # (S, H, D/H, D/H + 1)
        # Not q @ sums: for a single word that is a row times a matrix, in which it rounds otherwise, too.
        mixed = (q.unsqueeze(-1) * sums.unsqueeze(2)).sum(-2)  # (S, H, W, D/H + 1)
        mixed = (mixed[..., :-1] / mixed[..., -1:]).transpose(1, 2).flatten(2)  # (S, W, D)
        return self.merge(layout.pack(mixed)), None

    @staticmethod
    def _positive(x: Tensor) -> Tensor:
        """``elu(x) + 1`` from Exp: ONNX Runtime's own Elu gives other bits at another place in a batch."""
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def sinusoids(positions: int, width: int) -> Tensor:
    """Fixed positions ``(places, width)``: sines, then cosines, of falling frequency (Vaswani et al., section 3.5)."""
    steps = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(positions)[:, None] * steps
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]
