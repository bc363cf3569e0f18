"""One-shot look-up: for each query the k best supports, without the Q x S score matrix.

A tile of scores stays in registers; a row keeps its k best so far, and a tile whose best does not beat the
k-th is dropped with one comparison. Memory is O(Q k + block). The scores that are returned are computed from
exact differences for the chosen supports.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import define
from siamese_fast.ops.support import PreparedSupport, resolve, score_block, score_columns


def nearest_support(
    q: Tensor,
    s: Tensor | PreparedSupport,
    k: int = 1,
    *,
    metric: str | None = None,
    weight: Tensor | None = None,
    bias: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best supports of each query, best first. Not differentiable.

    Args:
        q: queries [Q, D].
        s: supports [S, D], or what `prepare_support` returned.
        k: how many; where fewer than k supports are comparable the score is -inf and the index -1. On CUDA
            devices the kernel keeps up to 64, more come from plain torch.
        metric: "euclidean" (default), "sqeuclidean", "cosine", "dot" or "manhattan"; a prepared set brings
            its own.
        weight, bias: with `weight` [D] the score is the Koch logit bias + sum w |q - s| instead.

    Returns:
        scores [Q, k], larger is better (-distance, cosine, product or logit), float64 for float64 inputs and
        float32 otherwise; and
        indices [Q, k], int64. Equal scores: lowest index first. A NaN score is never chosen.

    Example:
        >>> scores, index = nearest_support(encoder(queries), encoder(supports), k=5, metric="cosine")
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a positive integer, got {k!r}")
    q, support = resolve(q, s, metric, weight, bias)
    found: tuple[Tensor, Tensor] = _op(
        q, support.rows, k, support.metric, support.weight, support.bias, support.packed
    )
    return found


def _reference(
    q: Tensor, s: Tensor, k: int, metric: str, weight: Tensor | None, bias: Tensor | None, packed: Tensor
) -> tuple[Tensor, Tensor]:
    compute = check.compute_dtype(q.dtype)
    scores = torch.full((q.shape[0], k), -torch.inf, dtype=compute, device=q.device)
    indices = torch.full((q.shape[0], k), -1, dtype=torch.int64, device=q.device)
    kept = min(k, s.shape[0])
    supports = s.to(compute)
    lowest = torch.finfo(compute).min
    for rows in metrics.row_blocks(q.shape[0], score_columns(s, metric)):
        block = score_block(q[rows].to(compute), supports, metric, weight, bias)
        key = torch.where(block.isnan(), -torch.inf, block.clamp_min(lowest))
        order = key.sort(dim=1, descending=True, stable=True).indices[:, :kept]
        chosen = block.gather(1, order)
        scores[rows, :kept] = torch.where(chosen.isnan(), -torch.inf, chosen)
        indices[rows, :kept] = torch.where(chosen.isnan(), -1, order)
    return scores, indices


def _fake(
    q: Tensor, s: Tensor, k: int, metric: str, weight: Tensor | None, bias: Tensor | None, packed: Tensor
) -> tuple[Tensor, Tensor]:
    shape = (q.shape[0], k)
    return q.new_empty(shape, dtype=check.compute_dtype(q.dtype)), q.new_empty(shape, dtype=torch.int64)


_op = define(
    "nearest_support(Tensor q, Tensor s, int k, str metric, Tensor? weight, Tensor? bias, Tensor packed)"
    " -> (Tensor, Tensor)",
    _reference,
    _fake,
)
