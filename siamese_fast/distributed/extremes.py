"""Batch-hard mining over the union of all ranks' rows, one visiting block at a time.

Of each anchor the farthest positive and the nearest negative so far are kept: exact distance, row number in
the concatenation of all blocks, and the row itself. So memory is O(N D) for N rows a rank, and nothing is
fetched again to evaluate the loss. Winners of different blocks are compared by exact distance, of equals the
lowest row number wins: the order in which blocks visit does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops.distance import row_distances
from siamese_fast.ops.hardest_pairs import mine


class Chosen(NamedTuple):
    """The rows that anchors chose, each once.

    Attributes:
        table: `[U, D]`, the rows.
        ids: int64 `[U]`, their numbers in the concatenation of all blocks, ascending.
        positive, negative: int64 `[N]`, the place in `table` of each anchor's choice; -1 for none.
    """

    table: Tensor
    ids: Tensor
    positive: Tensor
    negative: Tensor


class _Extreme:
    """The best candidate of each anchor so far; larger scores are better."""

    def __init__(self, x: Tensor, metric: str, sign: float) -> None:
        self._x, self._sign = x, sign
        # Squares, as mining compares them: the root rounds some that differ to one number.
        self._metric = "sqeuclidean" if metric == "euclidean" else metric
        self.score = x.new_zeros(x.shape[0], dtype=check.compute_dtype(x.dtype))
        self.index = torch.full((x.shape[0],), -1, device=x.device)
        self.rows = torch.zeros_like(x)

    def take(self, block: Tensor, found: Tensor, first: int) -> None:
        """Let `found` `[N]`, rows of `block`, compete; row 0 of the block is number `first` of all."""
        candidates = block[found.clamp_min(0)]
        score = self._sign * row_distances(self._x, candidates, self._metric)
        index = found + first
        better = (score > self.score) | ((score == self.score) & (index < self.index)) | (self.index < 0)
        better &= (found >= 0) & ~score.isnan()  # as in one process, no row is chosen by a NaN
        torch.where(better, score, self.score, out=self.score)
        torch.where(better, index, self.index, out=self.index)
        torch.where(better[:, None], candidates, self.rows, out=self.rows)


def choose(
    x: Tensor,
    labels: Tensor,
    blocks: Iterable[tuple[int, Tensor, Tensor]],
    counts: Sequence[int],
    own: int | None,
    self_index: Tensor | None,
    metric: str,
) -> Chosen:
    """Mine anchors `x` `[N, D]` from blocks (rank, labels, rows).

    `own` is the rank whose block is `x` itself; `self_index` `[N]`, without one, says which row of all blocks
    an anchor is. Rows are of unit length for cosine.
    """
    starts = [0, *accumulate(counts)]
    positive, negative = _Extreme(x, metric, 1.0), _Extreme(x, metric, -1.0)
    for rank, block_labels, block in blocks:
        if x.shape[0] == 0 or block.shape[0] == 0:
            continue
        if rank == own:
            found = mine(x, labels, None, None, None, metric)
        else:
            itself = None if self_index is None else _within(self_index - starts[rank], block.shape[0])
            found = mine(x, labels, block, block_labels, itself, metric)
        positive.take(block, found[0], starts[rank])
        negative.take(block, found[1], starts[rank])
    return _compact(positive, negative)


def _within(index: Tensor, rows: int) -> Tensor:
    return torch.where((index >= 0) & (index < rows), index, -1)


def _compact(positive: _Extreme, negative: _Extreme) -> Chosen:
    chosen = torch.cat([positive.index, negative.index])
    held = chosen >= 0
    ids, place = chosen[held].unique(return_inverse=True)
    rows = torch.cat([positive.rows, negative.rows])[held]
    table = rows.new_empty(ids.shape[0], rows.shape[1])
    table[place] = rows
    places = torch.full_like(chosen, -1)
    places[held] = place
    return Chosen(table, ids, *places.chunk(2))
