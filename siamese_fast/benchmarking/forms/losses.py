"""Losses over all pairs or triplets of a batch on the whole [N, N] matrix of scores: a product, masks of the
positives and negatives, and reductions that autograd differentiates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from siamese_fast.benchmarking.contender import Call, Contender, Inputs
from siamese_fast.benchmarking.draws import PER_CLASS
from siamese_fast.benchmarking.ours import MARGIN

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of scores, and of which pairs are positives and which negatives."""


def _form(loss: Loss, bytes_a_pair: int, distances: bool = False) -> Contender:
    """The scores are cosines, or minus the distances of the rows as they are."""

    def build(given: Inputs) -> Call:
        def call() -> Tensor:
            x, labels = given["x"], given["labels"]
            negative = labels[:, None] != labels
            positive = (~negative).fill_diagonal_(False)
            return loss(_distances(x) if distances else _cosines(x), positive, negative)

        return call

    return Contender("scores, masks", "constructed", build, needs=lambda size: bytes_a_pair * size["N"] ** 2)


def _cosines(x: Tensor) -> Tensor:
    unit = normalize(x)
    return unit @ unit.T


def _distances(x: Tensor) -> Tensor:
    """Minus the euclidean distances; 0 on the diagonal, without a gradient."""
    norms = x.square().sum(1)
    square = torch.addmm(norms, x, x.T, alpha=-2) + norms[:, None]
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    return -square.masked_fill(own, 0).clamp_min(1e-12).sqrt()


def ntxent(temperature: float) -> Contender:
    def loss(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        exponents = scores / temperature
        against = exponents.masked_fill(~negative, -torch.inf).logsumexp(1, keepdim=True)
        each = torch.where(positive, softplus(against - exponents), 0.0)
        return each.sum() / positive.sum()

    return _form(loss, 40)


def supcon(temperature: float) -> Contender:
    def loss(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        exponents = scores / temperature
        every = exponents.masked_fill(~(positive | negative), -torch.inf).logsumexp(1)
        mean = torch.where(positive, exponents, 0.0).sum(1) / positive.sum(1)
        return (every - mean).mean()

    return _form(loss, 40)


def multi_similarity(alpha: float, beta: float, base: float) -> Contender:
    def loss(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        pull = (alpha * (base - scores)).masked_fill(~positive, -torch.inf).logsumexp(1)
        push = (beta * (scores - base)).masked_fill(~negative, -torch.inf).logsumexp(1)
        return (softplus(pull) / alpha + softplus(push) / beta).mean()

    return _form(loss, 40)


def circle(margin: float, gamma: float) -> Contender:
    def loss(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        constant = scores.detach()
        near = -gamma * (1 + margin - constant).relu() * (scores - 1 + margin)
        far = gamma * (constant + margin).relu() * (scores - margin)
        pull = near.masked_fill(~positive, -torch.inf).logsumexp(1)
        push = far.masked_fill(~negative, -torch.inf).logsumexp(1)
        return softplus(pull + push).mean()

    return _form(loss, 60)


def contrastive(neg_margin: float) -> Contender:
    """Of distances, the margin of positives 0: each kind a mean over its losses above 0."""

    def loss(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        push = (neg_margin + scores).relu() * negative
        pull = -scores * positive
        return sum(
            (each.sum() / (each > 0).sum().clamp_min(1) for each in (pull, push)), scores.new_zeros(())
        )

    return _form(loss, 40, distances=True)


def batch_all() -> Contender:
    """One pass over all negatives for each positive of an anchor, of which there are `PER_CLASS` - 1."""

    def loss(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        others = positive.to(torch.uint8).topk(PER_CLASS - 1, dim=1).indices
        total, count = scores.new_zeros(()), scores.new_zeros(())
        for column in others.split(1, dim=1):
            each = (scores - scores.gather(1, column) + MARGIN).relu() * negative
            total, count = total + each.sum(), count + (each > 0).sum()
        return total / count.clamp_min(1)

    return _form(loss, 60, distances=True)
