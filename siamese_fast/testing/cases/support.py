"""Cases of look-up: nearest supports and scores per class, supports as rows or prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.testing.case import CASES, Case, Draw, Inputs, Options, Size, register
from siamese_fast.testing.extremes import EXACT_METRICS, check_ranked, is_integral, mining_values, uncertainty
from siamese_fast.testing.formulas import (
    pair_scores,
    pair_terms,
    plain_matrix,
    scores_of,
    slope_terms,
    through_unit,
    unit_rows,
)

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
CLASSES = 7


def _queries(draw: Draw, size: Size) -> Inputs:
    q, s = draw.rows(size.rows, size.depth), draw.rows(size.others, size.depth)
    shared = min(size.rows, size.others) // 3
    q[:shared] = s[:shared]
    s[size.others // 2 : size.others // 2 + size.others // 4] = s[: size.others // 4]
    return {"q": q, "s": s}


def _queries_and_head(draw: Draw, size: Size) -> Inputs:
    return {**_queries(draw, size), "weight": draw.weight(size.depth), "bias": draw.scalar()}


def _classified(make: Callable[[Draw, Size], Inputs]) -> Callable[[Draw, Size], Inputs]:
    """With class numbers; the last class stays empty."""
    return lambda draw, size: {**make(draw, size), "class_index": draw.labels(size.others, CLASSES - 1)}


def _metric(inputs: Inputs, options: Options) -> str:
    return "koch" if "weight" in inputs else options.get("metric", "euclidean")


def _head(inputs: Inputs) -> tuple[Tensor | None, Tensor | None]:
    return inputs.get("weight"), inputs.get("bias")


def _at_chosen(inputs: Inputs, chosen: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [Q, 1, D], the chosen supports [Q, k, D], and where there is none."""
    index, s = chosen["index"], inputs["s"]
    rows = s[index.clamp_min(0)] if s.shape[0] else s.new_zeros(*index.shape, s.shape[1])
    return inputs["q"][:, None], rows, index < 0


def _nearest(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    q, rows, missing = _at_chosen(inputs, chosen)
    return (pair_scores(q, rows, _metric(inputs, options), *_head(inputs)).masked_fill(missing, -torch.inf),)


def _nearest_terms(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    q, rows, _ = _at_chosen(inputs, chosen)
    metric = _metric(inputs, options)
    return (pair_terms(q, rows, metric, *_head(inputs)) + (metric == "cosine"),)


def _check_nearest(inputs: Inputs, options: Options, chosen: Inputs, label: str) -> None:
    metric, index = _metric(inputs, options), chosen["index"]
    values, terms, torch_error = mining_values(inputs["q"].double(), inputs["s"].double(), metric, inputs)
    exactly = is_integral(inputs) and metric in (*EXACT_METRICS, "koch")
    bound = uncertainty(inputs, terms, torch_error)
    check_ranked(index, values, bound, torch.ones_like(values, dtype=torch.bool), exactly, f"{label}index")
    ahead, behind = chosen["scores"][:, :-1], chosen["scores"][:, 1:]
    assert bool((ahead >= behind).all()), f"{label}scores are not best first"


def _in_class(inputs: Inputs) -> Tensor:
    """[S, C], whether a support belongs to a class."""
    return inputs["class_index"][:, None] == torch.arange(CLASSES)


def _prototypes(inputs: Inputs, metric: str) -> tuple[Tensor, Tensor]:
    """Class means [C, D] and the terms of their elements."""
    s = unit_rows(inputs["s"]) if metric == "cosine" else inputs["s"]
    member = _in_class(inputs).to(s)
    count = member.sum(0).clamp_min(1)[:, None]
    return member.T @ s / count, member.T @ s.abs() / count


def _class_scores(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    metric, q = _metric(inputs, options), inputs["q"]
    if options["reduce"] == "prototype":
        prototypes = _prototypes(inputs, metric)[0]
        scores = pair_scores(q[:, None], prototypes[None], metric, *_head(inputs))
        return (scores.masked_fill(~_in_class(inputs).any(0), -torch.inf),)
    scores = pair_scores(q[:, None], inputs["s"][None], metric, *_head(inputs))
    return (_reduced(scores, inputs, options),)


def _plain_class_scores(inputs: Inputs, options: Options, chosen: Inputs) -> tuple[Tensor, ...]:
    metric = _metric(inputs, options)
    if options["reduce"] == "prototype" or metric == "koch":
        return _class_scores(inputs, options, chosen)
    return (_reduced(scores_of(plain_matrix(inputs["q"], inputs["s"], metric), metric), inputs, options),)


def _reduced(scores: Tensor, inputs: Inputs, options: Options) -> Tensor:
    """The best or the mean score [Q, C] of each class; -inf for an empty one."""
    member = _in_class(inputs)
    none = scores.new_full((scores.shape[0], 1, CLASSES), -torch.inf)
    best = torch.cat([scores[:, :, None].masked_fill(~member, -torch.inf), none], 1).amax(1)
    if options["reduce"] == "max":
        return best
    mean = torch.where(member, scores[:, :, None], 0.0).sum(1) / member.sum(0).clamp_min(1)
    return torch.where(member.any(0), mean, best)


def _class_terms(inputs: Inputs, options: Options, _: Inputs) -> tuple[Tensor, ...]:
    metric, member = _metric(inputs, options), _in_class(inputs)
    q, s = inputs["q"], inputs["s"]
    if options["reduce"] == "prototype":
        return (_prototype_terms(inputs, metric),)
    terms = pair_terms(q[:, None], s[None], metric, *_head(inputs)) + (metric == "cosine")
    if options["reduce"] == "mean":
        return (terms @ member.to(terms) / member.sum(0).clamp_min(1),)
    none = terms.new_zeros(terms.shape[0], 1, CLASSES)
    return (torch.cat([terms[:, :, None] * member, none], 1).amax(1),)


def _prototype_terms(inputs: Inputs, metric: str) -> Tensor:
    """Terms of the score, and what the rounding of the prototype itself adds through the score's slope."""
    q, (prototypes, sizes) = inputs["q"], _prototypes(inputs, metric)
    score = pair_terms(q[:, None], prototypes[None], metric, *_head(inputs)) + (metric == "cosine")
    if metric == "koch":
        return score + sizes @ inputs["weight"].abs()
    if metric == "cosine":
        sizes, q, prototypes = through_unit(sizes, prototypes), unit_rows(q), unit_rows(prototypes)
    return score + (slope_terms(q[:, None], prototypes[None], metric)[1] * sizes).sum(-1)


def _prepared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The look-up with its supports prepared first."""

    def call(q: Tensor, s: Tensor, **rest: Any) -> Any:
        kept = {
            name: rest.pop(name)
            for name in ("metric", "weight", "bias", "class_index", "num_classes")
            if name in rest
        }
        return function(q, ops.prepare_support(s, **kept), **rest)

    return call


register(
    Case(
        name="nearest_support",
        function=ops.nearest_support,
        make=_queries,
        variants={
            **{metric: {"metric": metric} for metric in METRICS},
            **{f"{metric}-top5": {"metric": metric, "k": 5} for metric in METRICS},
        },
        truth=_nearest,
        terms=_nearest_terms,
        chosen=lambda outputs, inputs, options: {"scores": outputs[0], "index": outputs[1]},
        inspect=_check_nearest,
    )
)
register(
    Case(
        name="class_scores",
        function=ops.class_scores,
        make=_classified(_queries),
        variants={
            f"{metric}-{reduce}": {"metric": metric, "reduce": reduce, "num_classes": CLASSES}
            for metric in METRICS
            for reduce in ("max", "mean", "prototype")
        },
        truth=_class_scores,
        plain=_plain_class_scores,
        terms=_class_terms,
    )
)
HEADS: dict[str, dict[str, Options]] = {"nearest_support": {"best": {}, "top5": {"k": 5}}}
HEADS["class_scores"] = {
    reduce: {"reduce": reduce, "num_classes": CLASSES} for reduce in ("max", "mean", "prototype")
}
for _name in ("nearest_support", "class_scores"):
    _case = CASES[_name]
    _make = _queries_and_head if _name == "nearest_support" else _classified(_queries_and_head)
    register(replace(_case, name=f"{_name}.koch", make=_make, variants=HEADS[_name]))
    register(replace(_case, name=f"{_name}.prepared", function=_prepared(_case.function)))
    register(
        replace(
            _case,
            name=f"{_name}.prepared_koch",
            function=_prepared(_case.function),
            make=_make,
            variants=HEADS[_name],
        )
    )
