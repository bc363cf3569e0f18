"""One small adapter for each published library, used as its authors document it and set to the row's work.

A library is imported when its adapter is built. Settings that differ from a library's defaults make it do the
same work as ours: no normalisation, a mean over all anchors, the same margin.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from siamese_fast.benchmarking.contender import Call, Contender, Inputs, Sizes
from siamese_fast.benchmarking.ours import MARGIN


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


def sentence_transformers() -> Contender:
    """BatchHardTripletLoss on given embeddings."""

    def build(given: Inputs) -> Call:
        (losses,) = _parts("sentence_transformers", "losses")
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


def faiss_flat(k: int) -> Contender:
    """IndexFlatL2, filled in advance; distances are squared."""

    def build(given: Inputs) -> Call:
        (faiss,) = _parts("faiss", "")
        faiss.omp_set_num_threads(torch.get_num_threads())
        q, s = given["q"].numpy(), given["s"].numpy()
        index = faiss.IndexFlatL2(s.shape[1])
        index.add(s)
        return lambda: index.search(q, k)

    return Contender("faiss IndexFlatL2", "published", build, ("faiss-cpu",), answer=_first_from_numpy)


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
        (torch_part,) = _parts("pykeops", "torch")
        q = torch_part.LazyTensor(given["q"][:, None, :])
        s = torch_part.LazyTensor(given["s"][None, :, :])
        return lambda: ((q - s) ** 2).sum(-1).Kmin_argKmin(k, dim=1)

    return Contender("KeOps", "published", build, ("pykeops",), compiled=True)


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


def _score_matrix(size: Sizes) -> int:
    return 8 * size["Q"] * size["S"]


def _parts(package: str, *names: str) -> list[Any]:
    return [importlib.import_module(f"{package}.{name}" if name else package) for name in names]


def _first_from_numpy(found: Any) -> tuple[Tensor, ...]:
    return (torch.from_numpy(found[0]),)
