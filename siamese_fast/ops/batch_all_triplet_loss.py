"""Triplet loss over every triplet of a batch, without a look at triplets. With scores s (larger is nearer)
and a threshold t_p = s_ap - margin for each positive p of anchor a,

    loss_a = sum_p sum_n max(0, s_an - t_p) = sum_n (r_n s_an - sum of the r_n lowest thresholds)
    d loss_a / d s_an = r_n, the thresholds below s_an    d loss_a / d s_ap = -c_p, the negatives above t_p

Peers list the N K N triplets, or build an N x N x N tensor. Here every negative is ranked among the sorted
thresholds of its anchor: O(N^2 (D + log K)) time and O(N D) memory, plus K thresholds of the anchors at work.
Where a gradient will be wanted, the forward pass finds that of the plain sum too: reductions only scale it.

Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops.contrastive_loss import pair_counts
from siamese_fast.ops.pair_loss import (
    REDUCTIONS,
    finite,
    masks,
    own_columns,
    prepared,
    product_gradients,
    score_block,
    score_matrix,
)


def batch_all_triplet_loss(
    x: Tensor,
    labels: Tensor,
    margin: float = 0.2,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    reduction: str = "mean_nonzero",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
) -> Tensor:
    """Triplet loss max(0, d_ap - d_an + margin) of every anchor, positive and negative.

    Args:
        x: embeddings [N, D].
        labels: [N], any integer or bool dtype.
        margin: of the violation.
        metric: "euclidean", "sqeuclidean", "cosine" (1 - cosine) or "dot" (minus the product).
        normalize: scale rows to length 1 first.
        reduction: "mean_nonzero" over the triplets above 0, "mean" over all triplets, "sum", or "none":
            [N], the sum over each anchor's triplets.
        ref, ref_labels, self_index: a separate set of positives and negatives, as for `hardest_pairs`; `ref`
            takes gradients too.

    Returns:
        The loss, [] or [N], in float32 (float64 for float64); 0, with gradients of zeros, for a batch without
        any triplet. A NaN makes every loss that it enters NaN.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> loss = batch_all_triplet_loss(encoder(images), labels, margin=0.1)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, REDUCTIONS)
    operands = prepared(x, labels, metric, normalize, ref, ref_labels, self_index)
    losses, counts = triplet_losses(*operands, finite("margin", margin), metric)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        counts = pair_counts(operands[1], *operands[3:], losses).prod(1)
    return losses.sum() / counts.sum().clamp_min(1)


def triplet_losses(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
) -> tuple[Tensor, Tensor]:
    """Losses and numbers of triplets above 0, [N], of tensors as `prepared` gives them."""
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, ref))
    losses, counts, *_ = _apply(x, labels, ref, ref_labels, self_index, margin, metric, wanted)
    return losses, counts


def _ranks(
    scores: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds below each negative and negatives above each positive's threshold (0 elsewhere); the lowest
    threshold of each anchor, 0 where it is not finite.
    """
    limits = scores - margin
    ascending = limits.masked_fill(~positive, torch.inf).sort(1).values
    below = torch.searchsorted(ascending, scores)
    rivals = scores.masked_fill(~negative, -torch.inf).sort(1).values
    above = scores.shape[1] - torch.searchsorted(rivals, limits, right=True)
    dtype, lowest = scores.dtype, ascending[:, :1]
    lowest = torch.where(lowest.isfinite(), lowest, 0.0)
    return torch.where(negative, below, 0).to(dtype), torch.where(positive, above, 0).to(dtype), lowest


def _sums(scores: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Losses and counts [n], differentiable: ranks are constants. Scores are taken from the lowest threshold:
    those close together then lose no digits.
    """
    below, above, lowest = _ranks(scores.detach().contiguous(), positive, negative, margin)
    counted = negative & (scores != -torch.inf)
    gained = torch.where(counted, below * (scores - lowest), 0.0).sum(1)
    lost = torch.where(positive & negative.any(1, keepdim=True), above * (scores - margin - lowest), 0.0).sum(
        1
    )
    return gained - lost, below.sum(1)


def _reference(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    own = own_columns(x, ref, self_index)
    losses, counts, _, _ = _empty(x, ref, False)
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]):
        block = (score_block(x[rows], y, metric), *masks(labels, classes, own, rows))
        losses[rows], counts[rows] = _sums(*block, margin)
    if not with_gradient:
        return losses, counts, x.new_empty(0), x.new_empty(0)
    grads = _gradient(torch.ones_like(losses), x, labels, ref, ref_labels, self_index, margin, metric)
    return losses, counts, *grads


def _gradient(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
) -> tuple[Tensor, Tensor]:
    def coefficients(rows: slice, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        below, above, _ = _ranks(scores, positive, negative, margin)
        return grad[rows, None] * (below - above)

    return product_gradients(coefficients, x, labels, ref, ref_labels, self_index, metric)


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
) -> tuple[Tensor, Tensor]:
    return _gradient(grad, x, labels, ref, ref_labels, self_index, margin, metric)


def _formula(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    with_gradient: bool,
    *tape: Tensor,
) -> Tensor:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    every = masks(labels, classes, own_columns(x, ref, self_index), slice(None))
    return _sums(score_matrix(x, y, metric), *every, margin)[0]


def _empty(x: Tensor, ref: Tensor | None, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    losses = x.new_empty(x.shape[0])
    of_x = torch.empty_like(x) if with_gradient else x.new_empty(0)
    of_ref = x.new_empty(0) if ref is None or not with_gradient else torch.empty_like(ref)
    return losses, torch.empty_like(losses), of_x, of_ref


_op = define(
    "batch_all(Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels, Tensor? self_index, float margin,"
    " str metric, bool with_gradient) -> (Tensor, Tensor, Tensor, Tensor)",
    _reference,
    lambda x, labels, ref, ref_labels, self_index, margin, metric, with_gradient: _empty(
        x, ref, with_gradient
    ),
)
_backward_op = define(
    "batch_all_backward(Tensor grad, Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels,"
    " Tensor? self_index, Tensor sum_x, Tensor sum_ref, float margin, str metric) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, labels, ref, *_: _empty(x, ref, True)[2:],
)


def _gradients(grad: Tensor, inputs: tuple[object, ...], tape: tuple[Tensor, ...]) -> Grads:
    *operands, margin, metric, _ = inputs
    grad_x, grad_ref = _backward_op(grad.contiguous(), *operands, *tape, margin, metric)
    return (grad_x, None, None if operands[2] is None else grad_ref, *(None,) * 5)


_apply = differentiable(_op, backward=_gradients, formula=_formula, tape=slice(2, 4))
