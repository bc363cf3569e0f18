"""Batch-hard mining: for each anchor i the farthest row of its class and the nearest row of another class.

    positive(i) = argmax_{j: same class, j != i} d(i, j)        negative(i) = argmin_{j: other class} d(i, j)

Peers build the N x N distance matrix and several masks of its size. Here tiles of scores live in registers,
and of each row only the best value and its index are kept: O(N D) memory.

Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import define


def hardest_pairs(
    x: Tensor,
    labels: Tensor,
    *,
    metric: str = "euclidean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Index of each row's hardest positive and hardest negative; -1 where there is none.

    Args:
        x: anchors [N, D].
        labels: [N], any integer or bool dtype, any values.
        metric: "euclidean", "sqeuclidean", "cosine", "dot" (the hardest positive has the smallest product) or
            "manhattan".
        ref: rows to mine from [M, D]; None mines from `x` itself, never pairing a row with itself.
        ref_labels: [M], labels of `ref`.
        self_index: [N], with `ref`: which row of `ref` is the anchor itself (-1 for none), so that it is not
            its own positive.

    Returns:
        positive [N] and negative [N], int64 indices into `ref` (into `x` without it). Among equal scores the
        lowest index wins. A NaN candidate is never chosen and a NaN anchor gets -1. Mining uses the
        matrix-product form of the distance, exact to a few units in the last place of |x|^2 + |y|^2;
        positives are compared by exact differences.

    Example:
        >>> positive, negative = hardest_pairs(embeddings, labels)
    """
    check.choice("metric", metric, check.METRICS)
    x, labels, ref, ref_labels, self_index = mining_arguments(x, labels, ref, ref_labels, self_index)
    return mine(
        metrics.operand(x, metric),
        labels,
        metrics.operand(ref, metric) if ref is not None else None,
        ref_labels,
        self_index,
        metric,
    )


def mining_arguments(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, self_index: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The arguments of mining, checked."""
    x = check.embeddings("x", x)
    labels = check.labels("labels", labels, x.shape[0], x)
    if (ref is None) != (ref_labels is None):
        raise ValueError("ref and ref_labels go together: give both or neither")
    if ref is None and self_index is not None:
        raise ValueError("self_index needs ref: without ref a row is never paired with itself")
    if ref is not None and ref_labels is not None:
        ref = check.embeddings("ref", ref, like=("x", x))
        ref_labels = check.labels("ref_labels", ref_labels, ref.shape[0], x)
        if self_index is not None:
            self_index = check.indices("self_index", self_index, x.shape[0], ref, lowest=-1)
    return x, labels, ref, ref_labels, self_index


def mine(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
) -> tuple[Tensor, Tensor]:
    """`hardest_pairs` for checked arguments, rows of unit length for cosine."""
    with torch.no_grad():
        found: tuple[Tensor, Tensor] = _op(
            x.detach(), labels, None if ref is None else ref.detach(), ref_labels, self_index, metric
        )
    return found


def _reference(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
) -> tuple[Tensor, Tensor]:
    compute = check.compute_dtype(x.dtype)
    own = torch.arange(x.shape[0], device=x.device) if ref is None else self_index
    candidates = (x if ref is None else ref).to(compute)
    classes = labels if ref_labels is None else ref_labels
    positive, negative = torch.full_like(labels, -1), torch.full_like(labels, -1)
    if candidates.shape[0] == 0:
        return positive, negative
    column = torch.arange(candidates.shape[0], device=x.device)
    for rows in metrics.row_blocks(x.shape[0], candidates.shape[0]):
        distance = metrics.distance_block(x[rows].to(compute), candidates, metric)
        comparable = ~distance.isnan()
        same = labels[rows, None] == classes[None, :]
        other = comparable & ~same
        same &= comparable
        if own is not None:
            same &= own[rows, None] != column
        positive[rows] = _first_best(distance, same)
        negative[rows] = _first_best(-distance, other)
    return positive, negative


def _first_best(score: Tensor, allowed: Tensor) -> Tensor:
    """Lowest index of the largest allowed score in each row, -1 where nothing is allowed."""
    best = score.masked_fill(~allowed, -torch.inf).amax(1, keepdim=True)
    at_best = allowed & (score == best)
    return torch.where(at_best.any(1), at_best.to(torch.uint8).argmax(1), -1)


_op = define(
    "hardest_pairs(Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels, Tensor? self_index, str metric)"
    " -> (Tensor, Tensor)",
    _reference,
    lambda x, labels, *_: (torch.empty_like(labels), torch.empty_like(labels)),
)
