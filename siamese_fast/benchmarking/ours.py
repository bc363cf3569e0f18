"""The operations of siamese_fast as contenders, called through their public names."""

from __future__ import annotations

import torch

from siamese_fast import ops
from siamese_fast.benchmarking.contender import Call, Contender, Inputs

MARGIN = 0.2
NAME = "siamese_fast"


def batch_hard() -> Contender:
    return Contender(
        NAME, "ours", lambda given: lambda: ops.batch_hard_triplet_loss(given["x"], given["labels"], MARGIN)
    )


def koch_matrix() -> Contender:
    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        return lambda: ops.l1_similarity_matrix(q, s, weight, bias)

    return Contender(NAME, "ours", build)


def koch_matrix_out() -> Contender:
    """Into a tensor that the caller reuses."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        out = torch.empty(len(q), len(s))
        return lambda: ops.l1_similarity_matrix(q, s, weight, bias, out=out)

    return Contender(NAME, "ours", build)


def pairs_bce() -> Contender:
    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name] for name in ("h1", "h2", "weight", "bias"))
        return lambda: ops.l1_similarity_bce(h1, h2, weight, bias, given["target"])

    return Contender(NAME, "ours", build)


def pairs_bce_grad() -> Contender:
    """Loss and gradients in one pass, into tensors that the caller reuses."""

    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name].detach() for name in ("h1", "h2", "weight", "bias"))
        out = (torch.empty_like(h1), torch.empty_like(h2))
        return lambda: ops.l1_similarity_bce_grad(h1, h2, weight, bias, given["target"], out=out)

    return Contender(NAME, "ours", build, whole=True)


def nearest(k: int) -> Contender:
    """The support set is prepared once, as the libraries' indexes are."""

    def build(given: Inputs) -> Call:
        support = ops.prepare_support(given["s"], "sqeuclidean")
        return lambda: ops.nearest_support(given["q"], support, k)

    return Contender(NAME, "ours", build, answer=lambda found: (-found[0],))


def class_scores() -> Contender:
    def build(given: Inputs) -> Call:
        support = ops.prepare_support(given["s"], "sqeuclidean", class_index=given["class_index"])
        return lambda: ops.class_scores(given["q"], support, reduce="max")

    return Contender(NAME, "ours", build)
