"""Losses of queries against keys, or against class means, that all ranks hold together.

    InfoNCE          the keys of all ranks are the negatives of every query
    prototypical     a class mean is that of the supports of all ranks: its sum and count, added up

Both are collective, and their gradients are as those of `pair_losses`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from siamese_fast import ops
from siamese_fast.distributed.batch import STRATEGIES, Batch
from siamese_fast.distributed.pair_losses import SUPCON
from siamese_fast.distributed.pairs import over_ranks
from siamese_fast.distributed.reduced import Reduced
from siamese_fast.distributed.world import Card, World
from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops.pair_loss import METRICS, finite, pair_losses


def info_nce_loss(
    queries: Tensor,
    keys: Tensor,
    temperature: float = 0.07,
    *,
    metric: str = "cosine",
    normalize: bool = False,
    reduction: str = "mean",
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.info_nce_loss` of the queries and keys that all ranks hold together; collective.

    Args:
        queries, keys: of this rank, [N, D] and [M, D] with M >= N: row i of its keys is the positive of row i
            of its queries, every other key of any rank a negative. N and M may differ between ranks.
        temperature, metric, normalize, reduction: as in one process.
        group, strategy: as for `ntxent_loss`.

    Returns:
        The loss, [] or [N]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.info_nce_loss(ddp_encoder(view_1), ddp_encoder(view_2))
        >>> loss.backward()
    """
    world = World(group)
    options = {"metric": metric, "normalize": normalize, "reduction": reduction}
    if world.size == 1:
        check.choice("strategy", strategy, STRATEGIES)
        return ops.info_nce_loss(queries, keys, temperature, **options)  # type: ignore[arg-type]

    def checked() -> tuple[Tensor, Tensor]:
        check.choice("reduction", reduction, check.REDUCTIONS)
        finite("temperature", temperature, positive=True)
        return _two_views(world, queries, keys)

    def card(views: tuple[Tensor, Tensor]) -> Card:
        asked = {"loss": ops.info_nce_loss.__name__, "temperature": temperature, **options}
        return [len(views[1])], {**asked, **_properties({"queries": views[0], "keys": views[1]})}

    (queries, keys), sizes = world.agreed(checked, card)
    first = sum(rows for (rows,) in sizes[: world.rank])
    place, numbers = (torch.arange(first, first + len(t), device=t.device) for t in (queries, keys))
    options["temperature"] = temperature
    return over_ranks(SUPCON, Batch(queries, place, keys, numbers, None), options, group, strategy)


def prototypical_loss(
    queries: Tensor,
    labels: Tensor,
    supports: Tensor,
    support_labels: Tensor,
    *,
    metric: str = "sqeuclidean",
    temperature: float = 1.0,
    reduction: str = "mean",
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """`siamese_fast.prototypical_loss` of one episode that all ranks hold together; collective. Every rank
    keeps all C class means: O((N + C) D) memory.

    Args:
        queries, labels, supports, support_labels: of this rank, [Q, D], [Q], [S, D], [S]; Q and S may differ
            between ranks and be 0. Labels of supports are below the number of supports of all ranks.
        metric, temperature, reduction: as in one process.
        group: the ranks; None for all.

    Returns:
        The loss, [] or [Q]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.prototypical_loss(queries, labels, supports, support_labels)
        >>> loss.backward()
    """
    world = World(group)
    options: dict[str, Any] = {"metric": metric, "temperature": temperature, "reduction": reduction}
    if world.size == 1:
        return ops.prototypical_loss(queries, labels, supports, support_labels, **options)

    def checked() -> tuple[Tensor, Tensor]:
        check.choice("reduction", reduction, check.REDUCTIONS)
        check.choice("metric", metric, METRICS)
        finite("temperature", temperature, positive=True)
        check.labels("labels", labels, _two_views(world, queries, supports, "supports")[0].shape[0], queries)
        return supports, check.labels("support_labels", support_labels, supports.shape[0], supports)

    def card(found: tuple[Tensor, Tensor]) -> Card:
        lowest, highest = (int(v) for v in found[1].aminmax()) if len(found[1]) else (0, -1)
        if lowest < 0:
            raise IndexError(f"support_labels must be at least 0, got {lowest}")
        asked = {"loss": ops.prototypical_loss.__name__, **options}
        tensors = {"queries": queries, "supports": supports}
        return [len(supports), highest], {**asked, **_properties(tensors)}

    (_, index), sizes = world.agreed(checked, card)
    rows, highest = sum(size for size, _ in sizes), max(label for _, label in sizes)
    if rows == 0:
        raise ValueError("supports must have at least one row on some rank, got 0")
    if highest >= rows:
        raise IndexError(f"support_labels must lie in [0, {rows}), the supports of all ranks; got {highest}")
    means, present = _class_means(world, supports, index, highest + 1, metric)
    losses, terms = pair_losses(
        "supcon", [temperature], queries.to(means.dtype), labels, metric, False, means, present, None
    )
    if reduction == "none":
        return losses[:, 0]
    loss: Tensor = Reduced.apply(losses, terms if reduction == "mean" else None, world)  # type: ignore[no-untyped-call]
    return loss


def _two_views(world: World, queries: Tensor, others: Tensor, name: str = "keys") -> tuple[Tensor, Tensor]:
    queries = check.embeddings("queries", queries)
    others = check.embeddings(name, others, like=("queries", queries))
    world.check_device("queries", queries)
    if name == "keys" and len(others) < len(queries):
        raise ValueError(f"keys must have at least the {len(queries)} rows of queries, got {len(others)}")
    return queries, others


def _properties(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What must be the same on every rank besides the options."""
    tracked = torch.is_grad_enabled()
    found: dict[str, Any] = {}
    for name, value in tensors.items():
        found[f"the number of columns of {name}"] = value.shape[1]
        found[f"the dtype of {name}"] = str(value.dtype)
        found[f"whether {name} requires a gradient"] = tracked and value.requires_grad
    return found


def _class_means(
    world: World, supports: Tensor, index: Tensor, classes: int, metric: str
) -> tuple[Tensor, Tensor]:
    """Means over the supports of all ranks, and the classes that have one."""
    compute = check.compute_dtype(supports.dtype)
    rows = metrics.unit_rows(supports) if metric == "cosine" else supports.to(compute)
    local = rows.new_zeros(classes, rows.shape[1]).index_add(0, index, rows)
    sums: Tensor = _Summed.apply(local, world)  # type: ignore[no-untyped-call]
    counts = world.sum(rows.new_zeros(classes).index_add(0, index, rows.new_ones(len(rows))))
    present = torch.arange(classes, device=index.device)[counts > 0]
    return (sums / counts.clamp_min(1)[:, None])[present], present


class _Summed(torch.autograd.Function):
    """The sum over the ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.sum(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum(grad), None
