"""Losses over all pairs: tiles of scores on the tensor cores, four numbers a row kept in registers.

Rows are sorted by label, so that the positives of a block of rows are a range of columns, which is all that a
second sweep meets. The columns are cut into strips by their number alone, at most 16, and the strips' numbers
joined in order: a row's loss does not depend on how many rows stand beside it.

Memory: the rows in order, by rows and by columns, and 16 bytes a row and strip. What `served`
refuses is left to the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import METRIC, bits, config, interpreting, launch, on_device
from siamese_fast.kernels.pair_formulas import (
    FORMULA,
    NTXENT,
    completed,
    join,
    log_of,
    parameters_of,
    starting,
    sweeps,
    visit,
)
from siamese_fast.kernels.pair_tile import pair_tile, pairs_of, served
from siamese_fast.kernels.tile import from_bits
from siamese_fast.ops._define import REFERENCES
from siamese_fast.ops.pair_loss import FORMULAS

STRIPS, SHORTEST = 16, 256


@triton.jit
def _sweep(
    p_x,
    p_y,
    p_x_norm,
    p_y_norm,
    p_x_columns,
    p_y_columns,
    p_x_class,
    p_y_class,
    p_own,
    p_columns,
    p_order,
    p_start,
    p_end,
    p_statistics,
    p_partial,
    rows,
    columns,
    depth,
    stride_x,
    stride_y,
    strip,
    a,
    b,
    c,
    FORMULA: tl.constexpr,
    SWEEP: tl.constexpr,
    METRIC: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """What BM rows keep of one strip of columns, [strips, 4, rows]; a second sweep meets their classes."""
    o_x = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    i_strip = tl.program_id(1)
    m_x = o_x < rows
    a, b, c = from_bits(a, tl.float32), from_bits(b, tl.float32), from_bits(c, tl.float32)
    begin, end = i_strip * strip, min(i_strip * strip + strip, columns)
    against = tl.zeros([BM], tl.float32)
    if SWEEP > 0:
        first, last = tl.load(p_start + o_x, mask=m_x, other=columns), tl.load(p_end + o_x, mask=m_x, other=0)
        begin, end = tl.maximum(begin, tl.min(first, 0)), tl.minimum(end, tl.max(last, 0))
        against = tl.load(p_statistics + tl.load(p_order + o_x, mask=m_x, other=0), mask=m_x, other=0.0)
    f0, f1, f2, f3 = starting(FORMULA, BM)
    for j in range(begin, end, BN):
        o_y = (j + tl.arange(0, BN)).to(tl.int64)
        score, positive, negative = pair_tile(
            p_x, p_y, p_x_norm, p_y_norm, p_x_columns, p_y_columns, p_x_class, p_y_class, p_own, p_columns,
            o_x, tl.where(o_y < end, o_y, columns), rows, columns, depth, stride_x, stride_y, METRIC, UPCAST,
            BM, BN, BK,
        )  # fmt: skip
        f0, f1, f2, f3 = visit(f0, f1, f2, f3, score, positive, negative, against, a, b, c, FORMULA, SWEEP)
    p_out = p_partial + i_strip.to(tl.int64) * 4 * rows + o_x
    tl.store(p_out, f0, mask=m_x)
    tl.store(p_out + rows, f1, mask=m_x)
    tl.store(p_out + 2 * rows, f2, mask=m_x)
    tl.store(p_out + 3 * rows, f3, mask=m_x)


@triton.jit
def _close(
    p_partial,
    p_order,
    p_start,
    p_end,
    p_own,
    p_statistics,
    p_loss,
    p_count,
    rows,
    columns,
    strips,
    a,
    b,
    FORMULA: tl.constexpr,
    SWEEP: tl.constexpr,
    FIELDS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    B: tl.constexpr,
):
    """The strips joined in order: statistics [FIELDS, rows], losses and counts [rows, COMPONENTS]."""
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m = o < rows
    row = tl.load(p_order + o, mask=m, other=0)
    f0, f1, f2, f3 = starting(FORMULA, B)
    for strip in range(strips):
        p_in = p_partial + tl.cast(strip, tl.int64) * 4 * rows + o
        g0, g1 = tl.load(p_in, mask=m, other=0.0), tl.load(p_in + rows, mask=m, other=0.0)
        g2, g3 = tl.load(p_in + 2 * rows, mask=m, other=0.0), tl.load(p_in + 3 * rows, mask=m, other=0.0)
        f0, f1, f2, f3 = join(f0, f1, f2, f3, g0, g1, g2, g3, FORMULA)
    start, end = tl.load(p_start + o, mask=m, other=0), tl.load(p_end + o, mask=m, other=0)
    own = tl.load(p_own + o, mask=m, other=-1)
    negatives = (columns - (end - start)).to(tl.float32)
    positives = (end - start - ((own >= start) & (own < end)).to(tl.int32)).to(tl.float32)
    if SWEEP > 0:
        f0 = tl.load(p_statistics + row, mask=m, other=0.0)
    elif FORMULA == NTXENT:
        f0 = log_of(f0, f1)
    s0, s1, s2, s3, loss, loss2, count, count2 = completed(
        f0, f1, f2, f3, positives, negatives, from_bits(a, tl.float32), from_bits(b, tl.float32), FORMULA
    )
    tl.store(p_statistics + row, s0, mask=m)
    tl.store(p_statistics + rows + row, s1, mask=m)
    tl.store(p_statistics + 2 * rows + row, s2, mask=m)
    if FIELDS > 3:
        tl.store(p_statistics + 3 * rows + row, s3, mask=m)
    tl.store(p_loss + row * COMPONENTS, loss, mask=m)
    tl.store(p_count + row * COMPONENTS, count, mask=m)
    if COMPONENTS > 1:
        tl.store(p_loss + row * COMPONENTS + 1, loss2, mask=m)
        tl.store(p_count + row * COMPONENTS + 1, count2, mask=m)


@on_device
def pair_loss(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: list[float],
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    if not served(x, labels, ignore_label):
        by_torch: tuple[Tensor, Tensor, Tensor] = REFERENCES["pair_loss"](
            x, labels, ref, ref_labels, self_index, formula, metric, parameters, ignore_label
        )
        return by_torch
    pairs, found = pairs_of(x, labels, ref, ref_labels, self_index), FORMULAS[formula]
    left, right, rows, columns = pairs.x, pairs.y, x.shape[0], pairs.y.rows.shape[0]
    losses, statistics = x.new_empty(rows, found.components), x.new_empty(found.fields, rows)
    counts, shape = torch.empty_like(losses), config("pairs", x)
    strip = max(SHORTEST, triton.cdiv(columns, STRIPS * SHORTEST) * SHORTEST)
    strips = max(1, triton.cdiv(columns, strip))
    partial = x.new_empty(strips, 4, rows)
    a, b, c = map(bits, parameters_of(formula, parameters))
    for sweep in range(sweeps(formula)):
        launch(
            _sweep,
            (triton.cdiv(rows, shape["BM"]), strips),
            *(left.rows, right.rows, left.norms, right.norms, left.columns, right.columns),
            *(left.classes, right.classes, pairs.own, pairs.numbers, left.order, pairs.begin, pairs.end),
            *(statistics, partial, *pairs.sizes, strip, a, b, c),
            FORMULA=FORMULA[formula],
            SWEEP=sweep,
            METRIC=METRIC[metric],
            UPCAST=interpreting,
            **shape,
        )
        launch(
            _close,
            (triton.cdiv(rows, 256),),
            *(partial, left.order, pairs.begin, pairs.end, pairs.own, statistics, losses, counts),
            *(rows, columns, strips, a, b),
            FORMULA=FORMULA[formula],
            SWEEP=sweep,
            FIELDS=found.fields,
            COMPONENTS=found.components,
            B=256,
        )
    return losses, counts, statistics


KERNELS = {"pair_loss": pair_loss}
