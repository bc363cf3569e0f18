"""Triplet losses as modules.

max(0, d_ap - d_an + margin), or softplus(d_ap - d_an) with margin=None
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from siamese_fast import ops
from siamese_fast.losses.pairs import PairLoss, PairMetric
from siamese_fast.network.heads import Metric


class InBatchTripletLoss(PairLoss):
    """A loss over triplets of a batch.

    Attributes:
        collect_statistics: set it True, and after every call
        statistics: holds detached scalars on the device of the embeddings, without a wait for it: `triplets`,
            `active` (the fraction with a loss above 0), the mean distances `d_ap` and `d_an`, and `spread`, 0
            where all embeddings are one point; see `ops.statistics.triplet_statistics`.
    """

    collect_statistics = False

    def __init__(self, operation: Callable[..., Any], **options: Any) -> None:
        super().__init__(operation, **options)
        self.statistics: dict[str, Tensor] = {}

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        *,
        ref: Tensor | None = None,
        ref_labels: Tensor | None = None,
        self_index: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_label: int | None = None,
        pair_mask: Tensor | None = None,
    ) -> Tensor:
        found: dict[str, Tensor] = {}
        loss = self.call(
            embeddings,
            labels,
            ref=ref,
            ref_labels=ref_labels,
            self_index=self_index,
            weight=weight,
            ignore_label=ignore_label,
            pair_mask=pair_mask,
            statistics=found if self.collect_statistics else None,
        )
        self.statistics = found
        return loss


class BatchHardTripletLoss(InBatchTripletLoss):
    """Triplet loss of every anchor with its farthest positive and its nearest negative in the batch; O(N D)
    memory.

    Args:
        margin: of the hinge; None is the soft margin `softplus(d_ap - d_an)`.
        metric: "euclidean", "sqeuclidean", "cosine", "dot" or "manhattan".
        normalize, smooth, reduction, no_triplet, swap: as in `ops.batch_hard_triplet_loss`.

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
        swap: bool = False,
    ) -> None:
        super().__init__(
            partial(ops.batch_hard_triplet_loss, margin=margin),
            metric=metric,
            normalize=normalize,
            smooth=smooth,
            reduction=reduction,
            no_triplet=no_triplet,
            **({"swap": True} if swap else {}),
        )
        self.margin = margin

    def extra_repr(self) -> str:
        return f"margin={self.margin!r}, {super().extra_repr()}"


class BatchAllTripletLoss(InBatchTripletLoss):
    """Every triplet of the batch, exactly, without a list of them.

    Args:
        margin, metric, normalize, smooth, reduction: as in `ops.batch_all_triplet_loss`.

    Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017).

    Example:
        >>> loss = BatchAllTripletLoss(margin=0.1)(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        *,
        metric: PairMetric = "euclidean",
        normalize: bool = False,
        smooth: bool = False,
        reduction: str = "mean_nonzero",
    ) -> None:
        super().__init__(
            ops.batch_all_triplet_loss,
            margin=margin,
            metric=metric,
            normalize=normalize,
            reduction=reduction,
            **({"smooth": True} if smooth else {}),
        )


class SemiHardTripletLoss(InBatchTripletLoss):
    """Every anchor and positive with the nearest negative that is farther than the positive.

    Args:
        margin, metric, normalize, smooth, reduction: as in `ops.semi_hard_triplet_loss`.

    Source: Schroff, Kalenichenko, Philbin, "FaceNet" (2015).

    Example:
        >>> loss = SemiHardTripletLoss(margin=0.2, normalize=True)(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        *,
        metric: PairMetric = "euclidean",
        normalize: bool = False,
        smooth: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            ops.semi_hard_triplet_loss,
            margin=margin,
            metric=metric,
            normalize=normalize,
            smooth=smooth,
            reduction=reduction,
        )


class RankedTripletLoss(InBatchTripletLoss):
    """Each anchor's easiest (or k hardest) positives with its k hardest, or semi-hard, negatives.

    Args:
        margin, positive, negative, positives, negatives, metric, normalize, smooth, reduction, swap: as in
            `ops.ranked_triplet_loss`.

    Source: Xuan, Stylianou, Pless, "Improved Embeddings with Easy Positive Triplet Mining" (2020).

    Example:
        >>> loss = RankedTripletLoss(positive="hardest", negatives=5)(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        *,
        positive: str = "easiest",
        negative: str = "semi_hard",
        positives: int = 1,
        negatives: int = 1,
        metric: PairMetric = "euclidean",
        normalize: bool = False,
        smooth: bool = False,
        reduction: str = "mean",
        swap: bool = False,
    ) -> None:
        super().__init__(
            ops.ranked_triplet_loss,
            margin=margin,
            positive=positive,
            negative=negative,
            positives=positives,
            negatives=negatives,
            metric=metric,
            normalize=normalize,
            smooth=smooth,
            reduction=reduction,
            swap=swap,
        )


class TripletLoss(nn.Module):
    """Triplet loss of given triplets.

    Args:
        margin: of the hinge; None is the soft margin.
        metric, normalize, smooth, reduction, swap: as in `ops.triplet_loss`.

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
        swap: bool = False,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.options: dict[str, Any] = {
            "metric": metric,
            "normalize": normalize,
            "smooth": smooth,
            "reduction": reduction,
            "swap": swap,
        }

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return ops.triplet_loss(anchor, positive, negative, self.margin, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={value!r}" for name, value in {"margin": self.margin, **self.options}.items()
        )
