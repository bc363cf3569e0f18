"""Losses over all pairs: tiles of scores on the tensor cores, four numbers a row kept in registers.

Rows are sorted by label, so that the positives of a block of rows are a range of columns, which is all that a
second sweep meets. The columns are cut into strips by their number alone, at most 16, and the strips' numbers
joined in order: a row's loss does not depend on how many rows stand beside it.

    score         x.y as three tf32 terms; squared distances as |x|^2 + |y|^2 - 2 x.y
    exact         a tile with a pair nearer than 1/128 of |x|^2 + |y|^2, or a score that is no number, takes those
                  from differences

Memory: the rows in order, by rows and by columns, and 16 bytes a row and strip. float64, which has no such units
here, is served by the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import (
    METRIC,
    bits,
    checked,
    columns_first,
    config,
    interpreting,
    launch,
    on_device,
    row_count,
)
from siamese_fast.kernels.hardest_pairs import segments
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
from siamese_fast.kernels.tile import COSINE, DOT, EUCLIDEAN, difference_tile, from_bits, product_tile
from siamese_fast.ops._define import REFERENCES
from siamese_fast.ops.pair_loss import FORMULAS

STRIPS, SHORTEST = 16, 256
NEAR = tl.constexpr(1 / 128)


@triton.jit
def pair_tile(
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
    o_x,
    o_y,
    rows,
    columns,
    depth,
    stride_x,
    stride_y,
    METRIC: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Scores [BM, BN] of rows o_x and o_y, and which are positive and negative pairs.

    p_x_own holds the column that is row o_x itself, p_y_own what it is to be compared with: the columns' numbers, or
    the other way round where the sides are exchanged.
    """
    m_x, m_y = o_x < rows, o_y < columns
    same = (
        tl.load(p_x_class + o_x, mask=m_x, other=0)[:, None]
        == tl.load(p_y_class + o_y, mask=m_y, other=0)[None, :]
    )
    itself = (
        tl.load(p_x_own + o_x, mask=m_x, other=-1)[:, None]
        == tl.load(p_y_own + o_y, mask=m_y, other=-1)[None, :]
    )
    exists = m_x[:, None] & m_y[None, :]
    positive, negative = exists & same & (itself == 0), exists & (same == 0)
    p_left, p_right = p_x + o_x[:, None] * depth, p_y + o_y[:, None] * depth
    score = product_tile(p_left, m_x[:, None], p_right, m_y[:, None], depth, "tf32x3", UPCAST, BM, BN, BK)
    FORM: tl.constexpr = DOT if METRIC == COSINE else METRIC
    if FORM == DOT:
        near = score != score
    else:
        norms = tl.load(p_x_norm + o_x, mask=m_x, other=0.0)[:, None]
        norms = norms + tl.load(p_y_norm + o_y, mask=m_y, other=0.0)[None, :]
        score = norms - 2.0 * score
        near = (score >= NEAR * norms) == 0
        near = near | (norms == float("inf"))
    near = near & (positive | negative)
    if tl.max(tl.max(near.to(tl.int32), 1), 0) > 0:
        exact = difference_tile(
            p_x_columns + o_x, p_y_columns + o_y, p_x, stride_x, stride_y, depth, FORM, BM, BN, tl.float32
        )
        score = tl.where(near, exact, score)
    if FORM == EUCLIDEAN:
        score = tl.sqrt_rn(tl.where(score < 0, 0.0, score))
    if FORM != DOT:
        score = -score
    return score, positive, negative


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
    """What BM rows keep of one strip of columns, [strips, 4, rows]; a second sweep meets their classes alone."""
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
            p_x, p_y, p_x_norm, p_y_norm, p_x_columns, p_y_columns, p_x_class, p_y_class, p_own, p_columns, o_x,
            tl.where(o_y < end, o_y, columns), rows, columns, depth, stride_x, stride_y, METRIC, UPCAST, BM, BN, BK,
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
    """The strips' numbers joined in order; statistics [FIELDS, rows], losses and counts [rows, COMPONENTS]."""
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
    tl.store(p_statistics + 3 * rows + row, s3, mask=m)
    if FIELDS > 4:
        tl.store(p_statistics + 4 * rows + row, loss, mask=m)
    tl.store(p_loss + row * COMPONENTS, loss, mask=m)
    tl.store(p_count + row * COMPONENTS, count, mask=m)
    if COMPONENTS > 1:
        tl.store(p_loss + row * COMPONENTS + 1, loss2, mask=m)
        tl.store(p_count + row * COMPONENTS + 1, count2, mask=m)


@dataclass(frozen=True)
class Side:
    """One side's rows in the order of their labels.

    Attributes:
        rows, norms, columns: the rows [n, D], their squared lengths, and themselves as [D, n'].
        order: where each stood.
        classes: where the class begins among the columns, -1 if it is none of theirs.
    """

    rows: Tensor
    norms: Tensor
    columns: Tensor
    order: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Pairs:
    """Both sides; of each row its class's columns begin:end, and the column that is the row itself, or -1."""

    x: Side
    y: Side
    begin: Tensor
    end: Tensor
    own: Tensor
    numbers: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        return (
            *self.x.rows.shape[:1],
            *self.y.rows.shape,
            self.x.columns.stride(0),
            self.y.columns.stride(0),
        )


def _side(x: Tensor, order: Tensor, classes: Tensor) -> Side:
    rows = x[order]
    return Side(rows, rows.square().sum(1), columns_first(rows), order, classes)


def pairs_of(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, self_index: Tensor | None
) -> Pairs:
    """The arguments, checked and in order."""
    rows = row_count("x", x.shape[0])
    labels = checked("labels", labels, torch.int64, (rows,), x)
    sorted_labels, order = torch.sort(labels, stable=True)
    if ref is None or ref_labels is None:
        begin, end = segments(sorted_labels, sorted_labels)
        side, numbers = _side(x, order, begin), torch.arange(rows, dtype=torch.int32, device=x.device)
        return Pairs(side, side, begin, end, numbers, numbers)
    ref = checked("ref", ref, x.dtype, (row_count("ref", ref.shape[0]), x.shape[1]), x)
    ref_labels = checked("ref_labels", ref_labels, torch.int64, ref.shape[:1], x)
    sorted_classes, ref_order = torch.sort(ref_labels, stable=True)
    begin, end = segments(sorted_classes, sorted_labels)
    classes = segments(sorted_classes, sorted_classes)[0]
    numbers = torch.arange(ref.shape[0], dtype=torch.int32, device=x.device)
    own = torch.full_like(begin, -1)
    if self_index is not None and ref.shape[0] > 0:
        index = checked("self_index", self_index, torch.int64, (rows,), x)[order]
        place = torch.empty_like(numbers).scatter_(0, ref_order, numbers)
        known = (index >= 0) & (index < ref.shape[0])
        own = torch.where(known, place[torch.where(known, index, 0)], -1)
    x_side = _side(x, order, torch.where(end > begin, begin, -1))
    return Pairs(x_side, _side(ref, ref_order, classes), begin, end, own, numbers)


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
) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype != torch.float32:
        served: tuple[Tensor, Tensor, Tensor] = REFERENCES["pair_loss"](
            x, labels, ref, ref_labels, self_index, formula, metric, parameters
        )
        return served
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
