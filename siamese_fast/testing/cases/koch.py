"""Cases of the Koch head: given pairs, their cross-entropy, all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.testing.case import Case, Draw, Inputs, Options, Size, register
from siamese_fast.testing.formulas import binary_cross_entropy, pair_terms, pair_values, softplus


def _pairs(draw: Draw, size: Size) -> Inputs:
    h1, h2 = draw.rows(size.rows, size.depth), draw.rows(size.rows, size.depth)
    return {"h1": h1, "h2": h2, "weight": draw.weight(size.depth), "bias": draw.scalar()}


def _pairs_and_target(draw: Draw, size: Size) -> Inputs:
    return {**_pairs(draw, size), "target": draw.labels(size.rows, 2)}


def _all_pairs(draw: Draw, size: Size) -> Inputs:
    q, s = draw.rows(size.rows, size.depth), draw.rows(size.others, size.depth)
    return {"q": q, "s": s, "weight": draw.weight(size.depth), "bias": draw.scalar()}


def _logits(inputs: Inputs) -> Tensor:
    return pair_values(inputs["h1"], inputs["h2"], "koch", inputs["weight"], inputs["bias"])


def _logit_terms(inputs: Inputs) -> Tensor:
    return pair_terms(inputs["h1"], inputs["h2"], "koch", inputs["weight"], inputs["bias"])


def _pair_gradient_terms(size: Tensor, inputs: Inputs) -> Inputs:
    """Terms of all gradients, given those of the logits' gradients [B]."""
    rows = size[:, None] * inputs["weight"].abs()
    weight = size @ (inputs["h1"] - inputs["h2"]).abs()
    return {"h1": rows, "h2": rows, "weight": weight, "bias": size.sum()}


def _loss(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    pos_weight = options.get("pos_weight", 1.0)
    return (
        binary_cross_entropy(_logits(inputs), inputs["target"], pos_weight, options.get("reduction", "mean")),
    )


def _sides(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, and what multiplies the loss of a pair as a negative and as a positive one."""
    target = inputs["target"].to(inputs["weight"])
    return _logits(inputs), 1 - target, options.get("pos_weight", 1.0) * target


def _residual_terms(inputs: Inputs, options: Options) -> Tensor:
    logits, negative, positive = _sides(inputs, options)
    curvature = logits.sigmoid() * (-logits).sigmoid() * (negative + positive)
    return negative * logits.sigmoid() + positive * (-logits).sigmoid() + curvature * _logit_terms(inputs)


def _averaged(options: Options, count: int) -> float:
    return 1.0 / max(1, count) if options.get("reduction", "mean") == "mean" else 1.0


def _loss_terms(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    logits, negative, positive = _sides(inputs, options)
    slope = negative * logits.sigmoid() + positive * (-logits).sigmoid()
    each = negative * softplus(logits) + positive * softplus(-logits) + slope * _logit_terms(inputs)
    if options.get("reduction", "mean") == "none":
        return (each,)
    return (each.sum() * _averaged(options, each.shape[0]),)


def _loss_gradient_terms(grad: Tensor, inputs: Inputs, options: Options, _: Inputs) -> Inputs:
    size = _residual_terms(inputs, options) * grad.abs() * _averaged(options, inputs["h1"].shape[0])
    return _pair_gradient_terms(size, inputs)


def _loss_and_gradients(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    leaves = [inputs[name].detach().requires_grad_() for name in ("h1", "h2", "weight", "bias")]
    given = dict(zip(("h1", "h2", "weight", "bias"), leaves, strict=True)) | {"target": inputs["target"]}
    loss = _loss(given, options, chosen)[0]
    return (loss.detach(), *torch.autograd.grad(loss, leaves))


def _loss_and_gradient_terms(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    gradients = _loss_gradient_terms(inputs["bias"].new_ones(()), inputs, options, chosen)
    return (
        *_loss_terms(inputs, options, chosen),
        *(gradients[name] for name in ("h1", "h2", "weight", "bias")),
    )


def _matrix(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    return (pair_values(inputs["q"][:, None], inputs["s"][None], "koch", inputs["weight"], inputs["bias"]),)


def _matrix_terms(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    q, s, weight, bias = inputs["q"][:, None], inputs["s"][None], inputs["weight"], inputs["bias"]
    if options.get("exact", True):
        return (pair_terms(q, s, "koch", weight, bias),)
    return ((weight.abs() * (2 * torch.maximum(q, s).abs() + q.abs() + s.abs())).sum(-1) + bias.abs(),)


def _matrix_gradient_terms(grad: Tensor, inputs: Inputs, options: Options, _: Inputs) -> Inputs:
    """The weight's terms are those of its O((Q + S) D) form, centred on the column means of `s`."""
    q, s, size, weight = inputs["q"], inputs["s"], grad.abs(), inputs["weight"].abs()
    centre = s.mean(0) if s.shape[0] else s.new_zeros(s.shape[1])
    of_weight = (size.sum(1)[:, None] * (q - centre).abs()).sum(0) + (
        size.sum(0)[:, None] * (s - centre).abs()
    ).sum(0)
    return {
        "q": size.sum(1)[:, None] * weight,
        "s": size.sum(0)[:, None] * weight,
        "weight": of_weight,
        "bias": size.sum(),
    }


PARAMETERS = ("weight", "bias")

register(
    Case(
        name="l1_similarity",
        function=ops.l1_similarity,
        make=_pairs,
        variants={"koch": {}},
        truth=lambda inputs, options, chosen: (_logits(inputs),),
        terms=lambda inputs, options, chosen: (_logit_terms(inputs),),
        gradient_terms=lambda grad, inputs, options, chosen: _pair_gradient_terms(grad.abs(), inputs),
        differentiable=("h1", "h2", *PARAMETERS),
    )
)
register(
    Case(
        name="l1_similarity_bce",
        function=ops.l1_similarity_bce,
        make=_pairs_and_target,
        variants={
            "mean": {},
            "sum": {"reduction": "sum"},
            "none": {"reduction": "none", "pos_weight": 2.5},
        },
        truth=_loss,
        terms=_loss_terms,
        gradient_terms=_loss_gradient_terms,
        differentiable=("h1", "h2", *PARAMETERS),
    )
)
register(
    Case(
        name="l1_similarity_bce_grad",
        function=ops.l1_similarity_bce_grad,
        make=_pairs_and_target,
        variants={"mean": {}, "sum": {"reduction": "sum", "pos_weight": 0.5}},
        truth=_loss_and_gradients,
        terms=_loss_and_gradient_terms,
    )
)
register(
    Case(
        name="l1_similarity_matrix",
        function=ops.l1_similarity_matrix,
        make=_all_pairs,
        variants={"exact": {}, "fast": {"exact": False}},
        truth=_matrix,
        terms=_matrix_terms,
        gradient_terms=_matrix_gradient_terms,
        differentiable=("q", "s", *PARAMETERS),
    )
)
