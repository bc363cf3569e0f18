"""The Koch head with a hidden layer over all pairs on the tensor cores, |q - s| made in registers.

    forward       a tile is one query against BP supports: |q - s| [BP, BK] times W^T, ReLU, the last sum
    rows pass     the gradient of one query, or of one support with the sides exchanged: the tile again, then
                  its slope [BP, BH] times W, weighed by sign(own - other) and summed over the others
    weights pass  the slope's transpose times |q - s|, from a fixed number of runs of queries, added in order

Every output has one writer. The ReLU's inputs are made again for each block of BD columns of a gradient.
Limit: the tensor cores, at 2 Q S D H operations forward and 12 Q S D H backward where D <= BD, float32 as
three tf32 terms. float64, which has no such units here, is served by the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import checked, config, interpreting, launch, on_device
from siamese_fast.kernels.tile import FOLD, MANHATTAN, direction, load_rows, product
from siamese_fast.ops._checks import compute_dtype
from siamese_fast.ops._define import REFERENCES

RUNS = 64


@triton.jit
def _differences(p_own, p_other, m_other, o_k, depth):
    """|own - other| [BP, BK] of a row given by a pointer against rows given by pointers [BP, 1]."""
    own = tl.load(p_own + o_k, mask=o_k < depth, other=0.0).to(tl.float32)
    return tl.abs(own[None, :] - load_rows(p_other, m_other, o_k, depth).to(tl.float32))


@triton.jit
def _features(
    p_own,
    p_other,
    m_other,
    p_hidden,
    p_shift,
    o_h,
    width,
    depth,
    BP: tl.constexpr,
    BH: tl.constexpr,
    BK: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """max(0, W |own - other| + c) [BP, BH]; 0 past the width."""
    m_h = o_h < width
    p_rows = p_hidden + o_h[:, None] * depth
    total = tl.zeros([BP, BH], tl.float32)
    for start in range(0, depth, FOLD):
        acc = tl.zeros([BP, BH], tl.float32)
        for k in range(start, min(start + FOLD, depth), BK):
            o_k = k + tl.arange(0, BK)
            difference = _differences(p_own, p_other, m_other, o_k, depth)
            acc = product(difference, load_rows(p_rows, m_h[:, None], o_k, depth), acc, "tf32x3", UPCAST)
        total += acc
    total += tl.load(p_shift + o_h, mask=m_h, other=0.0)[None, :]
    return tl.where((total <= 0) | (m_h == 0)[None, :], 0.0, total)


@triton.jit
def _forward(
    p_q,
    p_s,
    p_hidden,
    p_shift,
    p_weight,
    p_bias,
    p_out,
    supports,
    depth,
    width,
    BP: tl.constexpr,
    BH: tl.constexpr,
    BK: tl.constexpr,
    UPCAST: tl.constexpr,
):
    blocks = tl.cdiv(supports, BP)
    i = (tl.program_id(0) // blocks).to(tl.int64)
    o = (tl.program_id(0) % blocks).to(tl.int64) * BP + tl.arange(0, BP)
    m = o < supports
    logit = tl.zeros([BP], tl.float32)
    for h in range(0, width, BH):
        o_h = h + tl.arange(0, BH)
        features = _features(
            p_q + i * depth, p_s + o[:, None] * depth, m[:, None], p_hidden, p_shift, o_h, width, depth, BP,
            BH, BK, UPCAST,
        )  # fmt: skip
        logit += tl.sum(features * tl.load(p_weight + o_h, mask=o_h < width, other=0.0)[None, :], 1)
    tl.store(p_out + i * supports + o, logit + tl.load(p_bias), mask=m)


@triton.jit
def _slopes(features, grad, p_weight, o_h, width):
    """d loss / d input of the ReLU [BP, BH]; NaN stays."""
    weight = tl.load(p_weight + o_h, mask=o_h < width, other=0.0)
    return tl.where(features <= 0, 0.0, grad[:, None] * weight[None, :])


@triton.jit
def _rows_pass(
    p_grad,
    p_own,
    p_other,
    p_hidden,
    p_shift,
    p_weight,
    p_out,
    others,
    depth,
    width,
    stride_row,
    stride_other,
    BP: tl.constexpr,
    BH: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """BD columns of the gradient of one row `own`; grad[i, j] lies at i * stride_row + j * stride_other."""
    i = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < depth
    p_row = p_own + i * depth
    own = tl.load(p_row + o_d, mask=m_d, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros([BD], tl.float32)
    for j in range(0, others, BP):
        o = (j + tl.arange(0, BP)).to(tl.int64)
        m, p_rows = (o < others)[:, None], p_other + o[:, None] * depth
        grad = tl.load(p_grad + i * stride_row + o * stride_other, mask=o < others, other=0.0)
        acc = tl.zeros([BP, BD], tl.float32)
        for h in range(0, width, BH):
            o_h = h + tl.arange(0, BH)
            features = _features(p_row, p_rows, m, p_hidden, p_shift, o_h, width, depth, BP, BH, BK, UPCAST)
            slope = _slopes(features, grad, p_weight, o_h, width)
            hidden = load_rows(p_hidden + o_h[:, None] * depth, (o_h < width)[:, None], o_d, depth)
            acc = tl.dot(slope, hidden, acc, input_precision="tf32x3")
        term = acc * direction(own, load_rows(p_rows, m, o_d, depth).to(tl.float32), MANHATTAN)
        total += tl.sum(tl.where(m, term, 0.0), 0)
    tl.store(p_out + i * depth + o_d, total, mask=m_d)


@triton.jit
def _weights_pass(
    p_grad,
    p_q,
    p_s,
    p_hidden,
    p_shift,
    p_weight,
    p_out_hidden,
    p_out_shift,
    p_out_weight,
    queries,
    supports,
    depth,
    width,
    run,
    BP: tl.constexpr,
    BH: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """A run of queries' share of the gradients in [BH, BD] of W, and in BH of c and w."""
    i_run = tl.program_id(0).to(tl.int64)
    o_h = tl.program_id(1) * BH + tl.arange(0, BH)
    o_d = tl.program_id(2) * BD + tl.arange(0, BD)
    total = tl.zeros([BH, BD], tl.float32)
    of_shift = tl.zeros([BH], tl.float32)
    of_weight = tl.zeros([BH], tl.float32)
    for i in range(i_run * run, min(i_run * run + run, queries)):
        p_row = p_q + i * depth
        acc = tl.zeros([BH, BD], tl.float32)
        for j in range(0, supports, BP):
            o = (j + tl.arange(0, BP)).to(tl.int64)
            m, p_rows = (o < supports)[:, None], p_s + o[:, None] * depth
            grad = tl.load(p_grad + i * supports + o, mask=o < supports, other=0.0)
            features = _features(p_row, p_rows, m, p_hidden, p_shift, o_h, width, depth, BP, BH, BK, UPCAST)
            slope = tl.where(m, _slopes(features, grad, p_weight, o_h, width), 0.0)
            difference = tl.where(m, _differences(p_row, p_rows, m, o_d, depth), 0.0)
            acc = tl.dot(tl.trans(slope), difference, acc, input_precision="tf32x3")
            of_shift += tl.sum(slope, 0)
            of_weight += tl.sum(tl.where(m, features * grad[:, None], 0.0), 0)
        total += acc
    at = i_run * width + o_h
    m_h = o_h < width
    tl.store(
        p_out_hidden + at[:, None] * depth + o_d[None, :], total, mask=m_h[:, None] & (o_d < depth)[None, :]
    )
    if tl.program_id(2) == 0:
        tl.store(p_out_shift + at, of_shift, mask=m_h)
        tl.store(p_out_weight + at, of_weight, mask=m_h)


def _operands(q: Tensor, s: Tensor, hidden: Tensor, shift: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    compute, width, depth = compute_dtype(q.dtype), hidden.shape[0], q.shape[1]
    return (
        q.contiguous(),
        checked("s", s, q.dtype, (s.shape[0], depth), q),
        checked("hidden_weight", hidden, compute, (width, depth), q),
        checked("hidden_bias", shift, compute, (width,), q),
        checked("weight", weight, compute, (width,), q),
    )


@on_device
def l1_mlp_similarity_matrix(
    q: Tensor, s: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    if q.dtype == torch.float64:
        served: Tensor = REFERENCES["l1_mlp_similarity_matrix"](
            q, s, hidden_weight, hidden_bias, weight, bias
        )
        return served
    operands = _operands(q, s, hidden_weight, hidden_bias, weight)
    out, shape = weight.new_empty(q.shape[0], s.shape[0]), config("hidden", q)
    launch(
        _forward,
        (q.shape[0] * triton.cdiv(s.shape[0], shape["BP"]),),
        *(*operands, checked("bias", bias, weight.dtype, (), q), out),
        *(s.shape[0], q.shape[1], weight.shape[0]),
        UPCAST=interpreting,
        **shape,
    )
    return out


@on_device
def l1_mlp_similarity_matrix_backward(
    grad: Tensor, q: Tensor, s: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, weight: Tensor
) -> tuple[Tensor, ...]:
    if q.dtype == torch.float64:
        served: tuple[Tensor, ...] = REFERENCES["l1_mlp_similarity_matrix_backward"](
            grad, q, s, hidden_weight, hidden_bias, weight
        )
        return served
    q, s, *parameters = _operands(q, s, hidden_weight, hidden_bias, weight)
    grad = checked("grad", grad, weight.dtype, (q.shape[0], s.shape[0]), q)
    depth, width, shape = q.shape[1], weight.shape[0], config("hidden_gradients", q)
    shape["BD"] = min(shape["BD"], max(16, triton.next_power_of_2(depth)))
    constants, columns = {"UPCAST": interpreting, **shape}, triton.cdiv(depth, shape["BD"])
    grads = torch.empty_like(q), torch.empty_like(s)
    for own, other, out, strides in ((q, s, grads[0], (s.shape[0], 1)), (s, q, grads[1], (1, s.shape[0]))):
        sizes = (other.shape[0], depth, width, *strides)
        launch(_rows_pass, (own.shape[0], columns), grad, own, other, *parameters, out, *sizes, **constants)
    run = max(1, triton.cdiv(q.shape[0], RUNS))
    runs = triton.cdiv(q.shape[0], run)
    partial = (
        weight.new_empty(runs, width, depth),
        weight.new_empty(runs, width),
        weight.new_empty(runs, width),
    )
    launch(
        _weights_pass,
        (runs, triton.cdiv(width, shape["BH"]), columns),
        *(grad, q, s, *parameters, *partial, q.shape[0], s.shape[0], depth, width, run),
        **constants,
    )
    return (*grads, *(part.sum(0) for part in partial), grad.sum())


KERNELS = {
    "l1_mlp_similarity_matrix": l1_mlp_similarity_matrix,
    "l1_mlp_similarity_matrix_backward": l1_mlp_similarity_matrix_backward,
}
