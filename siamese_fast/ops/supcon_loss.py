"""SupCon: the mean log-probability of an anchor's positives among all of its pairs, with t = score /
temperature,

    loss_i = log sum_j exp t_ij - (1 / P_i) sum_p t_ip,    P_i the number of positives p of anchor i.

InfoNCE and the N-pair loss are this with one positive, in a separate set; the prototypical episode loss
with the class means as that set.

Sources: Khosla et al., "Supervised Contrastive Learning", 2020; van den Oord, Li, Vinyals, "Representation
Learning with Contrastive Predictive Coding", 2018; Snell, Swersky, Zemel, "Prototypical Networks for
Few-shot Learning", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
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


def supcon_loss(
    x: Tensor,
    labels: Tensor | None,
    temperature: float = 0.1,
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
    """Supervised contrastive loss of every anchor (L_out of the paper).

    Args:
        x, labels, temperature, metric, normalize, ref, ref_labels, self_index, weight, ignore_label,
            pair_mask: as for `ntxent_loss`.
        reduction: "mean" over the anchors that have a positive, "mean_nonzero" over losses above 0, "sum", or
            "none": [N], 0 for an anchor without positives.

    Returns:
        The loss, [] or [N]; 0, with gradients of zeros, for a batch without positives.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = supcon_loss(encoder(images), labels)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, REDUCTIONS)
    choice = Choice(weight, ignore_label, pair_mask)
    parameters = [finite("temperature", temperature, positive=True)]
    losses, counts = pair_losses(
        _SUPCON, parameters, x, labels, metric, normalize, ref, ref_labels, self_index, choice
    )
    return reduce_rows(losses[:, 0], counts[:, 0], reduction, choice)


def info_nce_loss(
    queries: Tensor,
    keys: Tensor,
    temperature: float = 0.07,
    *,
    metric: str = "cosine",
    normalize: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """InfoNCE: row i of `keys` is the positive of row i of `queries`, the other keys are its negatives.

    With `metric="dot"` and `temperature=1` this is the multi-class N-pair loss.

    Args:
        queries, keys: [N, D], [M, D] with M >= N (keys past the first N are negatives of all).
        temperature, metric, normalize: as for `ntxent_loss`.
        reduction: "mean", "sum" or "none" ([N]).

    Returns:
        The loss, [] or [N].

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = info_nce_loss(encoder(view_1), encoder(view_2))
        >>> loss.backward()
    """
    queries = check.embeddings("queries", queries)
    keys = check.embeddings("keys", keys, like=("queries", queries))
    check.choice("reduction", reduction, check.REDUCTIONS)
    if keys.shape[0] < queries.shape[0]:
        raise ValueError(
            f"keys must have at least the {queries.shape[0]} rows of queries, got {keys.shape[0]}"
        )
    rows, columns = (torch.arange(t.shape[0], device=queries.device) for t in (queries, keys))
    return supcon_loss(
        queries,
        rows,
        temperature,
        metric=metric,
        normalize=normalize,
        reduction=reduction,
        ref=keys,
        ref_labels=columns,
    )


def prototypical_loss(
    queries: Tensor,
    labels: Tensor,
    supports: Tensor,
    support_labels: Tensor,
    *,
    metric: str = "sqeuclidean",
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of an episode: each query's class against all classes, scored by their mean supports.

    Args:
        queries, labels: [Q, D], [Q].
        supports, support_labels: [S, D], [S]; labels 0 .. C - 1 as an episode numbers them, each with a
            support.
        metric: "sqeuclidean" as published, "euclidean", "cosine" or "dot".
        temperature: scores are divided by it.
        reduction: "mean", "sum" or "none" ([Q]).

    Returns:
        The loss, [] or [Q]; a query of a class without supports has loss 0 and is left out of the mean.

    Raises:
        TypeError, ValueError, IndexError: an argument is not as above.

    Example:
        >>> loss = prototypical_loss(encoder(queries), query_labels, encoder(supports), support_labels)
        >>> loss.backward()
    """
    queries = check.embeddings("queries", queries)
    supports = check.embeddings("supports", supports, like=("queries", queries))
    check.choice("reduction", reduction, check.REDUCTIONS)
    check.choice("metric", metric, ("euclidean", "sqeuclidean", "cosine", "dot"))
    if supports.shape[0] == 0:
        raise ValueError("supports must have at least one row, got 0")
    index = check.indices("support_labels", support_labels, supports.shape[0], supports)
    rows = (
        metrics.unit_rows(supports)
        if metric == "cosine"
        else supports.to(check.compute_dtype(supports.dtype))
    )
    classes = supports.shape[0]
    # Of torch's sums by index, this one sorts on CUDA devices and adds in order: the same bits every time.
    sums = rows.new_zeros(classes, rows.shape[1]).index_put((index,), rows, accumulate=True)
    counts = rows.new_zeros(classes).index_add(0, index, rows.new_ones(classes))
    prototypes = sums / counts.clamp_min(1)[:, None]
    present = torch.arange(classes, device=index.device)[counts > 0]
    return supcon_loss(
        queries.to(prototypes.dtype),
        labels,
        temperature,
        metric=metric,
        reduction=reduction,
        ref=prototypes[present],
        ref_labels=present,
    )


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, parameters: Parameters) -> Evaluated:
    exponents = scores / parameters[0]
    count = positive.sum(1).to(scores.dtype)
    has, share = count > 0, count.clamp_min(1).reciprocal()
    total = log_sum_exp(exponents, positive | negative)[:, 0]
    mean = torch.where(positive, exponents, 0.0).sum(1) * share
    losses = torch.where(has, torch.where(has, total, 0.0) - mean, 0.0)
    kept = torch.stack(
        [
            torch.where(has, total, torch.inf),
            torch.where(has, share, 0.0),
            mean * count,
        ],
        1,
    )
    return losses[:, None], has.to(scores.dtype)[:, None], kept


def _slopes(
    scores: Tensor, positive: Tensor, negative: Tensor, statistics: Tensor, parameters: Parameters
) -> tuple[Tensor, ...]:
    share = torch.where(positive | negative, (scores / parameters[0] - statistics[:, :1]).exp(), 0.0)
    return ((share - torch.where(positive, statistics[:, 1:2], 0.0)) / parameters[0],)


_SUPCON = register(Formula("supcon", components=1, fields=3, losses=_losses, slopes=_slopes))


def _visit(columns: Columns, positive: bool, sweep: int, parameters: Parameters) -> None:
    exponents = columns.scores / parameters[0]
    columns.log_sum(0, exponents)
    if positive:
        columns.sums(2, exponents)


def _close(fields: Tensor, positives: Tensor, negatives: Tensor, sweep: int, parameters: Parameters) -> None:
    has = positives > 0
    fields[0] = torch.where(has, fields[0] + fields[1].log(), torch.inf)
    fields[1] = torch.where(has, positives.clamp_min(1).reciprocal(), 0.0)


def _finish(fields: Tensor, positives: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    has = positives > 0
    losses = torch.where(has, fields[0] - fields[2] * fields[1], 0.0)
    return losses[:, None], has.to(losses.dtype)[:, None]


FOLDS[_SUPCON] = Fold((-torch.inf, 0.0, 0.0), _visit, _close, _finish)
