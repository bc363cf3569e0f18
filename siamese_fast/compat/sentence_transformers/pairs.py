"""The library's contrastive losses of given pairs: its own code over fused distances, which keep no
differences of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import Tensor

from siamese_fast import ops
from siamese_fast._extras import require
from siamese_fast.compat._arguments import PAIRWISE_EPS, alike

losses = require("sentence_transformers.sentence_transformer.losses", "sentence-transformers")

_library = losses.SiameseDistanceMetric
_METRICS = {
    _library.EUCLIDEAN: "euclidean",
    _library.MANHATTAN: "manhattan",
    _library.COSINE_DISTANCE: "cosine",
}


class FusedDistance:
    """One of the library's distances of pairs. Equal to the function that it stands for: the library looks
    for the name of a distance by comparison.
    """

    def __init__(self, library: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.library = library
        self.metric = _METRICS[library]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if x.dim() != 2 or not alike(x, y):
            return self.library(x, y)
        return ops.distance(x if self.metric == "cosine" else x + PAIRWISE_EPS, y, self.metric)

    def __eq__(self, other: object) -> bool:
        return other is self.library or (isinstance(other, FusedDistance) and other.library is self.library)

    def __hash__(self) -> int:
        return hash(self.library)


class Fused:
    """Takes the fused form of a distance that has one, in the constructor and when it is set later."""

    def __setattr__(self, name: str, value: Any) -> None:
        fused = name == "distance_metric" and isinstance(value, FunctionType) and value in _METRICS
        super().__setattr__(name, FusedDistance(value) if fused else value)


class ContrastiveLoss(Fused, losses.ContrastiveLoss):  # type: ignore[misc,name-defined]
    """`sentence_transformers.losses.ContrastiveLoss`, fused.

    Example:
        >>> loss = ContrastiveLoss(model, margin=0.5)
    """


class OnlineContrastiveLoss(Fused, losses.OnlineContrastiveLoss):  # type: ignore[misc,name-defined]
    """`sentence_transformers.losses.OnlineContrastiveLoss`, fused.

    Example:
        >>> loss = OnlineContrastiveLoss(model, margin=0.5)
    """
