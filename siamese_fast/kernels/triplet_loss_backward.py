"""The gradient of chosen triplets, by row index or by rows.

Each triplet adds coefficient * direction(own, other) to its anchor (twice), its positive and its negative.
By index, the contributions are sorted by the row they go to, and each row is written once, its sum in
registers: no atomics. A piece of PIECE contributions, at fixed places of the sorted list, that lies wholly
in one row is summed by a program of its own, so that a hub, the negative of everybody, is shared by the
whole device; the row then adds what precedes the pieces, the pieces in order, and what follows them. O(T D)
time; 12 T bytes of keys for each of the two or four roles, and T D / 64 floats of pieces.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from siamese_fast.kernels._launch import (
    COMPUTE,
    HINGE,
    METRIC,
    bits,
    checked,
    config,
    launch,
    on_device,
)
from siamese_fast.kernels.triplet_contributions import contributions, sum_pieces, three_rows, write_rows
from siamese_fast.kernels.triplet_loss import indexed, matching
from siamese_fast.ops._checks import compute_dtype

PIECE = 256


def _gather(
    own: Tensor, key: Tensor | None, operands: tuple[Tensor, ...], direct: bool, **constants: object
) -> Tensor:
    """The gradient of `own`: contributions whose rows are `key`; `direct`, those of the rows' own triplets
    too.
    """
    count, x_rows, table_rows = operands[4].shape[0], operands[1].shape[0], operands[2].shape[0]
    grad = torch.empty_like(own)
    rows, depth = own.shape
    shape = config("gather", own)
    constants |= {"DTYPE": COMPUTE[compute_dtype(own.dtype)], "PIECE": PIECE, **shape}
    columns, sizes = triton.cdiv(depth, shape["BK"]), (count, x_rows, table_rows, depth)
    start = order = operands[4]
    piece = own.new_empty(0, dtype=compute_dtype(own.dtype))
    if key is not None:
        sorted_key, order = torch.sort(key, stable=True)
        start = torch.searchsorted(sorted_key, torch.arange(rows + 1, dtype=key.dtype, device=own.device))
        piece = piece.new_empty(key.shape[0] // PIECE, depth)
        launch(
            sum_pieces,
            (piece.shape[0], columns),
            *(own, sorted_key, order, *operands, piece, rows, key.shape[0], *sizes),
            **constants,
        )
    launch(
        write_rows,
        (rows, columns),
        *(own, start, order, *operands, piece, grad, *sizes),
        DIRECT=direct,
        **constants,
    )
    return grad


@on_device
def triplet_loss_backward(
    grad: Tensor,
    x: Tensor,
    ref: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor,
    negative: Tensor,
    d_ap: Tensor,
    d_an: Tensor,
    margin: float,
    metric: str,
    hinge: str,
    zero_positive: bool,
) -> tuple[Tensor, Tensor]:
    x, table, anchor, positive, negative = indexed(x, ref, anchor, positive, negative)
    count, anchors = positive.shape[0], anchor is not None
    grad, d_ap, d_an = _upstream(x, count, grad, d_ap, d_an)
    coefficient = d_ap.new_empty(2, count)
    key = torch.empty(4 if anchors else 2, count, dtype=torch.int32, device=x.device)
    picks = (positive if anchor is None else anchor, positive, negative)
    block = 256
    launch(
        contributions,
        (triton.cdiv(count, block),),
        *(
            grad,
            d_ap,
            d_an,
            *picks,
            coefficient,
            key[2:],
            key,
            count,
            x.shape[0],
            table.shape[0],
            bits(margin),
        ),
        METRIC=METRIC[metric],
        SOFT=bool(HINGE[hinge]),
        ZERO_POSITIVE=zero_positive,
        ANCHORS=anchors,
        B=block,
    )
    operands, form = (coefficient, x, table, *picks), {"METRIC": METRIC[metric], "ANCHORS": anchors}
    if ref is None:
        both = {"TO_TABLE": True, "TO_ANCHORS": anchors}
        return _gather(x, key.view(-1), operands, not anchors, **both, **form), x.new_empty(0)
    to_x, to_table = {"TO_TABLE": False, "TO_ANCHORS": anchors}, {"TO_TABLE": True, "TO_ANCHORS": False}
    grad_x = _gather(x, key[2:].view(-1) if anchors else None, operands, not anchors, **to_x, **form)
    return grad_x, _gather(table, key[:2].view(-1), operands, False, **to_table, **form)


@on_device
def triplet_rows_loss_backward(
    grad: Tensor,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    d_ap: Tensor,
    d_an: Tensor,
    margin: float,
    metric: str,
    hinge: str,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = matching(anchor, positive, negative)
    count, shape = anchor.shape[0], config("rows", anchor)
    upstream = _upstream(anchor, count, grad, d_ap, d_an)
    grads = (torch.empty_like(rows[0]), torch.empty_like(rows[1]), torch.empty_like(rows[2]))
    launch(
        three_rows,
        (triton.cdiv(count, shape["B"]),),
        *(*upstream, *rows, *grads, count, anchor.shape[1], bits(margin)),
        METRIC=METRIC[metric],
        SOFT=bool(HINGE[hinge]),
        DTYPE=COMPUTE[compute_dtype(anchor.dtype)],
        **shape,
    )
    return grads


def _upstream(
    x: Tensor, count: int, grad: Tensor, d_ap: Tensor, d_an: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    compute = compute_dtype(x.dtype)
    return (
        checked("grad", grad if grad.dim() else grad.expand(count).contiguous(), compute, (count,), x),
        checked("d_ap", d_ap, compute, (count,), x),
        checked("d_an", d_an, compute, (count,), x),
    )


KERNELS = {
    "triplet_loss_backward": triplet_loss_backward,
    "triplet_rows_loss_backward": triplet_rows_loss_backward,
}
