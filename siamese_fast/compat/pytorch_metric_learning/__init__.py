"""pytorch-metric-learning's losses, miners and memory, fused: no N x N matrix, no list of all triplets.

    from siamese_fast.compat.pytorch_metric_learning import NTXentLoss, TripletMarginLoss, BatchHardMiner

Classes keep their names and derive from the library's own, so that its wrappers, reducers and trainers take
them. Fused are: LpDistance(p=2) with power 1 or 2, CosineSimilarity and DotProductSimilarity with power 1;
the mean and, but for NTXentLoss and MultiSimilarityLoss, the mean over non-zero losses; all pairs or all
triplets of the labels, with or without `ref_emb`; given triplets. Miners look at blocks of rows, and keep no
more than they return. Anything else (other distances, regularisers, statistics, given pairs, swap, learnt
parameters, ...) runs the library's own code.

Where results differ: NTXentLoss is exact where the library's log(ratio + smallest number) saturates; rows of
zeros take no gradient; a NaN makes every loss that it enters NaN; half inputs are computed in float32.
"""

from __future__ import annotations

from siamese_fast.compat.pytorch_metric_learning.losses import (
    CircleLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    SupConLoss,
    TripletMarginLoss,
)
from siamese_fast.compat.pytorch_metric_learning.memory import CrossBatchMemory, NearestSupportKNN
from siamese_fast.compat.pytorch_metric_learning.miners import (
    BatchEasyHardMiner,
    BatchHardMiner,
    MultiSimilarityMiner,
    TripletMarginMiner,
)

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
