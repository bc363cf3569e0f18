"""Distances row by row, [B], and between all rows, [N, M], from exact differences.

Peers compute |x|^2 + |y|^2 - 2 x.y, which cancels: the distance of near-identical rows comes out as noise of
size sqrt(eps) |x|. Here every entry is a sum over x_k - y_k, so identical rows are at distance 0 exactly; it
costs two instructions an element instead of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import Grads, define, differentiable


def distance(x: Tensor, y: Tensor, metric: str = "euclidean") -> Tensor:
    """Distances of matching rows, smaller is nearer.

    Args:
        x, y: [B, D] of one floating dtype.
        metric: "euclidean", "sqeuclidean", "cosine" (1 - cosine), "dot" (-x.y) or "manhattan".

    Returns:
        [B], float64 for float64 inputs and float32 otherwise. The gradient of the euclidean distance at 0 is
        0.
    """
    check.choice("metric", metric, check.METRICS)
    x = check.embeddings("x", x)
    y = check.embeddings("y", y, like=("x", x))
    check.same_rows("y", y, "x", x)
    distances: Tensor = _apply(metrics.operand(x, metric), metrics.operand(y, metric), metric)
    return distances


def row_distances(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """`distance` for checked arguments without gradient, rows of unit length for cosine."""
    distances: Tensor = _op(x, y, metric)
    return distances


def distance_matrix(x: Tensor, y: Tensor, metric: str = "euclidean") -> Tensor:
    """Distances of every row of x [N, D] to every row of y [M, D]: [N, M], smaller is nearer.

    Metrics as for `distance`.
    """
    return _matrix(x, y, metric, ("x", "y"))


def similarity_matrix(q: Tensor, s: Tensor, metric: str = "euclidean") -> Tensor:
    """Scores of every query [Q, D] against every support [S, D]: [Q, S], larger is better.

    The score is -distance for "euclidean", "sqeuclidean" and "manhattan", the cosine for "cosine", the
    product for "dot".

    Example:
        >>> best = similarity_matrix(queries, supports, "cosine").argmax(dim=1)
    """
    scores = -_matrix(q, s, metric, ("q", "s"))
    return 1 + scores if metric == "cosine" else scores


def _matrix(x: Tensor, y: Tensor, metric: str, names: tuple[str, str]) -> Tensor:
    check.choice("metric", metric, check.METRICS)
    x = check.embeddings(names[0], x)
    y = check.embeddings(names[1], y, like=(names[0], x))
    distances: Tensor = _apply_matrix(metrics.operand(x, metric), metrics.operand(y, metric), metric)
    return distances


def _rows_formula(x: Tensor, y: Tensor, metric: str) -> Tensor:
    compute = check.compute_dtype(x.dtype)
    return metrics.distance_formula(x.to(compute), y.to(compute), metric)


def _rows_backward(
    grad: Tensor, x: Tensor, y: Tensor, distances: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    left, right = x.to(grad.dtype), y.to(grad.dtype)
    grad_x = grad[:, None] * metrics.distance_gradient(left, right, distances, metric)
    grad_y = -grad[:, None] * left if metric == "dot" else -grad_x
    return grad_x.to(x.dtype), grad_y.to(y.dtype)


def _matrix_formula(x: Tensor, y: Tensor, metric: str, *_: Tensor) -> Tensor:
    compute = check.compute_dtype(x.dtype)
    return metrics.distance_formula(x.to(compute)[:, None, :], y.to(compute)[None, :, :], metric)


def _matrix_reference(x: Tensor, y: Tensor, metric: str) -> Tensor:
    compute = check.compute_dtype(x.dtype)
    out = x.new_empty(x.shape[0], y.shape[0], dtype=compute)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]):
        out[rows] = metrics.distance_block(x[rows].to(compute), y.to(compute), metric)
    return out


def _matrix_backward(
    grad: Tensor, x: Tensor, y: Tensor, distances: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    left, right = x.to(grad.dtype), y.to(grad.dtype)
    if metric == "dot":
        return (-(grad @ right)).to(x.dtype), (-(grad.T @ left)).to(y.dtype)
    grad_x, grad_y = torch.empty_like(left), torch.zeros_like(right)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0] * x.shape[1]):
        slope = metrics.distance_gradient(left[rows, None, :], right[None, :, :], distances[rows], metric)
        weighted = grad[rows, :, None] * slope
        grad_x[rows] = weighted.sum(1)
        grad_y -= weighted.sum(0)
    return grad_x.to(x.dtype), grad_y.to(y.dtype)


def _compute_empty(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=check.compute_dtype(x.dtype))


_op = define(
    "distance(Tensor x, Tensor y, str metric) -> Tensor",
    _rows_formula,
    lambda x, y, metric: _compute_empty(x, x.shape[0]),
)
_backward_op = define(
    "distance_backward(Tensor grad, Tensor x, Tensor y, Tensor distances, str metric) -> (Tensor, Tensor)",
    _rows_backward,
    lambda grad, x, y, distances, metric: (torch.empty_like(x), torch.empty_like(y)),
)
_matrix_op = define(
    "distance_matrix(Tensor x, Tensor y, str metric) -> Tensor",
    _matrix_reference,
    lambda x, y, metric: _compute_empty(x, x.shape[0], y.shape[0]),
)
_matrix_backward_op = define(
    "distance_matrix_backward(Tensor grad, Tensor x, Tensor y, Tensor distances, str metric)"
    " -> (Tensor, Tensor)",
    _matrix_backward,
    lambda grad, x, y, distances, metric: (torch.empty_like(x), torch.empty_like(y)),
)


def _row_gradients(grad: Tensor, inputs: tuple[Tensor, Tensor, str], tape: tuple[Tensor, ...]) -> Grads:
    x, y, metric = inputs
    return (*_backward_op(grad.contiguous(), x, y, tape[0], metric), None)


def _matrix_gradients(grad: Tensor, inputs: tuple[Tensor, Tensor, str], tape: tuple[Tensor, ...]) -> Grads:
    x, y, metric = inputs
    return (*_matrix_backward_op(grad.contiguous(), x, y, tape[0], metric), None)


_apply = differentiable(
    _op,
    backward=_row_gradients,
    formula=lambda x, y, metric, _: _rows_formula(x, y, metric),
    tape=slice(0, 1),
)
_apply_matrix = differentiable(
    _matrix_op, backward=_matrix_gradients, formula=_matrix_formula, tape=slice(0, 1)
)
