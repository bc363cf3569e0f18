"""Distances of matching rows and their gradient: one pass over both operands each. Limit: memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import COMPUTE, METRIC, checked, config, launch, on_device
from siamese_fast.kernels.tile import direction, factor, load_rows, pair_distances
from siamese_fast.ops._checks import compute_dtype


@triton.jit
def _distance(
    p_x,
    p_y,
    p_out,
    rows,
    depth,
    METRIC: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m, at = o < rows, o[:, None] * depth
    found = pair_distances(p_x + at, m[:, None], p_y + at, m[:, None], p_x, depth, METRIC, B, BK, DTYPE)
    tl.store(p_out + o, found, mask=m)


@triton.jit
def _backward(
    p_grad,
    p_x,
    p_y,
    p_distance,
    p_grad_x,
    p_grad_y,
    rows,
    depth,
    METRIC: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m, at = o < rows, o[:, None] * depth
    grad = tl.load(p_grad + o, mask=m, other=0.0)
    slope = factor(grad, tl.load(p_distance + o, mask=m, other=0.0), METRIC)[:, None]
    for k in range(0, depth, BK):
        o_k = k + tl.arange(0, BK)
        x, y = load_rows(p_x + at, m[:, None], o_k, depth), load_rows(p_y + at, m[:, None], o_k, depth)
        x, y = x.to(DTYPE), y.to(DTYPE)
        out, m_out = at + o_k[None, :], m[:, None] & (o_k < depth)[None, :]
        tl.store(p_grad_x + out, slope * direction(x, y, METRIC), mask=m_out)
        tl.store(p_grad_y + out, slope * direction(y, x, METRIC), mask=m_out)


@on_device
def distance(x: Tensor, y: Tensor, metric: str) -> Tensor:
    x, y = x.contiguous(), checked("y", y, x.dtype, x.shape, x)
    out, shape = x.new_empty(x.shape[0], dtype=compute_dtype(x.dtype)), config("rows", x)
    launch(
        _distance,
        (triton.cdiv(x.shape[0], shape["B"]),),
        *(x, y, out, *x.shape),
        METRIC=METRIC[metric],
        DTYPE=COMPUTE[out.dtype],
        **shape,
    )
    return out


@on_device
def distance_backward(
    grad: Tensor, x: Tensor, y: Tensor, distances: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    x, y = x.contiguous(), checked("y", y, x.dtype, x.shape, x)
    compute, shape = compute_dtype(x.dtype), config("rows", x)
    grad = checked("grad", grad, compute, x.shape[:1], x)
    distances = checked("distances", distances, compute, x.shape[:1], x)
    grad_x, grad_y = torch.empty_like(x), torch.empty_like(y)
    launch(
        _backward,
        (triton.cdiv(x.shape[0], shape["B"]),),
        *(grad, x, y, distances, grad_x, grad_y, *x.shape),
        METRIC=METRIC[metric],
        DTYPE=COMPUTE[compute],
        **shape,
    )
    return grad_x, grad_y


KERNELS = {"distance": distance, "distance_backward": distance_backward}
