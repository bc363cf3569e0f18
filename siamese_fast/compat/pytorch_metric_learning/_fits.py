"""Which of the library's options have a fused form, and as what."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamese_fast._extras import require
from siamese_fast.compat._arguments import is_labels, is_rows

distances = require("pytorch_metric_learning.distances", "metrics")
reducers = require("pytorch_metric_learning.reducers", "metrics")

NON_ZERO, MEAN = "mean_nonzero", "mean"


def metric_of(distance: Any) -> tuple[str, bool] | None:
    """Metric and `normalize` of a distance; None where it has no fused form."""
    if distance.collect_stats:
        return None
    if type(distance) is distances.CosineSimilarity:
        return ("dot", True) if distance.power == 1 and distance.p == 2 else None
    if type(distance) is distances.DotProductSimilarity:
        return ("dot", distance.normalize_embeddings) if distance.power == 1 and distance.p == 2 else None
    if type(distance) is distances.LpDistance and distance.p == 2 and distance.power in (1, 2):
        return ("euclidean" if distance.power == 1 else "sqeuclidean"), distance.normalize_embeddings
    return None


def reduction_of(reducer: Any) -> str | None:
    if reducer.collect_stats:
        return None
    return {reducers.MeanReducer: MEAN, reducers.AvgNonZeroReducer: NON_ZERO}.get(type(reducer))


def shared_reduction(reducer: Any, names: list[str]) -> str | None:
    """Of a loss with several parts: the reduction that all of them share."""
    if type(reducer) is not reducers.MultipleReducers or set(reducer.reducers) != set(names):
        return None
    found = {reduction_of(part) for part in reducer.reducers.values()}
    return found.pop() if len(found) == 1 and not reducer.collect_stats else None


def plain(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> bool:
    """Whether the tensors are what the fused operations take; the library says what is wrong with others."""
    rows = [embeddings] if ref_emb is None else [embeddings, ref_emb]
    names = [labels] if ref_emb is None else [labels, ref_labels]
    return all(
        is_rows(x)
        and x.dtype == embeddings.dtype
        and x.device == embeddings.device
        and x.shape[1] == embeddings.shape[1]
        for x in rows
    ) and all(
        is_labels(y) and y.dim() == 1 and y.shape[0] == x.shape[0] for x, y in zip(rows, names, strict=True)
    )


def own_rows(labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor | None:
    """The library leaves out (i, i) where both labels are one object."""
    same = ref_emb is not None and ref_labels is labels
    return torch.arange(labels.shape[0], device=labels.device) if same else None
