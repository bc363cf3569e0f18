"""`torch.nn`'s losses of given triplets and pairs, fused: forward and backward keep no differences of rows;
triplets make one copy of the anchors, moved by `eps`.

    from siamese_fast.compat.torch_nn import TripletMarginLoss, TripletMarginWithDistanceLoss,
    CosineEmbeddingLoss

Fused for tensors of one shape, floating dtype and device, with p = 1 or 2; torch's own code otherwise.
Results are torch's, computed in float32 for half inputs and returned in the inputs' dtype; but `eps` is lost
where it is below the rounding of the anchor, in the anchor's dtype, and the cosine is without the 1e-12 that
torch adds to squared lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from siamese_fast import ops
from siamese_fast.compat._arguments import PAIRWISE_EPS, alike, is_number
from siamese_fast.ops._checks import REDUCTIONS

__all__ = ["CosineEmbeddingLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss"]

_METRICS = {1.0: "manhattan", 2.0: "euclidean"}


class _Options(NamedTuple):
    margin: float
    metric: str
    eps: float
    swap: bool
    reduction: str

    def fit(self, *rows: Tensor) -> bool:
        """Whether there is a fused form; torch says what is wrong with other options and tensors."""
        numbers = is_number(self.margin) and self.margin > 0 and is_number(self.eps)
        return bool(self.metric) and numbers and self.reduction in REDUCTIONS and alike(*rows)


def _triplets(options: _Options, *given: Tensor) -> Tensor:
    """Of anchors, positives and negatives [..., D]: |a - p + eps| is the distance of a + eps and p, up to the
    rounding of a + eps.
    """
    margin, metric, eps, swap, reduction = options
    anchor, positive, negative = (rows.reshape(-1, rows.shape[-1]) for rows in given)
    if swap:
        to_positive, to_negative = (ops.distance(anchor + eps, rows, metric) for rows in (positive, negative))
        to_negative = torch.min(to_negative, ops.distance(positive + eps, negative, metric))
        loss = _reduced((to_positive - to_negative + margin).clamp_min(0), reduction)
    else:
        loss = ops.triplet_loss(anchor + eps, positive, negative, margin, metric=metric, reduction=reduction)
    return (loss.reshape(given[0].shape[:-1]) if reduction == "none" else loss).to(given[0].dtype)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


class TripletMarginLoss(nn.TripletMarginLoss):
    """`torch.nn.TripletMarginLoss`, fused for p = 1 and 2.

    Example:
        >>> loss = TripletMarginLoss(margin=1.0)(encoder(a), encoder(p), encoder(n))
        >>> loss.backward()
    """

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        metric = _METRICS.get(float(self.p), "")
        options = _Options(self.margin, metric, self.eps, self.swap, self.reduction)
        if not options.fit(anchor, positive, negative):
            return super().forward(anchor, positive, negative)
        return _triplets(options, anchor, positive, negative)


class TripletMarginWithDistanceLoss(nn.TripletMarginWithDistanceLoss):
    """`torch.nn.TripletMarginWithDistanceLoss`, fused for its default distance, and for a
    `torch.nn.PairwiseDistance` with p = 1 or 2.

    Example:
        >>> loss = TripletMarginWithDistanceLoss(margin=1.0)(encoder(a), encoder(p), encoder(n))
        >>> loss.backward()
    """

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        distance, metric, eps = self.distance_function, "euclidean", PAIRWISE_EPS
        if type(distance) is nn.PairwiseDistance and not distance.keepdim:
            metric, eps = _METRICS.get(float(distance.norm), ""), distance.eps
        elif distance is not None:
            metric = ""
        options = _Options(self.margin, metric, eps, self.swap, self.reduction)
        if not options.fit(anchor, positive, negative):
            return super().forward(anchor, positive, negative)
        return _triplets(options, anchor, positive, negative)


class CosineEmbeddingLoss(nn.CosineEmbeddingLoss):
    """`torch.nn.CosineEmbeddingLoss`, fused: 1 - cos for target 1, max(0, cos - margin) for target -1.

    Example:
        >>> loss = CosineEmbeddingLoss(margin=0.2)(encoder(a), encoder(b), target)
        >>> loss.backward()
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        fits = input1.dim() == 2 and alike(input1, input2) and target.shape == input1.shape[:1]
        if not fits or self.reduction not in REDUCTIONS:
            return super().forward(input1, input2, target)
        distance = ops.distance(input1, input2, "cosine")
        zero = torch.zeros_like(distance)
        apart = (1 - distance - self.margin).clamp_min(0)
        losses = torch.where(target == 1, distance, zero) + torch.where(target == -1, apart, zero)
        return _reduced(losses, self.reduction).to(input1.dtype)
