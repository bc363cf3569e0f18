"""The metrics in plain torch: the definition that every kernel is held to.

Distances are smaller-is-better: euclidean |x-y|, sqeuclidean |x-y|^2, cosine 1 - x.y/(|x||y|) (a zero row has
cosine 0), dot -x.y, manhattan sum |x-y|. Scores are larger-is-better: -distance, but the cosine itself for
"cosine".
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from siamese_fast.ops._checks import compute_dtype

BLOCK_ELEMENTS = 1 << 18
SUM_LENGTH = 64


def unit_rows(x: Tensor) -> Tensor:
    """Rows scaled to length 1 in the compute dtype; a zero row stays zero and takes no gradient."""
    x = x.to(compute_dtype(x.dtype))
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    zero = length == 0
    return torch.where(zero, torch.zeros_like(x), x / torch.where(zero, torch.ones_like(length), length))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x); torch's default cut-off at 20 would cost float64 half its digits."""
    return F.softplus(x, threshold=50.0)


def operand(x: Tensor, metric: str) -> Tensor:
    """The rows as kernels take them: unit rows for cosine, unchanged for every other metric."""
    return unit_rows(x) if metric == "cosine" else x


def distance_formula(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Distance over the last dimension of broadcast operands, differentiable to any order, gradient 0 at
    distance 0.
    """
    if metric == "dot":
        return -(x * y).sum(-1)
    difference = x - y
    if metric == "manhattan":
        return difference.abs().sum(-1)
    square = difference.square().sum(-1)
    if metric == "euclidean":
        zero = square == 0
        return torch.where(
            zero, torch.zeros_like(square), torch.where(zero, torch.ones_like(square), square).sqrt()
        )
    if metric == "cosine":
        return 0.5 * (square + is_zero_row(x) + is_zero_row(y))
    return square


def is_zero_row(unit: Tensor) -> Tensor:
    """1 where a row of unit length or zero is zero: what |x-y|^2 / 2 lacks there to be 1 - cosine."""
    return (unit == 0).all(-1).to(unit.dtype)


def distance_block(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Distances [N, M] from exact differences, without the [N, M, D] tensor; not for autograd."""
    left, right = x.T.contiguous(), y.T.contiguous()
    total = x.new_zeros(x.shape[0], y.shape[0])
    for start in range(0, x.shape[1], SUM_LENGTH):
        columns = slice(start, start + SUM_LENGTH)
        if metric == "dot":
            total -= left[columns].T @ right[columns]
        else:
            total += _difference_sums(left[columns], right[columns], absolute=metric == "manhattan")
    if metric == "euclidean":
        return total.sqrt_()
    if metric == "cosine":
        return 0.5 * (total + is_zero_row(x)[:, None] + is_zero_row(y)[None, :])
    return total


def _difference_sums(left: Tensor, right: Tensor, absolute: bool) -> Tensor:
    """sum_k |left[k, i] - right[k, j]|, or of squares: exact for small integers, as `torch.cdist` is not."""
    total = left.new_zeros(left.shape[1], right.shape[1])
    difference = torch.empty_like(total)
    for row, column in zip(left, right, strict=True):
        torch.sub(row[:, None], column[None, :], out=difference)
        if absolute:
            total += difference.abs_()
        else:
            total.addcmul_(difference, difference)
    return total


def distance_gradient(x: Tensor, y: Tensor, distance: Tensor, metric: str) -> Tensor:
    """d distance / dx over broadcast operands (d/dy is its negative, but for dot, where it is -x)."""
    if metric == "dot":
        return (-y).expand(torch.broadcast_shapes(x.shape, y.shape))
    if metric == "manhattan":
        return torch.sign(x - y)
    if metric == "sqeuclidean":
        return 2 * (x - y)
    if metric == "cosine":
        return x - y
    zero = (distance == 0).unsqueeze(-1)
    return torch.where(
        zero,
        torch.zeros_like(x),
        (x - y) / torch.where(zero, torch.ones_like(x[..., :1]), distance.unsqueeze(-1)),
    )


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows such that a block of that many rows and `columns` columns stays small."""
    step = max(1, BLOCK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
