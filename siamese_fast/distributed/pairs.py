"""Losses over all pairs, or all triplets, of the embeddings of all ranks: one engine for the whole family.

    ring     each sweep of a formula is one round of the ring: fields of this rank's rows take in the blocks
             that pass (`siamese_fast.ops.pair_fold`). The gradient is one more round: a block brings along
             what the ranks before found for its rows, and both go home together. O(N D) memory for N rows a
             rank, whatever the number of ranks.
    gather   one all_gather; this rank's rows against all rows by the one-process kernel, and gradients of
             the rows of others sent to them: O(W N D) memory, one round fewer.

Both are the same sums in another order: equal to rounding. The gradient in a rank's rows is that of the sum
over ranks of what each makes of its result, W times the one-process gradient: see `losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from siamese_fast.distributed.batch import (
    STRATEGIES,
    Batch,
    check_self_index,
    checked_batch,
    properties_of,
    sizes_of,
    transport,
)
from siamese_fast.distributed.blocks import gathered, ring
from siamese_fast.distributed.home import Fetched, carried_home
from siamese_fast.distributed.reduced import Reduced
from siamese_fast.distributed.world import Card, World
from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops.pair_loss import (
    METRICS,
    REDUCTIONS,
    Parameters,
    losses_of_prepared,
    pair_gradients,
)
from siamese_fast.ops.pair_parts import Against, folded
from siamese_fast.ops.relations import pair_counts
from siamese_fast.ops.triplet_sums import triplet_losses


@dataclass(frozen=True)
class Family:
    """What is the same for every call of one loss.

    Attributes:
        one_process: the function of `siamese_fast.ops`.
        parameters: of the formula, from the options of a call; raises where they are not accepted.
        formula: None for all triplets.
        mean, mean_nonzero: what these reductions divide by: "terms" (the counts of the kernel), "rows",
            "losses" above 0, "pairs" of each kind, "triplets".
        metric: of a loss that has only one.
    """

    one_process: Callable[..., Tensor]
    parameters: Callable[[dict[str, Any]], Parameters]
    formula: str | None
    mean: str
    mean_nonzero: str
    metric: str | None = None


def over_ranks(
    family: Family, rows: Batch, options: dict[str, Any], group: dist.ProcessGroup | None, strategy: str
) -> Tensor:
    """The loss of the rows of all ranks, for the options that `family.one_process` takes."""
    world, metric = World(group), family.metric or options["metric"]
    if world.size == 1:
        check.choice("strategy", strategy, STRATEGIES)
        apart = {"ref": rows.ref, "ref_labels": rows.ref_labels, "self_index": rows.self_index}
        return family.one_process(rows.x, rows.labels, **apart, **options)

    def checked() -> tuple[Batch, Parameters]:
        check.choice("strategy", strategy, STRATEGIES)
        if family.formula is None and strategy == "ring":
            raise ValueError(
                "strategy must be 'auto' or 'gather' for a loss over all triplets: an anchor keeps all of "
                "its positives, which no ring holds in O(N D) memory"
            )
        check.choice("reduction", options["reduction"], REDUCTIONS)
        check.choice("metric", metric, METRICS)
        return checked_batch(world, *rows), family.parameters(options)

    def card(found: tuple[Batch, Parameters]) -> Card:
        asked = {"loss": family.one_process.__name__, **options, "strategy": strategy}
        return sizes_of(found[0]), {**asked, **properties_of(found[0])}

    (batch, parameters), sizes = world.agreed(checked, card)
    counts = [candidates for _, candidates, _ in sizes]
    check_self_index(sizes, sum(counts))
    unit = options.get("normalize", False) or metric == "cosine"
    pairs = _Pairs(world, family.formula, metric, unit, parameters, counts, batch)
    gathers = family.formula is None or transport(strategy, counts, batch.x) is gathered
    losses, terms, each = pairs.against_all() if gathers else pairs.against_blocks()
    reduction = options["reduction"]
    if reduction == "none":
        return losses.sum(1)
    counted = None if reduction == "sum" else _counted(getattr(family, reduction), losses, terms, each)
    loss: Tensor = Reduced.apply(losses, counted, world)  # type: ignore[no-untyped-call]
    return loss


def _counted(what: str, losses: Tensor, terms: Tensor, pairs: Tensor) -> Tensor:
    """What a mean is over, `[N, components]`; `pairs` `[N, 2]` counts positives and negatives."""
    found = {
        "terms": lambda: terms,
        "rows": lambda: torch.ones_like(losses),
        "losses": lambda: (losses > 0).to(losses.dtype),
        "pairs": lambda: pairs,
        "triplets": lambda: pairs.prod(1, keepdim=True),
    }
    return found[what]()


class _Pairs:
    """One call: this rank's anchors, and the candidates of all ranks."""

    def __init__(
        self,
        world: World,
        formula: str | None,
        metric: str,
        unit: bool,
        parameters: Parameters,
        counts: list[int],
        batch: Batch,
    ) -> None:
        self.world, self.counts, self.parameters = world, counts, parameters
        self.formula, self.metric, self._unit = formula, metric, unit
        self.labels, self._self_index = batch.labels, batch.self_index
        self.x = self.candidates = self.prepared(batch.x)
        given, self.classes, self.separate = batch.x, batch.labels, False
        if batch.ref is not None and batch.ref_labels is not None:
            given, self.classes, self.separate = batch.ref, batch.ref_labels, True
            self.candidates = self.prepared(batch.ref)
        # Blocks travel as they were given: half precision is half the bytes.
        self._travelling = given.detach()

    def prepared(self, rows: Tensor) -> Tensor:
        return metrics.unit_rows(rows) if self._unit else rows.to(check.compute_dtype(rows.dtype))

    def against_all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, counts and pairs of this rank's rows, from one all_gather."""
        blocks = gathered(self.world, self.classes, self._travelling, self.counts)
        _, classes, rows = zip(*sorted(blocks, key=itemgetter(0)), strict=True)
        ids = torch.arange(sum(self.counts), device=self.x.device)
        table: Tensor = Fetched.apply(
            self.candidates, self.prepared(torch.cat(rows)), ids, self.counts, self.world
        )  # type: ignore[no-untyped-call]
        itself = self._self_index
        if not self.separate:
            itself = torch.arange(len(self.x), device=self.x.device) + sum(self.counts[: self.world.rank])
        operands = (self.x, self.labels, table, torch.cat(classes), itself)
        pairs = pair_counts(self.labels, operands[3], itself, self.x)
        if self.formula is None:
            losses, terms, _ = triplet_losses(*operands, self.parameters[0], self.metric, "all", "relu")
            return losses[:, None], terms[:, None], pairs
        return *losses_of_prepared(*operands, self.formula, self.metric, self.parameters), pairs

    def against_blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same, from blocks that travel round the ring."""
        found: tuple[Tensor, Tensor, Tensor] = _Ring.apply(
            self.x, self.candidates if self.separate else None, self
        )  # type: ignore[no-untyped-call]
        return found

    def visits(self) -> Iterator[tuple[int, Against]]:
        """One round of the ring: the owner of each block, and what anchors are paired with: its rows, its
        labels, and which of them an anchor is.
        """
        for owner, classes, block in ring(self.world, self.classes, self._travelling, self.counts):
            if owner == self.world.rank and not self.separate:
                yield owner, (None, None, None)
                continue
            itself = self._self_index
            if itself is not None:
                itself = itself - sum(self.counts[:owner])
                itself = torch.where((itself >= 0) & (itself < len(block)), itself, -1)
            yield owner, (self.prepared(block), classes, itself)

    def parts(self) -> Iterator[Against]:
        return (against for _, against in self.visits())


class _Ring(torch.autograd.Function):
    """`_Ring.apply(x, candidates, pairs)`: losses, counts `[N, components]` and numbers of pairs `[N, 2]`;
    `candidates` is None where they are the anchors themselves.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, candidates: Tensor | None, pairs: _Pairs
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert pairs.formula is not None
        losses, terms, counts, statistics = folded(
            x, pairs.labels, pairs.parts, pairs.formula, pairs.metric, pairs.parameters
        )
        ctx.save_for_backward(x, statistics)
        ctx.pairs = pairs
        ctx.mark_non_differentiable(terms, counts)
        return losses, terms, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, None]:
        pairs, (x, statistics) = ctx.pairs, ctx.saved_tensors
        formula, of_x = (pairs.formula, pairs.metric, pairs.parameters), torch.zeros_like(x)

        def parts() -> Iterator[tuple[int, Tensor]]:
            for owner, against in pairs.visits():
                rows = pairs.counts[owner]
                part = x.new_zeros(rows, x.shape[1])
                if rows and x.shape[0]:
                    of_anchors, of_block = pair_gradients(
                        grad.contiguous(), x, pairs.labels, *against, statistics, *formula
                    )
                    of_x.add_(of_anchors)
                    part = part if against[0] is None else of_block
                yield owner, part

        if pairs.separate and not ctx.needs_input_grad[1]:
            for _ in parts():
                pass
            return of_x, None, None
        home = carried_home(pairs.world, parts(), pairs.counts)
        return (of_x, home, None) if pairs.separate else (of_x + home, None, None)
