"""Triplet loss of given triplets: rows, or indices into a table of rows; see `triplet_loss.py` for the
formula.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops.indexed_triplets import Triplets, indexed_loss
from siamese_fast.ops.pair_loss import reduce_rows
from siamese_fast.ops.relations import Choice
from siamese_fast.ops.statistics import Statistics, triplet_statistics
from siamese_fast.ops.triplet_loss import check_options
from siamese_fast.ops.triplet_rows import triplet_rows_loss


def triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float | None = 0.2,
    *,
    embeddings: Tensor | None = None,
    ref: Tensor | None = None,
    metric: str = "euclidean",
    normalize: bool = False,
    smooth: bool = False,
    reduction: str = "mean",
    swap: bool = False,
    weight: Tensor | None = None,
    statistics: Statistics | None = None,
) -> Tensor:
    """Triplet loss of given triplets.

    Args:
        anchor, positive, negative: embeddings [T, D]; or, with `embeddings`, row indices [T] of any integer
            dtype.
        embeddings: [N, D], the rows that the indices select.
        ref: [M, D], the rows that `positive` and `negative` select, when they are not those of `embeddings`.
        margin, metric, normalize, smooth: as for `batch_hard_triplet_loss`.
        reduction: "mean", "sum", "mean_nonzero" or "none" ([T]).
        swap, statistics: as for `batch_hard_triplet_loss`.
        weight: [T], multiplies each triplet's loss, in the numerator and in the denominator of a mean.

    Returns:
        The loss, [] or [T].

    Example:
        >>> loss = triplet_loss(encoder(a), encoder(p), encoder(n), margin=0.2)
        >>> loss = triplet_loss(a_index, p_index, n_index, embeddings=x)
    """
    check_options(margin, metric, reduction, "skip")
    choice = Choice(weight=weight)
    unit = normalize or metric == "cosine"
    if embeddings is None:
        if ref is not None:
            raise ValueError(
                "ref goes with embeddings and indices; anchor, positive and negative are rows here"
            )
        rows = [check.embeddings("anchor", anchor)]
        for name, value in (("positive", positive), ("negative", negative)):
            rows.append(check.embeddings(name, value, like=("anchor", rows[0])))
            check.same_rows(name, value, "anchor", rows[0])
        choice.check_weight(rows[0])
        a, p, n = (metrics.unit_rows(r) if unit else r for r in rows)
        return _loss_of_rows((a, p, n), margin, metric, smooth, reduction, swap, choice, statistics)
    x = check.embeddings("embeddings", embeddings)
    table = x if ref is None else check.embeddings("ref", ref, like=("embeddings", x))
    anchor = check.indices("anchor", anchor, None, x)
    positive = check.indices("positive", positive, anchor.shape[0], table)
    negative = check.indices("negative", negative, anchor.shape[0], table)
    choice.check_weight(x, anchor.shape[0])
    if unit:
        x, ref = metrics.unit_rows(x), None if ref is None else metrics.unit_rows(ref)
    return indexed_loss(
        Triplets(x, ref, anchor, positive, negative),
        margin,
        metric,
        smooth=smooth,
        reduction=reduction,
        swap=swap,
        choice=choice,
        statistics=statistics,
    )


def _loss_of_rows(
    rows: tuple[Tensor, Tensor, Tensor],
    margin: float | None,
    metric: str,
    smooth: bool,
    reduction: str,
    swap: bool,
    choice: Choice,
    statistics: Statistics | None,
) -> Tensor:
    hinge = "softplus" if smooth or margin is None else "relu"
    anchor, positive, negative = rows
    if swap:
        with torch.no_grad():
            _, to_anchor, to_positive, _ = triplet_rows_loss(
                negative.detach(), anchor.detach(), positive.detach(), 0.0, metric, "relu", "none"
            )
        nearer = (to_positive < to_anchor)[:, None]
        anchor, positive = torch.where(nearer, positive, anchor), torch.where(nearer, anchor, positive)
    one_by_one = choice.weight is not None or statistics is not None
    loss: Tensor
    loss, d_ap, d_an, _ = triplet_rows_loss(
        anchor, positive, negative, float(margin or 0.0), metric, hinge, "none" if one_by_one else reduction
    )
    if not one_by_one:
        return loss
    if statistics is not None:
        every = torch.ones_like(loss, dtype=torch.bool)
        statistics.update(triplet_statistics(torch.cat(rows), loss, d_ap, d_an, every))
    return reduce_rows(loss, torch.ones_like(loss), reduction, choice)
