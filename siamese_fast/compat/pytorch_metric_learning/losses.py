"""The library's losses over all pairs or triplets of a batch, and over a miner's triplets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast._extras import require
from siamese_fast.compat._arguments import is_number
from siamese_fast.compat.pytorch_metric_learning._fits import (
    MEAN,
    NON_ZERO,
    metric_of,
    own_rows,
    plain,
    reduction_of,
    shared_reduction,
)
from siamese_fast.ops.pair_loss import pair_losses
from siamese_fast.ops.relations import pair_counts

losses = require("pytorch_metric_learning.losses", "metrics")


class EveryPair(NamedTuple):
    """In place of a list: every pair, but for the positives that a row makes with its own copy."""

    own: Tensor | None
    listed: Callable[[], Any]


def _nothing(x: Tensor) -> Tensor:
    """The library's loss of a batch without pairs: a zero that still has gradients."""
    return (x * 0).sum()


class Fused:
    """What the fused losses share: when to fuse, and what a batch without pairs gives.

    Attributes:
        parameters_of_formula: names of the loss's numbers; tensors among them may be learnt, which only the
            library's code does.
    """

    parameters_of_formula: tuple[str, ...]
    distance: Any
    reducer: Any
    embedding_regularizer: Any
    collect_stats: bool

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        found = None
        every = isinstance(indices_tuple, EveryPair)
        numbers = all(is_number(getattr(self, name)) for name in self.parameters_of_formula)
        if labels is not None and numbers and plain(embeddings, labels, ref_emb, ref_labels):
            if indices_tuple is None or every:
                own = indices_tuple.own if every else own_rows(labels, ref_emb, ref_labels)
                found = self.over_all(embeddings, labels, ref_emb, ref_labels, own)
            else:
                found = self.over_given(embeddings, indices_tuple, ref_emb)
        if found is not None:
            return found.to(embeddings.dtype)
        if every:
            indices_tuple = indices_tuple.listed()
        library: Tensor = super().forward(  # type: ignore[misc]
            embeddings, labels, indices_tuple, ref_emb, ref_labels
        )
        return library

    def over_all(
        self,
        x: Tensor,
        labels: Tensor,
        ref: Tensor | None,
        ref_labels: Tensor | None,
        own: Tensor | None,
    ) -> Tensor | None:
        """The loss over all pairs or triplets; None where it has no fused form. `own`: row of `ref` that is
        no positive.
        """
        metric = metric_of(self.distance)
        if metric is None or self.embedding_regularizer is not None or self.collect_stats:
            return None
        labels = labels.to(x.device, torch.int64)
        ref_labels = None if ref is None or ref_labels is None else ref_labels.to(x.device, torch.int64)
        counts = pair_counts(labels, ref_labels, own, torch.empty(0, dtype=torch.float64, device=x.device))
        if not self.enough(counts):
            return _nothing(x)
        return self.fused((x, labels, *metric, ref, ref_labels, own), counts)

    def enough(self, counts: Tensor) -> bool:
        """Counts [N, 2] of positives and negatives; the library gives 0 where it finds one pair of a kind
        at most.
        """
        return bool((counts.sum(0) > 1).any())

    def over_given(self, x: Tensor, indices: Any, ref: Tensor | None) -> Tensor | None:
        return None

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        raise NotImplementedError

    def rows(self, formula: str, parameters: list[float], operands: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        x, labels, metric, normalize, ref, ref_labels, own = operands
        return pair_losses(formula, parameters, x, labels, metric, normalize, ref, ref_labels, own)

    def reduced(self, each: Tensor, x: Tensor) -> Tensor | None:
        """Losses [N] by the reducer; a mean of nothing is a zero that still has gradients."""
        reduction = reduction_of(self.reducer)
        if reduction == MEAN:
            return each.mean() if each.shape[0] else _nothing(x)
        if reduction == NON_ZERO:
            return each.sum() / (each > 0).sum().clamp_min(1)
        return None


class NTXentLoss(Fused, losses.NTXentLoss):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.NTXentLoss`, fused with its default reducer.

    Example:
        >>> loss = NTXentLoss(temperature=0.1)(embeddings, labels)
    """

    parameters_of_formula = ("temperature",)

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        if reduction_of(self.reducer) != MEAN:
            return None
        if bool((counts.sum(0) == 0).any()):
            return _nothing(operands[0])
        each, _ = self.rows("ntxent", [self.temperature], operands)
        return each.sum() / counts[:, 0].sum()


class SupConLoss(Fused, losses.SupConLoss):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.SupConLoss`, fused.

    Example:
        >>> loss = SupConLoss(temperature=0.1)(embeddings, labels)
    """

    parameters_of_formula = ("temperature",)

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        if bool((counts.sum(0) == 0).any()):
            return _nothing(operands[0])
        each, _ = self.rows("supcon", [self.temperature], operands)
        return self.reduced(each[:, 0], operands[0])


class MultiSimilarityLoss(Fused, losses.MultiSimilarityLoss):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.MultiSimilarityLoss`, fused with its default reducer: the library's
    small losses round to 0, which a mean over non-zero losses leaves out.

    Example:
        >>> loss = MultiSimilarityLoss()(embeddings, labels)
    """

    parameters_of_formula = ("alpha", "beta", "base")

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        if reduction_of(self.reducer) != MEAN:
            return None
        base = self.base if self.distance.is_inverted else -self.base
        each, _ = self.rows("multi_similarity", [self.alpha, self.beta, base], operands)
        return self.reduced(each[:, 0], operands[0])


class CircleLoss(Fused, losses.CircleLoss):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.CircleLoss`, fused.

    Example:
        >>> loss = CircleLoss(m=0.4, gamma=80)(embeddings, labels)
    """

    parameters_of_formula = ("m", "gamma")

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        optimum = (self.op, self.on, self.delta_p, self.delta_n)
        if optimum != (1 + self.m, -self.m, 1 - self.m, self.m):
            return None
        each, _ = self.rows("circle", [self.m, self.gamma, 0.0], operands)
        return self.reduced(each[:, 0], operands[0])


class ContrastiveLoss(Fused, losses.ContrastiveLoss):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.ContrastiveLoss`, fused.

    Example:
        >>> loss = ContrastiveLoss(pos_margin=0, neg_margin=1)(embeddings, labels)
    """

    parameters_of_formula = ("pos_margin", "neg_margin")

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        reduction = shared_reduction(self.reducer, ["pos_loss", "neg_loss"])
        if reduction is None:
            return None
        sign = 1.0 if self.distance.is_inverted else -1.0
        each, active = self.rows("contrastive", [sign * self.pos_margin, sign * self.neg_margin], operands)
        averaged = active if reduction == NON_ZERO else counts
        return (each.sum(0) / averaged.sum(0).clamp_min(1)).sum()


class TripletMarginLoss(Fused, losses.TripletMarginLoss):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.TripletMarginLoss`, fused for all triplets without `swap`, and for
    the triplets of a miner.

    Example:
        >>> loss = TripletMarginLoss(margin=0.1)(embeddings, labels, BatchHardMiner()(embeddings, labels))
    """

    parameters_of_formula = ("margin",)

    def fused(self, operands: tuple[Any, ...], counts: Tensor) -> Tensor | None:
        reduction = reduction_of(self.reducer)
        if self.triplets_per_anchor != "all" or self.swap or reduction is None:
            return None
        x, labels, metric, normalize, ref, ref_labels, own = operands
        return ops.batch_all_triplet_loss(
            x,
            labels,
            self.margin,
            metric=metric,
            normalize=normalize,
            smooth=self.smooth_loss,
            reduction=reduction,
            ref=ref,
            ref_labels=ref_labels,
            self_index=own,
        )

    def enough(self, counts: Tensor) -> bool:
        return bool(counts.prod(1).any())

    def over_given(self, x: Tensor, indices: Any, ref: Tensor | None) -> Tensor | None:
        metric, reduction = metric_of(self.distance), reduction_of(self.reducer)
        fits = isinstance(indices, (tuple, list)) and len(indices) == 3
        # The library's swap takes the rows of `positive` for anchors, which with `ref_emb` they are not.
        swapped = self.swap and ref is not None
        if not fits or metric is None or reduction is None or swapped or self.collect_stats:
            return None
        if self.embedding_regularizer is not None:
            return None
        if len(indices[0]) == 0:
            return _nothing(x)
        name, normalize = metric
        anchor, positive, negative = indices
        return ops.triplet_loss(
            anchor,
            positive,
            negative,
            self.margin,
            embeddings=x,
            ref=ref,
            metric=name,
            normalize=normalize,
            smooth=self.smooth_loss,
            swap=self.swap,
            reduction=reduction,
        )
