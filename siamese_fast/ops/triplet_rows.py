"""Triplet losses of rows given as tensors, and the hinges and reductions that every triplet loss shares.

    violation v = d(a, p) - d(a, n) + margin;   relu max(0, v),   softplus log(1 + exp v)

Forward and backward each read the three tensors once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import Grads, define, differentiable


def hinge_losses(d_ap: Tensor, d_an: Tensor, margin: float, hinge: str) -> Tensor:
    violation = d_ap - d_an + margin
    if hinge == "softplus":
        return metrics.softplus(violation)
    return torch.where(violation < 0, torch.zeros_like(violation), violation)


def hinge_slopes(d_ap: Tensor, d_an: Tensor, margin: float, hinge: str) -> Tensor:
    violation = d_ap - d_an + margin
    slope = violation.sigmoid() if hinge == "softplus" else (violation > 0).to(violation.dtype)
    return torch.where(violation.isnan(), violation, slope)


def averaging(losses: Tensor, valid: Tensor, reduction: str) -> Tensor:
    """1 / the number of anchors that the reduction averages over."""
    if reduction == "mean":
        return valid.sum().clamp_min(1).to(losses.dtype).reciprocal()
    if reduction == "mean_nonzero":
        return (~(losses <= 0)).sum().clamp_min(1).to(losses.dtype).reciprocal()
    return losses.new_ones(())


def reduced(losses: Tensor, scale: Tensor, reduction: str) -> Tensor:
    return losses.clone() if reduction == "none" else losses.sum() * scale


def empty_outputs(x: Tensor, count: int, reduction: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = x.new_empty(0, dtype=check.compute_dtype(x.dtype))
    each = (count,)
    return (
        like.new_empty(each if reduction == "none" else ()),
        like.new_empty(each),
        like.new_empty(each),
        like.new_empty(()),
    )


def _losses(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, metric: str, hinge: str
) -> tuple[Tensor, Tensor, Tensor]:
    compute = check.compute_dtype(anchor.dtype)
    a, p, n = anchor.to(compute), positive.to(compute), negative.to(compute)
    d_ap, d_an = metrics.distance_formula(a, p, metric), metrics.distance_formula(a, n, metric)
    return hinge_losses(d_ap, d_an, margin, hinge), d_ap, d_an


def _reference(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, metric: str, hinge: str, reduction: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    losses, d_ap, d_an = _losses(anchor, positive, negative, margin, metric, hinge)
    scale = averaging(losses, torch.ones_like(losses, dtype=torch.bool), reduction)
    return reduced(losses, scale, reduction), d_ap, d_an, scale


def _formula(*inputs: Any) -> Tensor:
    *operands, reduction, _, _, scale = inputs
    return reduced(_losses(*operands)[0], scale, reduction)


def _backward(
    grad: Tensor,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    d_ap: Tensor,
    d_an: Tensor,
    margin: float,
    metric: str,
    hinge: str,
) -> tuple[Tensor, Tensor, Tensor]:
    a, p, n = anchor.to(grad.dtype), positive.to(grad.dtype), negative.to(grad.dtype)
    slope = (grad * hinge_slopes(d_ap, d_an, margin, hinge))[:, None]  # grad [T], or [] for all alike
    pull = slope * metrics.distance_gradient(a, p, d_ap, metric)
    push = -slope * metrics.distance_gradient(a, n, d_an, metric)
    grad_p, grad_n = (-slope * a, slope * a) if metric == "dot" else (-pull, -push)
    return (pull + push).to(anchor.dtype), grad_p.to(anchor.dtype), grad_n.to(anchor.dtype)


_op = define(
    "triplet_rows_loss(Tensor anchor, Tensor positive, Tensor negative, float margin, str metric, str hinge,"
    " str reduction) -> (Tensor, Tensor, Tensor, Tensor)",
    _reference,
    lambda anchor, positive, negative, margin, metric, hinge, reduction: empty_outputs(
        anchor, anchor.shape[0], reduction
    ),
)
_backward_op = define(
    "triplet_rows_loss_backward(Tensor grad, Tensor anchor, Tensor positive, Tensor negative, Tensor d_ap,"
    " Tensor d_an, float margin, str metric, str hinge) -> (Tensor, Tensor, Tensor)",
    _backward,
    lambda grad, anchor, *_: (torch.empty_like(anchor), torch.empty_like(anchor), torch.empty_like(anchor)),
)


def _gradients(grad: Tensor, inputs: tuple[object, ...], tape: tuple[Tensor, ...]) -> Grads:
    anchor, positive, negative, margin, metric, hinge, reduction = inputs
    d_ap, d_an, scale = tape
    each = grad if reduction == "none" else grad * scale
    return (*_backward_op(each, anchor, positive, negative, d_ap, d_an, margin, metric, hinge), *(None,) * 4)


triplet_rows_loss = differentiable(_op, backward=_gradients, formula=_formula, tape=slice(1, 4))
