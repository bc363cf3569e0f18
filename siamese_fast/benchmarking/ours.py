"""The operations of siamese_fast as contenders, called through their public names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.benchmarking.contender import Call, Contender, Inputs, Stage, stage_call

MARGIN = 0.2
NAME = "siamese_fast"
ONE_THREAD = "one thread"
CONVERTED = "converted to float32"
BATCH_HARD = "batch-hard"


def batch_hard() -> Contender:
    return _call(lambda given: ops.batch_hard_triplet_loss(given["x"], given["labels"], MARGIN))


def batch_hard_random() -> Contender:
    """The same on `other`, a batch without a hub: its answer is not that of the row."""

    def build(given: Inputs) -> Call:
        x = given["other"].detach().clone().requires_grad_()
        loss = batch_hard().build({"x": x, "labels": given["labels"]})
        return lambda: torch.autograd.grad(loss(), [x])

    return Contender("a random batch", "baseline", build, whole=True, answer=lambda found, given: ())


def batch_hard_beside() -> Contender:
    """Batch-hard beside another loss of the same batch: its answer is not that of the row."""
    return replace(batch_hard(), name=BATCH_HARD, column="baseline", answer=lambda found, given: ())


def loss(operation: str, **options: Any) -> Contender:
    """A loss of a labelled batch by its name."""
    return _call(lambda given: getattr(ops, operation)(given["x"], given["labels"], **options))


def given_triplets() -> Contender:
    return _call(
        lambda given: ops.triplet_loss(given["anchor"], given["positive"], given["negative"], MARGIN)
    )


def hardest_pairs() -> Contender:
    return Contender(
        NAME,
        "ours",
        lambda given: lambda: ops.hardest_pairs(given["x"], given["labels"]),
        answer=mined_distances,
    )


def mined_distances(found: Any, given: Inputs) -> tuple[Tensor, Tensor]:
    """What miners must agree on: among equal distances each may choose another row."""
    x, (positive, negative) = given["x"], found
    return (x - x[positive]).norm(dim=1), (x - x[negative]).norm(dim=1)


def koch_matrix(*, exact: bool = True) -> Contender:
    def call(given: Inputs) -> Tensor:
        return ops.l1_similarity_matrix(given["q"], given["s"], given["weight"], given["bias"], exact)

    return _call(call)


def koch_matrix_out(*, exact: bool = True) -> Contender:
    """Into a tensor that the caller reuses."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        out = torch.empty(len(q), len(s))
        return lambda: ops.l1_similarity_matrix(q, s, weight, bias, exact, out=out)

    return Contender(NAME, "ours", build)


def pairs() -> Contender:
    return _call(lambda given: ops.l1_similarity(given["h1"], given["h2"], given["weight"], given["bias"]))


def pairs_bce() -> Contender:
    def call(given: Inputs) -> Tensor:
        return ops.l1_similarity_bce(
            given["h1"], given["h2"], given["weight"], given["bias"], given["target"]
        )

    return _call(call)


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

    return Contender(NAME, "ours", build, answer=lambda found, given: (-found[0],))


def nearest_converted(k: int) -> Contender:
    """Half-precision queries against supports that were prepared in float32."""

    def build(given: Inputs) -> Call:
        support = ops.prepare_support(given["s"].float(), "sqeuclidean")
        return lambda: ops.nearest_support(given["q"].float(), support, k)

    return Contender(CONVERTED, "baseline", build, answer=lambda found, given: (-found[0],))


def nearest_koch(k: int) -> Contender:
    def build(given: Inputs) -> Call:
        support = ops.prepare_support(given["s"], weight=given["weight"], bias=given["bias"])
        return lambda: ops.nearest_support(given["q"], support, k)

    return Contender(NAME, "ours", build, answer=lambda found, given: (found[0],))


def class_scores(metric: str, reduce: str) -> Contender:
    def build(given: Inputs) -> Call:
        support = ops.prepare_support(given["s"], metric, class_index=given["class_index"])
        return lambda: ops.class_scores(given["q"], support, reduce=reduce)

    return Contender(NAME, "ours", build)


def converted(contender: Contender) -> Contender:
    """What a user without half-precision kernels does: the inputs to float32 first, at every call."""

    def build(given: Inputs) -> Call:
        def call() -> Any:
            single = {
                name: value.float() if value.is_floating_point() else value for name, value in given.items()
            }
            return contender.build(single)()

        return call

    return Contender(CONVERTED, "baseline", build)


def one_thread(contender: Contender, leaves: tuple[str, ...], stage: Stage) -> Contender:
    """The contender on one thread, among others that run on more."""

    def build(given: Inputs) -> Call:
        call = stage_call(contender, given, leaves, stage)

        def alone() -> Any:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                return call()
            finally:
                torch.set_num_threads(threads)

        return alone

    return Contender(ONE_THREAD, "baseline", build, whole=True, answer=contender.answer)


def _call(operation: Callable[[Inputs], Any]) -> Contender:
    return Contender(NAME, "ours", lambda given: lambda: operation(given))
