"""The operations: for each a schema, a reference in torch, a backward pass and the public function."""

from siamese_fast.ops.batch_all_triplet_loss import batch_all_triplet_loss
from siamese_fast.ops.circle_loss import circle_loss
from siamese_fast.ops.class_scores import class_scores
from siamese_fast.ops.contrastive_loss import contrastive_loss
from siamese_fast.ops.distance import distance, distance_matrix, similarity_matrix
from siamese_fast.ops.given_triplets import triplet_loss
from siamese_fast.ops.hardest_pairs import hardest_pairs
from siamese_fast.ops.l1_mlp_similarity_matrix import l1_mlp_similarity_matrix
from siamese_fast.ops.l1_similarity import l1_similarity, l1_similarity_bce, l1_similarity_bce_grad
from siamese_fast.ops.l1_similarity_matrix import l1_similarity_matrix
from siamese_fast.ops.multi_similarity_loss import multi_similarity_loss
from siamese_fast.ops.nearest_support import nearest_support
from siamese_fast.ops.ntxent_loss import ntxent_loss
from siamese_fast.ops.ranked_pairs import ranked_pairs
from siamese_fast.ops.ranked_triplet_loss import ranked_triplet_loss
from siamese_fast.ops.semi_hard_triplet_loss import semi_hard_triplet_loss
from siamese_fast.ops.supcon_loss import info_nce_loss, prototypical_loss, supcon_loss
from siamese_fast.ops.support import PreparedSupport, prepare_support
from siamese_fast.ops.triplet_loss import batch_hard_triplet_loss

__all__ = [
    "PreparedSupport",
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
    "circle_loss",
    "class_scores",
    "contrastive_loss",
    "distance",
    "distance_matrix",
    "hardest_pairs",
    "info_nce_loss",
    "l1_mlp_similarity_matrix",
    "l1_similarity",
    "l1_similarity_bce",
    "l1_similarity_bce_grad",
    "l1_similarity_matrix",
    "multi_similarity_loss",
    "nearest_support",
    "ntxent_loss",
    "prepare_support",
    "prototypical_loss",
    "ranked_pairs",
    "ranked_triplet_loss",
    "semi_hard_triplet_loss",
    "similarity_matrix",
    "supcon_loss",
    "triplet_loss",
]
