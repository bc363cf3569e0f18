"""The support set as the operations see it, and the scores of queries against it (larger is better).

A distance or a linear Koch head (`b + sum_k w_k |q_k - s_k|`) runs through the fused operations, which never
build the [Q, S] matrix. A head with hidden layers has no fused form: its `matrix(q, s)` is taken block by
block and reduced at once, so memory stays O(Q C + block) there too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from siamese_fast import ops
from siamese_fast.prediction.proposals import Proposals

Reduce = Literal["max", "mean", "prototype"]
METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
REDUCTIONS = ("max", "mean", "prototype")
BLOCK = 2**24  # values of |q - s| that a head without a fused form may build at a time
SCORES = 2**23  # class scores held at a time


class Comparison:
    """How a query is scored against a support: a metric, or the head of a network.

    `head` has `matrix(q [Q, D], s [S, D]) -> logits [Q, S]` and, when the fused operations can rank as it
    does, `lookup() -> dict` with their keyword arguments (as `siamese_fast.network.Head` has).
    """

    def __init__(self, metric: str, head: nn.Module | None) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        if head is not None and not callable(getattr(head, "matrix", None)):
            raise TypeError(f"head must have matrix(q, s) -> logits [Q, S], got {type(head).__name__}")
        self._metric = metric
        self.head: Any = head

    @property
    def arguments(self) -> dict[str, Any] | None:
        """Keyword arguments of the fused operations, None for a head they can't express."""
        if self.head is None:
            return {"metric": self._metric}
        found = self.head.lookup() if hasattr(self.head, "lookup") else None
        return found and {k: v.detach() if isinstance(v, Tensor) else v for k, v in found.items()}

    @property
    def metric(self) -> str | None:
        """The metric whose score this is; None for the logits of a head with parameters."""
        return (self.arguments or {}).get("metric")

    def cast(self, embeddings: Tensor) -> Tensor:
        """`embeddings` in the dtype and on the device of the head's weights."""
        weight = next(self.head.parameters(), None) if isinstance(self.head, nn.Module) else None
        return embeddings if weight is None else embeddings.to(device=weight.device, dtype=weight.dtype)

    def distance(self, scores: Tensor) -> Tensor:
        """Scores as distances, smaller is better: the metric's own, minus the score for `dot` and logits."""
        return 1 - scores if self.metric == "cosine" else -scores

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores `[B]` of `a` against `b`, row by row, both `[B, D]`."""
        with torch.no_grad():
            if self.metric is None:
                return self.head.pairs(a, b)  # type: ignore[no-any-return]
            if self.metric == "dot":
                return (a * b).sum(1)
            distance = ops.distance(a, b, self.metric)
            return 1 - distance if self.metric == "cosine" else -distance


class Gallery:
    """Support embeddings `[S, D]`, the class of each `[S]`, and how queries are compared with them.

    For the fused operations the head is as it was when the gallery was made, as the embeddings are.
    """

    def __init__(
        self,
        embeddings: Tensor,
        class_index: Tensor,
        num_classes: int,
        comparison: Comparison,
        approximate: str | None = None,
    ) -> None:
        self.class_index = class_index
        self.num_classes = num_classes
        self.comparison = comparison
        self._prepared = self._prepare(embeddings, class_index)
        # A prepared set holds its own copy of the rows, of unit length for cosine.
        copied = self._prepared is not None and comparison.metric != "cosine"
        self.embeddings = self._prepared.rows if self._prepared is not None and copied else embeddings.clone()
        self._proposals = (
            None if approximate is None else Proposals(embeddings, comparison.metric, approximate)
        )

    def __len__(self) -> int:
        """How many supports there are."""
        return len(self.embeddings)

    def class_of(self, index: Tensor) -> Tensor:
        """The class of these supports."""
        return self.class_index[index]

    def class_scores(self, queries: Tensor, reduce: Reduce) -> Tensor:
        """Scores `[Q, C]`: the best, the mean, or the class prototype's."""
        if self._prepared is not None:
            if reduce == "prototype":
                return ops.class_scores(queries.to(self._prototypes.rows.dtype), self._prototypes)
            return ops.class_scores(queries, self._prepared, reduce=reduce)
        if reduce == "prototype":
            blocks = [block for _, block in self._blocks(queries, self._class_means(self.embeddings))]
            return torch.cat(blocks, 1)
        fill = -torch.inf if reduce == "max" else 0.0
        out = queries.new_full((len(queries), self.num_classes), fill)
        for start, block in self._blocks(queries, self.embeddings):
            index = self.class_index[start : start + block.shape[1]]
            if reduce == "max":
                out.scatter_reduce_(1, index.expand_as(block), block, "amax")
            else:
                out.index_add_(1, index, block)
        return out if reduce == "max" else out / self._counts(out.dtype)

    def score_blocks(self, queries: Tensor, reduce: Reduce) -> Iterator[Tensor]:
        """`class_scores` of successive queries, a bounded number at a time; one empty block of none."""
        step = max(1, SCORES // self.num_classes)
        for start in range(0, max(1, len(queries)), step):
            yield self.class_scores(queries[start : start + step], reduce)

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best supports: scores and indices `[Q, k]`, best first, of equals the lower index first.

        -inf and -1 where an approximate look-up found fewer.
        """
        if self._proposals is not None:
            return self._best_of(queries, self._proposals.of(queries, k), k)
        if self._prepared is not None:
            return ops.nearest_support(queries, self._prepared, k)
        scores = queries.new_empty((len(queries), 0))
        indices = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
        for start, block in self._blocks(queries, self.embeddings):
            here = torch.arange(start, start + block.shape[1], device=queries.device).expand_as(block)
            scores, order = torch.sort(torch.cat([scores, block], 1), dim=1, descending=True, stable=True)
            indices = torch.cat([indices, here], 1).gather(1, order)[:, :k]
            scores = scores[:, :k]
        return scores, indices

    def _best_of(self, queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
        candidates = nn.functional.pad(candidates, (max(0, k - candidates.shape[1]), 0), value=-1)
        parts, count = [], candidates.shape[1]
        step = max(1, BLOCK // max(1, count * queries.shape[1]))
        for start in range(0, len(queries), step):
            some, asked = candidates[start : start + step], queries[start : start + step]
            rows = self.embeddings[some.clamp_min(0).flatten()]
            scores = self.comparison.pairs(asked.repeat_interleave(count, 0), rows).view(some.shape)
            best = scores.masked_fill(some < 0, -torch.inf).sort(dim=1, descending=True, stable=True)
            parts.append((best.values[:, :k], some.gather(1, best.indices[:, :k])))
        if not parts:
            return queries.new_empty(0, k), candidates.new_empty(0, k)
        scores, index = (torch.cat(part) for part in zip(*parts, strict=True))
        return scores, index

    @cached_property
    def _prototypes(self) -> ops.PreparedSupport:
        means = self._class_means(self.averaged_rows())
        prototypes = self._prepare(means, torch.arange(self.num_classes, device=means.device))
        assert prototypes is not None
        return prototypes

    def averaged_rows(self) -> Tensor:
        """The rows whose mean is a class's prototype: of unit length for cosine, at least float32."""
        if self._prepared is None:
            return self.embeddings
        rows = self._prepared.rows
        return rows if rows.dtype == torch.float64 else rows.float()

    def _prepare(self, rows: Tensor, class_index: Tensor) -> ops.PreparedSupport | None:
        arguments = self.comparison.arguments
        if arguments is None:
            return None
        return ops.prepare_support(rows, **arguments, class_index=class_index, num_classes=self.num_classes)

    def _class_means(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros((self.num_classes, rows.shape[1])).index_add_(0, self.class_index, rows)
        return total / self._counts(rows.dtype)[:, None]

    def _counts(self, dtype: torch.dtype) -> Tensor:
        return torch.bincount(self.class_index, minlength=self.num_classes).to(dtype)

    def _blocks(self, queries: Tensor, supports: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(first column, logits [Q, block]) of a head that has no fused form."""
        step = max(1, BLOCK // max(1, queries.numel()))
        with torch.no_grad():
            for start in range(0, len(supports), step):
                yield start, self.comparison.head.matrix(queries, supports[start : start + step])
