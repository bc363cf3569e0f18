"""The library's miners: hardest pairs from the fused operation, the others in blocks of rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast._extras import require
from siamese_fast.compat._arguments import is_number
from siamese_fast.compat.pytorch_metric_learning._blocks import (
    Extreme,
    Indices,
    blocks,
    easy_hard,
    informative_pairs,
    joined,
    triplets,
)
from siamese_fast.compat.pytorch_metric_learning._fits import metric_of, own_rows, plain

miners = require("pytorch_metric_learning.miners", "metrics")


def _hardest(
    miner: Any, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Anchors that have both, their hardest positives and negatives; None where there is no fused form."""
    metric = metric_of(miner.distance)
    hard = miner.pos_strategy == miner.HARD and miner.neg_strategy == miner.HARD
    whole = miner.allowed_pos_range is None and miner.allowed_neg_range is None
    fits = plain(embeddings, labels, ref_emb, ref_labels)
    if not (hard and whole and fits) or metric is None or miner.collect_stats:
        return None
    x, ref = (miner.distance.maybe_normalize(rows) for rows in (embeddings, ref_emb))
    separate: dict[str, Any] = {}
    if ref_emb is not embeddings or ref_labels is not labels:
        own = own_rows(labels, ref_emb, ref_labels)
        separate = {"ref": ref, "ref_labels": ref_labels, "self_index": own}
    by = "dot" if metric[0] == "dot" else "euclidean"
    positive, negative = ops.hardest_pairs(x, labels, metric=by, **separate)
    anchor = torch.where((positive >= 0) & (negative >= 0))[0]
    return anchor, positive[anchor], negative[anchor]


def _extreme(nearest: bool, allowed: Any, inverted: bool) -> Extreme:
    """Allowed values are similarities, or distances: minus the scores."""
    lowest, highest = (-math.inf, math.inf) if allowed is None else map(float, allowed)
    return Extreme(nearest, lowest, highest) if inverted else Extreme(nearest, -highest, -lowest)


class BatchEasyHardMiner(miners.BatchEasyHardMiner):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.miners.BatchEasyHardMiner`: hard positives with hard negatives fused, the
    strategies "easy", "hard" and "semihard" in blocks of rows; "all" is a list of all pairs, the library's.

    Example:
        >>> miner = BatchEasyHardMiner(pos_strategy="hard", neg_strategy="hard")
    """

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, ...]:
        given = (embeddings, labels, ref_emb, ref_labels)
        found: Indices | None = _hardest(self, *given)
        if found is None and self.ALL not in (self.pos_strategy, self.neg_strategy):
            found = self._by_blocks(*given)
        if found is None:
            library: tuple[Tensor, ...] = super().mine(*given)
            return library
        anchor, positive, negative = found
        return anchor, positive, anchor, negative

    def _by_blocks(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> Indices | None:
        found = blocks(self, embeddings, labels, ref_emb, ref_labels, ref_labels is labels)
        if found is None:
            return None
        inverted = self.distance.is_inverted
        of_positive = _extreme(self.pos_strategy == self.EASY, self.allowed_pos_range, inverted)
        of_negative = _extreme(self.neg_strategy != self.EASY, self.allowed_neg_range, inverted)
        semihard = {self.pos_strategy: "positive", self.neg_strategy: "negative"}.get(self.SEMIHARD)
        chosen = [easy_hard(block, of_positive, of_negative, semihard) for block in found]
        return joined(chosen, 3, labels)


class BatchHardMiner(miners.BatchHardMiner):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.miners.BatchHardMiner`, fused.

    Example:
        >>> anchor, positive, negative = BatchHardMiner()(embeddings, labels)
    """

    def mine(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        found = _hardest(self, *args, **kwargs)
        library: tuple[Tensor, ...] = super().mine(*args, **kwargs) if found is None else found
        return library


class TripletMarginMiner(miners.TripletMarginMiner):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.miners.TripletMarginMiner` in blocks of rows.

    Example:
        >>> anchor, positive, negative = TripletMarginMiner(margin=0.2)(embeddings, labels)
    """

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, ...]:
        given = (embeddings, labels, ref_emb, ref_labels)
        found = blocks(self, *given, ref_labels is labels) if is_number(self.margin) else None
        if found is None:
            library: tuple[Tensor, ...] = super().mine(*given)
            return library
        return joined([triplets(block, self._chosen) for block in found], 3, labels)

    def _chosen(self, gap: Tensor) -> Tensor:
        """By s_ap - s_an; a type that the library does not know is "all"."""
        margin: float = self.margin
        if self.type_of_triplets == "easy":
            return gap > margin
        violated = gap <= margin
        if self.type_of_triplets == "hard":
            return violated & (gap <= 0)
        return violated & (gap > 0) if self.type_of_triplets == "semihard" else violated


class MultiSimilarityMiner(miners.MultiSimilarityMiner):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.miners.MultiSimilarityMiner` in blocks of rows.

    Example:
        >>> pairs = MultiSimilarityMiner(epsilon=0.1)(embeddings, labels)
    """

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, ...]:
        given = (embeddings, labels, ref_emb, ref_labels)
        # Where just one of the two is the batch's own, row i is a pair of itself for the library in places.
        own = ref_emb is embeddings
        fits = own == (ref_labels is labels) and is_number(self.epsilon)
        found = blocks(self, *given, own) if fits else None
        if found is None:
            library: tuple[Tensor, ...] = super().mine(*given)
            return library
        ascending = bool(self.distance.is_inverted)
        return joined([informative_pairs(block, self.epsilon, ascending) for block in found], 4, labels)
