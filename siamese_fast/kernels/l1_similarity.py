"""The Koch head on given pairs, with its cross-entropy: every pass reads h1 and h2 once from memory.

A program takes B pairs. The one-pass gradient sums their logits, then reads the same rows again, which lie
in the cache, and writes both gradients. The weight's gradient is summed over the rows of a program and
written to a partial of its own, [programs, D]; the partials are added in order. Limit: memory, 2 D elements
a pair forward and 4 D with gradients.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import (
    COMPUTE,
    bits,
    checked,
    config,
    launch,
    on_device,
    receiver,
)
from siamese_fast.kernels.tile import (
    KOCH,
    MANHATTAN,
    direction,
    from_bits,
    load_rows,
    pair_distances,
    sigmoid,
    softplus,
)
from siamese_fast.kernels.triplet_loss import add_blocks
from siamese_fast.ops._checks import compute_dtype


@triton.jit
def _logits(
    p_h1, p_h2, p_weight, p_bias, p_out, rows, depth, DTYPE: tl.constexpr, B: tl.constexpr, BK: tl.constexpr
):
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m, at = o < rows, o[:, None] * depth
    sums = pair_distances(p_h1 + at, m[:, None], p_h2 + at, m[:, None], p_weight, depth, KOCH, B, BK, DTYPE)
    tl.store(p_out + o, sums + tl.load(p_bias), mask=m)


@triton.jit
def _pair_gradients(
    residual,
    p_h1,
    p_h2,
    p_weight,
    p_grad_h1,
    p_grad_h2,
    p_partial,
    o,
    rows,
    depth,
    DTYPE: tl.constexpr,
    BK: tl.constexpr,
):
    """Gradients of the rows `o` given those of their logits, and their share of the weight's."""
    m, at = (o < rows)[:, None], o[:, None] * depth
    for k in range(0, depth, BK):
        o_k = k + tl.arange(0, BK)
        m_k = o_k < depth
        x = load_rows(p_h1 + at, m, o_k, depth).to(DTYPE)
        y = load_rows(p_h2 + at, m, o_k, depth).to(DTYPE)
        weight = tl.load(p_weight + o_k, mask=m_k, other=0.0)[None, :]
        grad = residual[:, None] * weight * direction(x, y, MANHATTAN)
        tl.store(p_grad_h1 + at + o_k[None, :], grad, mask=m & m_k[None, :])
        tl.store(p_grad_h2 + at + o_k[None, :], -grad, mask=m & m_k[None, :])
        share = tl.where(m, residual[:, None] * tl.abs(x - y), 0.0)
        out = tl.program_id(0).to(tl.int64) * depth + o_k
        tl.store(p_partial + out, tl.sum(share, 0), mask=m_k)


@triton.jit
def _backward(
    p_grad,
    p_h1,
    p_h2,
    p_weight,
    p_grad_h1,
    p_grad_h2,
    p_partial,
    rows,
    depth,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    grad = tl.load(p_grad + o, mask=o < rows, other=0.0)
    _pair_gradients(grad, p_h1, p_h2, p_weight, p_grad_h1, p_grad_h2, p_partial, o, rows, depth, DTYPE, BK)


@triton.jit
def _cross_entropy(
    p_h1,
    p_h2,
    p_weight,
    p_bias,
    p_target,
    p_loss,
    p_residual,
    p_sums,
    p_grad_h1,
    p_grad_h2,
    p_partial,
    rows,
    depth,
    pos_weight,
    REDUCTION: tl.constexpr,
    GRADIENT: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    """Losses and residuals (the gradient of the reduced loss in each logit); GRADIENT, all gradients at
    once.
    """
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m, at = o < rows, o[:, None] * depth
    logit = pair_distances(p_h1 + at, m[:, None], p_h2 + at, m[:, None], p_weight, depth, KOCH, B, BK, DTYPE)
    logit += tl.load(p_bias)
    target = tl.load(p_target + o, mask=m, other=0.0)
    positive = from_bits(pos_weight, DTYPE) * target
    loss = (1.0 - target) * softplus(logit) + positive * softplus(-logit)
    residual = (1.0 - target) * sigmoid(logit) - positive * sigmoid(-logit)
    if REDUCTION == 1:
        residual /= tl.maximum(rows, 1).to(DTYPE)
    residual = tl.where(m, residual, 0.0)
    tl.store(p_residual + o, residual, mask=m)
    if REDUCTION == 0:
        tl.store(p_loss + o, loss, mask=m)
    else:
        tl.store(p_sums + tl.program_id(0), tl.sum(tl.where(m, loss, 0.0).to(tl.float64), 0))
    if GRADIENT:
        _pair_gradients(
            residual, p_h1, p_h2, p_weight, p_grad_h1, p_grad_h2, p_partial, o, rows, depth, DTYPE, BK
        )


def _operands(h1: Tensor, h2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, object]]:
    compute = compute_dtype(h1.dtype)
    weight = checked("weight", weight, compute, h1.shape[1:], h1)
    shape: dict[str, object] = {**config("rows", h1), "DTYPE": COMPUTE[compute]}
    return h1.contiguous(), checked("h2", h2, h1.dtype, h1.shape, h1), weight, shape


def _blocks(h1: Tensor) -> int:
    return -(-h1.shape[0] // config("rows", h1)["B"])


@on_device
def l1_similarity(h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    h1, h2, weight, shape = _operands(h1, h2, weight)
    bias = checked("bias", bias, weight.dtype, (), h1)
    logits = weight.new_empty(h1.shape[0])
    launch(_logits, (_blocks(h1),), h1, h2, weight, bias, logits, *h1.shape, **shape)
    return logits


@on_device
def l1_similarity_backward(
    grad: Tensor, h1: Tensor, h2: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h1, h2, weight, shape = _operands(h1, h2, weight)
    grad = checked("grad", grad, weight.dtype, h1.shape[:1], h1)
    grad_h1, grad_h2 = torch.empty_like(h1), torch.empty_like(h2)
    partial = weight.new_empty(_blocks(h1), h1.shape[1])
    launch(_backward, (_blocks(h1),), grad, h1, h2, weight, grad_h1, grad_h2, partial, *h1.shape, **shape)
    return grad_h1, grad_h2, partial.sum(0), grad.sum()


def _loss(
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    pos_weight: float,
    reduction: str,
    grads: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    h1, h2, weight, shape = _operands(h1, h2, weight)
    bias = checked("bias", bias, weight.dtype, (), h1)
    target = checked("target", target, weight.dtype, h1.shape[:1], h1)
    blocks, rows = _blocks(h1), h1.shape[0]
    loss = weight.new_empty((rows,) if reduction == "none" else ())
    residual, sums = weight.new_empty(rows), weight.new_empty(blocks, dtype=torch.float64)
    partial = weight.new_empty(blocks if grads else 0, h1.shape[1])
    outputs = (loss, residual, sums, *(grads or (residual, residual)), partial)
    launch(
        _cross_entropy,
        (blocks,),
        *(h1, h2, weight, bias, target, *outputs, *h1.shape, bits(pos_weight)),
        REDUCTION={"none": 0, "mean": 1, "sum": 2}[reduction],
        GRADIENT=grads is not None,
        **shape,
    )
    if reduction != "none":
        average = reduction == "mean"
        launch(add_blocks, (1,), sums, sums, loss, loss, blocks, rows, AVERAGE=average, COUNTED=False, B=1024)
    return loss, residual, partial


@on_device
def l1_similarity_bce(
    h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor, target: Tensor, pos_weight: float, reduction: str
) -> tuple[Tensor, Tensor]:
    return _loss(h1, h2, weight, bias, target, pos_weight, reduction, None)[:2]


@on_device
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
    grad_h1 = receiver("grad_h1", grad_h1, h1.dtype, h1.shape, h1)
    grad_h2 = receiver("grad_h2", grad_h2, h1.dtype, h1.shape, h1)
    grads = (grad_h1, grad_h2)
    loss, residual, partial = _loss(h1, h2, weight, bias, target, pos_weight, reduction, grads)
    return loss, partial.sum(0), residual.sum()


KERNELS = {
    "l1_similarity": l1_similarity,
    "l1_similarity_backward": l1_similarity_backward,
    "l1_similarity_bce": l1_similarity_bce,
    "l1_similarity_bce_grad": l1_similarity_bce_grad,
}
