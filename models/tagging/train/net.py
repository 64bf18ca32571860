"""The network of the tagging family: a word's spelling, then what stands around it."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from models.tagging import spelling
from models.tagging.schema import MAX_TOKENS, Assets
from models.tagging.train.attention import (
    LinearAttention,
    SentenceLayout,
    WordAttention,
    WordAttentionConfig,
    sinusoids,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerConfig:
    """Sizes of ``TaggerNet``.

    Attributes:
        embedding: Channels of one feature's embedding.
        width: Channels of a word.
        layers: Layers that look at the other words; 0 for each word alone.
        context: What such a layer is.
        window: Words seen at once by a layer of ``"window"``, the word itself in the middle.
        attention: Of a layer of ``"attention"``.
        position: What is added to the words for their place in the sentence.
        is_spelled: Whether the net sees beginnings, endings and shape of a word, or its identity alone.
        expansion: Hidden units of the feed-forward part per channel.
        dropout: After attention, feed-forward and norms.
        hidden_dropout: On hidden units of the feed-forward part.
    """

    embedding: int = 48
    width: int = 128
    layers: int = 2
    context: Literal["attention", "window", "recurrent"] = "attention"
    window: int = 3
    attention: WordAttentionConfig = field(default_factory=WordAttentionConfig)
    position: Literal["none", "sinusoidal", "learned"] = "none"
    is_spelled: bool = True
    expansion: int = 2
    dropout: float = 0.3
    hidden_dropout: float = 0.1

    @property
    def attends(self) -> bool:
        """Return whether there are attention weights to show."""
        return self.layers > 0 and self.context == "attention" and self.attention.score != "linear"


class WindowLayer(nn.Module):
    """One matrix over a word and its nearest neighbours; beyond the ends of the sentence there are zeros.

    Shapes: packed words ``(T, D)`` to ``(T, D)``; there is no matrix of weights.
    """

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.side = config.window // 2
        self.join = nn.Linear((2 * self.side + 1) * config.width, config.width)

    def forward(self, x: Tensor, layout: SentenceLayout) -> tuple[Tensor, None]:
        columns = layout.grid.shape[1]
        cells = layout.spread(x) * layout.keep.unsqueeze(-1)  # (S, W, D)
        padded = nn.functional.pad(cells, (0, 0, self.side, self.side))  # (S, W + 2 * side, D)
        parts = [padded[:, index : index + columns] for index in range(2 * self.side + 1)]
        out: Tensor = self.join(layout.pack(torch.cat(parts, 2)))
        return out, None


class Recurrent(nn.Module):
    """An LSTM from each end of the sentence (Hochreiter & Schmidhuber 1997; Schuster & Paliwal 1997).

    The backward one reads each sentence reversed within its own length, so both begin at a word and padding comes last.

    Shapes: packed words ``(T, D)`` to ``(T, D)``; there is no matrix of weights.
    """

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.forwards = nn.LSTM(config.width, config.width // 2, batch_first=True)
        self.backwards = nn.LSTM(config.width, config.width // 2, batch_first=True)

    def forward(self, x: Tensor, layout: SentenceLayout) -> tuple[Tensor, None]:
        columns = torch.arange(layout.grid.shape[1], device=x.device)
        lengths = layout.keep.sum(1, keepdim=True)  # (S, 1)
        mirror = torch.where(layout.keep, lengths - 1 - columns, columns).unsqueeze(-1)  # (S, W, 1)
        cells = layout.spread(x)  # (S, W, D)
        mirrored = cells.gather(1, mirror.expand(-1, -1, cells.shape[2]))
        # One more column: no LSTM takes sentences without any.
        ahead, behind = (
            read(nn.functional.pad(part, (0, 0, 0, 1)))[0][:, : len(columns)]  # (S, W, D/2)
            for read, part in ((self.forwards, cells), (self.backwards, mirrored))
        )
        behind = behind.gather(1, mirror.expand(-1, -1, behind.shape[2]))
        return layout.pack(torch.cat([ahead, behind], 2)), None


def _context(config: TaggerConfig) -> nn.Module:
    if config.context == "window":
        return WindowLayer(config)
    if config.context == "recurrent":
        return Recurrent(config)
    kind = LinearAttention if config.attention.score == "linear" else WordAttention
    return kind(config.attention, config.width)


class ContextLayer(nn.Module):
    """Pre-norm look at the other words and feed-forward, each with a skip connection.

    Shapes: ``(T, D)`` to ``(T, D)`` and weights ``(S, H, W, W)`` or none.
    """

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.norm = nn.LayerNorm(width)
        self.look = _context(config)
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(config.hidden_dropout),
            nn.Linear(hidden, width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layout: SentenceLayout) -> tuple[Tensor, Tensor | None]:
        change, weights = self.look(self.norm(x), layout)
        x = x + self.dropout(change)
        return x + self.dropout(self.think(x)), weights


class TaggerNet(nn.Module):
    """A tag's probability for each word, from its spelling and the words around it.

    A word's features are embedded by one table and laid side by side, so that one matrix product joins them
    and no sum over them can depend on the batch. Words stay packed; only what looks around sees the padded grid.

    Shapes: features ``(T, F)``, grid and keep ``(S, W)``, back ``(T,)`` to scores ``(T, K)``, probabilities,
    and, if it attends, attention ``(S, layers, H, W, W)``: rows of words sum to 1 over words; all else is 0.
    """

    places: Tensor | None

    def __init__(self, config: TaggerConfig, assets: Assets, fine_tags: int) -> None:
        super().__init__()
        self.config = config
        self.features = spelling.FEATURES if config.is_spelled else spelling.IDENTITY + 1
        self.table = nn.Embedding(assets.rows, config.embedding)
        nn.init.normal_(self.table.weight, std=0.1)
        self.join = nn.Linear(self.features * config.embedding, config.width)
        self.norm = nn.LayerNorm(config.width)
        if config.position == "learned":
            self.places = nn.Parameter(torch.zeros(MAX_TOKENS, config.width))
        else:
            fixed = sinusoids(MAX_TOKENS, config.width) if config.position == "sinusoidal" else None
            self.register_buffer("places", fixed)
        self.layers = nn.ModuleList(ContextLayer(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.width)
        self.classifier = nn.Linear(config.width, len(assets.tags))
        self.fine_classifier = nn.Linear(config.width, fine_tags)
        self.dropout = nn.Dropout(config.dropout)

    def arrange(self, grid: Tensor, keep: Tensor, back: Tensor) -> SentenceLayout:
        columns = torch.arange(grid.shape[1], device=grid.device)
        return SentenceLayout(grid, keep, back, columns - columns[:, None])

    def attend(self, features: Tensor, layout: SentenceLayout) -> tuple[Tensor, list[Tensor]]:
        x = self.join(self.table(features[:, : self.features]).flatten(1))  # (T, D)
        x = self.norm(x)
        if self.places is not None:
            columns = torch.arange(layout.grid.shape[1], device=x.device).expand_as(layout.grid)
            x = x + self.places.index_select(0, columns.reshape(-1).index_select(0, layout.back))
        x = self.dropout(x)
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
        outputs = {"scores": self.classifier(x).softmax(-1)}
        if self.config.attends:
            cells = keep[:, None, None, :, None] & keep[:, None, None, None, :]  # (S, 1, 1, W, W)
            outputs["attention"] = torch.where(cells, torch.stack(weights, 1), 0.0)
        return outputs
