"""Triplet loss over each anchor's ranked positives and negatives: the k hardest of each, the easiest
positive with the hardest negative or with the nearest that is farther (semi-hard).

    loss = mean over anchors a, the chosen positives p and negatives n of max(0, d_ap - d_an + margin)

Sources: Xuan, Stylianou, Pless, "Improved Embeddings with Easy Positive Triplet Mining", 2020; Hermans,
Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops.indexed_triplets import Triplets, indexed_loss
from siamese_fast.ops.ranked_pairs import ranked_pairs
from siamese_fast.ops.relations import Choice
from siamese_fast.ops.statistics import Statistics
from siamese_fast.ops.triplet_loss import check_options


def ranked_triplet_loss(
    x: Tensor,
    labels: Tensor | None,
    margin: float | None = 0.2,
    *,
    positive: str = "easiest",
    negative: str = "semi_hard",
    positives: int = 1,
    negatives: int = 1,
    metric: str = "euclidean",
    normalize: bool = False,
    smooth: bool = False,
    reduction: str = "mean",
    swap: bool = False,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
    statistics: Statistics | None = None,
) -> Tensor:
    """Triplet loss over every pair of an anchor's chosen positives and chosen negatives.

    Args:
        x, labels, ref, ref_labels, self_index, weight, ignore_label, pair_mask: as for `ntxent_loss`.
        margin, normalize, smooth, swap, statistics: as for `batch_hard_triplet_loss`.
        positive, negative, positives, negatives, metric: as for `ranked_pairs`.
        reduction: "mean" over the triplets, "mean_nonzero" over those above 0, "sum", or "none": [N,
            positives * negatives], 0 where there is no triplet.

    Returns:
        The loss, [] or [N, positives * negatives]; 0, with gradients of zeros, for a batch without any
        triplet.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = ranked_triplet_loss(encoder(images), labels, positive="hardest", negatives=5)
        >>> loss.backward()
    """
    check_options(margin, metric, reduction, "skip")
    choice = Choice(weight, ignore_label, pair_mask)
    x, _, ref, *_ = choice.related(x, labels, ref, ref_labels, self_index)
    if normalize or metric == "cosine":
        x, ref = metrics.unit_rows(x), None if ref is None else metrics.unit_rows(ref)
    near, far = ranked_pairs(
        x,
        labels,
        positive=positive,
        negative=negative,
        positives=positives,
        negatives=negatives,
        metric="dot" if metric == "cosine" else metric,
        ref=ref,
        ref_labels=ref_labels,
        self_index=self_index,
        ignore_label=ignore_label,
        pair_mask=pair_mask,
    )
    every = positives * negatives
    anchor = torch.arange(x.shape[0], device=x.device).repeat_interleave(every)
    loss = indexed_loss(
        Triplets(
            x, ref, anchor, near.repeat_interleave(negatives, 1).flatten(), far.repeat(1, positives).flatten()
        ),
        margin,
        metric,
        smooth=smooth,
        reduction=reduction,
        swap=swap,
        choice=Choice(None if weight is None else weight.repeat_interleave(every)),
        statistics=statistics,
    )
    return loss.view(-1, every) if reduction == "none" else loss
