"""What the library's miners select by looking at whole rows of scores, in blocks of rows: O(block M) memory
beside what is selected, where the library keeps several [N, M] matrices, or an [N, M, M] one.

Scores are larger for nearer rows: the similarity, or minus the distance. Pairs and triplets come in the
library's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.compat.pytorch_metric_learning._fits import metric_of, plain
from siamese_fast.ops._metrics import BLOCK_ELEMENTS, row_blocks

Indices = tuple[Tensor, ...]


class Block(NamedTuple):
    """Scores of some anchors with all rows [n, M], which of them are positives and negatives (a NaN is
    neither), and the number of the first anchor.
    """

    scores: Tensor
    positive: Tensor
    negative: Tensor
    first: int


def blocks(
    miner: Any, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, without_self: bool
) -> Iterator[Block] | None:
    """Blocks of anchors; None where the miner's distance or the tensors have no fused form.

    `without_self`: row i is no positive of anchor i.
    """
    metric = metric_of(miner.distance)
    fits = plain(embeddings, labels, ref_emb, ref_labels) and ref_emb.shape[0] > 0
    if metric is None or miner.collect_stats or not fits:
        return None
    return _blocks(miner.distance, metric[0], embeddings, labels, ref_emb, ref_labels, without_self)


def _blocks(
    distance: Any, metric: str, x: Tensor, labels: Tensor, ref: Tensor, ref_labels: Tensor, without_self: bool
) -> Iterator[Block]:
    x, ref = (distance.maybe_normalize(rows) for rows in (x, ref))
    for rows in row_blocks(x.shape[0], ref.shape[0]):
        scores = ops.similarity_matrix(x[rows], ref, metric)
        same, number = labels[rows, None] == ref_labels, ~scores.isnan()
        positive = same & number
        if without_self:
            positive.diagonal(rows.start).fill_(False)
        yield Block(scores, positive, ~same & number, rows.start)


def joined(found: list[Indices], parts: int, like: Tensor) -> Indices:
    """The indices of all blocks, `parts` tensors."""
    if not found:
        return tuple(torch.empty(0, dtype=torch.int64, device=like.device) for _ in range(parts))
    return tuple(torch.cat(part) for part in zip(*found, strict=True))


def triplets(block: Block, chosen: Callable[[Tensor], Tensor]) -> Indices:
    """Triplets whose s_ap - s_an is `chosen`, ordered by anchor, positive, negative."""
    anchor, positive = block.positive.nonzero(as_tuple=True)
    found: list[Indices] = []
    step = max(1, BLOCK_ELEMENTS // max(1, block.scores.shape[1]))
    for a, p in zip(anchor.split(step), positive.split(step), strict=True):
        kept = chosen(block.scores[a, p][:, None] - block.scores[a]) & block.negative[a]
        pair, negative = kept.nonzero(as_tuple=True)
        found.append((a[pair] + block.first, p[pair], negative))
    return joined(found, 3, anchor)


def informative_pairs(block: Block, epsilon: float, ascending: bool) -> Indices:
    """Positives farther than the nearest negative and negatives nearer than the farthest positive, by less
    than `epsilon`; those of an anchor by score, ascending or descending.
    """
    scores, positive, negative, first = block
    nearest = scores.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    farthest = scores.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    pairs = [positive & (scores - epsilon < nearest), negative & (scores + epsilon > farthest)]
    found: list[Tensor] = []
    for kept in pairs:
        last = torch.inf if ascending else -torch.inf
        order = scores.masked_fill(~kept, last).sort(dim=1, stable=True, descending=not ascending).indices
        place = torch.arange(scores.shape[1], device=scores.device)
        row, column = (place < kept.sum(1, keepdim=True)).nonzero(as_tuple=True)
        found += [row + first, order[row, column]]
    return tuple(found)


class Extreme(NamedTuple):
    """One strategy of `BatchEasyHardMiner`: the nearest or the farthest, with a score in a range."""

    nearest: bool
    lowest: float = -torch.inf
    highest: float = torch.inf

    def among(self, scores: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score and index of the best of each row, and which rows have one."""
        allowed = allowed & (scores >= self.lowest) & (scores <= self.highest)
        outside = -torch.inf if self.nearest else torch.inf
        kept = scores.masked_fill(~allowed, outside)
        best, index = kept.max(1) if self.nearest else kept.min(1)
        return best[:, None], index, allowed.any(1)


def easy_hard(block: Block, of_positive: Extreme, of_negative: Extreme, semihard: str | None) -> Indices:
    """Each anchor's positive and negative by their strategies, where it has both.

    `semihard`: "negative", one that is farther than the positive; "positive", one nearer than the negative.
    """
    scores, positive, negative, first = block
    if semihard == "positive":
        s_an, n, has_negative = of_negative.among(scores, negative)
        _, p, has_positive = of_positive.among(scores, positive & (scores > s_an))
    else:
        s_ap, p, has_positive = of_positive.among(scores, positive)
        farther = negative & (scores < s_ap) if semihard == "negative" else negative
        _, n, has_negative = of_negative.among(scores, farther)
    anchor = (has_positive & has_negative).nonzero()[:, 0]
    return anchor + first, p[anchor], n[anchor]
