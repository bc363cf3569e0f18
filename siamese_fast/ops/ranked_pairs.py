"""Ranked mining: of each anchor the k farthest, or nearest, positives and the k nearest negatives, or those
farther than the first of these positives (semi-hard).

Peers sort the N x N distances. Here blocks of scores pass by, and of each row the best k are kept: O(N (D +
k)) memory.

Source: the strategies of Xuan, Stylianou, Pless, "Improved Embeddings with Easy Positive Triplet Mining",
2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import define
from siamese_fast.ops.pair_loss import prepared, score_block
from siamese_fast.ops.relations import Choice, masks, own_columns

POSITIVES = ("hardest", "easiest")
NEGATIVES = ("hardest", "semi_hard")


def ranked_pairs(
    x: Tensor,
    labels: Tensor | None,
    *,
    positive: str = "hardest",
    negative: str = "hardest",
    positives: int = 1,
    negatives: int = 1,
    metric: str = "euclidean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Indices of each row's positives and negatives, the first choice first; -1 where there are no more.

    Args:
        x, labels, ref, ref_labels, self_index, ignore_label, pair_mask: as for `ntxent_loss`.
        positive: "hardest", the farthest, or "easiest", the nearest.
        negative: "hardest", the nearest, or "semi_hard", the nearest of those strictly farther than the first
            positive: none for an anchor without a positive.
        positives, negatives: how many of each.
        metric: "euclidean", "sqeuclidean", "cosine" or "dot".

    Returns:
        positive [N, positives] and negative [N, negatives], int64 indices into `ref` (into `x` without it).
        Among equal scores the lowest index wins; a NaN is never chosen.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> positive, negative = ranked_pairs(embeddings, labels, negatives=5)
    """
    check.choice("positive", positive, POSITIVES)
    check.choice("negative", negative, NEGATIVES)
    for name, value in (("positives", positives), ("negatives", negatives)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive int, got {value!r}")
    choice = Choice(None, ignore_label, pair_mask)
    with torch.no_grad():
        operands = prepared(x, labels, metric, False, ref, ref_labels, self_index, choice)
        found: tuple[Tensor, Tensor] = _op(
            *(None if value is None else value.detach() for value in operands),
            metric,
            positives,
            negatives,
            positive == "easiest",
            negative == "semi_hard",
            ignore_label,
        )
    return found


def hardest_related(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
) -> tuple[Tensor, Tensor]:
    """The hardest positive and negative [N] by a relation, arguments checked."""
    check.choice("metric", metric, ("euclidean", "sqeuclidean", "cosine", "dot"))
    compute = check.compute_dtype(x.dtype)
    with torch.no_grad():
        rows, others = x.detach().to(compute), None if ref is None else ref.detach().to(compute)
        positive, negative = _op(rows, labels, others, ref_labels, self_index, metric, 1, 1, False, False)
    return positive[:, 0], negative[:, 0]


def _reference(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
    positives: int,
    negatives: int,
    easy: bool,
    beyond: bool,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    own = own_columns(x, ref, self_index)
    found = _empty(x, positives, negatives)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]):
        scores = score_block(x[rows], y, metric)
        same, other = masks(labels, classes, own, rows, ignore_label)
        found[0][rows] = _first(scores if easy else -scores, same, positives)
        if beyond and y.shape[0]:
            first = found[0][rows, :1]
            limit = scores.gather(1, first.clamp_min(0))
            other = other & (first >= 0) & (scores < limit)
        found[1][rows] = _first(scores, other, negatives)
    return found


def _first(keys: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Columns of the largest allowed keys of each row in order [n, count], then -1."""
    allowed = allowed & ~keys.isnan()
    # Two stable sorts, so that a key of -inf still comes before what is not allowed.
    order = keys.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sort(
        dim=1, descending=True, stable=True
    )[1]
    last = (~allowed).gather(1, order).to(torch.uint8).sort(dim=1, stable=True)[1]
    chosen = order.gather(1, last)[:, :count]
    chosen = torch.where(torch.arange(chosen.shape[1], device=keys.device) < allowed.sum(1, True), chosen, -1)
    return torch.nn.functional.pad(chosen, (0, count - chosen.shape[1]), value=-1)


def _empty(x: Tensor, positives: int, negatives: int) -> tuple[Tensor, Tensor]:
    like = x.new_empty(0, dtype=torch.int64)
    return like.new_empty(x.shape[0], positives), like.new_empty(x.shape[0], negatives)


_op = define(
    "ranked_pairs(Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels, Tensor? self_index, str metric,"
    " int positives, int negatives, bool easy, bool beyond, int? ignore_label=None) -> (Tensor, Tensor)",
    _reference,
    lambda x, labels, ref, ref_labels, self_index, metric, positives, negatives, *_: _empty(
        x, positives, negatives
    ),
)
