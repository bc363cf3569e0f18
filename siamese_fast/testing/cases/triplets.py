"""Cases of mining and of the triplet losses; losses are held to the truth at the triplets that were mined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.ops import _metrics
from siamese_fast.testing.case import CASES, Case, Draw, Inputs, Options, Size, register
from siamese_fast.testing.extremes import check_hardest
from siamese_fast.testing.formulas import (
    LEFT_OUT,
    hinge,
    pair_terms,
    pair_values,
    slope_terms,
    through_unit,
    unit_rows,
)

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
FORMS: dict[str, Options] = {
    **{metric: {"metric": metric, "reduction": "none"} for metric in METRICS},
    **{f"{metric}-unit": {"metric": metric, "normalize": True, "margin": 0.1} for metric in METRICS},
    "soft-margin": {"margin": None},
    "smooth": {"smooth": True, "metric": "sqeuclidean", "reduction": "sum", "margin": 0.5},
    "mean-nonzero": {"reduction": "mean_nonzero", "metric": "cosine", "margin": 0.3},
}


def batch(draw: Draw, size: Size) -> Inputs:
    labels = draw.labels(size.rows, max(2, size.rows // 4))
    x = draw.rows(size.rows, size.depth, labels)
    x[size.rows // 2 : size.rows // 2 + size.rows // 8] = x[: size.rows // 8]
    return {"x": x, "labels": labels}


def batch_and_ref(draw: Draw, size: Size) -> Inputs:
    given = batch(draw, size)
    ref_labels = draw.labels(size.others, max(2, size.rows // 4))
    ref = draw.rows(size.others, size.depth, ref_labels)
    own = torch.randint(-1, max(1, size.others), (size.rows,), generator=draw.generator)
    return {**given, "ref": ref, "ref_labels": ref_labels, "self_index": own.clamp_max(size.others - 1)}


def _three(draw: Draw, size: Size) -> Inputs:
    return {name: draw.rows(size.rows, size.depth) for name in ("anchor", "positive", "negative")}


def _indices(draw: Draw, size: Size) -> Inputs:
    """Triplets of three different rows, but for the first, whose positive is its anchor."""
    count = size.others if size.rows else 0

    def pick(rows: int) -> Tensor:
        return torch.randint(0, max(1, rows), (count,), generator=draw.generator)

    anchor = pick(size.rows)
    index = {"anchor": anchor}
    for name in ("positive", "negative"):
        index[name] = (anchor + 1 + pick(size.rows - 1)) % max(1, size.rows)
    index["positive"][:1] = anchor[:1]
    return {**index, "embeddings": draw.rows(size.rows, size.depth)}


def _indices_and_ref(draw: Draw, size: Size) -> Inputs:
    inputs = _indices(draw, size)
    if size.rows and size.others:
        for name in ("positive", "negative"):
            inputs[name] = inputs[name] % size.others
    return {**inputs, "ref": draw.rows(size.others, size.depth)}


def _mined(outputs: Any, inputs: Inputs, options: Options) -> Inputs:
    """The triplets that the loss mined: it mines what `hardest_pairs` finds in the rows it was given."""
    given = {name: value.detach() for name, value in inputs.items()}
    if options.get("normalize") and options["metric"] != "cosine":
        for name in ("x", "ref"):
            if name in given:
                given[name] = _metrics.unit_rows(given[name])
    positive, negative = ops.hardest_pairs(**given, metric=options.get("metric", "euclidean"))
    return {"anchor": torch.arange(len(positive)), "positive": positive, "negative": negative}


def _ranked(outputs: Any, inputs: Inputs, options: Options) -> Inputs:
    """The triplets of `ranked_triplet_loss`: every chosen positive with every chosen negative."""
    given: dict[str, Any] = {name: value.detach() for name, value in inputs.items()}
    for name in ("x", "ref"):
        if name in given and options["metric"] == "cosine":
            given[name] = _metrics.unit_rows(given[name])
    wanted = ("positive", "negative", "positives", "negatives")
    strategy = {name: options[name] for name in wanted if name in options}
    metric = "dot" if options["metric"] == "cosine" else options["metric"]
    positive, negative = ops.ranked_pairs(**given, metric=metric, **strategy)
    every = torch.cartesian_prod(torch.arange(positive.shape[1]), torch.arange(negative.shape[1]))
    every = every.view(-1, 2)
    return {
        "anchor": torch.arange(len(positive)).repeat_interleave(len(every)),
        "positive": positive[:, every[:, 0]].flatten(),
        "negative": negative[:, every[:, 1]].flatten(),
    }


def _tables(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Rows that anchors and rows that positives and negatives are taken from."""
    x = inputs["x"] if "x" in inputs else inputs["embeddings"]
    return x, inputs.get("ref", x)


def _gather(table: Tensor, index: Tensor) -> Tensor:
    return table[index.clamp_min(0)] if table.shape[0] else table.new_zeros(index.shape[0], table.shape[1])


def _unit(options: Options) -> bool:
    return bool(options.get("normalize")) or options.get("metric") == "cosine"


def _operands(inputs: Inputs, options: Options, index: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    if "embeddings" not in inputs and "x" not in inputs:
        rows = [inputs[name] for name in ("anchor", "positive", "negative")]
        a, p, n = (unit_rows(row) if _unit(options) else row for row in rows)
        return a, p, n
    x, table = _tables(inputs)
    if _unit(options):
        x, table = unit_rows(x), unit_rows(table)
    return _gather(x, index["anchor"]), _gather(table, index["positive"]), _gather(table, index["negative"])


class _Triplets(NamedTuple):
    violation: Tensor
    losses: Tensor
    valid: Tensor
    share: float
    """What the reduction multiplies each loss by."""


def _evaluate(inputs: Inputs, options: Options, chosen: Inputs) -> _Triplets:
    index = chosen or inputs
    a, p, n = _operands(inputs, options, index)
    metric, margin = options.get("metric", "euclidean"), options.get("margin", 0.2)
    violation = pair_values(a, p, metric) - pair_values(a, n, metric) + (margin or 0.0)
    valid = torch.ones_like(violation, dtype=torch.bool)
    if chosen:
        valid = (chosen["positive"] >= 0) & (chosen["negative"] >= 0)
    losses = torch.where(valid, hinge(violation, options.get("smooth", False) or margin is None), 0.0)
    averaged = {"mean": int(valid.sum()), "mean_nonzero": int((losses > 0).sum())}
    return _Triplets(
        violation, losses, valid, 1.0 / max(1, averaged.get(options.get("reduction", "mean"), 1))
    )


def _loss(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    found = _evaluate(inputs, options, chosen)
    return (found.losses if options.get("reduction") == "none" else found.losses.sum() * found.share,)


def _violation_terms(inputs: Inputs, options: Options, chosen: Inputs) -> Tensor:
    a, p, n = _operands(inputs, options, chosen or inputs)
    metric, unit = options.get("metric", "euclidean"), _unit(options)
    margin = abs(options.get("margin", 0.2) or 0.0)
    terms: Tensor = pair_terms(a, p, metric, unit=unit) + pair_terms(a, n, metric, unit=unit) + margin
    return terms


def _loss_terms(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    found = _evaluate(inputs, options, chosen)
    each = torch.where(found.valid, found.losses + _violation_terms(inputs, options, chosen), 0.0)
    return (each if options.get("reduction") == "none" else each.sum() * found.share,)


def _coefficients(grad: Tensor, inputs: Inputs, options: Options, chosen: Inputs) -> Tensor:
    """Terms of each triplet's slope; a triplet beside the kink of its hinge is left out."""
    found, terms = _evaluate(inputs, options, chosen), _violation_terms(inputs, options, chosen)
    if options.get("smooth") or options.get("margin", 0.2) is None:
        slope = found.violation.sigmoid()
        size = slope + slope * (1 - slope) * terms
    else:
        near = found.violation.abs() <= 16 * torch.finfo(torch.float32).eps * terms
        size = torch.where(near, LEFT_OUT, (found.violation > 0).double())
    return torch.where(found.valid, size * grad.abs() * found.share, 0.0)


def _gradient_terms(grad: Tensor, inputs: Inputs, options: Options, chosen: Inputs) -> Inputs:
    coefficient = _coefficients(grad, inputs, options, chosen)[:, None]
    a, p, n = _operands(inputs, options, chosen or inputs)
    metric, unit = options.get("metric", "euclidean"), _unit(options)
    near_a, near_p = slope_terms(a, p, metric, unit=unit)
    far_a, far_n = slope_terms(a, n, metric, unit=unit)
    sizes = {
        "anchor": coefficient * (near_a + far_a),
        "positive": coefficient * near_p,
        "negative": coefficient * far_n,
    }
    if "x" not in inputs and "embeddings" not in inputs:
        return {name: through_unit(size, inputs[name]) if unit else size for name, size in sizes.items()}
    index = chosen or inputs
    x, table = _tables(inputs)
    of_x, of_table = torch.zeros_like(x), torch.zeros_like(table)
    of_x.index_add_(0, index["anchor"], sizes["anchor"])
    if table.shape[0]:
        for name in ("positive", "negative"):
            of_table.index_add_(0, index[name].clamp_min(0), sizes[name])
    if "ref" not in inputs:
        of_x += of_table
    name = "x" if "x" in inputs else "embeddings"
    found = {name: (of_x, x), "ref": (of_table, table)}
    return {name: through_unit(size, rows) if unit else size for name, (size, rows) in found.items()}


register(
    Case(
        name="hardest_pairs",
        function=ops.hardest_pairs,
        make=batch,
        variants={metric: {"metric": metric} for metric in METRICS},
        truth=lambda inputs, options, chosen: (),
        terms=lambda inputs, options, chosen: (),
        chosen=lambda outputs, inputs, options: {"positive": outputs[0], "negative": outputs[1]},
        inspect=check_hardest,
    )
)
register(replace(CASES["hardest_pairs"], name="hardest_pairs.ref", make=batch_and_ref))
register(
    Case(
        name="batch_hard_triplet_loss",
        function=ops.batch_hard_triplet_loss,
        make=batch,
        variants=FORMS,
        truth=_loss,
        terms=_loss_terms,
        gradient_terms=_gradient_terms,
        differentiable=("x", "ref"),
        chosen=_mined,
    )
)
register(replace(CASES["batch_hard_triplet_loss"], name="batch_hard_triplet_loss.ref", make=batch_and_ref))
register(
    Case(
        name="ranked_triplet_loss",
        function=ops.ranked_triplet_loss,
        make=batch,
        variants={
            "easiest": {"metric": "cosine", "margin": 0.1, "positive": "easiest", "negative": "semi_hard"},
            "hardest": {
                "metric": "euclidean",
                "positive": "hardest",
                "negative": "hardest",
                "positives": 2,
                "negatives": 3,
                "reduction": "sum",
            },
        },
        truth=_loss,
        terms=_loss_terms,
        gradient_terms=_gradient_terms,
        differentiable=("x", "ref"),
        chosen=_ranked,
    )
)
register(
    Case(
        name="triplet_loss.rows",
        function=ops.triplet_loss,
        make=_three,
        variants=FORMS,
        truth=_loss,
        terms=_loss_terms,
        gradient_terms=_gradient_terms,
        differentiable=("anchor", "positive", "negative"),
    )
)
register(
    Case(
        name="triplet_loss.index",
        function=ops.triplet_loss,
        make=_indices,
        variants=FORMS,
        truth=_loss,
        terms=_loss_terms,
        gradient_terms=_gradient_terms,
        differentiable=("embeddings", "ref"),
    )
)
register(replace(CASES["triplet_loss.index"], name="triplet_loss.ref", make=_indices_and_ref))
