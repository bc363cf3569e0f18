"""Gradients of losses over all pairs: the scores again, their slopes kappa, kappa times the other side.

    d loss / dx_i = sum_j kappa_ij y_j                for dot and cosine
                    sum_j kappa'_ij (y_j - x_i)       kappa' = 2 kappa (squared), or kappa / distance

A program holds BM rows and BD columns of the gradient and walks the other side in order. A batch against
itself has one pass, whose kappa is that of both anchors; with a separate set the columns' pass follows.
Limit: the tensor cores, at 4 N M D operations a pass where D <= BD, 2 N M D more for each further block of D.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import METRIC, bits, checked, config, interpreting, launch, on_device
from siamese_fast.kernels.pair_formulas import FORMULA, parameters_of, slope
from siamese_fast.kernels.pair_tile import Pairs, Side, pair_tile, pairs_of, served
from siamese_fast.kernels.tile import EUCLIDEAN, SQEUCLIDEAN, from_bits, load_rows
from siamese_fast.ops._define import REFERENCES
from siamese_fast.ops.pair_loss import FORMULAS

FOLDED = tl.constexpr(1024)


@triton.jit
def _kept(p_statistics, p_grad, p_order, o, rows, FIELDS: tl.constexpr, COMPONENTS: tl.constexpr):
    """Statistics 0 to 3 and the gradients of the components of rows o."""
    m = o < rows
    row = tl.load(p_order + o, mask=m, other=0)
    p = p_statistics + row
    f0, f1 = tl.load(p, mask=m, other=0.0), tl.load(p + rows, mask=m, other=0.0)
    f2 = tl.load(p + 2 * rows, mask=m, other=0.0)
    f3 = tl.load(p + 3 * rows, mask=m, other=0.0) if FIELDS > 3 else f2
    g0 = tl.load(p_grad + row * COMPONENTS, mask=m, other=0.0)
    g1 = tl.load(p_grad + row * COMPONENTS + COMPONENTS - 1, mask=m, other=0.0)
    return f0, f1, f2, f3, g0, g1


@triton.jit
def _pass(
    p_x,
    p_y,
    p_x_norm,
    p_y_norm,
    p_x_columns,
    p_y_columns,
    p_x_class,
    p_y_class,
    p_x_own,
    p_y_own,
    p_x_order,
    p_y_order,
    p_statistics,
    p_grad,
    p_out,
    rows,
    columns,
    depth,
    stride_x,
    stride_y,
    a,
    b,
    c,
    FORMULA: tl.constexpr,
    METRIC: tl.constexpr,
    FIELDS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    OF_ROWS: tl.constexpr,
    OF_COLUMNS: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
):
    """The gradient of the rows x, of anchors that are the rows, the columns, or both."""
    o_x = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    a, b, c = from_bits(a, tl.float32), from_bits(b, tl.float32), from_bits(c, tl.float32)
    if OF_ROWS:
        f0, f1, f2, f3, g0, g1 = _kept(p_statistics, p_grad, p_x_order, o_x, rows, FIELDS, COMPONENTS)
    total = tl.zeros([BM, BD], tl.float32)
    weight = tl.zeros([BM], tl.float32)
    for start in range(0, columns, FOLDED):
        acc = tl.zeros([BM, BD], tl.float32)
        for j in range(start, min(start + FOLDED, columns), BN):
            o_y = (j + tl.arange(0, BN)).to(tl.int64)
            score, positive, negative = pair_tile(
                p_x, p_y, p_x_norm, p_y_norm, p_x_columns, p_y_columns, p_x_class, p_y_class, p_x_own,
                p_y_own, o_x, o_y, rows, columns, depth, stride_x, stride_y, METRIC, UPCAST, BM, BN, BK,
            )  # fmt: skip
            kappa = tl.zeros([BM, BN], tl.float32)
            if OF_ROWS:
                kappa += slope(
                    score, positive, negative, f0[:, None], f1[:, None], f2[:, None], f3[:, None],
                    g0[:, None], g1[:, None], a, b, c, FORMULA,
                )  # fmt: skip
            if OF_COLUMNS:
                e0, e1, e2, e3, h0, h1 = _kept(
                    p_statistics, p_grad, p_y_order, o_y, columns, FIELDS, COMPONENTS
                )
                kappa += slope(
                    score, positive, negative, e0[None, :], e1[None, :], e2[None, :], e3[None, :],
                    h0[None, :], h1[None, :], a, b, c, FORMULA,
                )  # fmt: skip
            kappa = tl.where(positive | negative, kappa, 0.0)
            if METRIC == SQEUCLIDEAN:
                kappa *= 2.0
            if METRIC == EUCLIDEAN:
                apart = score < 0
                kappa = tl.where(apart, -kappa / tl.where(apart, score, 1.0), kappa * 0.0)
            other = load_rows(p_y + o_y[:, None] * depth, (o_y < columns)[:, None], o_d, depth)
            acc = tl.dot(kappa, other, acc, input_precision="tf32x3")
            weight += tl.sum(kappa, 1)
        total += acc
    m_out = (o_x < rows)[:, None] & (o_d < depth)[None, :]
    if METRIC <= SQEUCLIDEAN:
        own = load_rows(p_x + o_x[:, None] * depth, (o_x < rows)[:, None], o_d, depth)
        total -= own * weight[:, None]
    row = tl.load(p_x_order + o_x, mask=o_x < rows, other=0)
    tl.store(p_out + row[:, None] * depth + o_d[None, :], total, mask=m_out)


def _gradient(
    x: Side,
    y: Side,
    own: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    parameters: tuple[int, int, int],
    of: tuple[bool, bool],
    constants: dict[str, int],
) -> Tensor:
    rows, depth = x.rows.shape
    out, shape = torch.empty_like(x.rows), config("pair_gradients", x.rows)
    shape["BD"] = min(shape["BD"], max(16, triton.next_power_of_2(depth)))
    launch(
        _pass,
        (triton.cdiv(rows, shape["BM"]), triton.cdiv(depth, shape["BD"])),
        *(
            x.rows,
            y.rows,
            x.norms,
            y.norms,
            x.columns,
            y.columns,
            x.classes,
            y.classes,
            *own,
            x.order,
            y.order,
        ),
        *(*kept, out, rows, y.rows.shape[0], depth, x.columns.stride(0), y.columns.stride(0), *parameters),
        OF_ROWS=of[0],
        OF_COLUMNS=of[1],
        UPCAST=interpreting,
        **constants,
        **shape,
    )
    return out


@on_device
def pair_loss_backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    statistics: Tensor,
    formula: str,
    metric: str,
    parameters: list[float],
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    if not served(x, labels, ignore_label):
        by_torch: tuple[Tensor, Tensor] = REFERENCES["pair_loss_backward"](
            grad,
            x,
            labels,
            ref,
            ref_labels,
            self_index,
            statistics,
            formula,
            metric,
            parameters,
            ignore_label,
        )
        return by_torch
    pairs: Pairs = pairs_of(x, labels, ref, ref_labels, self_index)
    found = FORMULAS[formula]
    kept = (
        checked("statistics", statistics, x.dtype, (found.fields, x.shape[0]), x),
        checked("grad", grad, x.dtype, (x.shape[0], found.components), x),
    )
    a, b, c = map(bits, parameters_of(formula, parameters))
    constants = {"FORMULA": FORMULA[formula], "METRIC": METRIC[metric]}
    constants |= {"FIELDS": found.fields, "COMPONENTS": found.components}
    own, numbers = pairs.own, pairs.numbers
    if ref is None:
        both = _gradient(pairs.x, pairs.y, (own, numbers), kept, (a, b, c), (True, True), constants)
        return both, x.new_empty(0)
    of_rows = _gradient(pairs.x, pairs.y, (own, numbers), kept, (a, b, c), (True, False), constants)
    return of_rows, _gradient(pairs.y, pairs.x, (numbers, own), kept, (a, b, c), (False, True), constants)


KERNELS = {"pair_loss_backward": pair_loss_backward}
