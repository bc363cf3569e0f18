"""Cases of the losses over all pairs, each as its plain formula of the matrix of scores.

Errors of a score enter a loss, and the coefficient of a pair, through derivatives: terms are found by
autograd in float64 of the formula, as a function of scores that are taken as independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.testing.case import Case, Inputs, Options, register
from siamese_fast.testing.cases.triplets import batch, batch_and_ref
from siamese_fast.testing.formulas import LEFT_OUT, pair_values, softplus, through_unit, unit_rows

Losses = Callable[[Tensor, Tensor, Tensor, Options], Tensor]

PAST_CANCELLATION = 1 / 140
"""Of |x|^2 + |y|^2: squared distances below are certainly computed from differences."""

DECIDES = 16 * torch.finfo(torch.float32).eps
"""Of a score's terms: differences below decide nothing in float32."""


class Pairs(NamedTuple):
    x: Tensor
    y: Tensor
    positive: Tensor
    negative: Tensor
    scores: Tensor


def _unit(options: Options) -> bool:
    return bool(options.get("normalize")) or options["metric"] == "cosine"


def pairs_of(inputs: Inputs, options: Options) -> Pairs:
    x = inputs["x"]
    y, classes = inputs.get("ref", x), inputs.get("ref_labels", inputs["labels"])
    own = inputs["self_index"] if "ref" in inputs else torch.arange(x.shape[0])
    if _unit(options):
        x, y = unit_rows(x), unit_rows(y)
    same = inputs["labels"][:, None] == classes
    positive = same & (own[:, None] != torch.arange(y.shape[0]))
    metric = options["metric"]
    scores = x @ y.T if metric in ("dot", "cosine") else -pair_values(x[:, None], y[None], metric)
    return Pairs(x, y, positive, ~same, scores)


def _lse(exponents: Tensor, kept: Tensor) -> Tensor:
    return exponents.masked_fill(~kept, -torch.inf).logsumexp(1)


def _ntxent(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    t = s / options["temperature"]
    gap = _lse(t, negative)[:, None] - t
    each = torch.where(gap == -torch.inf, 0.0, softplus(torch.where(gap == -torch.inf, 0.0, gap)))
    return torch.where(positive, each, 0.0).sum(1)


def _supcon(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    t, count = s / options["temperature"], positive.sum(1)
    mean = torch.where(positive, t, 0.0).sum(1) / count.clamp_min(1)
    return torch.where(count > 0, torch.where(count > 0, _lse(t, positive | negative), 0.0) - mean, 0.0)


def _contrastive(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    distances = 1 - s if options["metric"] == "cosine" else -s
    pull = (distances - options["pos_margin"]).clamp_min(0)
    push = (options["neg_margin"] - distances).clamp_min(0)
    return torch.where(positive, pull, 0.0).sum(1) + torch.where(negative, push, 0.0).sum(1)


def _multi_similarity(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    alpha, beta, base = (options[name] for name in ("alpha", "beta", "base"))
    pull, push = _lse(alpha * (base - s), positive), _lse(beta * (s - base), negative)
    zero = torch.zeros_like(pull)
    total: Tensor = torch.logaddexp(pull, zero) / alpha + torch.logaddexp(push, zero) / beta
    return total


def _circle(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    margin, gamma = options["margin"], options["gamma"]
    pull = _lse(-gamma * (1 + margin - s).clamp_min(0) * (s - 1 + margin), positive)
    push = _lse(gamma * (s + margin).clamp_min(0) * (s - margin), negative)
    valid = positive.any(1) & negative.any(1)
    return torch.where(valid, softplus(torch.where(valid, pull, 0.0) + torch.where(valid, push, 0.0)), 0.0)


def _circle_loss(*, metric: str, **given: Any) -> Tensor:
    """The operation, which knows no metric but the cosine."""
    assert metric == "cosine"
    return ops.circle_loss(**given)


def _reduced(losses: Tensor, pairs: Pairs, options: Options) -> Tensor:
    """Of losses [N]; a mean is over positive pairs, or over all triplets."""
    if options["reduction"] == "none":
        return losses
    counts = pairs.positive.sum(1) * (pairs.negative.sum(1) if "margin" in options else 1)
    return losses.sum() / (counts.sum().clamp_min(1) if options["reduction"] == "mean" else 1)


def score_terms(pairs: Pairs, options: Options) -> Tensor:
    x, y, metric = pairs.x, pairs.y, options["metric"]
    if metric in ("dot", "cosine"):
        return 4 * (x.abs() @ y.abs().T) + pairs.scores.abs()
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    square = pairs.scores.abs() if metric == "sqeuclidean" else pairs.scores.square()
    exact = (square < PAST_CANCELLATION * norms) & (not _unit(options))
    terms = torch.where(exact, 4 * square, 4 * norms + square)
    if metric == "sqeuclidean":
        return terms
    distance = square.sqrt()
    return torch.where(distance == 0, 0.0, terms / torch.where(distance == 0, 1.0, 2 * distance)) + distance


def _most(terms: Tensor) -> Tensor:
    return terms.amax(1, keepdim=True) if terms.shape[1] else terms.new_zeros(terms.shape[0], 1)


def _coefficients(losses: Losses, pairs: Pairs, options: Options, grad: Tensor) -> Tensor:
    """|d loss / d score| for an upstream gradient, [N, M]."""
    with torch.enable_grad():
        scores = pairs.scores.detach().requires_grad_()
        loss = _reduced(losses(scores, pairs.positive, pairs.negative, options), pairs, options)
        (found,) = torch.autograd.grad((loss * grad.abs()).sum(), scores, allow_unused=True)
    return torch.zeros_like(scores) if found is None else found.abs()


def decided(pairs: Pairs, options: Options, terms: Tensor) -> tuple[Tensor, Tensor]:
    """For a formula without kinks: no pair is beside one, no row's loss undecided."""
    return torch.zeros_like(pairs.positive), pairs.positive.new_zeros(pairs.positive.shape[0])


def _beside_margins(pairs: Pairs, options: Options, terms: Tensor) -> tuple[Tensor, Tensor]:
    near, rows = decided(pairs, options, terms)
    distances = 1 - pairs.scores if options["metric"] == "cosine" else -pairs.scores
    for kind, margin in ((pairs.positive, "pos_margin"), (pairs.negative, "neg_margin")):
        near |= kind & ((distances - options[margin]).abs() <= DECIDES * (terms + 1))
    return near, rows


def pair_case(
    name: str,
    function: Callable[..., Tensor],
    losses: Losses,
    sharpness: Callable[[Options], float],
    undecided: Callable[[Pairs, Options, Tensor], tuple[Tensor, Tensor]] = decided,
) -> Case:
    """`sharpness`: how much exponents grow with a score, 0 for sums of hinges. `undecided`: the pairs whose
    coefficient, and the rows whose loss, float32 does not decide, given the terms of the scores.
    """

    def truth(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
        pairs = pairs_of(inputs, options)
        return (_reduced(losses(pairs.scores, pairs.positive, pairs.negative, options), pairs, options),)

    def terms(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
        pairs, sharp = pairs_of(inputs, options), sharpness(options)
        each = score_terms(pairs, options)
        each = each + _most(each) + 8 / sharp if sharp else each + 1
        coefficients = _coefficients(losses, pairs, {**options, "reduction": "none"}, each.new_ones(()))
        value = losses(pairs.scores, pairs.positive, pairs.negative, options)
        size = (coefficients * each).sum(1) + 8 * value
        size = torch.where(undecided(pairs, options, each)[1], LEFT_OUT, size)
        return (_reduced(size, pairs, options),)

    def gradient_terms(grad: Tensor, inputs: Inputs, options: Options, _: Inputs) -> Inputs:
        pairs, sharp, metric = pairs_of(inputs, options), sharpness(options), options["metric"]
        each = score_terms(pairs, options)
        size = 4 + sharp * (each + _most(each))
        if metric == "euclidean":
            distance = torch.where(pairs.scores == 0, 1.0, -pairs.scores)
            size = torch.where(pairs.scores == 0, 0.0, (size + each / distance) / distance)
        size = _coefficients(losses, pairs, options, grad) * size
        size = torch.where(undecided(pairs, options, each)[0], LEFT_OUT, size)
        x, y = pairs.x.abs(), pairs.y.abs()
        of_x, of_y = size @ y, size.T @ x
        if metric in ("euclidean", "sqeuclidean"):
            of_x, of_y = of_x + size.sum(1)[:, None] * x, of_y + size.sum(0)[:, None] * y
            of_x, of_y = 2 * of_x, 2 * of_y
        found = {"x": of_x, "ref": of_y} if "ref" in inputs else {"x": of_x + of_y}
        return {k: through_unit(v, inputs[k]) if _unit(options) else v for k, v in found.items()}

    return Case(
        name=name,
        function=function,
        make=batch,
        variants={},
        truth=truth,
        terms=terms,
        gradient_terms=gradient_terms,
        differentiable=("x", "ref"),
    )


def register_variants(case: Case, variants: dict[str, Options], with_ref: tuple[str, ...] = ()) -> None:
    register(replace(case, variants=variants))
    if with_ref:
        chosen = {name: variants[name] for name in with_ref}
        register(replace(case, name=f"{case.name}.ref", make=batch_and_ref, variants=chosen))


register_variants(
    pair_case("ntxent_loss", ops.ntxent_loss, _ntxent, lambda options: 1 / options["temperature"]),
    {
        "cosine": {"metric": "cosine", "temperature": 0.2, "reduction": "none"},
        "dot": {"metric": "dot", "temperature": 4.0, "reduction": "mean"},
        "euclidean": {"metric": "euclidean", "temperature": 1.0, "reduction": "sum"},
        "sqeuclidean": {"metric": "sqeuclidean", "temperature": 8.0, "reduction": "none"},
    },
    with_ref=("cosine",),
)
register_variants(
    pair_case("supcon_loss", ops.supcon_loss, _supcon, lambda options: 1 / options["temperature"]),
    {
        "cosine": {"metric": "cosine", "temperature": 0.2, "reduction": "none"},
        "euclidean-unit": {
            "metric": "euclidean",
            "normalize": True,
            "temperature": 0.5,
            "reduction": "sum",
        },
    },
    with_ref=("cosine",),
)
register_variants(
    pair_case("contrastive_loss", ops.contrastive_loss, _contrastive, lambda options: 0.0, _beside_margins),
    {
        "euclidean": {"metric": "euclidean", "pos_margin": 0.3, "neg_margin": 3.3, "reduction": "none"},
        "cosine": {"metric": "cosine", "pos_margin": 0.1, "neg_margin": 0.9, "reduction": "sum"},
    },
    with_ref=("euclidean",),
)
register_variants(
    pair_case(
        "multi_similarity_loss", ops.multi_similarity_loss, _multi_similarity, lambda o: float(o["beta"])
    ),
    {"cosine": {"metric": "cosine", "alpha": 2.0, "beta": 10.0, "base": 0.5, "reduction": "none"}},
)
register_variants(
    pair_case("circle_loss", _circle_loss, _circle, lambda options: 4.0 * options["gamma"]),
    {
        "cosine": {
            "metric": "cosine",
            "margin": 0.4,
            "gamma": 6.0,
            "constant_weights": False,
            "reduction": "none",
        }
    },
)
