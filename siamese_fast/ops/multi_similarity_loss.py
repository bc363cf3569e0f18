"""Multi-similarity loss: a soft maximum over an anchor's positives and one over its negatives, s a
similarity,

    loss_i = log(1 + sum_p exp(alpha (base - s_ip))) / alpha + log(1 + sum_n exp(beta (s_in - base))) / beta.

Source: Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", 2019.
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


def multi_similarity_loss(
    x: Tensor,
    labels: Tensor | None,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    *,
    metric: str = "cosine",
    normalize: bool = False,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
) -> Tensor:
    """Multi-similarity loss of every anchor, over all of its pairs.

    Args:
        x, labels, metric, normalize, ref, ref_labels, self_index, weight, ignore_label, pair_mask: as for
            `ntxent_loss`.
        alpha, beta: sharpness of the soft maximum over positives and over negatives.
        base: the similarity above which positives, and below which negatives, count little.
        reduction: "mean" over all N anchors, "mean_nonzero" over losses above 0, "sum", or "none": [N].

    Returns:
        The loss, [] or [N]; an anchor without positives or without negatives has no part of that kind.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = multi_similarity_loss(encoder(images), labels)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, REDUCTIONS)
    choice = Choice(weight, ignore_label, pair_mask)
    parameters = multi_similarity_parameters(alpha, beta, base)
    losses, counts = pair_losses(
        _MULTI_SIMILARITY, parameters, x, labels, metric, normalize, ref, ref_labels, self_index, choice
    )
    return reduce_rows(losses[:, 0], counts[:, 0], reduction, choice)


def multi_similarity_parameters(alpha: float, beta: float, base: float) -> Parameters:
    sharpness = [finite("alpha", alpha, positive=True), finite("beta", beta, positive=True)]
    return [*sharpness, finite("base", base)]


def _exponents(scores: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    alpha, beta, base = parameters
    return alpha * (base - scores), beta * (scores - base)


def _soft_maximum(exponents: Tensor, kept: Tensor) -> Tensor:
    """log(1 + sum of exponentials) of the kept columns, [n, 1]; 0, with a gradient of 0, where there is
    none.
    """
    some = kept.any(1, keepdim=True)
    return torch.where(some, softplus(torch.where(some, log_sum_exp(exponents, kept), 0.0)), 0.0)


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, parameters: Parameters) -> Evaluated:
    of_positives, of_negatives = _exponents(scores, parameters)
    pull, push = _soft_maximum(of_positives, positive), _soft_maximum(of_negatives, negative)
    losses = pull / parameters[0] + push / parameters[1]
    kept = torch.cat([pull, torch.zeros_like(pull), push, torch.zeros_like(push)], 1)
    return losses, torch.ones_like(losses), kept


def _slopes(
    scores: Tensor, positive: Tensor, negative: Tensor, statistics: Tensor, parameters: Parameters
) -> tuple[Tensor, ...]:
    of_positives, of_negatives = _exponents(scores, parameters)
    pull = torch.where(positive, (of_positives - statistics[:, :1]).exp(), 0.0)
    push = torch.where(negative, (of_negatives - statistics[:, 2:3]).exp(), 0.0)
    return (push - pull,)


_MULTI_SIMILARITY = register(
    Formula("multi_similarity", components=1, fields=4, losses=_losses, slopes=_slopes)
)


def _visit(columns: Columns, positive: bool, sweep: int, parameters: Parameters) -> None:
    columns.log_sum(0 if positive else 2, _exponents(columns.scores, parameters)[0 if positive else 1])


def _close(fields: Tensor, positives: Tensor, negatives: Tensor, sweep: int, parameters: Parameters) -> None:
    """The largest exponent is at least the 0 of the 1 that each soft maximum begins with."""
    for top, total in ((fields[0], fields[1]), (fields[2], fields[3])):
        top.copy_(torch.where(top > 0, top + (total + (-top).exp()).log(), total.log1p()))


def _finish(fields: Tensor, positives: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    losses = (fields[0] / parameters[0] + fields[2] / parameters[1])[:, None]
    return losses, torch.ones_like(losses)


FOLDS[_MULTI_SIMILARITY] = Fold((0.0, 0.0, 0.0, 0.0), _visit, _close, _finish)
