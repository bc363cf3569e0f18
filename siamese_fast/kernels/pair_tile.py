"""What losses over all pairs stand on: both sides in the order of their labels, and tiles of scores of pairs.

score   x.y as three tf32 terms; squared distances as |x|^2 + |y|^2 - 2 x.y
exact   a tile with a pair nearer than 1/128 of |x|^2 + |y|^2, or with a score that is no number, is made
        once more from differences, for these pairs
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import checked, columns_first, row_count
from siamese_fast.kernels.hardest_pairs import segments
from siamese_fast.kernels.tile import COSINE, DOT, EUCLIDEAN, difference_tile, product_tile

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

    p_x_own holds the column that is row o_x itself, p_y_own the columns' numbers; the other way round where
    the sides are exchanged.
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


def served(x: Tensor, labels: Tensor, ignore_label: int | None) -> bool:
    """Whether kernels take the pairs: float32 rows (float64 has no tensor cores here) of one label each.

    Several labels a row, a matrix of pairs and labels to ignore are left to the reference.
    """
    return x.dtype == torch.float32 and labels.dim() == 1 and ignore_label is None


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
