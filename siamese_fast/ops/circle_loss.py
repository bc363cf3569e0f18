"""Circle loss: every pair is weighted by how far its similarity s is from the optimum, with margin m and
scale gamma,

    loss_i = softplus(log sum_p exp(-gamma w_p (s_ip - 1 + m)) + log sum_n exp(gamma w_n (s_in - m)))
    w_p = max(0, 1 + m - s_ip),    w_n = max(0, s_in + m).

Source: Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops._metrics import softplus
from siamese_fast.ops.pair_fold import FOLDS, Columns, Fold
from siamese_fast.ops.pair_loss import (
    REDUCTIONS,
    Evaluated,
    Formula,
    Parameters,
    finite,
    log_sum_exp,
    pair_losses,
    reduce_rows,
    register,
)
from siamese_fast.ops.relations import Choice


def circle_loss(
    x: Tensor,
    labels: Tensor | None,
    margin: float = 0.4,
    gamma: float = 80.0,
    *,
    constant_weights: bool = True,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
) -> Tensor:
    """Circle loss of every anchor, over the cosines of all of its pairs.

    Args:
        x, labels, ref, ref_labels, self_index, weight, ignore_label, pair_mask: as for `ntxent_loss`.
        margin: how far from 1 and 0 the boundary lies (m).
        gamma: scale of the exponents.
        constant_weights: the weights w take no gradient, as published; False differentiates them too.
        reduction: "mean" over the anchors that have a positive and a negative, "mean_nonzero" over losses
            above 0, "sum", or "none": [N], 0 for an anchor that lacks one.

    Returns:
        The loss, [] or [N]. The second derivative, with `constant_weights`, is that of the whole formula
        with its weights held constant.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = circle_loss(encoder(images), labels)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, REDUCTIONS)
    choice = Choice(weight, ignore_label, pair_mask)
    parameters = circle_parameters(margin, gamma, constant_weights)
    losses, counts = pair_losses(
        _CIRCLE, parameters, x, labels, "cosine", False, ref, ref_labels, self_index, choice
    )
    return reduce_rows(losses[:, 0], counts[:, 0], reduction, choice)


def circle_parameters(margin: float, gamma: float, constant_weights: bool) -> Parameters:
    if not isinstance(constant_weights, bool):
        raise TypeError(f"constant_weights must be a bool, got {type(constant_weights).__name__}")
    return [finite("margin", margin), finite("gamma", gamma, positive=True), float(not constant_weights)]


def _weights(scores: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    return (1 + margin - scores).clamp_min(0), (scores + margin).clamp_min(0)


def _exponents(scores: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    margin, gamma, whole = parameters
    to_one, to_zero = _weights(scores if whole else scores.detach(), margin)
    return gamma * to_one * (1 - margin - scores), gamma * to_zero * (scores - margin)


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, parameters: Parameters) -> Evaluated:
    of_positives, of_negatives = _exponents(scores, parameters)
    valid = positive.any(1) & negative.any(1)
    pull = log_sum_exp(of_positives, positive)[:, 0]
    push = log_sum_exp(of_negatives, negative)[:, 0]
    total = torch.where(valid, pull, 0.0) + torch.where(valid, push, 0.0)
    losses = torch.where(valid, softplus(total), 0.0)
    kept = torch.stack(
        [
            torch.where(valid, pull, torch.inf),
            torch.where(valid, total.sigmoid(), 0.0),
            torch.where(valid, push, torch.inf),
            torch.zeros_like(total),
        ],
        1,
    )
    return losses[:, None], valid.to(losses.dtype)[:, None], kept


def _slopes(
    scores: Tensor, positive: Tensor, negative: Tensor, statistics: Tensor, parameters: Parameters
) -> tuple[Tensor, ...]:
    margin, gamma, whole = parameters
    of_positives, of_negatives = _exponents(scores, parameters)
    to_one, to_zero = _weights(scores, margin)
    if whole:
        to_one = torch.where(to_one > 0, to_one + (1 - margin - scores), to_one)
        to_zero = torch.where(to_zero > 0, to_zero + (scores - margin), to_zero)
    pull = torch.where(positive, to_one * (of_positives - statistics[:, :1]).exp(), 0.0)
    push = torch.where(negative, to_zero * (of_negatives - statistics[:, 2:3]).exp(), 0.0)
    return (gamma * statistics[:, 1:2] * (push - pull),)


_CIRCLE = register(Formula("circle", components=1, fields=4, losses=_losses, slopes=_slopes))


def _visit(columns: Columns, positive: bool, sweep: int, parameters: Parameters) -> None:
    columns.log_sum(0 if positive else 2, _exponents(columns.scores, parameters)[0 if positive else 1])


def _close(fields: Tensor, positives: Tensor, negatives: Tensor, sweep: int, parameters: Parameters) -> None:
    valid = (positives > 0) & (negatives > 0)
    for side in (0, 2):
        fields[side] = torch.where(valid, fields[side] + fields[side + 1].log(), torch.inf)
    total = fields[0] + fields[2]
    fields[1] = torch.where(valid, total.sigmoid(), 0.0)


def _finish(fields: Tensor, positives: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    valid = fields[0] != torch.inf
    losses = torch.where(valid, softplus(fields[0] + fields[2]), 0.0)
    return losses[:, None], valid.to(fields.dtype)[:, None]


FOLDS[_CIRCLE] = Fold((-torch.inf, 0.0, -torch.inf, 0.0), _visit, _close, _finish)
