"""All pairs of rows: distances from exact differences, products, Koch logits; nothing of Q x S x D.

Differences are no product: they run on the ordinary units, two instructions an element, from operands laid
out as [D, N]. The product runs on the tensor cores, float32 as three tf32 terms.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import METRIC, checked, launch, on_device, receiver
from siamese_fast.kernels.scores import score_operands
from siamese_fast.kernels.tile import (
    COSINE,
    DOT,
    EUCLIDEAN,
    KOCH,
    difference_tile,
    load_rows,
    product,
    product_tile,
)
from siamese_fast.ops._checks import compute_dtype
from siamese_fast.ops._metrics import is_zero_row


@triton.jit
def finished(sums, left, right, METRIC: tl.constexpr, DTYPE: tl.constexpr):
    """Distances from a difference tile's sums; for cosine `left` and `right` say which rows are zero."""
    if METRIC == EUCLIDEAN:
        return tl.sqrt_rn(sums) if tl.float32 == DTYPE else tl.sqrt(sums)
    if METRIC == COSINE:
        return 0.5 * (sums + left[:, None] + right[None, :])
    if METRIC == DOT:
        return -sums
    return sums


@triton.jit
def _matrix(
    p_x,
    p_y,
    p_weight,
    p_bias,
    p_left,
    p_right,
    p_out,
    rows,
    columns,
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
    blocks = tl.cdiv(columns, BN)
    o_x = (tl.program_id(0) // blocks).to(tl.int64) * BM + tl.arange(0, BM)
    o_y = (tl.program_id(0) % blocks).to(tl.int64) * BN + tl.arange(0, BN)
    m_x, m_y = o_x < rows, o_y < columns
    if TENSOR:
        left, right = p_x + o_x[:, None] * depth, p_y + o_y[:, None] * depth
        if WHOLE:
            o_k = tl.arange(0, BK)
            a, b = load_rows(left, m_x[:, None], o_k, depth), load_rows(right, m_y[:, None], o_k, depth)
            out = -product(a, b, tl.zeros([BM, BN], tl.float32), PRECISION, UPCAST)
        else:
            out = -product_tile(left, m_x[:, None], right, m_y[:, None], depth, PRECISION, UPCAST, BM, BN, BK)
    else:
        sums = difference_tile(
            p_x + o_x, p_y + o_y, p_weight, stride_x, stride_y, depth, METRIC, BM, BN, DTYPE
        )
        if METRIC == COSINE:
            left = tl.load(p_left + o_x, mask=m_x, other=0.0)
            out = finished(sums, left, tl.load(p_right + o_y, mask=m_y, other=0.0), METRIC, DTYPE)
        elif METRIC == KOCH:
            out = sums + tl.load(p_bias)
        else:
            out = finished(sums, sums, sums, METRIC, DTYPE)
    p_to = p_out + o_x[:, None] * columns + o_y[None, :]
    tl.store(p_to, out, mask=m_x[:, None] & m_y[None, :])


def exact_operands(x: Tensor, y: Tensor, metric: str) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Operands and constants of score tiles that keep float32's digits: differences, or the product for
    dot.
    """
    left, right, shape = score_operands(x, y, "dot" if metric == "dot" else "manhattan")
    if shape["PRECISION"] in ("tf32", "bf16"):  # named for mining alone
        shape["PRECISION"] = "tf32x3"
    return left, right, shape | {"METRIC": METRIC[metric]}


def _write(metric: str, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    x, y = x.contiguous(), checked("y", y, x.dtype, (y.shape[0], x.shape[1]), x)
    receiver("out", out, compute_dtype(x.dtype), (x.shape[0], y.shape[0]), x)
    left, right, shape = exact_operands(x, y, metric)
    blocks = triton.cdiv(x.shape[0], int(str(shape["BM"]))) * triton.cdiv(y.shape[0], int(str(shape["BN"])))
    sizes = (x.shape[0], y.shape[0], x.shape[1], left.stride(0), right.stride(0))
    zeros = (is_zero_row(x), is_zero_row(y)) if metric == "cosine" else (out, out)
    launch(_matrix, (blocks,), left, right, weight, bias, *zeros, out, *sizes, **shape)


@on_device
def distance_matrix(x: Tensor, y: Tensor, metric: str) -> Tensor:
    out = x.new_empty(x.shape[0], y.shape[0], dtype=compute_dtype(x.dtype))
    _write(metric, x, y, out, out, out)
    return out


@on_device
def l1_similarity_matrix(q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:
    out = weight.new_empty(q.shape[0], s.shape[0])
    l1_similarity_matrix_out(q, s, weight, bias, exact, out)
    return out


@on_device
def l1_similarity_matrix_out(
    q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool, out: Tensor
) -> None:
    """The exact form whether or not another is allowed: |.| is free on a GPU."""
    weight = checked("weight", weight, compute_dtype(q.dtype), q.shape[1:], q)
    _write("koch", q, s, weight, checked("bias", bias, weight.dtype, (), q), out)


KERNELS = {
    "distance_matrix": distance_matrix,
    "l1_similarity_matrix": l1_similarity_matrix,
    "l1_similarity_matrix_out": l1_similarity_matrix_out,
}
