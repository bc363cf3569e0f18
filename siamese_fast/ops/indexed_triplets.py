"""Triplets by index: their losses, forward and backward, whoever chose them.

    violation v = d(a, p) - d(a, n) + margin;   relu max(0, v),   softplus log(1 + exp v)

Distances come from exact differences; forward and backward are O(T D) for T triplets. Contributions to one
row are grouped and summed in a fixed order: no atomics, same bits on every run and every thread count.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops.pair_loss import reduce_rows
from siamese_fast.ops.relations import EVERY_ROW, Choice
from siamese_fast.ops.statistics import Statistics, triplet_statistics
from siamese_fast.ops.triplet_rows import averaging, empty_outputs, hinge_losses, hinge_slopes, reduced


class Triplets(NamedTuple):
    """Rows of x and, for positives and negatives, of `ref` if there is one; `anchor` None selects row t."""

    x: Tensor
    ref: Tensor | None
    anchor: Tensor | None
    positive: Tensor
    negative: Tensor


def indexed_loss(
    triplets: Triplets,
    margin: float | None,
    metric: str,
    *,
    smooth: bool,
    reduction: str,
    swap: bool = False,
    zero_positive: bool = False,
    choice: Choice = EVERY_ROW,
    statistics: Statistics | None = None,
) -> Tensor:
    """The loss of triplets by index, arguments checked; the weights of `choice` are those of the triplets."""
    rows = triplets.x
    if swap:
        triplets = _swapped(triplets, metric)
    hinge = "softplus" if smooth or margin is None else "relu"
    number, one_by_one = float(margin or 0.0), choice.weight is not None or statistics is not None
    loss, d_ap, d_an, _ = apply_triplets(
        *triplets, number, metric, hinge, "none" if one_by_one else reduction, zero_positive
    )
    if not one_by_one:
        return cast(Tensor, loss)
    valid = (triplets.negative >= 0) & ((triplets.positive >= 0) | zero_positive)
    if statistics is not None:
        statistics.update(triplet_statistics(rows, loss, d_ap, d_an, valid))
    return reduce_rows(loss, valid.to(loss.dtype), reduction, choice)


def _swapped(triplets: Triplets, metric: str) -> Triplets:
    """Where the negative is nearer to the positive than to the anchor, these two change places: the loss of
    (p, a, n) is d(a, p) - d(p, n).
    """
    x, ref, anchor, positive, negative = triplets
    if anchor is None:
        anchor = torch.arange(x.shape[0], device=x.device)
    if ref is not None:
        positive, negative = (
            torch.where(index < 0, index, index + x.shape[0]) for index in (positive, negative)
        )
        x = torch.cat([x, ref])
    with torch.no_grad():
        _, to_anchor, to_positive, _ = _op(
            x.detach(), None, negative, anchor, positive, 0.0, metric, "relu", "none", False
        )
    swap = (positive >= 0) & (negative >= 0) & (to_positive < to_anchor)
    return Triplets(
        x, None, torch.where(swap, positive, anchor), torch.where(swap, anchor, positive), negative
    )


def _select(x: Tensor, index: Tensor | None) -> Tensor:
    rows = (
        x
        if index is None
        else x[index.clamp_min(0)]
        if x.shape[0]
        else x.new_zeros(index.shape[0], x.shape[1])
    )
    return rows.to(check.compute_dtype(x.dtype))


def _indexed_losses(
    x: Tensor,
    ref: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    metric: str,
    hinge: str,
    zero_positive: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses, distances and validity of each triplet, differentiable.

    A left-out anchor has loss 0, or NaN if it holds one.
    """
    table = x if ref is None else ref
    rows = _select(x, anchor)
    has_positive, has_negative = positive >= 0, negative >= 0
    valid = has_negative & (has_positive | zero_positive)
    nothing = torch.where(rows.isnan().any(1), torch.nan, 0.0).to(rows.dtype)
    to_positive = metrics.distance_formula(rows, _select(table, positive), metric)
    to_negative = metrics.distance_formula(rows, _select(table, negative), metric)
    d_ap = torch.where(has_positive, to_positive, nothing)
    d_an = torch.where(has_negative, to_negative, nothing)
    losses = hinge_losses(d_ap, d_an, margin, hinge)
    return torch.where(valid, losses, nothing), d_ap, d_an, valid


def _reference(
    x: Tensor,
    ref: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    metric: str,
    hinge: str,
    reduction: str,
    zero_positive: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    losses, d_ap, d_an, valid = _indexed_losses(
        x, ref, anchor, positive, negative, margin, metric, hinge, zero_positive
    )
    scale = averaging(losses, valid, reduction)
    return reduced(losses, scale, reduction), d_ap, d_an, scale


def _formula(*inputs: Any) -> Tensor:
    *operands, reduction, zero_positive, _, _, scale = inputs
    return reduced(_indexed_losses(*(*operands, zero_positive))[0], scale, reduction)


def _backward(
    grad: Tensor,
    x: Tensor,
    ref: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor,
    negative: Tensor,
    d_ap: Tensor,
    d_an: Tensor,
    margin: float,
    metric: str,
    hinge: str,
    zero_positive: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of ref (empty without one); `grad` [T], or [] for all alike, is the gradient of a
    triplet's loss.
    """
    table = x if ref is None else ref
    rows = _select(x, anchor)
    has_positive, has_negative = positive >= 0, negative >= 0
    slope = grad * hinge_slopes(d_ap, d_an, margin, hinge)
    slope = torch.where(
        (has_negative & (has_positive | zero_positive)) | slope.isnan(), slope, torch.zeros_like(slope)
    )
    grad_rows = torch.zeros_like(rows)
    grad_table = torch.zeros(table.shape, dtype=rows.dtype, device=rows.device)
    for index, has, distances, sign in (
        (positive, has_positive, d_ap, 1.0),
        (negative, has_negative, d_an, -1.0),
    ):
        other = _select(table, index)
        coefficient = torch.where(has | slope.isnan(), sign * slope, torch.zeros_like(slope))[:, None]
        own = coefficient * metrics.distance_gradient(rows, other, distances, metric)
        theirs = -coefficient * rows if metric == "dot" else -own
        grad_rows += own
        if table.shape[0]:
            grad_table.index_add_(
                0, index.clamp_min(0), torch.where(has[:, None], theirs, torch.zeros_like(theirs))
            )
    grad_x = grad_rows
    if anchor is not None:
        grad_x = torch.zeros(x.shape, dtype=rows.dtype, device=x.device).index_add_(0, anchor, grad_rows)
    if ref is None:
        return (grad_x + grad_table).to(x.dtype), x.new_empty(0)
    return grad_x.to(x.dtype), grad_table.to(x.dtype)


_op = define(
    "triplet_loss(Tensor x, Tensor? ref, Tensor? anchor, Tensor positive, Tensor negative, float margin,"
    " str metric, str hinge, str reduction, bool zero_positive) -> (Tensor, Tensor, Tensor, Tensor)",
    _reference,
    lambda x, ref, anchor, positive, negative, margin, metric, hinge, reduction, _: empty_outputs(
        x, positive.shape[0], reduction
    ),
)
_backward_op = define(
    "triplet_loss_backward(Tensor grad, Tensor x, Tensor? ref, Tensor? anchor, Tensor positive,"
    " Tensor negative, Tensor d_ap, Tensor d_an, float margin, str metric, str hinge, bool zero_positive)"
    " -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, ref, *_: (torch.empty_like(x), x.new_empty(0) if ref is None else torch.empty_like(ref)),
)


def _gradients(grad: Tensor, inputs: tuple[object, ...], tape: tuple[Tensor, ...]) -> Grads:
    x, ref, anchor, positive, negative, margin, metric, hinge, reduction, zero_positive = inputs
    d_ap, d_an, scale = tape
    each = grad if reduction == "none" else grad * scale
    grad_x, grad_ref = _backward_op(
        each, x, ref, anchor, positive, negative, d_ap, d_an, margin, metric, hinge, zero_positive
    )
    return (grad_x, None if ref is None else grad_ref, *(None,) * 8)


apply_triplets = differentiable(_op, backward=_gradients, formula=_formula, tape=slice(1, 4))
