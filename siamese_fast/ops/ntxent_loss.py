"""NT-Xent: each positive of an anchor against all of the anchor's negatives, with t = score / temperature,

    loss_i = sum_p softplus(log sum_n exp t_in - t_ip) = -sum_p log(exp t_ip / (exp t_ip + sum_n exp t_in)).

Sources: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016; Chen,
Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", 2020.
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


def ntxent_loss(
    x: Tensor,
    labels: Tensor | None,
    temperature: float = 0.07,
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
    """NT-Xent (normalised temperature-scaled cross-entropy) of every positive pair.

    Args:
        x: embeddings [N, D], float32, float64, float16 or bfloat16.
        labels: [N], any integer or bool dtype; rows of one label are each other's positives. Or [N, C], not 0
            where a row has a label: rows that share one are positives.
        temperature: scores are divided by it.
        metric: "cosine", "dot", or minus the "euclidean" or "sqeuclidean" distance.
        normalize: scale rows to length 1 first (always so for "cosine").
        reduction: "mean" over the positive pairs, "mean_nonzero" over anchors with a loss above 0, "sum", or
            "none": [N], the sum over each anchor's positives.
        ref, ref_labels: [M, D] and [M], a separate set that holds positives and negatives; takes gradients.
        self_index: [N], with `ref`: the row of `ref` that is the anchor itself and not its positive, -1 for
            none.
        weight: [N], multiplies each anchor's terms, in the numerator and in the denominator of a mean.
        ignore_label: rows with this label are neither anchors nor positives nor negatives.
        pair_mask: [N, M] bool or integer, instead of labels (None): 1 where a pair is positive, 0 where it
            is negative, -1 where it is neither; a row is never paired with itself.

    Returns:
        The loss, [] or [N], in float32 (float64 for float64). Anchors without positives add nothing; a
        positive without any negative has loss 0. A NaN makes every loss that it enters NaN.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = ntxent_loss(torch.cat([view_1, view_2]), torch.arange(64).repeat(2), temperature=0.1)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, REDUCTIONS)
    choice = Choice(weight, ignore_label, pair_mask)
    parameters = [finite("temperature", temperature, positive=True)]
    losses, counts = pair_losses(
        _NTXENT, parameters, x, labels, metric, normalize, ref, ref_labels, self_index, choice
    )
    return reduce_rows(losses[:, 0], counts[:, 0], reduction, choice)


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, parameters: Parameters) -> Evaluated:
    exponents = scores / parameters[0]
    against = log_sum_exp(exponents, negative)
    counted = positive & negative.any(1, keepdim=True)
    gap = torch.where(counted, against - exponents, 0.0)
    losses = torch.where(counted, softplus(gap), 0.0).sum(1)
    slopes = torch.where(counted, gap.sigmoid(), 0.0).sum(1)
    kept = torch.stack([against[:, 0], torch.zeros_like(losses), losses, slopes], 1)
    return losses[:, None], positive.sum(1, keepdim=True).to(losses.dtype), kept


def _slopes(
    scores: Tensor, positive: Tensor, negative: Tensor, statistics: Tensor, parameters: Parameters
) -> tuple[Tensor, ...]:
    gap = scores / parameters[0] - statistics[:, :1]
    of_negatives = torch.where(negative, statistics[:, 3:] * gap.exp(), 0.0)
    return ((of_negatives - torch.where(positive, (-gap).sigmoid(), 0.0)) / parameters[0],)


_NTXENT = register(Formula("ntxent", components=1, fields=4, losses=_losses, slopes=_slopes))


def _visit(columns: Columns, positive: bool, sweep: int, parameters: Parameters) -> None:
    exponents = columns.scores / parameters[0]
    if sweep == 0 and not positive:
        columns.log_sum(0, exponents)
    if sweep == 1 and positive:
        gap = columns.fields[0][:, None] - exponents
        columns.sums(2, softplus(gap), gap.sigmoid())


def _close(fields: Tensor, positives: Tensor, negatives: Tensor, sweep: int, parameters: Parameters) -> None:
    if sweep == 0:
        fields[0] += fields[1].log()


def _finish(fields: Tensor, positives: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    return fields[2, :, None], positives[:, None]


FOLDS[_NTXENT] = Fold((-torch.inf, 0.0, 0.0, 0.0), _visit, _close, _finish, sweeps=2)
