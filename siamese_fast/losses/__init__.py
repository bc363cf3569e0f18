"""Losses as modules: thin layers over the fused operations, drop-ins for the usual training loops.

In-batch losses take `(embeddings [N, D], labels [N])`. The Koch losses hold the head they train.
"""

from siamese_fast.losses.koch import KochAllPairsLoss, KochPairLoss, KochSoftmaxLoss
from siamese_fast.losses.memory import CrossBatchMemory
from siamese_fast.losses.pairs import (
    CircleLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
)
from siamese_fast.losses.triplets import (
    BatchAllTripletLoss,
    BatchHardTripletLoss,
    RankedTripletLoss,
    SemiHardTripletLoss,
    TripletLoss,
)

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "CrossBatchMemory",
    "KochAllPairsLoss",
    "KochPairLoss",
    "KochSoftmaxLoss",
    "MultiSimilarityLoss",
    "NPairLoss",
    "NTXentLoss",
    "RankedTripletLoss",
    "SemiHardTripletLoss",
    "SupConLoss",
    "TripletLoss",
]
