"""The library's triplet losses of a labelled batch. An anchor without a positive counts with d_ap = 0 in the
batch-hard losses, whose mean is over all anchors.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from torch import Tensor

from siamese_fast import ops
from siamese_fast._extras import require
from siamese_fast.compat._arguments import is_labels, is_number, is_rows

losses = require("sentence_transformers.sentence_transformer.losses", "sentence-transformers")

_distances = losses.BatchHardTripletLossDistanceFunction
_METRICS = {_distances.euclidean_distance: "euclidean", _distances.cosine_distance: "cosine"}


def _metric(loss: Any, labels: Any, embeddings: Any, margin: Any) -> str | None:
    """The metric of a batch that has a fused form; None for the library's own code."""
    distance = loss.distance_metric
    metric = _METRICS.get(distance) if isinstance(distance, FunctionType) else None
    fits = is_rows(embeddings) and is_labels(labels) and labels.numel() == embeddings.shape[0] > 0
    if metric is None or not fits or not is_number(margin):
        return None
    return metric if bool((labels != labels.view(-1)[0]).any()) else None


def _classes(labels: Tensor, embeddings: Tensor) -> Tensor:
    return labels.view(-1).to(embeddings.device)


class BatchHardTripletLoss(losses.BatchHardTripletLoss):  # type: ignore[misc,name-defined]
    """`sentence_transformers.losses.BatchHardTripletLoss`, fused.

    Example:
        >>> loss = BatchHardTripletLoss(model, margin=5)
        >>> SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=loss).train()
    """

    def batch_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        metric = _metric(self, labels, embeddings, self.triplet_margin)
        if metric is None:
            return super().batch_hard_triplet_loss(labels, embeddings)  # type: ignore[no-any-return]
        return _hardest(self.triplet_margin, metric, labels, embeddings)


class BatchHardSoftMarginTripletLoss(losses.BatchHardSoftMarginTripletLoss):  # type: ignore[misc,name-defined]
    """`sentence_transformers.losses.BatchHardSoftMarginTripletLoss`, fused.

    Example:
        >>> loss = BatchHardSoftMarginTripletLoss(model)
    """

    def batch_hard_triplet_soft_margin_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        metric = _metric(self, labels, embeddings, 0)
        if metric is None:
            return super().batch_hard_triplet_soft_margin_loss(labels, embeddings)  # type: ignore[no-any-return]
        return _hardest(None, metric, labels, embeddings)


class BatchAllTripletLoss(losses.BatchAllTripletLoss):  # type: ignore[misc,name-defined]
    """`sentence_transformers.losses.BatchAllTripletLoss`, fused.

    Example:
        >>> loss = BatchAllTripletLoss(model, margin=5)
    """

    def batch_all_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        margin = self.triplet_margin
        metric = _metric(self, labels, embeddings, margin)
        if metric is None:
            return super().batch_all_triplet_loss(labels, embeddings)  # type: ignore[no-any-return]
        classes = _classes(labels, embeddings)
        return ops.batch_all_triplet_loss(embeddings, classes, margin, metric=metric)


class BatchSemiHardTripletLoss(losses.BatchSemiHardTripletLoss):  # type: ignore[misc,name-defined]
    """`sentence_transformers.losses.BatchSemiHardTripletLoss`, fused.

    Example:
        >>> loss = BatchSemiHardTripletLoss(model, margin=5)
    """

    def batch_semi_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        metric = _metric(self, labels, embeddings, self.margin)
        if metric is None:
            return super().batch_semi_hard_triplet_loss(labels, embeddings)  # type: ignore[no-any-return]
        classes = _classes(labels, embeddings)
        return ops.semi_hard_triplet_loss(embeddings, classes, self.margin, metric=metric)


def _hardest(margin: float | None, metric: str, labels: Tensor, embeddings: Tensor) -> Tensor:
    loss = ops.batch_hard_triplet_loss(
        embeddings, _classes(labels, embeddings), margin, metric=metric, no_triplet="zero_positive"
    )
    assert isinstance(loss, Tensor)
    return loss
