"""One-shot scores per class: the best or mean score of a class's supports, or the score of its prototype.

    max: max_{j in c} score(q, s_j)  mean: mean_{j in c} score(q, s_j)  prototype: score(q, mean_{j in c} s_j)

Supports are visited sorted by class, so a class is a segment that is reduced as soon as its scores exist: O(Q
C + block) memory, never Q x S. Sources: Vinyals et al., "Matching Networks", 2016 (max, mean); Snell et al.,
"Prototypical Networks", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import define
from siamese_fast.ops.support import (
    PreparedSupport,
    classes_of,
    resolve,
    score_block,
    score_columns,
)

REDUCES = ("max", "mean", "prototype")


def class_scores(
    q: Tensor,
    s: Tensor | PreparedSupport,
    class_index: Tensor | None = None,
    num_classes: int | None = None,
    *,
    metric: str | None = None,
    weight: Tensor | None = None,
    bias: Tensor | float | None = None,
    reduce: str = "max",
) -> Tensor:
    """Score of each query for each class, larger is better. Not differentiable.

    Args:
        q: queries [Q, D].
        s: supports [S, D], or what `prepare_support` returned (it may bring class_index and num_classes).
        class_index: class of each support [S], integers in 0..num_classes-1.
        num_classes: C; by default the largest class index + 1.
        metric, weight, bias: as for `nearest_support`.
        reduce: "max" (nearest support; a NaN score is ignored), "mean", or "prototype" (score of the class
            mean; of the unit rows' mean for cosine).

    Returns:
        [Q, C], float64 for float64 inputs and float32 otherwise; -inf for a class without supports.

    Example:
        >>> predicted = class_scores(queries, supports, class_index, reduce="prototype").argmax(dim=1)
    """
    check.choice("reduce", reduce, REDUCES)
    check.no_derivative("class_scores")
    q, support = resolve(q, s, metric, weight, bias)
    if class_index is not None:
        class_index, num_classes = classes_of(class_index, support.rows, num_classes)
    elif num_classes is not None:
        raise ValueError("num_classes goes with class_index: a prepared set brings its own")
    else:
        class_index, num_classes = support.class_index, support.num_classes
        if class_index is None or num_classes is None:
            raise ValueError("class_index is needed: the support set was not prepared with one")
    rows = support.rows
    if reduce == "prototype":
        rows = metrics.operand(_prototypes(rows, class_index, num_classes), support.metric)
        class_index = torch.arange(num_classes, device=q.device)
        q, reduce = q.to(rows.dtype), "max"
    scores: Tensor = _op(
        q, rows, class_index, num_classes, support.metric, support.weight, support.bias, reduce
    )
    return scores


def _prototypes(s: Tensor, class_index: Tensor, num_classes: int) -> Tensor:
    """Class means [C, D] in the compute dtype; NaN for a class without supports, which then never wins."""
    s = s.to(check.compute_dtype(s.dtype))
    total = s.new_zeros(num_classes, s.shape[1]).index_add_(0, class_index, s)
    count = s.new_zeros(num_classes).index_add_(0, class_index, s.new_ones(s.shape[0]))
    return total / count[:, None]


def _reference(
    q: Tensor,
    s: Tensor,
    class_index: Tensor,
    num_classes: int,
    metric: str,
    weight: Tensor | None,
    bias: Tensor | None,
    reduce: str,
) -> Tensor:
    compute = check.compute_dtype(q.dtype)
    scores = torch.full((q.shape[0], num_classes), -torch.inf, dtype=compute, device=q.device)
    count = torch.zeros(num_classes, dtype=compute, device=q.device)
    count.index_add_(0, class_index, torch.ones_like(class_index, dtype=compute))
    supports = s.to(compute)
    for rows in metrics.row_blocks(q.shape[0], score_columns(s, metric)):
        block = score_block(q[rows].to(compute), supports, metric, weight, bias)
        if reduce == "max":
            scores[rows] = scores[rows].scatter_reduce_(
                1, class_index.expand_as(block), block.masked_fill(block.isnan(), -torch.inf), "amax"
            )
        else:
            total = torch.zeros_like(scores[rows]).index_add_(1, class_index, block)
            scores[rows] = torch.where(count > 0, total / count, -torch.inf)
    return scores


_op = define(
    "class_scores(Tensor q, Tensor s, Tensor class_index, int num_classes, str metric, Tensor? weight,"
    " Tensor? bias, str reduce) -> Tensor",
    _reference,
    lambda q, s, class_index, num_classes, *_: q.new_empty(
        q.shape[0], num_classes, dtype=check.compute_dtype(q.dtype)
    ),
)
