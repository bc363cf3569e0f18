"""Batch-hard mining: per row the farthest row of its class and the nearest row of another class.

Negatives: tiles of x.y - |y|^2 / 2 on the tensor cores (sums of -|x - y| for manhattan), the row's best
value and its index kept in registers; the candidates are cut into strips where the anchors alone would not
fill the device. Positives: the rows of the anchor's class, found through the sorted labels, by exact
differences. An anchor that the product form gave no negative (a norm overflows) is searched exactly, unless
all candidates are of its class.

Memory: 24 N bytes of labels in order, and 8 N bytes a strip; nothing of N x N, no copy of the rows. Limit:
the tensor cores, at 2 N^2 D operations (the symmetry of the distance is not used), with six instructions a
score beside them.
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
    config,
    launch,
    on_device,
    row_count,
    strips,
)
from siamese_fast.kernels.scores import norms_of, score_operands
from siamese_fast.kernels.tile import (
    EUCLIDEAN,
    NOTHING,
    SQEUCLIDEAN,
    load_rows,
    norm_overflows,
    pair_distances,
    score_tile,
)
from siamese_fast.ops._checks import compute_dtype


@triton.jit
def _mine_negatives(
    p_x,
    p_y,
    p_norm,
    p_x_class,
    p_y_class,
    p_best,
    p_index,
    rows,
    columns,
    depth,
    stride_x,
    stride_y,
    strip,
    METRIC: tl.constexpr,
    PRECISION: tl.constexpr,
    TENSOR: tl.constexpr,
    WHOLE: tl.constexpr,
    UPCAST: tl.constexpr,
    DTYPE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Best score and its index of each row in one strip of candidates: [strips, rows]."""
    o_x = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    i_strip = tl.program_id(1)
    m_x = o_x < rows
    x_class = tl.load(p_x_class + o_x, mask=m_x, other=0)
    best = tl.full([BM], -float("inf"), DTYPE)
    index = tl.full([BM], -1, tl.int32)
    o_tile = tl.arange(0, BN)
    a = m_x
    if WHOLE:
        a = load_rows(p_x + o_x[:, None] * depth, m_x[:, None], tl.arange(0, BK), depth)
    begin = i_strip * strip
    for j in range(begin, min(begin + strip, columns), BN):
        o_y = (j + o_tile).to(tl.int64)
        m_y = o_y < columns
        score = score_tile(
            a, p_x, p_y, p_x, p_norm, o_x, m_x, o_y, m_y, depth, stride_x, stride_y, METRIC, PRECISION,
            TENSOR, WHOLE, UPCAST, DTYPE, BM, BN, BK,
        )  # fmt: skip
        y_class = tl.load(p_y_class + o_y, mask=m_y, other=0)
        allowed = (x_class[:, None] != y_class[None, :]) & m_y[None, :] & (score > -float("inf"))
        score = tl.where(allowed, score, -float("inf"))
        value = tl.max(score, 1)
        column = tl.min(tl.where(score == value[:, None], o_tile[None, :], BN), 1)
        better = value > best  # ties: the earlier tile, and in it the lower column
        best = tl.where(better, value, best)
        index = tl.where(better, j + column, index)
    p_out = i_strip.to(tl.int64) * rows + o_x
    tl.store(p_best + p_out, best, mask=m_x)
    tl.store(p_index + p_out, index, mask=m_x)


@triton.jit
def _search(
    p_own,
    p_y,
    p_class,
    p_order,
    begin,
    end,
    excluded,
    depth,
    METRIC: tl.constexpr,
    POSITIVE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """The farthest of p_order[begin:end] but `excluded`, or the nearest row that is not of class
    `excluded`: exactly.
    """
    FORM: tl.constexpr = SQEUCLIDEAN if METRIC == EUCLIDEAN else METRIC
    one = tl.full([1, 1], True, tl.int1)
    best = tl.full([], -float("inf"), DTYPE)
    index = tl.full([], -1, tl.int64)
    for start in range(begin, end, B):
        o = start + tl.arange(0, B)
        m = o < end
        if POSITIVE:
            j = tl.load(p_order + o, mask=m, other=0)
            m = m & (j != excluded)
        else:
            j = o.to(tl.int64)
            m = m & (tl.load(p_class + o, mask=m, other=0) != excluded)
        key = pair_distances(p_own, one, p_y + j[:, None] * depth, m[:, None], p_y, depth, FORM, B, BK, DTYPE)
        m = m & (key == key)
        if not POSITIVE:
            key = -key
        key = tl.where(m, key, -float("inf"))
        value = tl.max(key, 0)
        first = tl.min(tl.where(m & (key == value), j, NOTHING), 0)
        better = (first != NOTHING) & ((index < 0) | (value > best))
        best = tl.where(better, value, best)
        index = tl.where(better, first, index)
    return index


@triton.jit
def _choose(
    p_x,
    p_y,
    p_best,
    p_index,
    p_x_class,
    p_y_class,
    p_order,
    p_start,
    p_end,
    p_self,
    p_positive,
    p_negative,
    rows,
    columns,
    depth,
    strips,
    METRIC: tl.constexpr,
    ITSELF: tl.constexpr,
    STRIPS: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Merge the strips of one anchor, search what they left open, and find the hardest positive."""
    i = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, STRIPS)
    at = o.to(tl.int64) * rows + i
    value = tl.load(p_best + at, mask=o < strips, other=-float("inf"))
    index = tl.load(p_index + at, mask=o < strips, other=-1)
    found = (index >= 0) & (value == tl.max(value, 0))
    first = tl.min(tl.where(found, index, NOTHING), 0).to(tl.int64)
    start, end = tl.load(p_start + i), tl.load(p_end + i)
    p_own = p_x + i * depth + tl.zeros([1, 1], tl.int64)
    if METRIC <= SQEUCLIDEAN:
        first = tl.where(norm_overflows(p_own, depth, BK, DTYPE), NOTHING, first)
    if first == NOTHING:
        # Where all candidates are of the anchor's class there is nothing to search.
        last = tl.where(end - start == columns, 0, columns)
        own_class = tl.load(p_x_class + i)
        first = _search(
            p_own, p_y, p_y_class, p_order, 0, last, own_class, depth, METRIC, False, B, BK, DTYPE
        )
    tl.store(p_negative + i, first)
    if ITSELF == "row":
        excluded = i
    elif ITSELF == "index":
        excluded = tl.load(p_self + i)
    else:
        excluded = tl.full([], -1, tl.int64)
    positive = _search(
        p_own, p_y, p_y_class, p_order, start, end, excluded, depth, METRIC, True, B, BK, DTYPE
    )
    tl.store(p_positive + i, positive)


def segments(sorted_labels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where each label's class begins and ends in the sorted labels, int32."""
    start = torch.searchsorted(sorted_labels, labels, out_int32=True)
    return start, torch.searchsorted(sorted_labels, labels, right=True, out_int32=True)


@on_device
def hardest_pairs(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
) -> tuple[Tensor, Tensor]:
    x, rows = x.contiguous(), row_count("x", x.shape[0])
    labels = checked("labels", labels, torch.int64, (rows,), x)
    y, y_labels, itself = x, labels, "row"
    if ref is not None and ref_labels is not None:
        y = checked("ref", ref, x.dtype, (row_count("ref", ref.shape[0]), x.shape[1]), x)
        y_labels = checked("ref_labels", ref_labels, torch.int64, (ref.shape[0],), x)
        itself = "none" if self_index is None else "index"
    own = labels if self_index is None else checked("self_index", self_index, torch.int64, (rows,), x)
    positive, negative = torch.empty_like(labels), torch.empty_like(labels)
    if rows == 0 or y.shape[0] == 0:
        return positive.fill_(-1), negative.fill_(-1)
    sorted_labels, order = torch.sort(y_labels, stable=True)
    start, end = segments(sorted_labels, labels)
    y_class = start if ref is None else segments(sorted_labels, y_labels)[0]
    x_class = start if ref is None else torch.where(end > start, start, -1)
    best, index = _negatives(x, y, x_class, y_class, metric)
    shape, count = config("gather", x), best.shape[0]
    launch(
        _choose,
        (rows,),
        *(x, y, best, index, x_class, y_class, order, start, end, own, positive, negative),
        *(rows, y.shape[0], x.shape[1], count),
        METRIC=METRIC[metric],
        ITSELF=itself,
        STRIPS=triton.next_power_of_2(count),
        DTYPE=COMPUTE[compute_dtype(x.dtype)],
        **shape,
    )
    return positive, negative


def _negatives(x: Tensor, y: Tensor, x_class: Tensor, y_class: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    rows, columns, depth = x.shape[0], y.shape[0], x.shape[1]
    norms = norms_of(y, metric)
    left, right, shape = score_operands(x, y, metric)
    blocks = triton.cdiv(rows, int(str(shape["BM"])))
    count, length = strips(x, blocks, columns, int(str(shape["BN"])))
    best = x.new_empty(count, rows, dtype=compute_dtype(x.dtype))
    index = torch.empty_like(best, dtype=torch.int32)
    launch(
        _mine_negatives,
        (blocks, count),
        *(left, right, norms, x_class, y_class, best, index),
        *(rows, columns, depth, left.stride(0), right.stride(0), length),
        **shape,
    )
    return best, index


KERNELS = {"hardest_pairs": hardest_pairs}
