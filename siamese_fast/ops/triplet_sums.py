"""Sums over the triplets of a batch, a rule saying which: every rule is a function of scores, and this
engine runs it.

    loss_a = sum over the rule's triplets (a, p, n) of hinge(s_an - s_ap + margin),    scores s larger for
    nearer rows

Peers list the triplets, or build N x N x N. Here a pass over blocks of scores finds each anchor's sum and,
where a gradient will be wanted, that of the plain sum too: reductions only scale it. O(N D) memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops.pair_loss import (
    REDUCTIONS,
    finite,
    prepared,
    product_gradients,
    score_block,
    score_matrix,
    share,
)
from siamese_fast.ops.relations import EVERY_ROW, Choice, masks, own_columns, pair_counts
from siamese_fast.ops.statistics import Statistics, spread

Evaluated = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class TripletRule:
    """Which triplets of some anchors count, by their scores [n, M] and masks of positives and negatives.

    Attributes:
        name: also that of the C++ kernel.
        losses: `(scores, positive, negative, margin, hinge)` -> losses [n], differentiable; the number of
            triplets above 0 [n]; sums [2, n] of the scores of positives and of negatives.
        slopes: the same arguments -> d loss / d score [n, M].
        terms: `(positives, negatives)`, numbers of them [n] -> triplets of the rule [n].
        summed: the same -> how many scores each of the sums is of, two [n].
    """

    name: str
    losses: Callable[[Tensor, Tensor, Tensor, float, str], Evaluated]
    slopes: Callable[[Tensor, Tensor, Tensor, float, str], Tensor]
    terms: Callable[[Tensor, Tensor], Tensor]
    summed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


RULES: dict[str, TripletRule] = {}


def register(rule: TripletRule) -> str:
    RULES[rule.name] = rule
    return rule.name


def triplet_sums_loss(
    rule: str,
    x: Tensor,
    labels: Tensor | None,
    margin: float | None,
    metric: str,
    normalize: bool,
    smooth: bool,
    reduction: str,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    choice: Choice = EVERY_ROW,
    statistics: Statistics | None = None,
) -> Tensor:
    """The loss of arguments as users give them."""
    check.choice("reduction", reduction, REDUCTIONS)
    hinge = "softplus" if smooth or margin is None else "relu"
    number = 0.0 if margin is None else finite("margin", margin)
    operands = prepared(x, labels, metric, normalize, ref, ref_labels, self_index, choice)
    losses, counts, sums = triplet_losses(*operands, number, metric, rule, hinge, choice.ignore_label)
    if reduction == "mean" or statistics is not None:
        kinds = pair_counts(operands[1], *operands[3:], losses, choice.ignore_label).unbind(1)
        if statistics is not None:
            found = _statistics(RULES[rule], counts, sums, kinds, 1.0 if metric == "cosine" else 0.0)
            statistics.update({**found, "spread": spread(operands[0])})
        if reduction == "mean":
            counts = RULES[rule].terms(*kinds)
    losses = choice.weighted(losses)
    if reduction in ("none", "sum"):
        return losses if reduction == "none" else losses.sum()
    return share(losses.sum(), choice.weighted(counts).sum())


def triplet_losses(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    ignore_label: int | None = None,
) -> Evaluated:
    """Losses and numbers of triplets above 0 [N], sums of scores [2, N], of tensors as `prepared` gives
    them.
    """
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, ref))
    operands = (x, labels, ref, ref_labels, self_index)
    losses, counts, sums, *_ = _apply(*operands, margin, metric, rule, hinge, wanted, ignore_label)
    return losses, counts, sums


def _statistics(
    rule: TripletRule, counts: Tensor, sums: Tensor, kinds: tuple[Tensor, ...], identical: float
) -> Statistics:
    """As `triplet_statistics`; `identical` is the score of a row with itself where distances start from
    it.
    """
    triplets = rule.terms(*kinds).sum()
    d_ap, d_an = (
        identical - share(total, number.sum())
        for total, number in zip(sums.sum(1), rule.summed(*kinds), strict=True)
    )
    return {"triplets": triplets, "active": share(counts.sum(), triplets), "d_ap": d_ap, "d_an": d_an}


def _reference(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    with_gradient: bool,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    own = own_columns(x, ref, self_index)
    losses, counts, sums, of_x, of_ref = _empty(x, ref, False)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]):
        block = (score_block(x[rows], y, metric), *masks(labels, classes, own, rows, ignore_label))
        losses[rows], counts[rows], sums[:, rows] = RULES[rule].losses(*block, margin, hinge)
    if with_gradient:
        operands = (x, labels, ref, ref_labels, self_index)
        of_x, of_ref = _gradient(
            torch.ones_like(losses), *operands, margin, metric, rule, hinge, ignore_label
        )
    return losses, counts, sums, of_x, of_ref


def _gradient(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    ignore_label: int | None,
) -> tuple[Tensor, Tensor]:
    def coefficients(rows: slice, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return grad[rows, None] * RULES[rule].slopes(scores, positive, negative, margin, hinge)

    return product_gradients(coefficients, x, labels, ref, ref_labels, self_index, metric, ignore_label)


def _backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    sum_x: Tensor,
    sum_ref: Tensor,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    return _gradient(grad, x, labels, ref, ref_labels, self_index, margin, metric, rule, hinge, ignore_label)


def _formula(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    with_gradient: bool,
    ignore_label: int | None,
    *tape: Tensor,
) -> Tensor:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    every = masks(labels, classes, own_columns(x, ref, self_index), slice(None), ignore_label)
    return RULES[rule].losses(score_matrix(x, y, metric), *every, margin, hinge)[0]


def _empty(
    x: Tensor, ref: Tensor | None, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    losses = x.new_empty(x.shape[0])
    of_x = torch.empty_like(x) if with_gradient else x.new_empty(0)
    of_ref = x.new_empty(0) if ref is None or not with_gradient else torch.empty_like(ref)
    return losses, torch.empty_like(losses), x.new_empty(2, x.shape[0]), of_x, of_ref


_op = define(
    "triplet_sums(Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels, Tensor? self_index, float margin,"
    " str metric, str rule, str hinge, bool with_gradient,"
    " int? ignore_label=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _reference,
    lambda x, labels, ref, ref_labels, self_index, margin, metric, rule, hinge, with_gradient, *_: _empty(
        x, ref, with_gradient
    ),
)
_backward_op = define(
    "triplet_sums_backward(Tensor grad, Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels,"
    " Tensor? self_index, Tensor sum_x, Tensor sum_ref, float margin, str metric, str rule, str hinge,"
    " int? ignore_label=None) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, labels, ref, *_: _empty(x, ref, True)[3:],
)


def _gradients(grad: Tensor, inputs: tuple[object, ...], tape: tuple[Tensor, ...]) -> Grads:
    *operands, margin, metric, rule, hinge, _, ignore_label = inputs
    options = (margin, metric, rule, hinge, ignore_label)
    grad_x, grad_ref = _backward_op(grad.contiguous(), *operands, *tape, *options)
    return (grad_x, None, None if operands[2] is None else grad_ref, *(None,) * 8)


_apply = differentiable(_op, backward=_gradients, formula=_formula, tape=slice(3, 5))
