"""Heads: two embeddings to a logit, `p(same class) = sigmoid(logit)`.

    Koch:      logit = b + sum_k w_k |h1_k - h2_k|, or dense layers on |h1 - h2| before the last sum
    distance:  logit = scale * score(h1, h2) + bias, score = -distance (similarity for cosine and dot)

`pairs` is row by row, `matrix` all against all. The linear Koch head and the distances run on the fused
operations, which never build the `[Q, S, D]` differences; while exporting, pairs are written in plain torch
instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_fast import ops

Metric = Literal["euclidean", "sqeuclidean", "cosine", "dot", "manhattan"]
_BLOCK_VALUES = 1 << 24


class Head(nn.Module, ABC):
    """What a `SiameseNetwork` asks of its head: logits for pairs, logits for all pairs, a linear
    rescaling.
    """

    @abstractmethod
    def pairs(self, h1: Tensor, h2: Tensor) -> Tensor:
        """Logits `[B]` of the pairs `(h1[i], h2[i])`, both `[B, D]`."""

    @abstractmethod
    def matrix(self, q: Tensor, s: Tensor) -> Tensor:
        """Logits `[Q, S]` of every row of `q` `[Q, D]` with every row of `s` `[S, D]`."""

    @abstractmethod
    def rescale(self, scale: float, bias: float) -> None:
        """Replace every logit by `scale * logit + bias` (what Platt's calibration asks for)."""

    @abstractmethod
    def lookup(self) -> dict[str, Any] | None:
        """Keyword arguments that make `ops.nearest_support` and `ops.class_scores` rank as this head does;
        None if they cannot.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that build this head again (JSON types only)."""

    def forward(self, h1: Tensor, h2: Tensor) -> Tensor:
        return self.pairs(h1, h2)


class KochHead(Head):
    """A learned, weighted L1 distance: `b + sum_k w_k |h1_k - h2_k|`, optionally with dense layers in
    between.

    Args:
        dim: size D of the embeddings.
        hidden: sizes of dense layers (each followed by ReLU) applied to `|h1 - h2|` before the last weighted
            sum. With one, `matrix` is `ops.l1_mlp_similarity_matrix`; with more it builds the differences, in
            blocks of at most 64 MB in fp32.

    Attributes:
        weight: `[D]` (or the last hidden size), starts at -4 / D.
        bias: `[1]`, starts at 2. So logits start on both sides of 0 for features of unit scale, and the
            cross-entropy separates the two kinds of pair at once; from logits far below 0 it would first
            shrink the features, and with hard negatives stall at ln 2.

    Source: Koch, Zemel, Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition" (2015).

    Example:
        >>> head = KochHead(64)
        >>> head.matrix(torch.rand(5, 64), torch.rand(20, 64)).shape
        torch.Size([5, 20])
    """

    def __init__(self, dim: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self._config: dict[str, Any] = {"dim": dim, "hidden": list(hidden)}
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(dim, width), nn.ReLU()]
            dim = width
        self.hidden = nn.Sequential(*layers)
        self.weight = nn.Parameter(torch.full((dim,), -4.0 / dim))
        self.bias = nn.Parameter(torch.full((1,), 2.0))

    def pairs(self, h1: Tensor, h2: Tensor) -> Tensor:
        if self.hidden or _exporting():
            return self._of_differences((h1 - h2).abs())
        return ops.l1_similarity(h1, h2, self.weight, self.bias)

    def matrix(self, q: Tensor, s: Tensor) -> Tensor:
        if not self.hidden:
            return ops.l1_similarity_matrix(q, s, self.weight, self.bias)
        if len(self.hidden) == 2 and not _exporting():
            layer = cast(nn.Linear, self.hidden[0])
            return ops.l1_mlp_similarity_matrix(q, s, layer.weight, layer.bias, self.weight, self.bias)
        rows = max(1, _BLOCK_VALUES // max(1, s.numel()))
        return torch.cat([self._of_differences((block[:, None] - s).abs()) for block in q.split(rows)])

    def rescale(self, scale: float, bias: float) -> None:
        with torch.no_grad():
            self.weight.mul_(scale)
            self.bias.mul_(scale).add_(bias)

    def lookup(self) -> dict[str, Any] | None:
        return None if self.hidden else {"weight": self.weight, "bias": self.bias}

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def _of_differences(self, differences: Tensor) -> Tensor:
        features = cast(Tensor, self.hidden(differences))
        return functional.linear(features, self.weight[None], self.bias).squeeze(-1)


class DistanceHead(Head):
    """No parameters: the logit is minus the distance (or the similarity), scaled and shifted once calibrated.

    Args:
        metric: "euclidean", "sqeuclidean", "cosine", "dot" or "manhattan".

    Attributes:
        scale, bias: buffers `[1]`, 1 and 0 until `SiameseNetwork.calibrate` sets them.

    Example:
        >>> head = DistanceHead("euclidean")
        >>> head.pairs(torch.zeros(2, 8), torch.ones(2, 8))
        tensor([-2.8284, -2.8284])
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, metric: Metric = "euclidean") -> None:
        super().__init__()
        self.metric: Metric = metric
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("bias", torch.zeros(1))

    def pairs(self, h1: Tensor, h2: Tensor) -> Tensor:
        return _score(h1, h2, self.metric) * self.scale + self.bias

    def matrix(self, q: Tensor, s: Tensor) -> Tensor:
        return ops.similarity_matrix(q, s, self.metric) * self.scale + self.bias

    def rescale(self, scale: float, bias: float) -> None:
        self.scale.mul_(scale)
        self.bias.mul_(scale).add_(bias)

    def lookup(self) -> dict[str, Any] | None:
        return {"metric": self.metric}

    def config(self) -> dict[str, Any]:
        return {"metric": self.metric}


def _score(h1: Tensor, h2: Tensor, metric: Metric) -> Tensor:
    """Scores `[B]` of the rows, larger is better."""
    distances = _plain_distance(h1, h2, metric) if _exporting() else ops.distance(h1, h2, metric)
    return 1 - distances if metric == "cosine" else -distances


def _plain_distance(h1: Tensor, h2: Tensor, metric: Metric) -> Tensor:
    if metric == "cosine":
        return 1 - functional.cosine_similarity(h1, h2)
    if metric == "dot":
        return -(h1 * h2).sum(-1)
    order = 1 if metric == "manhattan" else 2
    distances = torch.linalg.vector_norm(h1 - h2, ord=order, dim=-1)
    return distances.square() if metric == "sqeuclidean" else cast(Tensor, distances)


def _exporting() -> bool:
    # torch 2.6 cannot tell export from compile; plain torch is right for both.
    is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return is_exporting()
