"""The kernels of `triplet_loss_backward`: what each triplet contributes, and the sums by row."""

from __future__ import annotations

import triton
import triton.language as tl

from siamese_fast.kernels.tile import direction, factor, from_bits, load_rows
from siamese_fast.kernels.triplet_loss import hinge_slope, picked


@triton.jit
def coefficients(
    p_grad,
    p_d_ap,
    p_d_an,
    o,
    m,
    has_p,
    has_n,
    margin,
    METRIC: tl.constexpr,
    SOFT: tl.constexpr,
    ZERO_POSITIVE: tl.constexpr,
):
    """What multiplies the directions to the positive and to the negative."""
    d_ap, d_an = tl.load(p_d_ap + o, mask=m, other=0.0), tl.load(p_d_an + o, mask=m, other=0.0)
    slope = tl.load(p_grad + o, mask=m, other=0.0)
    slope *= hinge_slope(d_ap - d_an + from_bits(margin, d_ap.dtype), SOFT)
    nan = slope != slope
    valid = has_n & (has_p | ZERO_POSITIVE)
    to_p = tl.where(valid & has_p, factor(slope, d_ap, METRIC), 0.0)
    to_n = tl.where(valid, factor(-slope, d_an, METRIC), 0.0)
    return tl.where(nan, slope, to_p), tl.where(nan, slope, to_n)


@triton.jit
def contributions(
    p_grad,
    p_d_ap,
    p_d_an,
    p_anchor,
    p_positive,
    p_negative,
    p_coefficient,
    p_x_key,
    p_table_key,
    count,
    x_rows,
    table_rows,
    margin,
    METRIC: tl.constexpr,
    SOFT: tl.constexpr,
    ZERO_POSITIVE: tl.constexpr,
    ANCHORS: tl.constexpr,
    B: tl.constexpr,
):
    """Coefficients [2, T], and the row that each contribution goes to: [2, T] of the table, [2, T] of
    anchors.

    What goes nowhere is given the row past the last.
    """
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m = o < count
    a = picked(p_anchor, o, m, x_rows, ANCHORS)
    p = picked(p_positive, o, m, table_rows, True)
    n = picked(p_negative, o, m, table_rows, True)
    known = (a >= 0) & (a < x_rows)
    to_p, to_n = coefficients(
        p_grad, p_d_ap, p_d_an, o, m, p >= 0, n >= 0, margin, METRIC, SOFT, ZERO_POSITIVE
    )
    to_p, to_n = tl.where(known, to_p, 0.0), tl.where(known, to_n, 0.0)
    tl.store(p_coefficient + o, to_p, mask=m)
    tl.store(p_coefficient + count + o, to_n, mask=m)
    tl.store(p_table_key + o, tl.where((to_p != 0) & (p >= 0), p, table_rows), mask=m)
    tl.store(p_table_key + count + o, tl.where((to_n != 0) & (n >= 0), n, table_rows), mask=m)
    if ANCHORS:
        tl.store(p_x_key + o, tl.where(to_p != 0, a, x_rows), mask=m)
        tl.store(p_x_key + count + o, tl.where(to_n != 0, a, x_rows), mask=m)


@triton.jit
def add_contributions(
    total,
    own,
    p_order,
    begin,
    end,
    p_coefficient,
    p_x,
    p_table,
    p_anchor,
    p_positive,
    p_negative,
    count,
    x_rows,
    table_rows,
    o_k,
    depth,
    METRIC: tl.constexpr,
    ANCHORS: tl.constexpr,
    TO_TABLE: tl.constexpr,
    TO_ANCHORS: tl.constexpr,
    B: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """total [BK] += the contributions p_order[begin:end] to the row `own` [1, BK].

    Contribution c belongs to triplet c % T; it is of role c // T: positive, negative, and the anchor's two.
    """
    for start in range(begin, end, B):
        o = start + tl.arange(0, B)
        m = o < end
        c = tl.load(p_order + o, mask=m, other=0)
        role, t = c // count, c % count
        coefficient = tl.load(p_coefficient + (role % 2) * count + t, mask=m, other=0.0)
        a = picked(p_anchor, t, m, x_rows, ANCHORS)
        if TO_TABLE and not TO_ANCHORS:
            rows = p_x + a[:, None] * depth
        else:
            p, n = tl.load(p_positive + t, mask=m, other=-1), tl.load(p_negative + t, mask=m, other=-1)
            chosen = tl.where(role % 2 == 0, p, n)
            exists = (chosen >= 0) & (chosen < table_rows)
            rows = tl.where(exists[:, None], p_table + chosen[:, None] * depth, p_x + a[:, None] * depth)
            if TO_TABLE:
                rows = tl.where((role < 2)[:, None], p_x + a[:, None] * depth, rows)
        other = load_rows(rows, m[:, None], o_k, depth).to(DTYPE)
        term = coefficient[:, None] * direction(own, other, METRIC)
        total += tl.sum(tl.where(m[:, None], term, 0.0), 0)
    return total


@triton.jit
def sum_pieces(
    p_own,
    p_key,
    p_order,
    p_coefficient,
    p_x,
    p_table,
    p_anchor,
    p_positive,
    p_negative,
    p_piece,
    rows,
    items,
    count,
    x_rows,
    table_rows,
    depth,
    METRIC: tl.constexpr,
    ANCHORS: tl.constexpr,
    TO_TABLE: tl.constexpr,
    TO_ANCHORS: tl.constexpr,
    PIECE: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    """The sum of each piece of the sorted contributions that lies in one row."""
    i = tl.program_id(0)
    begin, end = i * PIECE, i * PIECE + PIECE
    if end <= items:
        row, last = tl.load(p_key + begin).to(tl.int64), tl.load(p_key + end - 1)
        if (row == last) & (row < rows):
            o_k = tl.program_id(1) * BK + tl.arange(0, BK)
            own = tl.load(p_own + row * depth + o_k, mask=o_k < depth, other=0.0).to(DTYPE)[None, :]
            total = add_contributions(
                tl.zeros([BK], DTYPE), own, p_order, begin, end, p_coefficient, p_x, p_table, p_anchor,
                p_positive, p_negative, count, x_rows, table_rows, o_k, depth, METRIC, ANCHORS, TO_TABLE,
                TO_ANCHORS, B, DTYPE,
            )  # fmt: skip
            tl.store(p_piece + i.to(tl.int64) * depth + o_k, total, mask=o_k < depth)


@triton.jit
def write_rows(
    p_own,
    p_start,
    p_order,
    p_coefficient,
    p_x,
    p_table,
    p_anchor,
    p_positive,
    p_negative,
    p_piece,
    p_grad,
    count,
    x_rows,
    table_rows,
    depth,
    METRIC: tl.constexpr,
    ANCHORS: tl.constexpr,
    TO_TABLE: tl.constexpr,
    TO_ANCHORS: tl.constexpr,
    DIRECT: tl.constexpr,
    PIECE: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    """The gradient of one row: its own two terms if every row is an anchor (DIRECT), then what others
    contribute.
    """
    i = tl.program_id(0).to(tl.int64)
    o_k = tl.program_id(1) * BK + tl.arange(0, BK)
    own = tl.load(p_own + i * depth + o_k, mask=o_k < depth, other=0.0).to(DTYPE)[None, :]
    total = tl.zeros([BK], DTYPE)
    if DIRECT:
        for side in tl.static_range(2):
            chosen = tl.load((p_positive if side == 0 else p_negative) + i)
            coefficient = tl.load(p_coefficient + side * count + i)
            exists = (chosen >= 0) & (chosen < table_rows)
            p_other = tl.where(exists, p_table + chosen * depth, p_own + i * depth)
            other = tl.load(p_other + o_k, mask=o_k < depth, other=0.0).to(DTYPE)
            term = coefficient * direction(own, other[None, :], METRIC)
            total += tl.where(coefficient != 0, tl.sum(term, 0), 0.0)
    if TO_TABLE or TO_ANCHORS:
        begin, end = tl.load(p_start + i), tl.load(p_start + i + 1)
        first, last = (begin + PIECE - 1) // PIECE, end // PIECE
        head = tl.where(first < last, first * PIECE, end)
        total = add_contributions(
            total, own, p_order, begin, head, p_coefficient, p_x, p_table, p_anchor, p_positive, p_negative,
            count, x_rows, table_rows, o_k, depth, METRIC, ANCHORS, TO_TABLE, TO_ANCHORS, B, DTYPE,
        )  # fmt: skip
        if first < last:
            for piece in range(first, last):
                total += tl.load(
                    p_piece + tl.cast(piece, tl.int64) * depth + o_k, mask=o_k < depth, other=0.0
                )
            total = add_contributions(
                total, own, p_order, last * PIECE, end, p_coefficient, p_x, p_table, p_anchor, p_positive,
                p_negative, count, x_rows, table_rows, o_k, depth, METRIC, ANCHORS, TO_TABLE,
                TO_ANCHORS, B, DTYPE,
            )  # fmt: skip
    tl.store(p_grad + i * depth + o_k, total, mask=o_k < depth)


@triton.jit
def three_rows(
    p_grad,
    p_d_ap,
    p_d_an,
    p_a,
    p_p,
    p_n,
    p_grad_a,
    p_grad_p,
    p_grad_n,
    count,
    depth,
    margin,
    METRIC: tl.constexpr,
    SOFT: tl.constexpr,
    DTYPE: tl.constexpr,
    B: tl.constexpr,
    BK: tl.constexpr,
):
    """Gradients of triplets given as rows."""
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m = o < count
    to_p, to_n = coefficients(p_grad, p_d_ap, p_d_an, o, m, m, m, margin, METRIC, SOFT, False)
    to_p, to_n, rows = to_p[:, None], to_n[:, None], o[:, None] * depth
    for k in range(0, depth, BK):
        o_k = k + tl.arange(0, BK)
        out, m_out = rows + o_k[None, :], m[:, None] & (o_k < depth)[None, :]
        a = load_rows(p_a + rows, m[:, None], o_k, depth).to(DTYPE)
        p = load_rows(p_p + rows, m[:, None], o_k, depth).to(DTYPE)
        n = load_rows(p_n + rows, m[:, None], o_k, depth).to(DTYPE)
        pull, push = to_p * direction(a, p, METRIC), to_n * direction(a, n, METRIC)
        tl.store(p_grad_a + out, pull + push, mask=m_out)
        tl.store(p_grad_p + out, to_p * direction(p, a, METRIC), mask=m_out)
        tl.store(p_grad_n + out, to_n * direction(n, a, METRIC), mask=m_out)
