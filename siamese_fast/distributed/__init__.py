"""Past one machine: losses and look-ups over the ranks of `torch.distributed`."""

from siamese_fast.distributed.classifier import OneShotClassifier
from siamese_fast.distributed.losses import batch_hard_triplet_loss
from siamese_fast.distributed.modules import BatchHardTripletLoss

__all__ = ["BatchHardTripletLoss", "OneShotClassifier", "batch_hard_triplet_loss"]
