"""`torch.nn`'s losses of given triplets and pairs, fused: forward and backward keep no differences of rows;
triplets make one copy of the anchors, moved by `eps`.

    from siamese_fast.compat.torch_nn import TripletMarginLoss, TripletMarginWithDistanceLoss,
    CosineEmbeddingLoss

Fused for matrices of one shape, floating dtype and device, with p = 1 or 2 and without swap; torch's own
code otherwise. Results are torch's, in float32 for half inputs' arithmetic and returned in the inputs' dtype;
but `eps` is lost where it is below the rounding of the anchor, in the anchor's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamese_fast import ops
from siamese_fast.ops._checks import DTYPES

__all__ = ["CosineEmbeddingLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss"]

_METRICS = {1.0: "manhattan", 2.0: "euclidean"}
_EPS = 1e-6  # torch's default, added to every difference


def _alike(*rows: Tensor) -> bool:
    first = rows[0]
    return (
        first.dim() == 2
        and first.dtype in DTYPES
        and first.numel() > 0
        and all(
            row.shape == first.shape and row.dtype == first.dtype and row.device == first.device
            for row in rows
        )
    )


def _triplets(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, metric: str, eps: float, reduction: str
) -> Tensor:
    """|a - p + eps| is the distance of a + eps and p, up to the rounding of a + eps."""
    loss = ops.triplet_loss(anchor + eps, positive, negative, margin, metric=metric, reduction=reduction)
    return loss.to(anchor.dtype)


class TripletMarginLoss(nn.TripletMarginLoss):
    """`torch.nn.TripletMarginLoss`, fused for p = 1 and 2 without swap.

    Example:
        >>> loss = TripletMarginLoss(margin=1.0)(encoder(a), encoder(p), encoder(n))
        >>> loss.backward()
    """

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        metric = _METRICS.get(float(self.p))
        if metric is None or self.swap or not _alike(anchor, positive, negative):
            return super().forward(anchor, positive, negative)
        return _triplets(anchor, positive, negative, self.margin, metric, self.eps, self.reduction)


class TripletMarginWithDistanceLoss(nn.TripletMarginWithDistanceLoss):
    """`torch.nn.TripletMarginWithDistanceLoss`, fused for its default distance without swap.

    Example:
        >>> loss = TripletMarginWithDistanceLoss(margin=1.0)(encoder(a), encoder(p), encoder(n))
        >>> loss.backward()
    """

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        distance = self.distance_function
        default = distance is None or type(distance) is nn.PairwiseDistance
        if not default or self.swap or not _alike(anchor, positive, negative):
            return super().forward(anchor, positive, negative)
        if isinstance(distance, nn.PairwiseDistance) and (
            distance.norm != 2.0 or distance.eps != _EPS or distance.keepdim
        ):
            return super().forward(anchor, positive, negative)
        return _triplets(anchor, positive, negative, self.margin, "euclidean", _EPS, self.reduction)


class CosineEmbeddingLoss(nn.CosineEmbeddingLoss):
    """`torch.nn.CosineEmbeddingLoss`, fused: 1 - cos for target 1, max(0, cos - margin) for target -1.

    Example:
        >>> loss = CosineEmbeddingLoss(margin=0.2)(encoder(a), encoder(b), target)
        >>> loss.backward()
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        if not _alike(input1, input2) or target.shape != input1.shape[:1]:
            return super().forward(input1, input2, target)
        distance = ops.distance(input1, input2, "cosine")
        zero = torch.zeros_like(distance)
        apart = (1 - distance - self.margin).clamp_min(0)
        losses = torch.where(target == 1, distance, zero) + torch.where(target == -1, apart, zero)
        if self.reduction == "none":
            return losses.to(input1.dtype)
        return (losses.mean() if self.reduction == "mean" else losses.sum()).to(input1.dtype)
