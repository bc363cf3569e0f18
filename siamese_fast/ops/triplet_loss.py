"""Triplet losses: for anchor a, positive p and negative n, with violation v = d(a, p) - d(a, n) + margin,

    hinge max(0, v),   smooth softplus(v),   soft margin (margin=None) softplus(d(a, p) - d(a, n)).

`batch_hard_triplet_loss` mines the hardest pair of each anchor and evaluates just those: forward O(N^2 D)
time in O(N D) memory, backward O(N D) time, since only N positive and N negative pairs carry gradient.
Distances of the chosen pairs come from exact differences. Contributions to one row are grouped and summed in
a fixed order: no atomics, same bits on every run and every thread count.

Sources: Schroff, Kalenichenko, Philbin, "FaceNet", 2015; Hermans, Beyer, Leibe, "In Defense of the Triplet
Loss", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops.hardest_pairs import mine
from siamese_fast.ops.indexed_triplets import Triplets, apply_triplets, indexed_loss
from siamese_fast.ops.ranked_pairs import hardest_related
from siamese_fast.ops.relations import Choice
from siamese_fast.ops.statistics import Statistics

REDUCTIONS = ("none", "mean", "sum", "mean_nonzero")
NO_TRIPLET = ("skip", "zero_positive", "error")


def batch_hard_triplet_loss(
    x: Tensor,
    labels: Tensor | None,
    margin: float | None = 0.2,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    smooth: bool = False,
    reduction: str = "mean",
    no_triplet: str = "skip",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    return_valid: bool = False,
    swap: bool = False,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
    statistics: Statistics | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Triplet loss over each anchor's hardest positive and hardest negative.

    Args:
        x: embeddings [N, D].
        labels: [N], any integer or bool dtype, or [N, C], multi-hot, as for `ntxent_loss`.
        margin: of the violation d_ap - d_an + margin; None for the soft margin softplus(d_ap - d_an).
        metric: "euclidean", "sqeuclidean", "cosine" (1 - cosine), "dot" (violation s_an - s_ap + margin) or
            "manhattan".
        normalize: scale rows to length 1 first.
        smooth: softplus of the violation instead of its positive part.
        reduction: "mean" over the anchors that have a positive and a negative, "sum", "mean_nonzero" over
            positive losses, or "none": [N], 0 where an anchor is left out.
        no_triplet: an anchor without a positive or a negative is left out ("skip"), raises ("error",
            synchronises), or, with "zero_positive", counts with d_ap = 0 when it only lacks the positive.
        ref, ref_labels, self_index: a separate set to mine from, as for `hardest_pairs`; `ref` takes
            gradients too.
        return_valid: also return which anchors took part, bool [N].
        swap: the negative counts at its distance from the positive where that is smaller than from the anchor
            (the distance swap of Balntas et al., 2016).
        weight, ignore_label, pair_mask: as for `ntxent_loss`; the last, and labels [N, C], with any metric
            but "manhattan".
        statistics: a dict that takes what `triplet_statistics` says of the batch.

    Returns:
        The loss, [] or [N]. A batch without any triplet gives 0 and gradients of zeros. A NaN anchor has loss
        NaN and NaN gradient in its own row.

    Example:
        >>> loss = batch_hard_triplet_loss(embeddings, labels, margin=0.2)
        >>> loss.backward()
    """
    check_options(margin, metric, reduction, no_triplet)
    choice = Choice(weight, ignore_label, pair_mask)
    x, labels, ref, ref_labels, self_index = choice.related(x, labels, ref, ref_labels, self_index)
    if normalize or metric == "cosine":
        x, ref = metrics.unit_rows(x), None if ref is None else metrics.unit_rows(ref)
    positive, negative = _hardest(x, labels, ref, ref_labels, self_index, metric, ignore_label)
    zero_positive = no_triplet == "zero_positive"
    if no_triplet == "error":
        missing = int((~_took_part(positive, negative, zero_positive)).sum())
        if missing:
            anchors = f"{missing} of {x.shape[0]} anchors"
            raise ValueError(f"no_triplet is 'error', and {anchors} have no positive or no negative")
    loss = indexed_loss(
        Triplets(x, ref, None, positive, negative),
        margin,
        metric,
        smooth=smooth,
        reduction=reduction,
        swap=swap,
        zero_positive=zero_positive,
        choice=choice,
        statistics=statistics,
    )
    return (loss, _took_part(positive, negative, zero_positive)) if return_valid else loss


def _took_part(positive: Tensor, negative: Tensor, zero_positive: bool) -> Tensor:
    return negative >= 0 if zero_positive else (positive >= 0) & (negative >= 0)


def _hardest(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
    ignore_label: int | None,
) -> tuple[Tensor, Tensor]:
    """The hardest pair of each row. Mining never chooses a NaN: ignored rows are that to it."""
    if labels.dim() == 2:
        return hardest_related(x, labels, ref, ref_labels, self_index, metric)
    if ignore_label is not None:
        x = torch.where((labels == ignore_label)[:, None], torch.nan, x)
        if ref is not None and ref_labels is not None:
            ref = torch.where((ref_labels == ignore_label)[:, None], torch.nan, ref)
    return mine(x, labels, ref, ref_labels, self_index, metric)


def check_options(margin: float | None, metric: str, reduction: str, no_triplet: str) -> None:
    check.margin(margin)
    check.choice("metric", metric, check.METRICS)
    check.choice("reduction", reduction, REDUCTIONS)
    check.choice("no_triplet", no_triplet, NO_TRIPLET)


def losses_of_chosen(
    x: Tensor,
    table: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float | None,
    metric: str,
    smooth: bool,
    zero_positive: bool,
) -> Tensor:
    """Loss `[N]` of each row of `x` with rows of `table`, -1 for none; differentiable, arguments checked."""
    hinge = "softplus" if smooth or margin is None else "relu"
    losses: Tensor = apply_triplets(
        x, table, None, positive, negative, float(margin or 0.0), metric, hinge, "none", zero_positive
    )[0]
    return losses
