"""Semi-hard triplet loss: every anchor a with every positive p, and the nearest negative that is farther,

    n(a, p) = argmin { d_an : d_an > d_ap },    or, where there is none, the farthest negative argmax d_an
    loss = sum over pairs (a, p) of max(0, d_ap - d_{a n(a, p)} + margin) / the number of such pairs

Peers build N x N x N, or the N x N distances for each pair. Here one pass over blocks of scores keeps the
best negative below each of an anchor's sorted positives: O(N^2 (D + log K)) time, O(N D) memory, plus K
positives of the anchors at work.

Source: Schroff, Kalenichenko, Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering",
2015, in the form that TensorFlow Addons and sentence-transformers train with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops.relations import Choice
from siamese_fast.ops.statistics import Statistics
from siamese_fast.ops.triplet_rows import hinge_losses, hinge_slopes
from siamese_fast.ops.triplet_sums import Evaluated, TripletRule, register, triplet_sums_loss


def semi_hard_triplet_loss(
    x: Tensor,
    labels: Tensor | None,
    margin: float | None = 0.2,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    smooth: bool = False,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
    statistics: Statistics | None = None,
) -> Tensor:
    """Triplet loss of every anchor and positive with the nearest negative that is strictly farther than the
    positive; with the farthest negative where none is farther.

    Args:
        x, labels, margin, metric, normalize, smooth, ref, ref_labels, self_index, weight, ignore_label,
            pair_mask: as for `batch_all_triplet_loss`.
        statistics: a dict that takes what `triplet_statistics` says of the batch.
        reduction: "mean" over the pairs of an anchor (that has a negative) and a positive, "mean_nonzero"
            over those above 0, "sum", or "none": [N], the sum over each anchor's positives.

    Returns:
        The loss, [] or [N], in float32 (float64 for float64); 0, with gradients of zeros, for a batch without
        any triplet. Among equal distances the lowest index is the negative. A NaN negative is never
        chosen; a NaN anchor or positive makes its losses NaN.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = semi_hard_triplet_loss(encoder(images), labels, normalize=True)
        >>> loss.backward()
    """
    choice = Choice(weight, ignore_label, pair_mask)
    options = (margin, metric, normalize, smooth, reduction, ref, ref_labels, self_index)
    return triplet_sums_loss(_SEMI_HARD, x, labels, *options, choice, statistics)


def semi_hard_negatives(scores: Tensor, negative: Tensor) -> Tensor:
    """The negative's column for each column taken as a positive, [n, M]; -1 where the row has none."""
    columns = scores.shape[1]
    usable = negative & ~scores.isnan()
    count = usable.sum(1, keepdim=True)
    # Ascending, those out of the question first; of equal scores the lowest column last.
    rivals, order = scores.flip(1).masked_fill(~usable.flip(1), -torch.inf).sort(dim=1, stable=True)
    below = torch.searchsorted(rivals, scores.contiguous()) - 1
    farthest = rivals.gather(1, (columns - count).clamp_max(columns - 1))
    place = torch.where(below >= columns - count, below, torch.searchsorted(rivals, farthest, right=True) - 1)
    return torch.where(count > 0, columns - 1 - order.gather(1, place.clamp_min(0)), -1)


def _triplets(scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each column as a positive: the negative's column and score [n, M], and whether that is a triplet."""
    chosen = semi_hard_negatives(scores.detach(), negative)
    rivals = torch.where(chosen < 0, torch.nan, scores.gather(1, chosen.clamp_min(0)))
    return chosen, rivals, positive & negative.any(1, keepdim=True)


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, margin: float, hinge: str) -> Evaluated:
    if scores.shape[1] == 0:
        nothing = scores.sum(1)
        return nothing, nothing, torch.stack([nothing, nothing])
    _, rivals, valid = _triplets(scores, positive, negative)
    each = hinge_losses(torch.where(valid, -scores, 0.0), torch.where(valid, -rivals, 0.0), margin, hinge)
    each = torch.where(valid, each, 0.0)
    kinds = [torch.where(valid, kind.detach(), 0.0).sum(1) for kind in (scores, rivals)]
    return each.sum(1), (each > 0).sum(1).to(scores.dtype), torch.stack(kinds)


def _slopes(scores: Tensor, positive: Tensor, negative: Tensor, margin: float, hinge: str) -> Tensor:
    if scores.shape[1] == 0:
        return torch.zeros_like(scores)
    chosen, rivals, valid = _triplets(scores, positive, negative)
    slopes = torch.where(valid, hinge_slopes(-scores, -rivals, margin, hinge), 0.0)
    return (-slopes).scatter_add_(1, chosen.clamp_min(0), torch.where(chosen < 0, 0.0, slopes))


def _terms(positives: Tensor, negatives: Tensor) -> Tensor:
    return positives * (negatives > 0)


_SEMI_HARD = register(
    TripletRule(
        "semi_hard",
        losses=_losses,
        slopes=_slopes,
        terms=_terms,
        summed=lambda positives, negatives: (_terms(positives, negatives),) * 2,
    )
)
