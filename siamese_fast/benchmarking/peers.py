"""One small adapter for each published library, used as its authors document it and set to the row's work.

A library is imported when its adapter is built. Settings that differ from a library's defaults make it do the
same work as ours: no normalisation, a mean over all anchors, the same margin.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamese_fast.benchmarking.contender import Call, Contender, Inputs, Sizes
from siamese_fast.benchmarking.ours import MARGIN, mined_distances


def pytorch_metric_learning() -> Contender:
    """BatchHardMiner + TripletMarginLoss."""

    def build(given: Inputs) -> Call:
        losses, miners, distances, reducers = _parts(
            "pytorch_metric_learning", "losses", "miners", "distances", "reducers"
        )
        distance = distances.LpDistance(normalize_embeddings=False)
        miner = miners.BatchHardMiner(distance=distance)
        loss = losses.TripletMarginLoss(margin=MARGIN, distance=distance, reducer=reducers.MeanReducer())
        x, labels = given["x"], given["labels"]
        return lambda: loss(x, labels, miner(x, labels))

    return Contender(
        "pytorch-metric-learning",
        "published",
        build,
        ("pytorch-metric-learning",),
        needs=lambda size: 28 * size["N"] ** 2,
    )


def pytorch_metric_learning_miner() -> Contender:
    """BatchHardMiner alone."""

    def build(given: Inputs) -> Call:
        miners, distances = _parts("pytorch_metric_learning", "miners", "distances")
        miner = miners.BatchHardMiner(distance=distances.LpDistance(normalize_embeddings=False))
        x, labels = given["x"], given["labels"]
        return lambda: miner(x, labels)

    return Contender(
        "pytorch-metric-learning",
        "published",
        build,
        ("pytorch-metric-learning",),
        answer=lambda found, given: mined_distances(found[1:], given),
        needs=lambda size: 28 * size["N"] ** 2,
    )


def sentence_transformers() -> Contender:
    """BatchHardTripletLoss on given embeddings."""

    def build(given: Inputs) -> Call:
        (losses,) = _parts("sentence_transformers", "sentence_transformer.losses")
        loss = losses.BatchHardTripletLoss(model=None, margin=MARGIN)
        return lambda: loss.batch_hard_triplet_loss(given["labels"], given["x"])

    return Contender(
        "sentence-transformers",
        "published",
        build,
        ("sentence-transformers",),
        needs=lambda size: 40 * size["N"] ** 2,
    )


def open_metric_learning() -> Contender:
    """TripletLossWithMiner(HardTripletsMiner)."""

    def build(given: Inputs) -> Call:
        triplet, inbatch = _parts("oml", "losses.triplet", "miners.inbatch_hard_tri")
        loss = triplet.TripletLossWithMiner(margin=MARGIN, miner=inbatch.HardTripletsMiner())
        return lambda: loss(given["x"], given["labels"])

    return Contender(
        "open-metric-learning",
        "published",
        build,
        ("open-metric-learning",),
        needs=lambda size: 24 * size["N"] ** 2,
    )


def cdist_l1() -> Contender:
    """The Koch head by torch.cdist: rows scaled by the weight, which is exact where no weight is negative."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        return lambda: torch.cdist(q * weight, s * weight, p=1.0) + bias

    return Contender("torch.cdist(p=1)", "published", build)


def faiss_flat(k: int, q: str = "q", s: str = "s") -> Contender:
    """IndexFlatL2, filled in advance; distances are squared."""

    def build(given: Inputs) -> Call:
        (faiss,) = _parts("faiss", "")
        rows = given[s].numpy()
        return _faiss_search(faiss.IndexFlatL2(rows.shape[1]), rows, given[q].numpy(), k)

    return Contender("faiss IndexFlatL2", "published", build, ("faiss-cpu",), answer=_first_from_numpy)


def faiss_half(k: int, q: str, s: str) -> Contender:
    """IndexScalarQuantizer with QT_fp16: supports kept in half precision."""

    def build(given: Inputs) -> Call:
        (faiss,) = _parts("faiss", "")
        rows = given[s].numpy()
        index = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        return _faiss_search(index, rows, given[q].numpy(), k)

    return Contender("faiss fp16", "published", build, ("faiss-cpu",), answer=_first_from_numpy)


def faiss_l1(k: int) -> Contender:
    """The Koch head, whose weights are not positive, as IndexFlat of METRIC_L1 on rows scaled in advance."""

    def build(given: Inputs) -> Call:
        (faiss,) = _parts("faiss", "")
        q, s, weight = (given[name].numpy() for name in ("q", "s", "weight"))
        return _faiss_search(faiss.IndexFlat(s.shape[1], faiss.METRIC_L1), -weight * s, -weight * q, k)

    return Contender("faiss IndexFlat(L1)", "published", build, ("faiss-cpu",), answer=_logits_from_numpy)


def _faiss_search(index: Any, rows: np.ndarray, queries: np.ndarray, k: int) -> Call:
    importlib.import_module("faiss").omp_set_num_threads(torch.get_num_threads())
    index.add(rows)
    return lambda: index.search(queries, k)


def scikit_learn(k: int) -> Contender:
    """NearestNeighbors(algorithm="brute"), fitted in advance."""

    def build(given: Inputs) -> Call:
        (neighbors,) = _parts("sklearn", "neighbors")
        q, s = given["q"].numpy(), given["s"].numpy()
        index = neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute", metric="sqeuclidean").fit(s)
        return lambda: index.kneighbors(q)

    return Contender("scikit-learn brute", "published", build, ("scikit-learn",), answer=_first_from_numpy)


def keops_nearest(k: int) -> Contender:
    """LazyTensor.Kmin_argKmin over squared differences."""

    def build(given: Inputs) -> Call:
        lazy = lazy_tensor()
        q, s = lazy(given["q"][:, None, :]), lazy(given["s"][None, :, :])
        return lambda: ((q - s) ** 2).sum(-1).Kmin_argKmin(k, dim=1)

    return Contender("KeOps", "published", build, ("pykeops",), compiled=True)


def keops_nearest_koch(k: int) -> Contender:
    """LazyTensor.Kmin_argKmin over the weighted differences; weights are not positive."""

    def build(given: Inputs) -> Call:
        lazy = lazy_tensor()
        scale, bias = -given["weight"], given["bias"]
        distances = (lazy((given["q"] * scale)[:, None]) - lazy((given["s"] * scale)[None])).abs().sum(-1)
        return lambda: bias - distances.Kmin(k, dim=1)

    return Contender("KeOps", "published", build, ("pykeops",), compiled=True)


def cdist_topk(k: int) -> Contender:
    """torch.cdist(p=1) on scaled rows and torch.topk; weights are not positive."""

    def build(given: Inputs) -> Call:
        q, s = given["q"] * given["weight"], given["s"] * given["weight"]
        bias = given["bias"]
        return lambda: bias - torch.topk(torch.cdist(q, s, p=1.0), k, dim=1, largest=False).values

    return Contender("torch.cdist(p=1) + topk", "published", build, needs=_score_matrix)


def topk_product(k: int) -> Contender:
    """torch.mm and torch.topk; the supports' norms are known in advance."""

    def build(given: Inputs) -> Call:
        q, s = given["q"], given["s"]
        half_norms = -0.5 * s.square().sum(1)
        columns = s.T.contiguous()

        def call() -> Tensor:
            best = torch.topk(torch.addmm(half_norms, q, columns), k, dim=1).values
            return q.square().sum(1, keepdim=True) - 2 * best

        return call

    return Contender("torch mm + topk", "published", build, needs=_score_matrix)


def lazy_tensor() -> Any:
    """KeOps' LazyTensor; it would print on standard output what it compiles."""
    for name in ("KEOPS_VERBOSE", "PYKEOPS_VERBOSE"):
        os.environ.setdefault(name, "0")
    (torch_part,) = _parts("pykeops", "torch")
    return torch_part.LazyTensor


def _score_matrix(size: Sizes) -> int:
    return 8 * size["Q"] * size["S"]


def _parts(package: str, *names: str) -> list[Any]:
    return [importlib.import_module(f"{package}.{name}" if name else package) for name in names]


def _first_from_numpy(found: Any, given: Inputs) -> tuple[Tensor, ...]:
    return (torch.from_numpy(found[0]),)


def _logits_from_numpy(found: Any, given: Inputs) -> tuple[Tensor, ...]:
    return (given["bias"] - torch.from_numpy(found[0]),)
