"""sentence-transformers' triplet losses of a labelled batch and contrastive losses of given pairs, fused: no
N x N matrix, forward or backward.

    from siamese_fast.compat.sentence_transformers import BatchHardTripletLoss, BatchAllTripletLoss

Classes keep their names, arguments and defaults and derive from the library's own: its trainer, its model
cards and the losses that wrap others take them. Fused are the library's own distance functions (euclidean and
cosine of the batch losses; euclidean, manhattan and cosine of the pair losses). Any other distance function,
labels that are not integers, a margin that is not a plain number and a batch of a single class run the
library's own code.

Where results differ: rows of zeros take no gradient under the cosine; equal distances are equal here, where
the library's differ by their rounding; half inputs are computed in float32, and so is the loss.
"""

from __future__ import annotations

from siamese_fast.compat.sentence_transformers.pairs import ContrastiveLoss, OnlineContrastiveLoss
from siamese_fast.compat.sentence_transformers.triplets import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
)

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "ContrastiveLoss",
    "OnlineContrastiveLoss",
]
