"""Gradients of all-pairs distances and Koch logits: a pass over rows, then a pass over columns, each its
own writer.

A program holds [BM, BK] of one gradient and walks the other operand's rows: coefficient * direction(own,
other). For Koch that is A_ik = sum_j g_ij sign(q_ik - s_jk), from which the row's gradient is w A and the
weight's follows in O((Q + S) D): sum_i (q_ik - c_k) A_ik over both passes, c the supports' mean. The
product's gradient is a product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import COMPUTE, METRIC, checked, launch, on_device
from siamese_fast.kernels.tile import FOLD, KOCH, MANHATTAN, direction, factor, load_rows
from siamese_fast.ops._checks import compute_dtype

BM, BK = 32, 64


@triton.jit
def _pass(
    p_grad,
    p_distance,
    p_own,
    p_other,
    p_weight,
    p_centre,
    p_out,
    p_partial,
    rows,
    others,
    depth,
    stride_row,
    stride_other,
    METRIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
):
    """The gradient of `own` [rows, depth]; grad[i, j] lies at i * stride_row + j * stride_other."""
    FORM: tl.constexpr = MANHATTAN if METRIC == KOCH else METRIC
    o = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    o_k = tl.program_id(1) * BK + tl.arange(0, BK)
    m, m_k = o < rows, o_k < depth
    own = load_rows(p_own + o[:, None] * depth, m[:, None], o_k, depth).to(DTYPE)
    total = tl.zeros([BM, BK], DTYPE)
    at = o * stride_row
    p_row = p_other + o_k
    for start in range(0, others, FOLD):
        acc = tl.zeros([BM, BK], DTYPE)
        for _ in range(start, min(start + FOLD, others)):
            other = tl.load(p_row, mask=m_k, other=0.0).to(DTYPE)[None, :]
            grad = tl.load(p_grad + at, mask=m, other=0.0)
            slope = factor(grad, tl.load(p_distance + at, mask=m, other=0.0), FORM)
            acc += slope[:, None] * direction(own, other, FORM)
            at += stride_other
            p_row += depth
        total += acc
    out = o[:, None] * depth + o_k[None, :]
    m_out = m[:, None] & m_k[None, :]
    if METRIC == KOCH:
        centre = tl.load(p_centre + o_k, mask=m_k, other=0.0)[None, :]
        share = tl.sum(tl.where(m_out, (own - centre) * total, 0.0), 0)
        tl.store(p_partial + tl.program_id(0).to(tl.int64) * depth + o_k, share, mask=m_k)
        total *= tl.load(p_weight + o_k, mask=m_k, other=0.0)[None, :]
    tl.store(p_out + out, total, mask=m_out)


def _gradients(
    metric: str, grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    compute, depth = compute_dtype(x.dtype), x.shape[1]
    x, y = x.contiguous(), checked("y", y, x.dtype, (y.shape[0], depth), x)
    grad = checked("grad", grad, compute, (x.shape[0], y.shape[0]), x)
    distances = checked("distances", distances, compute, grad.shape, x)
    koch = metric == "koch"
    centre = y.to(compute).sum(0) / max(1, y.shape[0]) if koch else grad
    found: list[Tensor] = []
    for own, other, strides in ((x, y, (grad.shape[1], 1)), (y, x, (1, grad.shape[1]))):
        out, blocks = torch.empty_like(own), triton.cdiv(own.shape[0], BM)
        partial = grad.new_empty(blocks if koch else 0, depth)
        launch(
            _pass,
            (blocks, triton.cdiv(depth, BK)),
            *(grad, distances, own, other, weight, centre, out, partial),
            *(own.shape[0], other.shape[0], depth, *strides),
            METRIC=METRIC[metric],
            DTYPE=COMPUTE[compute],
            BM=BM,
            BK=BK,
            num_warps=4,
        )
        found += [out, partial.sum(0)]
    return found[0], found[2], found[1] + found[3]


@on_device
def distance_matrix_backward(
    grad: Tensor, x: Tensor, y: Tensor, distances: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    if metric == "dot":
        return (-(grad @ y.to(grad.dtype))).to(x.dtype), (-(grad.T @ x.to(grad.dtype))).to(y.dtype)
    return _gradients(metric, grad, x, y, grad, distances)[:2]


@on_device
def l1_similarity_matrix_backward(
    grad: Tensor, q: Tensor, s: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weight = checked("weight", weight, compute_dtype(q.dtype), q.shape[1:], q)
    return (*_gradients("koch", grad, q, s, weight, grad), grad.sum())


KERNELS = {
    "distance_matrix_backward": distance_matrix_backward,
    "l1_similarity_matrix_backward": l1_similarity_matrix_backward,
}
