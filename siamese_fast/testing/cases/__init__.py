"""The registry: one Case for each operation and form of its arguments."""

from siamese_fast.testing.case import CASES
from siamese_fast.testing.cases import distances, koch, koch_mlp, pairs, support, triplet_sums, triplets

__all__ = ["CASES", "distances", "koch", "koch_mlp", "pairs", "support", "triplet_sums", "triplets"]
