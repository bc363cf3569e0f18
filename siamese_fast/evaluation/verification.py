"""Verification: are these two of one class? Area under the ROC curve, equal error rate, and a threshold.

false accepts: share of the different-class pairs with score >= threshold
false rejects: share of the same-class pairs with score < threshold
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from siamese_fast._extras import require
from siamese_fast.data.imageset import ImageSet
from siamese_fast.data.samplers import PairSampler
from siamese_fast.evaluation._common import Embedded, Model, Result
from siamese_fast.prediction.gallery import Comparison

_PAIRS = 4096


@dataclass(frozen=True)
class VerificationResult(Result):
    """Quality of a score that says "same class".

    Attributes:
        auc: area under the ROC curve; 0.5 is chance.
        eer: equal error rate, where false accepts and false rejects are as frequent.
        far: the false-accept rate asked for.
        threshold: the lowest score at which at most `far` of the different-class pairs are accepted.
        true_accepts: share of same-class pairs accepted at that threshold.
        pixels_auc: AUC of raw-pixel distance on the same pairs; None if not measured.
        n_same, n_different: pairs of each kind.
    """

    auc: float
    eer: float
    far: float
    threshold: float
    true_accepts: float
    pixels_auc: float | None
    n_same: int
    n_different: int


def verification(
    model: Model,
    images: ImageSet,
    *,
    n_pairs: int = 20_000,
    far: float = 0.01,
    seed: int = 0,
    pixels: bool = True,
) -> VerificationResult:
    """Verification on `n_pairs` random pairs of `images`, half of one class and half of two.

    Scores are those of `OneShotClassifier.class_scores`, so `threshold` may be handed to the classifier.

    Example:
        >>> result = verification(network, test_images, far=0.001)
        >>> classifier = OneShotClassifier(network, threshold=result.threshold, unknown_label="nobody")
    """
    index_a, index_b, target = next(PairSampler(images.labels, n_pairs, seed, exclusive=images.exclusive))

    def scores(embedded: Embedded) -> NDArray[Any]:
        classifier, vectors = embedded.on_embeddings, embedded.vectors
        comparison = Comparison(classifier.metric, classifier.head)
        blocks = zip(torch.split(index_a, _PAIRS), torch.split(index_b, _PAIRS), strict=True)
        return np.concatenate([comparison.pairs(vectors[a], vectors[b]).cpu().numpy() for a, b in blocks])

    same = target.bool().numpy()
    baseline = verification_of_scores(scores(Embedded.pixels(images)), same).auc if pixels else None
    return verification_of_scores(scores(Embedded(model, images)), same, far=far, pixels_auc=baseline)


def verification_of_scores(
    scores: ArrayLike, same: ArrayLike, *, far: float = 0.01, pixels_auc: float | None = None
) -> VerificationResult:
    """The same from scores `[B]` (larger: more alike) and whether each pair is of one class, bool `[B]`.

    Raises ValueError unless 0 <= far <= 1 and both kinds of pair are there.
    """
    metrics = require("sklearn.metrics", extra="metrics")
    scores, same = np.asarray(scores), np.asarray(same, dtype=bool)
    n_same, n_different = int(same.sum()), int((~same).sum())
    if not 0 <= far <= 1:
        raise ValueError(f"far must be in [0, 1], got {far}")
    if not n_same or not n_different:
        raise ValueError(
            f"same must hold both kinds of pair, got {n_same} of one class and {n_different} of two"
        )
    false_accepts, true_accepts, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    at = int(np.searchsorted(false_accepts, far, side="right")) - 1
    # The first point of the curve accepts nothing, at a threshold of infinity.
    nothing = np.nextafter(scores.max(), np.inf)
    return VerificationResult(
        auc=float(metrics.roc_auc_score(same, scores)),
        # On the straight line between the two points where the rates cross.
        eer=float(np.interp(0.0, false_accepts + true_accepts - 1.0, false_accepts)),
        far=far,
        threshold=float(thresholds[at] if at else nothing),
        true_accepts=float(true_accepts[at]),
        pixels_auc=pixels_auc,
        n_same=n_same,
        n_different=n_different,
    )
