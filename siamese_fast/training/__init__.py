"""Training: `fit`, one loop for pairs and triplets, and the history it returns."""

from siamese_fast.training.history import History
from siamese_fast.training.loop import Augment, Validate, fit
from siamese_fast.training.options import FitOptions
from siamese_fast.training.state import Sampler, read_checkpoint

__all__ = ["Augment", "FitOptions", "History", "Sampler", "Validate", "fit", "read_checkpoint"]
