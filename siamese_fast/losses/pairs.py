"""Losses over all pairs of a batch as modules: thin layers over the fused operations, O(N D) memory.

loss(embeddings [N, D], labels [N]), or with a separate set: loss(x, labels, ref=..., ref_labels=...)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from siamese_fast import ops

PairMetric = Literal["euclidean", "sqeuclidean", "cosine", "dot"]


class PairLoss(nn.Module):
    """One operation with its options; calls take the embeddings, their labels, a separate set if there is
    one, weights, a label to ignore, or a mask of pairs instead of labels.
    """

    def __init__(self, operation: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.operation, self.options = operation, options

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
        given = {"weight": weight, "ignore_label": ignore_label, "pair_mask": pair_mask}
        return self.call(embeddings, labels, ref=ref, ref_labels=ref_labels, self_index=self_index, **given)

    def call(self, *rows: Tensor | None, **given: Any) -> Tensor:
        """The operation with its options, and what of `given` there is."""
        return self.operation(
            *rows, **{name: value for name, value in given.items() if value is not None}, **self.options
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class NTXentLoss(PairLoss):
    """Each positive pair against all negatives of its anchor (NT-Xent, InfoNCE over labels).

    Args:
        temperature, metric, normalize, reduction: as in `ops.ntxent_loss`.

    Source: Chen, Kornblith, Norouzi, Hinton, "SimCLR" (2020).

    Example:
        >>> loss = NTXentLoss(temperature=0.1)(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        temperature: float = 0.07,
        *,
        metric: PairMetric = "cosine",
        normalize: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            ops.ntxent_loss, temperature=temperature, metric=metric, normalize=normalize, reduction=reduction
        )


class SupConLoss(PairLoss):
    """Mean log-probability of an anchor's positives among all of its pairs.

    Args:
        temperature, metric, normalize, reduction: as in `ops.supcon_loss`.

    Source: Khosla et al., "Supervised Contrastive Learning" (2020).

    Example:
        >>> loss = SupConLoss()(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        metric: PairMetric = "cosine",
        normalize: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            ops.supcon_loss, temperature=temperature, metric=metric, normalize=normalize, reduction=reduction
        )


class ContrastiveLoss(PairLoss):
    """Every pair of the batch: positives nearer than one margin, negatives farther than another.

    Args:
        pos_margin, neg_margin, metric, normalize, reduction: as in `ops.contrastive_loss`.

    Source: Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (2006).

    Example:
        >>> loss = ContrastiveLoss(neg_margin=0.5)(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        pos_margin: float = 0.0,
        neg_margin: float = 1.0,
        *,
        metric: PairMetric = "euclidean",
        normalize: bool = False,
        reduction: str = "mean_nonzero",
    ) -> None:
        super().__init__(
            ops.contrastive_loss,
            pos_margin=pos_margin,
            neg_margin=neg_margin,
            metric=metric,
            normalize=normalize,
            reduction=reduction,
        )


class MultiSimilarityLoss(PairLoss):
    """A soft maximum over an anchor's positives and one over its negatives.

    Args:
        alpha, beta, base, metric, normalize, reduction: as in `ops.multi_similarity_loss`.

    Source: Wang et al., "Multi-Similarity Loss" (2019).

    Example:
        >>> loss = MultiSimilarityLoss()(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        *,
        metric: PairMetric = "cosine",
        normalize: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            ops.multi_similarity_loss,
            alpha=alpha,
            beta=beta,
            base=base,
            metric=metric,
            normalize=normalize,
            reduction=reduction,
        )


class CircleLoss(PairLoss):
    """Pairs weighted by how far their cosine is from the optimum.

    Args:
        margin, gamma, constant_weights, reduction: as in `ops.circle_loss`.

    Source: Sun et al., "Circle Loss" (2020).

    Example:
        >>> loss = CircleLoss()(encoder(images), labels)
        >>> loss.backward()
    """

    def __init__(
        self,
        margin: float = 0.4,
        gamma: float = 80.0,
        *,
        constant_weights: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            ops.circle_loss,
            margin=margin,
            gamma=gamma,
            constant_weights=constant_weights,
            reduction=reduction,
        )


class NPairLoss(nn.Module):
    """Row i of the positives against all other rows of them, for row i of the anchors (multi-class N-pair).

    Args:
        reduction: as in `ops.info_nce_loss`, which this is with products and temperature 1.

    Shapes:
        anchors, positives `[N, D]`, of N different classes, to a scalar (or `[N]`).

    Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective" (2016).

    Example:
        >>> loss = NPairLoss()(encoder(anchors), encoder(positives))
        >>> loss.backward()
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, anchors: Tensor, positives: Tensor) -> Tensor:
        return ops.info_nce_loss(anchors, positives, 1.0, metric="dot", reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
