"""C++ kernels of `siamese_fast.ops.l1_similarity`."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.native._call import (
    DTYPE,
    REDUCTION,
    compute_dtype,
    extension,
    fresh_like,
    operand,
    receiver,
    threads,
)


def l1_similarity(h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    h1, h2, weight = _rows(h1, h2, weight)
    bias = operand("bias", bias, weight.dtype, ())
    rows, depth = h1.shape
    logits = weight.new_empty(rows)
    extension.l1_similarity(
        DTYPE[h1.dtype],
        threads(),
        rows,
        depth,
        h1.data_ptr(),
        h2.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        logits.data_ptr(),
    )
    return logits


def l1_similarity_backward(
    grad: Tensor, h1: Tensor, h2: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h1, h2, weight = _rows(h1, h2, weight)
    rows, depth = h1.shape
    grad = operand("grad", grad, weight.dtype, (rows,))
    grad_h1, grad_h2 = fresh_like(h1), fresh_like(h2)
    grad_weight, grad_bias = torch.empty_like(weight), weight.new_empty(())
    extension.l1_similarity_backward(
        DTYPE[h1.dtype],
        threads(),
        rows,
        depth,
        grad.data_ptr(),
        h1.data_ptr(),
        h2.data_ptr(),
        weight.data_ptr(),
        grad_h1.data_ptr(),
        grad_h2.data_ptr(),
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
    )
    return grad_h1, grad_h2, grad_weight, grad_bias


def l1_similarity_bce(
    h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor, target: Tensor, pos_weight: float, reduction: str
) -> tuple[Tensor, Tensor]:
    h1, h2, weight = _rows(h1, h2, weight)
    bias = operand("bias", bias, weight.dtype, ())
    rows, depth = h1.shape
    target = operand("target", target, weight.dtype, (rows,))
    loss, residual = weight.new_empty((rows,) if reduction == "none" else ()), weight.new_empty(rows)
    extension.l1_similarity_bce(
        DTYPE[h1.dtype],
        threads(),
        REDUCTION[reduction],
        pos_weight,
        rows,
        depth,
        h1.data_ptr(),
        h2.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        target.data_ptr(),
        loss.data_ptr(),
        residual.data_ptr(),
    )
    return loss, residual


def l1_similarity_bce_grad(
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    pos_weight: float,
    reduction: str,
    grad_h1: Tensor,
    grad_h2: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    h1, h2, weight = _rows(h1, h2, weight)
    bias = operand("bias", bias, weight.dtype, ())
    rows, depth = h1.shape
    target = operand("target", target, weight.dtype, (rows,))
    grad_h1 = receiver("grad_h1", grad_h1, h1.dtype, h1.shape)
    grad_h2 = receiver("grad_h2", grad_h2, h1.dtype, h1.shape)
    loss, grad_weight, grad_bias = weight.new_empty(()), torch.empty_like(weight), weight.new_empty(())
    extension.l1_similarity_bce_grad(
        DTYPE[h1.dtype],
        threads(),
        REDUCTION[reduction],
        pos_weight,
        rows,
        depth,
        h1.data_ptr(),
        h2.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        target.data_ptr(),
        loss.data_ptr(),
        grad_h1.data_ptr(),
        grad_h2.data_ptr(),
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
    )
    return loss, grad_weight, grad_bias


def _rows(h1: Tensor, h2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weight = operand("weight", weight, compute_dtype(h1.dtype), h1.shape[1:])
    return h1.contiguous(), operand("h2", h2, h1.dtype, h1.shape), weight


KERNELS = {
    "l1_similarity": l1_similarity,
    "l1_similarity_backward": l1_similarity_backward,
    "l1_similarity_bce": l1_similarity_bce,
    "l1_similarity_bce_grad": l1_similarity_bce_grad,
}
