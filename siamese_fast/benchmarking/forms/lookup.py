"""Look-up: all scores [Q, S], then the best of each query, or the best or the mean of each class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from siamese_fast.benchmarking.contender import Call, Contender, Inputs, Sizes


def koch_topk(k: int) -> Contender:
    """The Koch logits over [Q, S, D], which torch.compile fuses into its sum, and torch.topk."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))

        def call() -> Tensor:
            return torch.topk(((q[:, None] - s[None]).abs() * weight).sum(2) + bias, k, dim=1).values

        return call

    return Contender("broadcast, topk", "constructed", build, needs=_score_matrix)


def class_maximum() -> Contender:
    """Squared distances; supports sorted in advance, classes of one size."""

    def finish(squares: Tensor) -> Tensor:
        return -squares.amin(2)

    return _of_classes("mm, then the best of each class", finish)


def class_mean() -> Contender:
    """The mean distance of a class; supports sorted in advance, classes of one size."""

    def finish(squares: Tensor) -> Tensor:
        return -squares.clamp_min(0).sqrt().mean(2)

    return _of_classes("mm, then the mean of each class", finish)


def _of_classes(name: str, finish: Callable[[Tensor], Tensor]) -> Contender:
    def build(given: Inputs) -> Call:
        q, s = given["q"], given["s"][given["class_index"].argsort(stable=True)]
        num_classes = int(given["class_index"].max()) + 1
        norms, columns = s.square().sum(1), s.T.contiguous()

        def call() -> Tensor:
            products = torch.addmm(norms, q, columns, alpha=-2)
            return finish((products + q.square().sum(1, keepdim=True)).view(len(q), num_classes, -1))

        return call

    return Contender(name, "constructed", build, needs=lambda size: 3 * _score_matrix(size))


def _score_matrix(size: Sizes) -> int:
    return 4 * size["Q"] * size["S"]
