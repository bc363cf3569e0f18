"""Retrieval: each image searches for the others of its class. Recall@k, precision@1, R-precision, MAP@R.

With R the number of other images of the query's class, MAP@R = 1/R sum_{i <= R} (precision at i if hit i is
right): Musgrave, Belongie and Lim, "A Metric Learning Reality Check" (2020), as pytorch-metric-learning
computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_fast._extras import require
from siamese_fast.data.imageset import ImageSet
from siamese_fast.evaluation._common import Embedded, Model, Result


@dataclass(frozen=True)
class RetrievalResult(Result):
    """Means over the queries whose class has another image.

    Attributes:
        recall: for each k, the share of queries with an image of their class among the k nearest.
        precision_at_1, r_precision, map_at_r: as pytorch-metric-learning defines them.
        pixels_map_at_r: MAP@R by distance of raw pixels; None if not asked for.
        n_queries: how many queries count.
    """

    recall: dict[int, float]
    precision_at_1: float
    r_precision: float
    map_at_r: float
    pixels_map_at_r: float | None
    n_queries: int


def retrieval(
    model: Model, images: ImageSet, *, k: Sequence[int] = (1, 5, 10), pixels: bool = True
) -> RetrievalResult:
    """Leave-one-out retrieval among `images`; memory O(N max(k, R)).

    Raises ValueError for a k below 1 and when no class has two images.

    Example:
        >>> retrieval(network, data.digits()).map_at_r
    """
    if not k or min(k) < 1:
        raise ValueError(f"k must hold numbers of at least 1, got {tuple(k)}")
    labels, counts = images.labels, images.counts()
    answerable = counts[labels] > 1
    if not answerable.any():
        raise ValueError("images must hold a class with two images, to have something to find")
    depth = min(len(images) - 1, max(int(counts.max()) - 1, *k))
    found = _others(Embedded(model, images), depth)
    hits = labels[found[answerable]] == labels[answerable, None]
    scores = _accuracies(found, labels)
    baseline = _accuracies(_others(Embedded.pixels(images), depth), labels) if pixels else None
    return RetrievalResult(
        recall={n: float(hits[:, :n].any(1).double().mean()) for n in k},
        precision_at_1=scores["precision_at_1"],
        r_precision=scores["r_precision"],
        map_at_r=scores["mean_average_precision_at_r"],
        pixels_map_at_r=None if baseline is None else baseline["mean_average_precision_at_r"],
        n_queries=int(answerable.sum()),
    )


def _others(embedded: Embedded, depth: int) -> Tensor:
    """The nearest other rows of each row, `[N, depth]`."""
    vectors = embedded.vectors
    classifier = embedded.on_embeddings.fit(vectors, embedded.labels)
    found = torch.from_numpy(classifier.kneighbors(vectors, depth + 1, return_distance=False))
    other = found != torch.arange(len(found))[:, None]
    # A row with that many exact duplicates may not be among its own nearest: then the last one goes.
    other[other.all(1), -1] = False
    return found[other].view(len(found), depth)


def _accuracies(found: Tensor, labels: Tensor) -> dict[str, float]:
    calculator = require("pytorch_metric_learning.utils.accuracy_calculator", extra="metrics")
    metrics = calculator.AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=lambda query, k, reference, ref_includes_query: (None, found[:, :k]),
    )
    # The neighbours are known already, so row numbers stand in for the embeddings.
    rows = torch.arange(len(labels))[:, None]
    result: dict[str, float] = metrics.get_accuracy(rows, labels, ref_includes_query=True)
    return result
