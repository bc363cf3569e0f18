"""The batch-hard triplet loss over the embeddings of all ranks, as if they were one batch.

    L = mean over the valid anchors of all ranks of  max(0, d(a, p) - d(a, n) + margin)

with p and n the hardest rows on any rank. Every rank mines for its own anchors only and holds O(N D) numbers
for N rows a rank, whatever the number of ranks (`strategy="ring"`).

The gradient in a rank's rows is that of the sum over ranks of what each computed: the ranks all return L, so
W times the one-process gradient. Averaging parameter gradients over W ranks, as DDP and FSDP do, then gives
exactly the one-process gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from siamese_fast.distributed.batch import (
    STRATEGIES,
    Batch,
    check_self_index,
    checked_batch,
    properties_of,
    sizes_of,
    transport,
)
from siamese_fast.distributed.extremes import choose
from siamese_fast.distributed.home import Fetched
from siamese_fast.distributed.reduced import Reduced
from siamese_fast.distributed.world import Card, World
from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops.triplet_loss import batch_hard_triplet_loss as one_process_loss
from siamese_fast.ops.triplet_loss import check_options, losses_of_chosen


def batch_hard_triplet_loss(
    x: Tensor,
    labels: Tensor,
    margin: float | None = 0.2,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    smooth: bool = False,
    reduction: str = "mean",
    no_triplet: str = "skip",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    return_valid: bool = False,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """`siamese_fast.batch_hard_triplet_loss` of the batch that all ranks hold together. Collective: every
    rank calls it, and `backward`.

    Args:
        x: this rank's embeddings [N, D]; N may differ between ranks and be 0. D, dtype and all settings may
            not: ValueError on every rank.
        labels: [N], any integer or bool dtype, also another one on each rank; one numbering for all ranks.
        margin, metric, normalize, smooth, no_triplet, return_valid: as in one process. `valid` is that of
            this rank's anchors.
        reduction: "mean" over the valid anchors of all ranks, "sum", "mean_nonzero": the same number on every
            rank. "none": the losses [N] of this rank's anchors.
        ref, ref_labels: this rank's part [M, D] of a separate set to mine from; all parts together are it.
        self_index: [N], which row of all parts, in the order of the ranks, the anchor itself is; -1 for none.
        group: the ranks; None for all. Without torch.distributed the loss is that of this process alone.
        strategy: "ring": blocks of embeddings travel from rank to rank while the block before is mined;
            memory is that of a few blocks. "gather": all blocks at once, fewer messages. Both give the same
            bits. "auto" gathers what is small.

    Returns:
        The loss, [] or [N]. Its gradient in `x` (and `ref`) is that of the sum over ranks of what every rank
        makes of its result: the world size times the one-process gradient when each calls `loss.backward()`.
        It can be differentiated once.

    Example:
        >>> loss = siamese_fast.distributed.batch_hard_triplet_loss(ddp_encoder(images), labels)
        >>> loss.backward()  # DDP averages: parameters get the gradient of the whole batch
    """
    world = World(group)
    options: dict[str, Any] = {
        "margin": margin,
        "metric": metric,
        "normalize": normalize,
        "smooth": smooth,
        "reduction": reduction,
        "no_triplet": no_triplet,
    }

    def checked() -> Batch:
        check.choice("strategy", strategy, STRATEGIES)
        check_options(margin, metric, reduction, no_triplet)
        return checked_batch(world, x, labels, ref, ref_labels, self_index)

    def card(batch: Batch) -> Card:
        asked = {"loss": one_process_loss.__name__, **options, "strategy": strategy}
        return sizes_of(batch), {**asked, **properties_of(batch)}

    if world.size == 1:
        check.choice("strategy", strategy, STRATEGIES)
        return one_process_loss(
            x,
            labels,
            ref=ref,
            ref_labels=ref_labels,
            self_index=self_index,
            return_valid=return_valid,
            **options,
        )
    batch, sizes = world.agreed(checked, card)
    counts = [rows for _, rows, _ in sizes]
    check_self_index(sizes, sum(counts))
    loss, valid = _loss(world, batch, counts, strategy, **options)
    return (loss, valid) if return_valid else loss


def _loss(
    world: World,
    batch: Batch,
    counts: list[int],
    strategy: str,
    *,
    margin: float | None,
    metric: str,
    normalize: bool,
    smooth: bool,
    reduction: str,
    no_triplet: str,
) -> tuple[Tensor, Tensor]:
    x, labels, ref, ref_labels, self_index = batch
    if normalize or metric == "cosine":
        x, ref = metrics.unit_rows(x), None if ref is None else metrics.unit_rows(ref)
    candidates, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    with torch.no_grad():
        blocks = transport(strategy, counts, x)(world, classes, candidates.detach(), counts)
        own = world.rank if ref is None else None
        table, ids, positive, negative = choose(x.detach(), labels, blocks, counts, own, self_index, metric)
    compute = check.compute_dtype(x.dtype)
    anchors = x.to(compute)
    fetched: Tensor = Fetched.apply(
        anchors if ref is None else candidates.to(compute), table.to(compute), ids, counts, world
    )  # type: ignore[no-untyped-call]
    zero_positive = no_triplet == "zero_positive"
    valid = negative >= 0 if zero_positive else (positive >= 0) & (negative >= 0)
    losses = losses_of_chosen(anchors, fetched, positive, negative, margin, metric, smooth, zero_positive)
    if no_triplet == "error":
        _check_complete(world, valid)
    if reduction == "none":
        return losses, valid
    counted = {"mean": valid, "mean_nonzero": ~(losses <= 0), "sum": None}[reduction]
    loss: Tensor = Reduced.apply(losses, counted, world)  # type: ignore[no-untyped-call]
    return loss, valid


def _check_complete(world: World, valid: Tensor) -> None:
    counts = torch.tensor([int((~valid).sum()), len(valid)], device=world.device)
    missing, anchors = world.sum(counts).tolist()
    if missing:
        raise ValueError(
            f"no_triplet is 'error', and {missing} of {anchors} anchors on all ranks have no positive or no "
            "negative"
        )
