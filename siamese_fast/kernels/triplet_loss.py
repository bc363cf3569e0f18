"""Losses of chosen triplets, by row index or by rows: distances from exact differences, reduced in fixed
blocks.

One launch reads the three rows of each triplet once; a second adds the blocks' sums, in float64 and in order.
Limit: memory, 3 D elements a triplet.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import (
    COMPUTE,
    HINGE,
    METRIC,
    REDUCTION,
    bits,
    checked,
    config,
    launch,
    on_device,
)
from siamese_fast.kernels.tile import from_bits, holds_nan, pair_distances, sigmoid, softplus
from siamese_fast.ops._checks import compute_dtype


@triton.jit
def picked(p_index, o, m, rows, INDEXED: tl.constexpr):
    """The row of each of the triplets `o`: itself without indices; -1 where there is none, `rows` if out of
    range.
    """
    if INDEXED:
        index = tl.load(p_index + o, mask=m, other=-1)
        return tl.where((index < -1) | (index >= rows), rows, index)
    return tl.where(m, o, -1)


@triton.jit
def hinge_slope(violation, SOFT: tl.constexpr):
    slope = sigmoid(violation) if SOFT else (violation > 0).to(violation.dtype)
    return tl.where(violation == violation, slope, violation)


@triton.jit
def _evaluate(
    p_x,
    p_p,
    p_n,
    p_anchor,
    p_positive,
    p_negative,
    p_loss,
    p_d_ap,
    p_d_an,
    p_sums,
    p_counts,
    count,
    depth,
    x_rows,
    table_rows,
    margin,
    METRIC: tl.constexpr,
    SOFT: tl.constexpr,
    REDUCTION: tl.constexpr,
    ZERO_POSITIVE: tl.constexpr,
    ANCHORS: tl.constexpr,
    INDEXED: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m = o < count
    a = picked(p_anchor, o, m, x_rows, ANCHORS)
    p = picked(p_positive, o, m, table_rows, INDEXED)
    n = picked(p_negative, o, m, table_rows, INDEXED)
    known = m & (a >= 0) & (a < x_rows)
    has_p, has_n = known & (p >= 0), known & (n >= 0)
    in_p, in_n = has_p & (p < table_rows), has_n & (n < table_rows)
    row_a, m_a = p_x + tl.where(known, a, 0)[:, None] * depth, known[:, None]
    row_p, row_n = p_p + tl.where(in_p, p, 0)[:, None] * depth, p_n + tl.where(in_n, n, 0)[:, None] * depth
    d_ap = pair_distances(row_a, m_a, row_p, in_p[:, None], p_x, depth, METRIC, B, BK, DTYPE)
    d_an = pair_distances(row_a, m_a, row_n, in_n[:, None], p_x, depth, METRIC, B, BK, DTYPE)
    nan = tl.full([B], float("nan"), DTYPE)
    nothing = tl.where(holds_nan(row_a, m_a, depth, B, BK) | (known == 0), nan, 0.0)
    d_ap = tl.where(has_p, tl.where(in_p, d_ap, nan), nothing)
    d_an = tl.where(has_n, tl.where(in_n, d_an, nan), nothing)
    violation = d_ap - d_an + from_bits(margin, DTYPE)
    loss = softplus(violation) if SOFT else tl.where(violation < 0, 0.0, violation)
    valid = has_n & (has_p | ZERO_POSITIVE)
    loss = tl.where(valid, loss, nothing)
    tl.store(p_d_ap + o, d_ap, mask=m)
    tl.store(p_d_an + o, d_an, mask=m)
    if REDUCTION == 0:
        tl.store(p_loss + o, loss, mask=m)
    else:
        counted = valid if REDUCTION == 1 else (loss <= 0) == 0
        tl.store(p_sums + tl.program_id(0), tl.sum(tl.where(m, loss, 0.0).to(tl.float64), 0))
        tl.store(p_counts + tl.program_id(0), tl.sum((m & counted).to(tl.int32), 0))


@triton.jit
def add_blocks(
    p_sums,
    p_counts,
    p_loss,
    p_scale,
    blocks,
    count,
    AVERAGE: tl.constexpr,
    COUNTED: tl.constexpr,
    B: tl.constexpr,
):
    """The loss from its blocks' sums; AVERAGE over the counted terms, or over `count` where nothing was
    COUNTED.
    """
    total = tl.zeros([B], tl.float64)
    number = tl.zeros([B], tl.int64)
    for start in range(0, blocks, B):
        o = start + tl.arange(0, B)
        total += tl.load(p_sums + o, mask=o < blocks, other=0.0)
        if COUNTED:
            number += tl.load(p_counts + o, mask=o < blocks, other=0)
    scale = tl.full([], 1.0, tl.float64)
    if AVERAGE:
        scale = 1.0 / tl.maximum(tl.sum(number, 0) if COUNTED else count, 1).to(tl.float64)
    tl.store(p_loss, tl.sum(total, 0) * scale)
    if COUNTED:
        tl.store(p_scale, scale)


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
    x, positives = rows[:2]
    shape = config("triplets", x)
    blocks = triton.cdiv(count, shape["B"])
    d_ap = x.new_empty(count, dtype=compute_dtype(x.dtype))
    d_an, scale = torch.empty_like(d_ap), d_ap.new_ones(())
    loss = d_ap.new_empty((count,) if reduction == "none" else ())
    sums, counts = x.new_empty(blocks, dtype=torch.float64), x.new_empty(blocks, dtype=torch.int32)
    launch(
        _evaluate,
        (blocks,),
        *(*rows, *(x if one is None else one for one in index), loss, d_ap, d_an, sums, counts),
        *(count, x.shape[1], x.shape[0], positives.shape[0], bits(margin)),
        METRIC=METRIC[metric],
        SOFT=bool(HINGE[hinge]),
        REDUCTION=REDUCTION[reduction],
        ZERO_POSITIVE=zero_positive,
        ANCHORS=index[0] is not None,
        INDEXED=index[1] is not None,
        DTYPE=COMPUTE[d_ap.dtype],
        **shape,
    )
    if reduction != "none":
        average = reduction in ("mean", "mean_nonzero")
        launch(add_blocks, (1,), sums, counts, loss, scale, blocks, 1, AVERAGE=average, COUNTED=True, B=1024)
    return loss, d_ap, d_an, scale


@on_device
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
    x, table, *index = indexed(x, ref, anchor, positive, negative)
    options = (margin, metric, hinge, reduction, zero_positive)
    return _forward((x, table, table), (index[0], index[1], index[2]), positive.shape[0], *options)


@on_device
def triplet_rows_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, metric: str, hinge: str, reduction: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = matching(anchor, positive, negative)
    return _forward(rows, (None, None, None), anchor.shape[0], margin, metric, hinge, reduction, False)


def indexed(
    x: Tensor, ref: Tensor | None, anchor: Tensor | None, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Checked rows, table and indices; without anchors every row is one."""
    x = x.contiguous()
    table = x if ref is None else checked("ref", ref, x.dtype, (ref.shape[0], x.shape[1]), x)
    count = positive.shape[:1] if anchor is not None else x.shape[:1]
    if anchor is not None:
        anchor = checked("anchor", anchor, torch.int64, count, x)
    positive = checked("positive", positive, torch.int64, count, x)
    return x, table, anchor, positive, checked("negative", negative, torch.int64, count, x)


def matching(anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        anchor.contiguous(),
        checked("positive", positive, anchor.dtype, anchor.shape, anchor),
        checked("negative", negative, anchor.dtype, anchor.shape, anchor),
    )


KERNELS = {"triplet_loss": triplet_loss, "triplet_rows_loss": triplet_rows_loss}
