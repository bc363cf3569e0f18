"""Every operation once more, as the plainest formula there is, and the size of the terms that it adds up.

The formulas run in the dtype of their inputs and are differentiated by autograd: in float64 they are the
truth, in the dtype of a kernel's arithmetic the yardstick of what plain torch achieves. They share nothing
with `siamese_fast.ops`.

For a pair of rows, `pair_terms` is what rounding errors of its distance are relative to, `slope_terms` the
same for the elements of its gradient. Rows of unit length (`unit=True`) carry the rounding of their
normalisation, so that differences of them are uncertain by eps (|x| + |y|), not by eps |x - y|.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEFT_OUT = 1e30
"""Terms of an element that no finite precision decides: beside the kink of a hinge."""

SECOND_ORDER = 2.0**-20


def unit_rows(x: Tensor) -> Tensor:
    """Rows of length one; zero rows stay and take no gradient."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    zero = length == 0
    return x * torch.where(
        zero, torch.zeros_like(length), 1 / torch.where(zero, torch.ones_like(length), length)
    )


def pair_values(
    x: Tensor, y: Tensor, metric: str, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Distance over the last dimension of broadcast rows; the Koch logit for metric "koch"."""
    if metric == "koch":
        assert weight is not None and bias is not None
        return ((x - y).abs() * weight).sum(-1) + bias.reshape(())
    if metric == "dot":
        return -(x * y).sum(-1)
    if metric == "manhattan":
        return (x - y).abs().sum(-1)
    if metric == "sqeuclidean":
        return (x - y).square().sum(-1)
    if metric == "euclidean":
        distance: Tensor = torch.linalg.vector_norm(x - y, dim=-1)
        return distance
    x, y = unit_rows(x), unit_rows(y)
    zero = (x == 0).all(-1) | (y == 0).all(-1)
    half_square = 0.5 * (x - y).square().sum(-1)
    return torch.where(zero, torch.ones_like(half_square), half_square)


def plain_matrix(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Distances between all rows as torch users write them: `cdist`, or a matrix product."""
    if metric == "dot":
        return -(x @ y.T)
    if metric == "manhattan":
        return torch.cdist(x, y, p=1.0)
    if metric == "cosine":
        return 1 - unit_rows(x) @ unit_rows(y).T
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distances if metric == "euclidean" else distances.square()


def scores_of(values: Tensor, metric: str) -> Tensor:
    """Larger is better: the logit, the cosine, or the distance negated."""
    return values if metric == "koch" else 1 - values if metric == "cosine" else -values


def pair_scores(
    q: Tensor, s: Tensor, metric: str, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    return scores_of(pair_values(q, s, metric, weight, bias), metric)


def pair_terms(
    x: Tensor,
    y: Tensor,
    metric: str,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    unit: bool = False,
) -> Tensor:
    """Sum of the absolute terms of `pair_values`.

    `unit` where the rows were normalised in the arithmetic under test.
    """
    if metric == "koch":
        assert weight is not None and bias is not None
        return ((x - y).abs() * weight.abs()).sum(-1) + bias.abs().reshape(())
    if metric == "dot":
        return (x * y).abs().sum(-1)
    if metric == "cosine":
        x, y = unit_rows(x), unit_rows(y)
        return 0.5 * _unit_square_terms(x, y)
    if not unit:
        return pair_values(x, y, metric)
    if metric == "sqeuclidean":
        return _unit_square_terms(x, y)
    size = x.abs() + y.abs()
    return size.sum(-1) if metric == "manhattan" else torch.linalg.vector_norm(size, dim=-1)


def _unit_square_terms(x: Tensor, y: Tensor) -> Tensor:
    size = x.abs() + y.abs()
    return (2 * (x - y).abs() * size + SECOND_ORDER * size.square()).sum(-1)


def slope_terms(x: Tensor, y: Tensor, metric: str, *, unit: bool = False) -> tuple[Tensor, Tensor]:
    """Sizes of d distance / dx and d distance / dy by element of broadcast rows (unit rows for cosine)."""
    x, y = torch.broadcast_tensors(x, y)
    if metric == "dot":
        return y.abs(), x.abs()
    if metric == "manhattan":
        return torch.ones_like(x), torch.ones_like(y)
    size = x.abs() + y.abs() if unit or metric == "cosine" else (x - y).abs()
    if metric == "sqeuclidean":
        size = 2 * size
    if metric == "euclidean":
        distance = torch.linalg.vector_norm(x - y, dim=-1, keepdim=True)
        undecided = LEFT_OUT if unit else 0.0
        size = torch.where(distance == 0, undecided, size / torch.where(distance == 0, 1.0, distance))
    return size, size


def through_unit(terms: Tensor, x: Tensor) -> Tensor:
    """Terms of a gradient in unit rows, taken back through their normalisation to rows x [N, D].

    Four times what they would be of exact unit rows, which pass through four roundings of their own: the sum
        of
    squares, its root, the inverse and the product.
    """
    unit, length = unit_rows(x).abs(), torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    along = unit * (unit * terms).sum(-1, keepdim=True)
    return torch.where(length == 0, 0.0, 4 * (terms + along) / torch.where(length == 0, 1.0, length))


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def binary_cross_entropy(logits: Tensor, target: Tensor, pos_weight: float, reduction: str) -> Tensor:
    """Of two softplus: the gradient of torch's own form, sigmoid(x) - 1, cancels for confident positives."""
    target = target.to(logits)
    each = (1 - target) * softplus(logits) + pos_weight * target * softplus(-logits)
    return each if reduction == "none" else each.sum() / (max(1, len(each)) if reduction == "mean" else 1)


def hinge(violation: Tensor, smooth: bool) -> Tensor:
    return softplus(violation) if smooth else violation.clamp_min(0)
