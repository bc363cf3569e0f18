"""Triplet losses as modules.

max(0, d_ap - d_an + margin), or softplus(d_ap - d_an) with margin=None
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from siamese_fast import ops
from siamese_fast.network.heads import Metric


class BatchHardTripletLoss(nn.Module):
    """Triplet loss of every anchor with its farthest positive and its nearest negative in the batch; O(N D)
    memory.

    Args:
        margin: of the hinge; None is the soft margin `softplus(d_ap - d_an)`.
        metric: "euclidean", "sqeuclidean", "cosine", "dot" or "manhattan".
        normalize, smooth, reduction, no_triplet: as in `ops.batch_hard_triplet_loss`.

    Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017).

    Example:
        >>> loss = BatchHardTripletLoss(margin=None)(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        *,
        metric: Metric = "euclidean",
        normalize: bool = False,
        smooth: bool = False,
        reduction: str = "mean",
        no_triplet: str = "skip",
    ) -> None:
        super().__init__()
        self.margin = margin
        self.options: dict[str, Any] = {
            "metric": metric,
            "normalize": normalize,
            "smooth": smooth,
            "reduction": reduction,
            "no_triplet": no_triplet,
        }

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return cast(Tensor, ops.batch_hard_triplet_loss(embeddings, labels, self.margin, **self.options))

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={value!r}" for name, value in {"margin": self.margin, **self.options}.items()
        )


class TripletLoss(nn.Module):
    """Triplet loss of given triplets.

    Args:
        margin: of the hinge; None is the soft margin.
        metric, normalize, smooth, reduction: as in `ops.triplet_loss`.

    Shapes:
        anchor, positive, negative `[T, D]` to a scalar (or `[T]` with `reduction="none"`).

    Source: Schroff, Kalenichenko, Philbin, "FaceNet" (2015).

    Example:
        >>> loss = TripletLoss()(encoder(a), encoder(p), encoder(n))
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        *,
        metric: Metric = "euclidean",
        normalize: bool = False,
        smooth: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.margin = margin
        self.options: dict[str, Any] = {
            "metric": metric,
            "normalize": normalize,
            "smooth": smooth,
            "reduction": reduction,
        }

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return ops.triplet_loss(anchor, positive, negative, self.margin, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={value!r}" for name, value in {"margin": self.margin, **self.options}.items()
        )
