"""How good a network is: one-shot episodes, official Omniglot runs, real digits, verification, retrieval.

A model is whatever turns images into embeddings (a `SiameseNetwork`, a module, a callable) or a
`OneShotClassifier`, whose settings are then used. Beside one-shot and retrieval figures stands that of the
nearest raw pixels.
"""

from siamese_fast.evaluation._common import pixel_classifier
from siamese_fast.evaluation.one_shot import OneShotResult, digits_one_shot, one_shot_episodes
from siamese_fast.evaluation.retrieval import RetrievalResult, retrieval
from siamese_fast.evaluation.runs import RunsResult, jitters, omniglot_runs_error, right_angles
from siamese_fast.evaluation.verification import VerificationResult, verification, verification_of_scores

__all__ = [
    "OneShotResult",
    "RetrievalResult",
    "RunsResult",
    "VerificationResult",
    "digits_one_shot",
    "jitters",
    "omniglot_runs_error",
    "one_shot_episodes",
    "pixel_classifier",
    "retrieval",
    "right_angles",
    "verification",
    "verification_of_scores",
]
