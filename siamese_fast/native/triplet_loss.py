"""C++ kernels of `siamese_fast.ops.triplet_loss`: chosen triplets, by index or by rows."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.native._call import (
    DTYPE,
    HINGE,
    METRIC,
    REDUCTION,
    address,
    compute_dtype,
    extension,
    fresh_like,
    operand,
    threads,
)


def triplet_loss(
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
    x, table, anchor, positive, negative = _indexed(x, ref, anchor, positive, negative)
    rows = (x, table, table)
    return _forward(
        rows, (anchor, positive, negative), positive.shape[0], margin, metric, hinge, reduction, zero_positive
    )


def triplet_rows_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, metric: str, hinge: str, reduction: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = _matching(anchor, positive, negative)
    return _forward(rows, (None, None, None), anchor.shape[0], margin, metric, hinge, reduction, False)


def triplet_loss_backward(
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
    x, table, anchor, positive, negative = _indexed(x, ref, anchor, positive, negative)
    grad_x = fresh_like(x)
    grad_table = None if ref is None else fresh_like(table)
    rows, index, grads = (x, table, table), (anchor, positive, negative), (grad_x, grad_table, None, None)
    _backward(grad, rows, index, positive.shape[0], d_ap, d_an, margin, metric, hinge, zero_positive, grads)
    return grad_x, x.new_empty(0) if grad_table is None else grad_table


def triplet_rows_loss_backward(
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
    rows = _matching(anchor, positive, negative)
    grad_a, grad_p, grad_n = (fresh_like(row) for row in rows)
    grads = (grad_a, None, grad_p, grad_n)
    _backward(
        grad, rows, (None, None, None), anchor.shape[0], d_ap, d_an, margin, metric, hinge, False, grads
    )
    return grad_a, grad_p, grad_n


def _indexed(
    x: Tensor, ref: Tensor | None, anchor: Tensor | None, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    x = x.contiguous()
    table = x if ref is None else operand("ref", ref, x.dtype, (ref.shape[0], x.shape[1]))
    count = positive.shape if anchor is not None else x.shape[:1]
    if anchor is not None:
        anchor = operand("anchor", anchor, torch.int64, count)
    return (
        x,
        table,
        anchor,
        operand("positive", positive, torch.int64, count),
        operand("negative", negative, torch.int64, count),
    )


def _matching(anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        anchor.contiguous(),
        operand("positive", positive, anchor.dtype, anchor.shape),
        operand("negative", negative, anchor.dtype, anchor.shape),
    )


def _forward(
    rows: tuple[Tensor, Tensor, Tensor],
    index: tuple[Tensor | None, Tensor | None, Tensor | None],
    count: int,
    margin: float,
    metric: str,
    hinge: str,
    reduction: str,
    zero_positive: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, positives, negatives = rows
    d_ap = x.new_empty(count, dtype=compute_dtype(x.dtype))
    d_an, scale = torch.empty_like(d_ap), d_ap.new_empty(())
    loss = d_ap.new_empty((count,) if reduction == "none" else ())
    extension.triplet_loss(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        HINGE[hinge],
        REDUCTION[reduction],
        margin,
        zero_positive,
        count,
        x.shape[1],
        x.shape[0],
        positives.shape[0],
        x.data_ptr(),
        positives.data_ptr(),
        negatives.data_ptr(),
        address(index[0]),
        address(index[1]),
        address(index[2]),
        loss.data_ptr(),
        d_ap.data_ptr(),
        d_an.data_ptr(),
        scale.data_ptr(),
    )
    return loss, d_ap, d_an, scale


def _backward(
    grad: Tensor,
    rows: tuple[Tensor, Tensor, Tensor],
    index: tuple[Tensor | None, Tensor | None, Tensor | None],
    count: int,
    d_ap: Tensor,
    d_an: Tensor,
    margin: float,
    metric: str,
    hinge: str,
    zero_positive: bool,
    grads: tuple[Tensor | None, ...],
) -> None:
    x, positives, negatives = rows
    compute = compute_dtype(x.dtype)
    grad = operand("grad", grad, compute, (count,) if grad.dim() else ())
    d_ap, d_an = operand("d_ap", d_ap, compute, (count,)), operand("d_an", d_an, compute, (count,))
    extension.triplet_loss_backward(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        HINGE[hinge],
        margin,
        zero_positive,
        count,
        x.shape[1],
        x.shape[0],
        positives.shape[0],
        grad.dim() == 0,
        grad.data_ptr(),
        x.data_ptr(),
        positives.data_ptr(),
        negatives.data_ptr(),
        d_ap.data_ptr(),
        d_an.data_ptr(),
        address(index[0]),
        address(index[1]),
        address(index[2]),
        address(grads[0]),
        address(grads[1]),
        address(grads[2]),
        address(grads[3]),
    )


KERNELS = {
    "triplet_loss": triplet_loss,
    "triplet_loss_backward": triplet_loss_backward,
    "triplet_rows_loss": triplet_rows_loss,
    "triplet_rows_loss_backward": triplet_rows_loss_backward,
}
