"""Losses over all pairs of rows: every loss of this kind is a `Formula` of scores, and this engine runs it.

    score s_ij: x_i . y_j for "dot", the cosine for "cosine", -|x_i - y_j|^2 for "sqeuclidean", -|x_i - y_j|
        for "euclidean"
    loss_ic = formula(s_i1 .. s_iM, which of them are positives and which negatives), c its components

Peers build the [N, M] scores and several masks and copies of that size. Here blocks of scores live in cache:
one pass keeps a few numbers a row (a logarithm of a sum of exponentials, sums, counts), the backward pass
makes the scores again, turns them into the coefficients d loss / d score and multiplies these with the
rows:
O((N + M) D) memory. Each row has one writer and blocks come in a fixed order: same bits at any thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops.relations import EVERY_ROW, Choice, masks, own_columns

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot")
FLOAT32_MAX = torch.finfo(torch.float32).max
REDUCTIONS = ("none", "mean", "sum", "mean_nonzero")

Parameters = list[float]
Evaluated = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Formula:
    """What a loss makes of the scores of some rows [n, M] and the masks of their positives and negatives.

    Attributes:
        name: also that of the C++ formula.
        components: losses a row has.
        fields: numbers a row keeps for the backward pass.
        losses: `(scores, positive, negative, parameters)` -> losses [n, components], differentiable; counts
            of their terms [n, components]; statistics [n, fields].
        slopes: `(scores, positive, negative, statistics, parameters)` -> d loss / d score [n, M] of each
            component.
    """

    name: str
    components: int
    fields: int
    losses: Callable[[Tensor, Tensor, Tensor, Parameters], Evaluated]
    slopes: Callable[[Tensor, Tensor, Tensor, Tensor, Parameters], tuple[Tensor, ...]]


FORMULAS: dict[str, Formula] = {}


def register(formula: Formula) -> str:
    FORMULAS[formula.name] = formula
    return formula.name


def pair_losses(
    formula: str,
    parameters: Parameters,
    x: Tensor,
    labels: Tensor | None,
    metric: str,
    normalize: bool,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    choice: Choice = EVERY_ROW,
) -> tuple[Tensor, Tensor]:
    """Losses and counts [N, components] of arguments as users give them; pairs are with `ref`, or among `x`
    without a row and itself.
    """
    operands = prepared(x, labels, metric, normalize, ref, ref_labels, self_index, choice)
    return losses_of_prepared(*operands, formula, metric, parameters, choice.ignore_label)


def prepared(
    x: Tensor,
    labels: Tensor | None,
    metric: str,
    normalize: bool,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    choice: Choice = EVERY_ROW,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The tensors as kernels take them: checked, in the compute dtype, of unit length where that is asked."""
    check.choice("metric", metric, METRICS)
    x, labels, ref, ref_labels, self_index = choice.related(x, labels, ref, ref_labels, self_index)
    compute = check.compute_dtype(x.dtype)
    unit = normalize or metric == "cosine"
    x = metrics.unit_rows(x) if unit else x.to(compute)
    if ref is not None:
        ref = metrics.unit_rows(ref) if unit else ref.to(compute)
    return x, labels, ref, ref_labels, self_index


def reduce_rows(losses: Tensor, counts: Tensor, reduction: str, choice: Choice = EVERY_ROW) -> Tensor:
    """`losses` [N] over `counts` [N] terms each: "mean" over all terms, "mean_nonzero" over the rows above
    0; each by its weight.
    """
    weighted = choice.weighted(losses)
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    terms = counts if reduction == "mean" else (losses > 0).to(losses.dtype)
    return share(weighted.sum(), choice.weighted(terms).sum())


def share(total: Tensor, terms: Tensor) -> Tensor:
    """A mean, and 0 of nothing."""
    return total / torch.where(terms > 0, terms, 1.0)


def finite(name: str, value: float, *, positive: bool = False) -> float:
    """A parameter of a formula, as a float; a positive one may be a divisor too."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or value != value or value in (float("inf"), float("-inf")) or (positive and value <= 0):
        raise ValueError(f"{name} must be a {'positive ' if positive else ''}finite number, got {value!r}")
    if abs(value) > FLOAT32_MAX or (positive and 1 / value > FLOAT32_MAX):
        inverse = f", as must 1 / {name}" if positive else ""
        raise ValueError(f"{name} must lie in the range of float32{inverse}, got {value!r}")
    return float(value)


def log_sum_exp(exponents: Tensor, kept: Tensor) -> Tensor:
    """Over the kept columns of each row, [n, 1]; -inf where there is none."""
    return exponents.masked_fill(~kept, -torch.inf).logsumexp(1, keepdim=True)


def score_block(x: Tensor, y: Tensor, metric: str) -> Tensor:
    product = metric in ("dot", "cosine")
    return -metrics.distance_block(x, y, "dot" if product else metric)


def _reference(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: Parameters,
    ignore_label: int | None = None,
) -> Evaluated:
    found = FORMULAS[formula]
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    own = own_columns(x, ref, self_index)
    losses, counts, statistics = _empty(x, formula)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]):
        positive, negative = masks(labels, classes, own, rows, ignore_label)
        losses[rows], counts[rows], kept = found.losses(
            score_block(x[rows], y, metric), positive, negative, parameters
        )
        statistics[:, rows] = kept.T
    if ignore_label is not None:
        counts.masked_fill_((labels == ignore_label)[:, None], 0)
    return losses, counts, statistics


def _backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    statistics: Tensor,
    formula: str,
    metric: str,
    parameters: Parameters,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    found = FORMULAS[formula]

    def coefficients(rows: slice, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        slopes = found.slopes(scores, positive, negative, statistics[:, rows].T, parameters)
        return sum(
            (grad[rows, number, None] * slope for number, slope in enumerate(slopes)),
            torch.zeros_like(scores),
        )

    return product_gradients(coefficients, x, labels, ref, ref_labels, self_index, metric, ignore_label)


def product_gradients(
    coefficients: Callable[[slice, Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
    ignore_label: int | None,
) -> tuple[Tensor, Tensor]:
    """Gradients in `x` and `ref` (empty without one) of a loss by its d loss / d score, which
    `coefficients(rows, scores, positive, negative)` gives for some rows.
    """
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    own = own_columns(x, ref, self_index)
    grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]):
        scores = score_block(x[rows], y, metric)
        kappa = coefficients(rows, scores, *masks(labels, classes, own, rows, ignore_label))
        if metric == "sqeuclidean":
            kappa = 2 * kappa
        if metric == "euclidean":
            kappa = torch.where(scores < 0, -kappa / torch.where(scores < 0, scores, 1.0), kappa * 0)
        grad_x[rows] += kappa @ y
        grad_y += kappa.T @ x[rows]
        if metric in ("euclidean", "sqeuclidean"):
            grad_x[rows] -= x[rows] * kappa.sum(1, keepdim=True)
            grad_y -= y * kappa.sum(0)[:, None]
    return (grad_x + grad_y, x.new_empty(0)) if ref is None else (grad_x, grad_y)


def score_matrix(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """All scores [N, M], differentiable to any order."""
    if metric in ("dot", "cosine"):
        return x @ y.T
    return -metrics.distance_formula(x[:, None], y[None], metric)


def _formula(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: Parameters,
    ignore_label: int | None,
) -> Tensor:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    positive, negative = masks(labels, classes, own_columns(x, ref, self_index), slice(None), ignore_label)
    scores = score_matrix(x, y, metric)
    return FORMULAS[formula].losses(scores, positive, negative, parameters)[0]


def _empty(x: Tensor, formula: str) -> Evaluated:
    found, rows = FORMULAS[formula], x.shape[0]
    losses = x.new_empty(rows, found.components)
    return losses, torch.empty_like(losses), x.new_empty(found.fields, rows)


_op = define(
    "pair_loss(Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels, Tensor? self_index, str formula,"
    " str metric, float[] parameters, int? ignore_label=None) -> (Tensor, Tensor, Tensor)",
    _reference,
    lambda x, labels, ref, ref_labels, self_index, formula, *_: _empty(x, formula),
)
_backward_op = define(
    "pair_loss_backward(Tensor grad, Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels,"
    " Tensor? self_index, Tensor statistics, str formula, str metric, float[] parameters,"
    " int? ignore_label=None) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, labels, ref, *_: (
        torch.empty_like(x),
        x.new_empty(0) if ref is None else torch.empty_like(ref),
    ),
)


def _gradients(grad: Tensor, inputs: tuple[object, ...], tape: tuple[Tensor, ...]) -> Grads:
    x, labels, ref, ref_labels, self_index, *options = inputs
    grad_x, grad_ref = _backward_op(
        grad.contiguous(), x, labels, ref, ref_labels, self_index, *tape, *options
    )
    return (grad_x, None, None if ref is None else grad_ref, *(None,) * 6)


_apply = differentiable(
    _op, backward=_gradients, formula=lambda *inputs: _formula(*inputs[:-1]), tape=slice(2, 3)
)


def losses_of_prepared(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: Parameters,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Losses and counts [N, components] of tensors as `prepared` gives them."""
    operands = (x, labels, ref, ref_labels, self_index)
    losses, counts, _ = _apply(*operands, formula, metric, parameters, ignore_label)
    return losses, counts


pair_gradients = _backward_op
"""Gradients in `x` and `ref` of tensors as `prepared` gives them, from the statistics of their rows."""
