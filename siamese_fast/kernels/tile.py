"""What kernels share: tiles of scores between rows, distances of pairs of rows, hinges.

    product tile      x.y on the tensor cores, float32 as three tf32 terms
    difference tile   sum_k of w|x - y|, (x - y)^2 or x y, one k at a time: a column of x against a row of y.
                      Operands are [D, N'], so that threads read neighbours; two instructions an element.

Sums longer than 256 terms are folded into a second accumulator, so that no running sum grows long. The
order of a score's terms depends on the depth alone, never on which rows stand beside it. Names: i_ index,
o_ offsets, p_ pointers, m_ masks.
"""

from __future__ import annotations

import triton
import triton.language as tl

EUCLIDEAN = tl.constexpr(0)
SQEUCLIDEAN = tl.constexpr(1)
COSINE = tl.constexpr(2)
DOT = tl.constexpr(3)
MANHATTAN = tl.constexpr(4)
KOCH = tl.constexpr(5)
FOLD = tl.constexpr(256)
NOTHING = tl.constexpr(2**31 - 1)


@triton.jit
def from_bits(bits, DTYPE: tl.constexpr):
    """A float64 argument, which kernels can only be handed as its bits."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(DTYPE)


@triton.jit
def load_rows(p_rows, m_rows, o_k, depth):
    """[B, BK] of rows given by pointers [B, 1]; zeros past their end."""
    return tl.load(p_rows + o_k[None, :], mask=m_rows & (o_k < depth)[None, :], other=0.0)


@triton.jit
def product(a, b, acc, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """acc + a b^T. The interpreter has no product of bfloat16: UPCAST."""
    if PRECISION == "bf16":
        a, b = a.to(tl.bfloat16), b.to(tl.bfloat16)
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    if PRECISION == "bf16":
        return tl.dot(a, tl.trans(b), acc)
    return tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)


@triton.jit
def product_tile(
    p_x,
    m_x,
    p_y,
    m_y,
    depth,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """x.y of rows given by pointers [BM, 1] and [BN, 1], deeper than one block."""
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(0, depth, FOLD):
        acc = tl.zeros([BM, BN], tl.float32)
        for k in range(start, min(start + FOLD, depth), BK):
            o_k = k + tl.arange(0, BK)
            a, b = load_rows(p_x, m_x, o_k, depth), load_rows(p_y, m_y, o_k, depth)
            acc = product(a, b, acc, PRECISION, UPCAST)
        total += acc
    return total


@triton.jit
def difference_tile(
    p_x,
    p_y,
    p_w,
    stride_x,
    stride_y,
    depth,
    METRIC: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Sums over k of the metric's terms, for columns given by pointers [BM] and [BN]."""
    total = tl.zeros([BM, BN], DTYPE)
    for start in range(0, depth, FOLD):
        acc = tl.zeros([BM, BN], DTYPE)
        for k in tl.range(start, min(start + FOLD, depth), loop_unroll_factor=4):
            x, y = tl.load(p_x)[:, None], tl.load(p_y)[None, :]
            if METRIC == DOT:
                acc += x * y
            elif METRIC == KOCH:
                acc += tl.abs(x - y) * tl.load(p_w + k)
            elif METRIC == MANHATTAN:
                acc += tl.abs(x - y)
            else:
                acc += (x - y) * (x - y)
            p_x += stride_x
            p_y += stride_y
        total += acc
    return total


@triton.jit
def score_tile(
    a,
    p_x,
    p_y,
    p_weight,
    p_norm,
    o_x,
    m_x,
    o_y,
    m_y,
    depth,
    stride_x,
    stride_y,
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
    """What rows o_y are ranked by for rows o_x, larger is nearer; `a` the whole rows o_x if WHOLE."""
    if TENSOR:
        p_rows = p_y + o_y[:, None] * depth
        if WHOLE:
            b = load_rows(p_rows, m_y[:, None], tl.arange(0, BK), depth)
            score = product(a, b, tl.zeros([BM, BN], tl.float32), PRECISION, UPCAST)
        else:
            p_own = p_x + o_x[:, None] * depth
            score = product_tile(
                p_own, m_x[:, None], p_rows, m_y[:, None], depth, PRECISION, UPCAST, BM, BN, BK
            )
    else:
        FORM: tl.constexpr = METRIC if METRIC >= MANHATTAN else DOT
        score = difference_tile(
            p_x + o_x, p_y + o_y, p_weight, stride_x, stride_y, depth, FORM, BM, BN, DTYPE
        )
        if METRIC == MANHATTAN:
            score = -score
    if METRIC <= SQEUCLIDEAN:
        score += tl.load(p_norm + o_y, mask=m_y, other=0.0)[None, :]
    return score


@triton.jit
def holds_nan(p_rows, m_rows, depth, B: tl.constexpr, BK: tl.constexpr):
    """[B], whether a row has a NaN."""
    found = tl.zeros([B], tl.int32)
    for k in range(0, depth, BK):
        x = load_rows(p_rows, m_rows, k + tl.arange(0, BK), depth)
        found = tl.maximum(found, tl.max((x != x).to(tl.int32), 1))
    return found > 0


@triton.jit
def norm_overflows(p_row, depth, BK: tl.constexpr, DTYPE: tl.constexpr):
    """Whether |x|^2 of the row given by a pointer [1, 1] is no number: products then say nothing about
    distances.
    """
    norm = tl.zeros([1], DTYPE)
    one = tl.full([1, 1], True, tl.int1)
    for k in range(0, depth, BK):
        x = load_rows(p_row, one, k + tl.arange(0, BK), depth).to(DTYPE)
        norm += tl.sum(x * x, 1)
    return (tl.max(norm, 0) < float("inf")) == 0


@triton.jit
def pair_distances(
    p_x,
    m_x,
    p_y,
    m_y,
    p_w,
    depth,
    METRIC: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """[B] distances of rows given by pointers [B, 1], or [1, 1] for one row against all; for Koch sum w|x -
    y|.
    """
    total = tl.zeros([B], DTYPE)
    left = tl.zeros([B], tl.int32)
    right = tl.zeros([B], tl.int32)
    for k in range(0, depth, BK):
        o_k = k + tl.arange(0, BK)
        x, y = load_rows(p_x, m_x, o_k, depth).to(DTYPE), load_rows(p_y, m_y, o_k, depth).to(DTYPE)
        if METRIC == DOT:
            total += tl.sum(x * y, 1)
        elif METRIC == MANHATTAN:
            total += tl.sum(tl.abs(x - y), 1)
        elif METRIC == KOCH:
            total += tl.sum(tl.abs(x - y) * tl.load(p_w + o_k, mask=o_k < depth, other=0.0)[None, :], 1)
        else:
            total += tl.sum((x - y) * (x - y), 1)
        if METRIC == COSINE:
            left = tl.maximum(left, tl.max((x != 0).to(tl.int32), 1))
            right = tl.maximum(right, tl.max((y != 0).to(tl.int32), 1))
    if METRIC == EUCLIDEAN:
        total = tl.sqrt_rn(total) if tl.float32 == DTYPE else tl.sqrt(total)
    elif METRIC == DOT:
        total = -total
    elif METRIC == COSINE:
        total = 0.5 * (total + (1 - left).to(DTYPE) + (1 - right).to(DTYPE))
    return total


@triton.jit
def direction(own, other, METRIC: tl.constexpr):
    """d distance / d own, up to `factor`, for either of the two rows."""
    if METRIC == DOT:
        return -other
    if METRIC == MANHATTAN:
        difference = own - other  # torch's sign: 0 for 0 and for NaN, inf - inf among them
        return (difference > 0).to(own.dtype) - (difference < 0).to(own.dtype)
    return own - other


@triton.jit
def factor(gradient, distance, METRIC: tl.constexpr):
    """What multiplies `direction`; 0 at euclidean distance 0, NaN for a NaN gradient."""
    if METRIC == EUCLIDEAN:
        zero = distance == 0
        return tl.where(zero, gradient * 0.0, gradient / tl.where(zero, 1.0, distance))
    if METRIC == SQEUCLIDEAN:
        return 2.0 * gradient
    return gradient


@triton.jit
def log_of_one_plus(e):
    """log(1 + e) for 0 <= e <= 1 as 2 artanh(e / (2 + e)): the hardware's logarithm loses the digits of a
    small e.
    """
    s = e / (2.0 + e)
    square = s * s
    total = 0.0 * s
    for i in tl.static_range(16):
        total = total * square + 2.0 / (31.0 - 2.0 * i)
    return s * total


@triton.jit
def softplus(v):
    return tl.where(v < 0, 0.0, v) + log_of_one_plus(tl.exp(-tl.abs(v)))


@triton.jit
def sigmoid(v):
    e = tl.exp(-tl.abs(v))
    return tl.where(v < 0, e, 1.0) / (1.0 + e)
