"""One-shot look-up: the k best supports of each query, the score matrix never written.

    1  tiles of scores, q.s - |s|^2 / 2 on the tensor cores: a tile of which no row beats its k-th best is
       dropped after one comparison; strips of supports where the queries alone would not fill the device
    2  the strips' lists merged by (score, index); a query with fewer than k, or whose norm overflows, meets
       every support exactly
    3  the winners scored by exact differences, and put in that order

Memory: 8 k bytes a query and strip. Limit: the tensor cores, at 2 Q S D operations.
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
    COSINE,
    KOCH,
    NOTHING,
    SQEUCLIDEAN,
    load_rows,
    norm_overflows,
    pair_distances,
    score_tile,
)
from siamese_fast.ops._checks import compute_dtype
from siamese_fast.ops._define import REFERENCES

LARGEST_K = 64


@triton.jit
def insert(best, index, score, columns, K: tl.constexpr):
    """Put scores [B, N] of columns [N] into lists [B, K] of the best; those of -inf never enter.

    The best goes first, of equals the one of the lowest column, in place of the worst, of equals the one with
    the highest index, if it is better than that. Lists met in ascending order so keep the lowest indices.
    """
    o_list = tl.arange(0, K)[None, :]
    value, worst = tl.max(score, 1), tl.min(best, 1)
    while tl.max((value > worst).to(tl.int32), 0) > 0:
        better = (value > worst)[:, None]
        column = tl.min(tl.where(score == value[:, None], columns[None, :], NOTHING), 1)[:, None]
        is_worst = best == worst[:, None]
        latest = tl.max(tl.where(is_worst, index, -2), 1)[:, None]
        slot = tl.min(tl.where(is_worst & (index == latest), o_list, K), 1)[:, None]
        here = better & (o_list == slot)
        best, index = tl.where(here, value[:, None], best), tl.where(here, column, index)
        score = tl.where(better & (columns[None, :] == column), -float("inf"), score)
        value, worst = tl.max(score, 1), tl.min(best, 1)
    return best, index


@triton.jit
def empty_lists(k, B: tl.constexpr, K: tl.constexpr, DTYPE: tl.constexpr):
    """Lists [B, K]; the places from k on can never be taken."""
    used = (tl.arange(0, K) < k)[None, :] & tl.full([B, K], True, tl.int1)
    return tl.where(used, -float("inf"), float("inf")).to(DTYPE), tl.full([B, K], -1, tl.int32)


@triton.jit
def _search_strips(
    p_q,
    p_s,
    p_weight,
    p_norm,
    p_best,
    p_index,
    rows,
    columns,
    depth,
    stride_q,
    stride_s,
    strip,
    k,
    METRIC: tl.constexpr,
    PRECISION: tl.constexpr,
    TENSOR: tl.constexpr,
    WHOLE: tl.constexpr,
    UPCAST: tl.constexpr,
    DTYPE: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """The lists of one strip of supports: [strips, rows, k]."""
    o_q = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    i_strip = tl.program_id(1)
    m_q = o_q < rows
    best, index = empty_lists(k, BM, K, DTYPE)
    a = m_q
    if WHOLE:
        a = load_rows(p_q + o_q[:, None] * depth, m_q[:, None], tl.arange(0, BK), depth)
    begin = i_strip * strip
    for j in range(begin, min(begin + strip, columns), BN):
        o_s = j + tl.arange(0, BN)
        m_s = o_s < columns
        score = score_tile(
            a, p_q, p_s, p_weight, p_norm, o_q, m_q, o_s.to(tl.int64), m_s, depth, stride_q, stride_s,
            METRIC, PRECISION, TENSOR, WHOLE, UPCAST, DTYPE, BM, BN, BK,
        )  # fmt: skip
        allowed = m_q[:, None] & m_s[None, :] & (score > -float("inf"))
        score = tl.where(allowed, score, -float("inf"))
        best, index = insert(best, index, score, o_s, K)
    o_list = tl.arange(0, K)[None, :]
    out = ((i_strip.to(tl.int64) * rows + o_q) * k)[:, None] + o_list
    tl.store(p_best + out, best, mask=m_q[:, None] & (o_list < k))
    tl.store(p_index + out, index, mask=m_q[:, None] & (o_list < k))


@triton.jit
def exact_scores(
    p_own,
    p_rows,
    m,
    p_weight,
    p_bias,
    depth,
    METRIC: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Scores [B] of one query [1, 1] for rows given by pointers [B, 1], from exact differences."""
    one = tl.full([1, 1], True, tl.int1)
    distance = pair_distances(p_own, one, p_rows, m[:, None], p_weight, depth, METRIC, B, BK, DTYPE)
    if METRIC == KOCH:
        return distance + tl.load(p_bias)
    if METRIC == COSINE:
        return 1.0 - distance
    return -distance


@triton.jit
def _merge(
    p_q,
    p_s,
    p_weight,
    p_bias,
    p_best,
    p_index,
    p_out,
    rows,
    columns,
    depth,
    strips,
    k,
    METRIC: tl.constexpr,
    LOWEST: tl.constexpr,
    DTYPE: tl.constexpr,
    K: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    """Indices [rows, k] of one query's best over all strips, in no order; -1 where there are fewer."""
    i = tl.program_id(0).to(tl.int64)
    o_list = tl.arange(0, K)
    best, index = empty_lists(k, 1, K, DTYPE)
    for strip in range(strips):
        at = (tl.cast(strip, tl.int64) * rows + i) * k + o_list
        score = tl.load(p_best + at, mask=o_list < k, other=-float("inf"))
        column = tl.load(p_index + at, mask=o_list < k, other=-1)
        best, index = insert(best, index, tl.where(column < 0, -float("inf"), score)[None, :], column, K)
    p_own = p_q + i * depth + tl.zeros([1, 1], tl.int64)
    missing = tl.max(tl.where((index < 0) & (o_list < k)[None, :], 1, 0))
    if METRIC <= SQEUCLIDEAN:
        missing = tl.where(norm_overflows(p_own, depth, BK, DTYPE), 1, missing)
    if missing > 0:
        best, index = empty_lists(k, 1, K, DTYPE)
        for start in range(0, columns, B):
            o = start + tl.arange(0, B)
            rows_s = p_s + o.to(tl.int64)[:, None] * depth
            score = exact_scores(p_own, rows_s, o < columns, p_weight, p_bias, depth, METRIC, B, BK, DTYPE)
            # A score of -inf comes before none at all, and with the lowest number: by index.
            score = tl.where(score < LOWEST, LOWEST, score)
            score = tl.where((o < columns) & (score == score), score, -float("inf"))
            best, index = insert(best, index, score[None, :], o, K)
    tl.store(p_out + i * k + o_list[None, :], index.to(tl.int64), mask=(o_list < k)[None, :])


@triton.jit
def _rescore(
    p_q,
    p_s,
    p_weight,
    p_bias,
    p_chosen,
    p_scores,
    depth,
    k,
    METRIC: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * B + tl.arange(0, B)
    j = tl.load(p_chosen + i * k + o, mask=o < k, other=-1)
    p_own = p_q + i * depth + tl.zeros([1, 1], tl.int64)
    p_rows = p_s + tl.where(j < 0, 0, j)[:, None] * depth
    score = exact_scores(p_own, p_rows, j >= 0, p_weight, p_bias, depth, METRIC, B, BK, DTYPE)
    tl.store(p_scores + i * k + o, tl.where(j < 0, -float("inf"), score), mask=o < k)


@triton.jit
def _order(p_scores, p_chosen, p_out_scores, p_out_indices, k, LOWEST: tl.constexpr, K: tl.constexpr):
    """Best first; equal scores by index; where there is no support last."""
    i = tl.program_id(0).to(tl.int64) * k
    o = tl.arange(0, K)
    score = tl.load(p_scores + i + o, mask=o < k, other=-float("inf"))
    index = tl.load(p_chosen + i + o, mask=o < k, other=-1)
    key = tl.where(index < 0, -float("inf"), tl.where(score < LOWEST, LOWEST, score))
    for place in range(k):
        value = tl.max(key, 0)
        first = tl.min(tl.where((index >= 0) & (key == value), index, NOTHING), 0)
        here = (index == first) & (first != NOTHING)
        tl.store(p_out_scores + i + place, tl.max(tl.where(here, score, -float("inf")), 0))
        tl.store(p_out_indices + i + place, tl.where(first == NOTHING, -1, first))
        index, key = tl.where(here, -1, index), tl.where(here, -float("inf"), key)


@on_device
def nearest_support(
    q: Tensor, s: Tensor, k: int, metric: str, weight: Tensor | None, bias: Tensor | None, packed: Tensor
) -> tuple[Tensor, Tensor]:
    if k > LARGEST_K:  # lists of that length do not fit in registers
        found: tuple[Tensor, Tensor] = REFERENCES["nearest_support"](q, s, k, metric, weight, bias, packed)
        return found
    compute, depth = compute_dtype(q.dtype), q.shape[1]
    q, rows, columns = q.contiguous(), row_count("q", q.shape[0]), row_count("s", s.shape[0])
    s = checked("s", s, q.dtype, (columns, depth), q)
    head = q if weight is None else checked("weight", weight, compute, (depth,), q)
    shift = q if bias is None else checked("bias", bias, compute, (), q)
    scores = q.new_empty(rows, k, dtype=compute)
    indices = torch.empty_like(scores, dtype=torch.int64)
    chosen, exact = torch.empty_like(indices), torch.empty_like(scores)
    width, form = triton.next_power_of_2(k), {"METRIC": METRIC[metric], "DTYPE": COMPUTE[compute]}
    best, index = _strip_lists(q, s, head, k, metric)
    shape, lowest = config("gather", q), torch.finfo(compute).min
    sizes = (rows, columns, depth, best.shape[0], k)
    operands = (q, s, head, shift)
    launch(_merge, (rows,), *operands, best, index, chosen, *sizes, K=width, LOWEST=lowest, **form, **shape)
    launch(_rescore, (rows, triton.cdiv(k, shape["B"])), *operands, chosen, exact, depth, k, **form, **shape)
    launch(_order, (rows,), exact, chosen, scores, indices, k, LOWEST=lowest, K=width, num_warps=1)
    return scores, indices


def _strip_lists(q: Tensor, s: Tensor, weight: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    rows, columns = q.shape[0], s.shape[0]
    norms = norms_of(s, metric)
    left, right, shape = score_operands(q, s, metric)
    blocks = triton.cdiv(rows, int(str(shape["BM"])))
    count, length = strips(q, blocks, columns, int(str(shape["BN"])))
    best = q.new_empty(count, rows, k, dtype=compute_dtype(q.dtype))
    index = torch.empty_like(best, dtype=torch.int32)
    sizes = (rows, columns, q.shape[1], left.stride(0), right.stride(0), length, k)
    launch(
        _search_strips,
        (blocks, count),
        *(left, right, weight, norms, best, index, *sizes),
        K=triton.next_power_of_2(k),
        **shape,
    )
    return best, index


KERNELS = {"nearest_support": nearest_support}
