"""One-shot scores per class: supports sorted by class, so that a class is a run of columns that one program
reduces.

Scores come from exact differences, two instructions an element. A class of fewer than BN supports leaves
its tile's other columns idle.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import (
    COMPUTE,
    METRIC,
    checked,
    columns_first,
    config,
    launch,
    on_device,
)
from siamese_fast.kernels.matrix import finished
from siamese_fast.kernels.tile import COSINE, KOCH, difference_tile
from siamese_fast.ops._checks import compute_dtype
from siamese_fast.ops._metrics import is_zero_row


@triton.jit
def _class_scores(
    p_q,
    p_s,
    p_weight,
    p_bias,
    p_left,
    p_right,
    p_start,
    p_out,
    rows,
    columns,
    classes,
    depth,
    stride_q,
    stride_s,
    METRIC: tl.constexpr,
    MEAN: tl.constexpr,
    DTYPE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    i_class = tl.program_id(0) % classes
    o_q = (tl.program_id(0) // classes).to(tl.int64) * BM + tl.arange(0, BM)
    m_q = o_q < rows
    begin, end = tl.load(p_start + i_class), tl.load(p_start + i_class + 1)
    best = tl.full([BM], -float("inf"), DTYPE)
    total = tl.zeros([BM], DTYPE)
    for j in range(begin, end, BN):
        o_s = (j + tl.arange(0, BN)).to(tl.int64)
        m_s = (o_s < end)[None, :]
        o_read = tl.where(o_s < columns, o_s, 0)
        score = difference_tile(
            p_q + o_q, p_s + o_read, p_weight, stride_q, stride_s, depth, METRIC, BM, BN, DTYPE
        )
        if METRIC == KOCH:
            score += tl.load(p_bias)
        elif METRIC == COSINE:
            left = tl.load(p_left + o_q, mask=m_q, other=0.0)
            score = 1.0 - finished(score, left, tl.load(p_right + o_read), METRIC, DTYPE)
        else:
            score = -finished(score, score, score, METRIC, DTYPE)
        if MEAN:
            total += tl.sum(tl.where(m_s, score, 0.0), 1)
        else:
            score = tl.where(m_s & (score == score), score, -float("inf"))
            best = tl.maximum(best, tl.max(score, 1))
    if MEAN and end > begin:
        best = total / (end - begin).to(DTYPE)
    tl.store(p_out + o_q * classes + i_class, best, mask=m_q)


@on_device
def class_scores(
    q: Tensor,
    s: Tensor,
    class_index: Tensor,
    num_classes: int,
    metric: str,
    weight: Tensor | None,
    bias: Tensor | None,
    reduce: str,
) -> Tensor:
    compute, rows, columns = compute_dtype(q.dtype), q.shape[0], s.shape[0]
    s = checked("s", s, q.dtype, (columns, q.shape[1]), q)
    class_index = checked("class_index", class_index, torch.int64, (columns,), q)
    head = q if weight is None else checked("weight", weight, compute, q.shape[1:], q)
    shift = q if bias is None else checked("bias", bias, compute, (), q)
    in_order, order = torch.sort(class_index, stable=True)
    numbers = torch.arange(num_classes + 1, device=q.device)
    start = torch.searchsorted(in_order, numbers, out_int32=True)
    supports = s[order]
    left, right = columns_first(q), columns_first(supports)
    zeros = (left, right)
    if metric == "cosine":
        zeros = (is_zero_row(q).to(compute), is_zero_row(supports).to(compute))
    out, shape = q.new_empty(rows, num_classes, dtype=compute), config("classes", q)
    launch(
        _class_scores,
        (triton.cdiv(rows, shape["BM"]) * num_classes,),
        *(left, right, head, shift, *zeros, start, out),
        *(rows, columns, num_classes, q.shape[1], left.stride(0), right.stride(0)),
        METRIC=METRIC[metric],
        MEAN=reduce == "mean",
        DTYPE=COMPUTE[compute],
        **shape,
    )
    return out


KERNELS = {"class_scores": class_scores}
