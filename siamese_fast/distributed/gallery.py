"""The sharded support set as queries see it: every rank compares them with its shard, the results are merged.

    max         the largest of the ranks' class scores
    mean        the sum of the ranks' sums over the number of examples
    prototype   class means are shared out, each rank compares with its share
    nearest     the k best of the ranks' k best

All methods are collective, with the same queries on every rank, and return the same on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from siamese_fast.distributed.home import sent_home
from siamese_fast.distributed.shards import Shard
from siamese_fast.distributed.world import World
from siamese_fast.prediction.gallery import Comparison, Gallery, Reduce


class ShardedGallery(Gallery):
    """A `Gallery` of which this rank holds `shard`."""

    def __init__(
        self,
        world: World,
        shard: Shard,
        num_classes: int,
        comparison: Comparison,
        approximate: str | None,
        total: int,
    ) -> None:
        super().__init__(shard.embeddings, shard.class_index, num_classes, comparison, approximate)
        self._world, self._total = world, total
        self.position = shard.position

    @property
    def shard(self) -> Shard:
        return Shard(self.embeddings, self.class_index, self.position)

    def __len__(self) -> int:
        return self._total

    def class_of(self, index: Tensor) -> Tensor:
        found = torch.full_like(index, -1)
        if len(self.position):
            place = torch.searchsorted(self.position, index).clamp_max(len(self.position) - 1)
            found = torch.where(self.position[place] == index, self.class_index[place], found)
        return self._world.maximum(found)

    def class_scores(self, queries: Tensor, reduce: Reduce) -> Tensor:
        if reduce == "prototype":
            return self._of_prototypes(queries)
        scores = super().class_scores(queries, reduce)
        if reduce == "max":
            return self._world.maximum(scores)
        counts = self._counts(scores.dtype)
        sums = torch.where(counts > 0, scores * counts, 0.0)
        return self._world.sum(sums) / self._world.sum(counts)

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, index = super().nearest(queries, k)
        missing = k - scores.shape[1]
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        index = torch.nn.functional.pad(index, (0, missing), value=-1)
        none = torch.iinfo(torch.int64).max
        positions = torch.full_like(index, none)
        if len(self.position):
            positions = torch.where(index >= 0, self.position[index.clamp_min(0)], none)
        all_scores, all_positions = (_side_by_side(self._world.gather(t)) for t in (scores, positions))
        # By score, of equals by position: two stable sorts, the less important key first.
        all_positions, order = all_positions.sort(dim=1)
        best = all_scores.gather(1, order).sort(dim=1, descending=True, stable=True)
        positions = all_positions.gather(1, best.indices[:, :k])
        return best.values[:, :k], torch.where(positions == none, -1, positions)

    def _of_prototypes(self, queries: Tensor) -> Tensor:
        means, shares = self._shared_prototypes
        scores = means.class_scores(queries.to(means.embeddings.dtype), "max")
        widest = max(shares)
        padded = torch.nn.functional.pad(scores, (0, widest - scores.shape[1]))
        gathered = self._world.gather(padded)
        return torch.cat([part[:, :share] for part, share in zip(gathered, shares, strict=True)], 1)

    @cached_property
    def _shared_prototypes(self) -> tuple[Gallery, Sequence[int]]:
        """The class means of this rank's share of the classes, and the ranks' shares."""
        world, rows = self._world, self.averaged_rows()
        shares = [
            self.num_classes * (rank + 1) // world.size - self.num_classes * rank // world.size
            for rank in range(world.size)
        ]
        classes, place = self.class_index.unique(return_inverse=True)
        counted = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        sums = counted.new_zeros(len(classes), counted.shape[1]).index_add_(0, place, counted)
        own = sent_home(world, classes, sums, shares)
        means = own[:, :-1] / own[:, -1:]
        each = torch.arange(len(means), device=means.device)
        return Gallery(means, each, len(means), self.comparison), shares


def _side_by_side(gathered: Tensor) -> Tensor:
    """`[W, Q, k]` as `[Q, W k]`."""
    return gathered.transpose(0, 1).flatten(1)
