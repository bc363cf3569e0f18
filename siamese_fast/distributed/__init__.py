"""Past one machine: losses and look-ups over the ranks of `torch.distributed`."""

from siamese_fast.distributed.classifier import OneShotClassifier
from siamese_fast.distributed.episode_losses import info_nce_loss, prototypical_loss
from siamese_fast.distributed.losses import batch_hard_triplet_loss
from siamese_fast.distributed.modules import (
    BatchAllTripletLoss,
    BatchHardTripletLoss,
    CircleLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    SupConLoss,
)
from siamese_fast.distributed.pair_losses import (
    batch_all_triplet_loss,
    circle_loss,
    contrastive_loss,
    multi_similarity_loss,
    ntxent_loss,
    supcon_loss,
)

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "OneShotClassifier",
    "SupConLoss",
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
    "circle_loss",
    "contrastive_loss",
    "info_nce_loss",
    "multi_similarity_loss",
    "ntxent_loss",
    "prototypical_loss",
    "supcon_loss",
]
