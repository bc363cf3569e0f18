"""Siamese networks: losses and look-ups that never build the N x N matrix, and what stands on them.

The operations are here at once; networks, losses, training and prediction are imported when first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from siamese_fast import backend
from siamese_fast.ops import (
    PreparedSupport,
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    circle_loss,
    class_scores,
    contrastive_loss,
    distance,
    distance_matrix,
    hardest_pairs,
    info_nce_loss,
    l1_mlp_similarity_matrix,
    l1_similarity,
    l1_similarity_bce,
    l1_similarity_bce_grad,
    l1_similarity_matrix,
    multi_similarity_loss,
    nearest_support,
    ntxent_loss,
    prepare_support,
    prototypical_loss,
    ranked_pairs,
    ranked_triplet_loss,
    semi_hard_triplet_loss,
    similarity_matrix,
    supcon_loss,
    triplet_loss,
)

if TYPE_CHECKING:
    from siamese_fast import data, distributed, evaluation, losses, network, ops, recipes
    from siamese_fast.losses import (
        BatchAllTripletLoss,
        BatchHardTripletLoss,
        CircleLoss,
        ContrastiveLoss,
        CrossBatchMemory,
        KochAllPairsLoss,
        KochPairLoss,
        KochSoftmaxLoss,
        MultiSimilarityLoss,
        NPairLoss,
        NTXentLoss,
        RankedTripletLoss,
        SemiHardTripletLoss,
        SupConLoss,
        TripletLoss,
    )
    from siamese_fast.network import ConvEncoder, DistanceHead, KochHead, MLPEncoder, SiameseNetwork
    from siamese_fast.prediction import OneShotClassifier
    from siamese_fast.recipes import train_recipe
    from siamese_fast.training import FitOptions, fit

__version__ = "0.1.0"

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "ConvEncoder",
    "CrossBatchMemory",
    "DistanceHead",
    "FitOptions",
    "KochAllPairsLoss",
    "KochHead",
    "KochPairLoss",
    "KochSoftmaxLoss",
    "MLPEncoder",
    "MultiSimilarityLoss",
    "NPairLoss",
    "NTXentLoss",
    "OneShotClassifier",
    "PreparedSupport",
    "RankedTripletLoss",
    "SemiHardTripletLoss",
    "SiameseNetwork",
    "SupConLoss",
    "TripletLoss",
    "backend",
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
    "circle_loss",
    "class_scores",
    "contrastive_loss",
    "data",
    "distance",
    "distance_matrix",
    "distributed",
    "evaluation",
    "fit",
    "hardest_pairs",
    "info_nce_loss",
    "l1_mlp_similarity_matrix",
    "l1_similarity",
    "l1_similarity_bce",
    "l1_similarity_bce_grad",
    "l1_similarity_matrix",
    "losses",
    "multi_similarity_loss",
    "nearest_support",
    "network",
    "ntxent_loss",
    "ops",
    "prepare_support",
    "prototypical_loss",
    "ranked_pairs",
    "ranked_triplet_loss",
    "recipes",
    "semi_hard_triplet_loss",
    "similarity_matrix",
    "supcon_loss",
    "train_recipe",
    "triplet_loss",
]

_HOME = {
    "BatchAllTripletLoss": "losses",
    "BatchHardTripletLoss": "losses",
    "CircleLoss": "losses",
    "ContrastiveLoss": "losses",
    "ConvEncoder": "network",
    "CrossBatchMemory": "losses",
    "DistanceHead": "network",
    "FitOptions": "training",
    "KochAllPairsLoss": "losses",
    "KochHead": "network",
    "KochPairLoss": "losses",
    "KochSoftmaxLoss": "losses",
    "MLPEncoder": "network",
    "MultiSimilarityLoss": "losses",
    "NPairLoss": "losses",
    "NTXentLoss": "losses",
    "OneShotClassifier": "prediction",
    "RankedTripletLoss": "losses",
    "SemiHardTripletLoss": "losses",
    "SiameseNetwork": "network",
    "SupConLoss": "losses",
    "TripletLoss": "losses",
    "fit": "training",
    "train_recipe": "recipes",
}
_MODULES = ("data", "distributed", "evaluation", "losses", "network", "prediction", "recipes", "training")

backend.install()

if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"siamese_fast.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'siamese_fast' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"siamese_fast.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
