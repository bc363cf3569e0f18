"""The case of the Koch head with a hidden layer over all pairs: its plain formula on [Q, S, D] differences.

An input of the ReLU that rounding could move past 0 decides nothing: rows and hidden units beside that kink
are left out of the gradients. An input of exactly 0 is one of exact arithmetic and stays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.testing.case import Case, Draw, Inputs, Options, Size, register
from siamese_fast.testing.formulas import LEFT_OUT


def _arguments(draw: Draw, size: Size) -> Inputs:
    """More hidden units than one tile holds where the depth is 128."""
    width = 3 + size.others % 5 + (64 if size.depth == 128 else 0)
    return {
        "q": draw.rows(size.rows, size.depth),
        "s": draw.rows(size.others, size.depth),
        "hidden_weight": draw.weight(width * size.depth).view(width, size.depth),
        "hidden_bias": draw.weight(width),
        "weight": draw.weight(width),
        "bias": draw.scalar(),
    }


def _logits(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    difference = (inputs["q"][:, None] - inputs["s"][None]).abs()
    features = (difference @ inputs["hidden_weight"].T + inputs["hidden_bias"]).relu()
    return (features @ inputs["weight"] + inputs["bias"],)


class _Hidden(NamedTuple):
    """|q - s| [Q, S, D]; of the ReLU's inputs [Q, S, H]: sizes of their terms, which are above 0, which are
    undecided.
    """

    difference: Tensor
    terms: Tensor
    active: Tensor
    undecided: Tensor


def _hidden(inputs: Inputs) -> _Hidden:
    weight, bias = inputs["hidden_weight"], inputs["hidden_bias"]
    difference = (inputs["q"][:, None] - inputs["s"][None]).abs()
    values, terms = difference @ weight.T + bias, difference @ weight.abs().T + bias.abs()
    undecided = (values != 0) & (values.abs() <= 16 * torch.finfo(torch.float32).eps * terms)
    return _Hidden(difference, terms, (values > 0) | undecided, undecided)


def _terms(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    hidden = _hidden(inputs)
    return ((hidden.terms * hidden.active) @ inputs["weight"].abs() + inputs["bias"].abs(),)


def _gradient_terms(grad: Tensor, inputs: Inputs, options: Options, _: Inputs) -> Inputs:
    difference, terms, active, undecided = _hidden(inputs)
    slope = grad.abs()[:, :, None] * inputs["weight"].abs() * active
    rows = slope @ inputs["hidden_weight"].abs()
    beside_q, beside_s = (LEFT_OUT * undecided.any(2).any(side)[:, None] for side in (1, 0))
    beside = LEFT_OUT * undecided.any(0).any(0)
    return {
        "q": rows.sum(1) + beside_q,
        "s": rows.sum(0) + beside_s,
        "hidden_weight": torch.einsum("qsh,qsd->hd", slope, difference) + beside[:, None],
        "hidden_bias": slope.sum((0, 1)) + beside,
        "weight": (grad.abs()[:, :, None] * active * terms).sum((0, 1)),
        "bias": grad.abs().sum(),
    }


register(
    Case(
        name="l1_mlp_similarity_matrix",
        function=ops.l1_mlp_similarity_matrix,
        make=_arguments,
        variants={"relu": {}},
        truth=_logits,
        terms=_terms,
        gradient_terms=_gradient_terms,
        differentiable=("q", "s", "hidden_weight", "hidden_bias", "weight", "bias"),
    )
)
