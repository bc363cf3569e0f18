"""Triplet loss over every triplet of a batch, without a look at triplets. With scores s (larger is nearer)
and a threshold t_p = s_ap - margin for each positive p of anchor a,

    loss_a = sum_p sum_n max(0, s_an - t_p) = sum_n (r_n s_an - sum of the r_n lowest thresholds)
    d loss_a / d s_an = r_n, the thresholds below s_an    d loss_a / d s_ap = -c_p, the negatives above t_p

Every negative is ranked among the sorted thresholds of its anchor: O(N^2 (D + log K)) time and O(N D)
memory, plus K thresholds of the anchors at work. The soft margin, softplus(s_an - s_ap), has no such sums:
it is taken of each threshold, O(N^2 (D + K)) time in the same memory.

Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops._metrics import softplus
from siamese_fast.ops.relations import Choice
from siamese_fast.ops.statistics import Statistics
from siamese_fast.ops.triplet_sums import Evaluated, TripletRule, register, triplet_sums_loss


def batch_all_triplet_loss(
    x: Tensor,
    labels: Tensor | None,
    margin: float | None = 0.2,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    smooth: bool = False,
    reduction: str = "mean_nonzero",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
    statistics: Statistics | None = None,
) -> Tensor:
    """Triplet loss max(0, d_ap - d_an + margin) of every anchor, positive and negative.

    Args:
        x: embeddings [N, D].
        labels: [N], any integer or bool dtype, or [N, C], multi-hot, as for `ntxent_loss`.
        margin: of the violation; None for the soft margin softplus(d_ap - d_an).
        metric: "euclidean", "sqeuclidean", "cosine" (1 - cosine) or "dot" (minus the product).
        normalize: scale rows to length 1 first.
        smooth: softplus of the violation instead of its positive part.
        reduction: "mean_nonzero" over the triplets above 0, "mean" over all triplets, "sum", or "none":
            [N], the sum over each anchor's triplets.
        ref, ref_labels, self_index: a separate set of positives and negatives, as for `hardest_pairs`; `ref`
            takes gradients too.
        weight, ignore_label, pair_mask: as for `ntxent_loss`.
        statistics: a dict that takes what `triplet_statistics` says of the batch; here d_ap is the mean over
            all positive pairs, d_an that over all negative pairs.

    Returns:
        The loss, [] or [N], in float32 (float64 for float64); 0, with gradients of zeros, for a batch without
        any triplet. A NaN makes every loss that it enters NaN.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = batch_all_triplet_loss(encoder(images), labels, margin=0.1)
        >>> loss.backward()
    """
    choice = Choice(weight, ignore_label, pair_mask)
    options = (margin, metric, normalize, smooth, reduction, ref, ref_labels, self_index)
    return triplet_sums_loss(_ALL, x, labels, *options, choice, statistics)


def _ranks(
    scores: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds below each negative and negatives above each positive's threshold (0 elsewhere); the lowest
    threshold of each anchor, 0 where it is not finite.
    """
    limits = scores - margin
    ascending = limits.masked_fill(~positive, torch.inf).sort(1).values
    below = torch.searchsorted(ascending, scores)
    rivals = scores.masked_fill(~negative, -torch.inf).sort(1).values
    above = scores.shape[1] - torch.searchsorted(rivals, limits, right=True)
    dtype, lowest = scores.dtype, ascending[:, :1]
    lowest = torch.where(lowest.isfinite(), lowest, 0.0)
    ranked = negative & positive.any(1, keepdim=True)
    return torch.where(ranked, below, 0).to(dtype), torch.where(positive, above, 0).to(dtype), lowest


def _hinges(scores: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Losses and counts [n], differentiable: ranks are constants. Scores are taken from the lowest threshold:
    those close together then lose no digits.
    """
    below, above, lowest = _ranks(scores.detach().contiguous(), positive, negative, margin)
    counted = negative & positive.any(1, keepdim=True) & (scores != -torch.inf)
    gained = torch.where(counted, below * (scores - lowest), 0.0).sum(1)
    lost = torch.where(positive & negative.any(1, keepdim=True), above * (scores - margin - lowest), 0.0).sum(
        1
    )
    return gained - lost, below.sum(1)


def _soft(scores: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    losses, counts = scores.new_zeros(scores.shape[0]), scores.new_zeros(scores.shape[0])
    for limit, counted in _thresholds(scores, positive, negative, margin):
        each = torch.where(counted, softplus(torch.where(counted, scores - limit, 0.0)), 0.0)
        losses, counts = losses + each.sum(1), counts + (each > 0).sum(1)
    return losses, counts


def _thresholds(
    scores: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> list[tuple[Tensor, Tensor]]:
    """Column by column: its threshold of every anchor [n, 1], and the negatives it meets as a positive."""
    columns = range(scores.shape[1])
    return [(scores[:, p, None] - margin, negative & positive[:, p, None]) for p in columns]


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, margin: float, hinge: str) -> Evaluated:
    found = (_soft if hinge == "softplus" else _hinges)(scores, positive, negative, margin)
    kinds = [torch.where(kind, scores.detach(), 0.0).sum(1) for kind in (positive, negative)]
    return *found, torch.stack(kinds)


def _slopes(scores: Tensor, positive: Tensor, negative: Tensor, margin: float, hinge: str) -> Tensor:
    if hinge == "relu":
        below, above, _ = _ranks(scores, positive, negative, margin)
        return below - above
    slopes = torch.zeros_like(scores)
    for column, (limit, counted) in enumerate(_thresholds(scores, positive, negative, margin)):
        each = torch.where(counted, (scores - limit).sigmoid(), 0.0)
        slopes += each
        slopes[:, column] -= each.sum(1)
    return slopes


_ALL = register(
    TripletRule(
        "all",
        losses=_losses,
        slopes=_slopes,
        terms=lambda positives, negatives: positives * negatives,
        summed=lambda positives, negatives: (positives, negatives),
    )
)
