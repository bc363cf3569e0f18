"""The library's miners: the hardest positive and negative of each anchor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast._extras import require
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


class BatchEasyHardMiner(miners.BatchEasyHardMiner):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.miners.BatchEasyHardMiner`, fused for hard positives with hard negatives.

    Example:
        >>> miner = BatchEasyHardMiner(pos_strategy="hard", neg_strategy="hard")
    """

    def mine(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        found = _hardest(self, *args, **kwargs)
        if found is None:
            library: tuple[Tensor, ...] = super().mine(*args, **kwargs)
            return library
        anchor, positive, negative = found
        return anchor, positive, anchor, negative


class BatchHardMiner(miners.BatchHardMiner):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.miners.BatchHardMiner`, fused.

    Example:
        >>> anchor, positive, negative = BatchHardMiner()(embeddings, labels)
    """

    def mine(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        found = _hardest(self, *args, **kwargs)
        library: tuple[Tensor, ...] = super().mine(*args, **kwargs) if found is None else found
        return library
