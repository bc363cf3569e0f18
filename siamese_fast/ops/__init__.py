"""The operations: for each a schema, a reference in torch, a backward pass and the public function."""

from siamese_fast.ops.class_scores import class_scores
from siamese_fast.ops.distance import distance, distance_matrix, similarity_matrix
from siamese_fast.ops.hardest_pairs import hardest_pairs
from siamese_fast.ops.l1_similarity import l1_similarity, l1_similarity_bce, l1_similarity_bce_grad
from siamese_fast.ops.l1_similarity_matrix import l1_similarity_matrix
from siamese_fast.ops.nearest_support import nearest_support
from siamese_fast.ops.support import PreparedSupport, prepare_support
from siamese_fast.ops.triplet_loss import batch_hard_triplet_loss, triplet_loss

__all__ = [
    "PreparedSupport",
    "batch_hard_triplet_loss",
    "class_scores",
    "distance",
    "distance_matrix",
    "hardest_pairs",
    "l1_similarity",
    "l1_similarity_bce",
    "l1_similarity_bce_grad",
    "l1_similarity_matrix",
    "nearest_support",
    "prepare_support",
    "similarity_matrix",
    "triplet_loss",
]
