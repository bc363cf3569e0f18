"""One-shot prediction: a support set of any size, a few examples a class, and the class of new examples."""

from siamese_fast.prediction.classifier import OneShotClassifier

__all__ = ["OneShotClassifier"]
