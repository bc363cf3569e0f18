"""Losses as modules: thin layers over the fused operations, drop-ins for the usual training loops.

In-batch losses take `(embeddings [N, D], labels [N])`. The Koch losses hold the head they train.
"""

from siamese_fast.losses.koch import KochAllPairsLoss, KochPairLoss, KochSoftmaxLoss
from siamese_fast.losses.pairs import (
    BatchAllTripletLoss,
    CircleLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    SemiHardTripletLoss,
    SupConLoss,
)
from siamese_fast.losses.triplets import BatchHardTripletLoss, TripletLoss

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "KochAllPairsLoss",
    "KochPairLoss",
    "KochSoftmaxLoss",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "SemiHardTripletLoss",
    "SupConLoss",
    "TripletLoss",
]
