"""Contrastive loss over all pairs of a batch: positives nearer than one margin, negatives farther than
another,

    max(0, d_ip - pos_margin) for every positive pair,    max(0, neg_margin - d_in) for every negative pair.

Source: Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006 (without
the squares, as in use today).
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops.pair_fold import FOLDS, Columns, Fold
from siamese_fast.ops.pair_loss import (
    REDUCTIONS,
    Evaluated,
    Formula,
    Parameters,
    finite,
    pair_losses,
    register,
    share,
)
from siamese_fast.ops.relations import Choice, pair_counts


def contrastive_loss(
    x: Tensor,
    labels: Tensor | None,
    pos_margin: float = 0.0,
    neg_margin: float = 1.0,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    reduction: str = "mean_nonzero",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_label: int | None = None,
    pair_mask: Tensor | None = None,
) -> Tensor:
    """Contrastive loss of every ordered pair (i, j) of the batch.

    Args:
        x, labels, ref, ref_labels, self_index, weight, ignore_label, pair_mask: as for `ntxent_loss`.
        pos_margin, neg_margin: distances under which positives, and over which negatives, cost nothing.
        metric: "euclidean", "sqeuclidean", "cosine" (1 - cosine) or "dot" (minus the product).
        normalize: scale rows to length 1 first.
        reduction: "mean_nonzero": the mean over positive pairs above 0, plus that over negative pairs above
            0; "mean": the same over all pairs of each kind; "sum"; "none": [N], the sum over each row's
            pairs.

    Returns:
        The loss, [] or [N]; a kind without pairs adds 0.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = contrastive_loss(encoder(images), labels, neg_margin=0.5, normalize=True)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, REDUCTIONS)
    choice = Choice(weight, ignore_label, pair_mask)
    parameters = contrastive_parameters(pos_margin, neg_margin, metric)
    losses, counts = pair_losses(
        _CONTRASTIVE, parameters, x, labels, metric, normalize, ref, ref_labels, self_index, choice
    )
    losses = choice.weighted(losses)
    if reduction == "none":
        return losses.sum(1)
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        _, kinds, _, others, own = choice.related(x, labels, ref, ref_labels, self_index)
        counts = pair_counts(kinds, others, own, losses, ignore_label)
    return share(losses.sum(0), choice.weighted(counts).sum(0)).sum()


def contrastive_parameters(pos_margin: float, neg_margin: float, metric: str) -> Parameters:
    """The margins, as scores."""
    offset = 1.0 if metric == "cosine" else 0.0
    return [offset - finite("pos_margin", pos_margin), offset - finite("neg_margin", neg_margin)]


def _losses(scores: Tensor, positive: Tensor, negative: Tensor, parameters: Parameters) -> Evaluated:
    above, below = parameters
    zero = torch.zeros_like(scores)
    violations = (torch.where(positive, above - scores, zero), torch.where(negative, scores - below, zero))
    hinges = [torch.where(violation <= 0, zero, violation) for violation in violations]
    losses = torch.stack([hinge.sum(1) for hinge in hinges], 1)
    counts = torch.stack([(hinge > 0).sum(1).to(losses.dtype) for hinge in hinges], 1)
    kept = torch.stack([losses[:, 0], counts[:, 0], losses[:, 1], counts[:, 1]], 1)
    return losses, counts, kept


def _slopes(
    scores: Tensor, positive: Tensor, negative: Tensor, statistics: Tensor, parameters: Parameters
) -> tuple[Tensor, ...]:
    above, below = parameters
    of_positives = positive & (above - scores > 0)
    of_negatives = negative & (scores - below > 0)
    return -of_positives.to(scores.dtype), of_negatives.to(scores.dtype)


_CONTRASTIVE = register(Formula("contrastive", components=2, fields=4, losses=_losses, slopes=_slopes))


def _visit(columns: Columns, positive: bool, sweep: int, parameters: Parameters) -> None:
    above, below = parameters
    violation = above - columns.scores if positive else columns.scores - below
    hinge = torch.where(violation <= 0, 0.0, violation)
    columns.sums(0 if positive else 2, hinge, (violation > 0).to(hinge.dtype))


def _close(fields: Tensor, positives: Tensor, negatives: Tensor, sweep: int, parameters: Parameters) -> None:
    """Sums are whole as they are."""


def _finish(fields: Tensor, positives: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    return fields[::2].T, fields[1::2].T


FOLDS[_CONTRASTIVE] = Fold((0.0, 0.0, 0.0, 0.0), _visit, _close, _finish)
