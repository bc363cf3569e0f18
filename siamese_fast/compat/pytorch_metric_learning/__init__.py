"""pytorch-metric-learning's losses, miners and memory, fused: no N x N matrix, no list of pairs or triplets.

    from siamese_fast.compat.pytorch_metric_learning import NTXentLoss, TripletMarginLoss, BatchHardMiner

Classes keep their names and derive from the library's own, so that its wrappers, reducers and trainers take
them. Fused are: LpDistance(p=2) with power 1 or 2 (1 for miners), CosineSimilarity and
DotProductSimilarity; the mean and
the mean over non-zero losses; all pairs or all triplets of the labels, with or without `ref_emb`; given
triplets. Anything else (other distances, regularisers, statistics, given pairs, swap, ...) runs the
library's own code.

Where results differ: NTXentLoss is exact where the library's log(ratio + smallest number) saturates; rows
shorter than 1e-12 take no gradient.
"""

from __future__ import annotations

from siamese_fast._extras import require
from siamese_fast.compat.pytorch_metric_learning.losses import (
    CircleLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    SupConLoss,
    TripletMarginLoss,
)
from siamese_fast.compat.pytorch_metric_learning.memory import CrossBatchMemory, NearestSupportKNN
from siamese_fast.compat.pytorch_metric_learning.miners import BatchEasyHardMiner, BatchHardMiner

_miners = require("pytorch_metric_learning.miners", "metrics")
MultiSimilarityMiner = _miners.MultiSimilarityMiner
TripletMarginMiner = _miners.TripletMarginMiner

__all__ = [
    "BatchEasyHardMiner",
    "BatchHardMiner",
    "CircleLoss",
    "ContrastiveLoss",
    "CrossBatchMemory",
    "MultiSimilarityLoss",
    "MultiSimilarityMiner",
    "NTXentLoss",
    "NearestSupportKNN",
    "SupConLoss",
    "TripletMarginLoss",
    "TripletMarginMiner",
]
