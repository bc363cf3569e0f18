"""OneShotClassifier over ranks: each holds a shard of the support set, queries go to all, results are merged.

    class scores of q  =  merge over ranks r of  class scores of q among the examples that r holds

A rank holds S / W of S examples; an answer costs it S / W comparisons and a message of the answer's size.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike
from torch import Tensor, nn

from siamese_fast.distributed import storage
from siamese_fast.distributed.gallery import ShardedGallery
from siamese_fast.distributed.shards import Shard, balanced
from siamese_fast.distributed.union import Offer, plain, united
from siamese_fast.distributed.world import World
from siamese_fast.prediction.classifier import QUERY_ROWS
from siamese_fast.prediction.classifier import OneShotClassifier as OneProcessClassifier
from siamese_fast.prediction.decisions import Array
from siamese_fast.prediction.gallery import Comparison
from siamese_fast.prediction.inputs import Encoder, Rows, as_labels, embed, embedder, head_of
from siamese_fast.prediction.storage import SETTINGS


class OneShotClassifier(OneProcessClassifier):
    """`siamese_fast.OneShotClassifier` whose support set is spread over the ranks of a process group.

    Every method is collective: every rank calls it. `fit` and `add_support` take the examples of this rank,
    any number of them (`None`, `None` for none); together they are the support set, those of rank 0 first.
    Queries, and what is to be removed, are those of rank 0: the other ranks' arguments are not looked at, and
    may be None. Answers are the same on every rank, and those of the one-process classifier to rounding.
    Bad input is an error on every rank.

    Args:
        encoder, head: on every rank the same; further arguments as in one process.
        group: the ranks; None for all. Without torch.distributed there is one shard.

    Attributes:
        support_, support_labels_: what this rank holds; `support_positions_` `[s]`, ascending, are their
            places in the order added, which `kneighbors` and `remove(index=)` speak of.
        classes_: of all ranks.

    Example:
        >>> classifier = siamese_fast.distributed.OneShotClassifier(network).fit(my_images, my_labels)
        >>> names = classifier.predict(queries if rank == 0 else None)
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        head: nn.Module | None = None,
        *,
        metric: str = "euclidean",
        reduce: str = "max",
        threshold: float | None = None,
        unknown_label: Any = None,
        temperature: float = 1.0,
        batch_size: int = 256,
        approximate: str | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(
            encoder,
            head,
            metric=metric,
            reduce=reduce,
            threshold=threshold,
            unknown_label=unknown_label,
            temperature=temperature,
            batch_size=batch_size,
            approximate=approximate,
        )
        self.group = group

    @property
    def support_positions_(self) -> Array:
        return self._sharded.position.cpu().numpy()

    def fit(self, X: Any, y: Any) -> Self:
        comparison = self._world.attempt(lambda: Comparison(self.metric, head_of(self.encoder, self.head)))
        self._extend(X, y, None, comparison)
        return self

    def add_support(self, X: Any, y: Any) -> Self:
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        self._extend(X, y, self._sharded, self._sharded.comparison)
        return self

    def remove(self, *, label: Any = None, index: int | ArrayLike | None = None) -> Self:
        self._check_fitted()
        world, held = self._world, self._sharded.shard
        label, index = world.shared(
            lambda: [None if value is None else np.asarray(value).tolist() for value in (label, index)]
        )
        local = torch.from_numpy(self._places_to_leave(label, index)).to(world.device)
        gone = torch.cat(world.gather_list(local)).unique().to(held.position.device)
        kept = held.select(~torch.isin(held.position, gone))
        counts = torch.bincount(kept.class_index, minlength=len(self.classes_))
        known = world.sum(counts) > 0
        number = known.cumsum(0) - 1
        position = kept.position - torch.searchsorted(gone, kept.position)
        shard = Shard(kept.embeddings, number[kept.class_index], position)
        self._hold(shard, self.classes_[known.cpu().numpy()], self._sharded.comparison)
        return self

    def kneighbors(self, X: Any, n_neighbors: int = 1, return_distance: bool = True) -> Any:
        return super().kneighbors(X, self._world.shared(lambda: operator.index(n_neighbors)), return_distance)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        def given() -> list[Any]:
            weight = None if sample_weight is None else np.asarray(sample_weight).tolist()
            labels = as_labels(y, len(y), mixed=True)
            return [plain(labels), labels.dtype.str, weight]

        values, dtype, weight = self._world.shared(given)
        return super().score(X, np.array(values, dtype=dtype), weight)

    def save(self, path: str | Path, *, weights: bool = False) -> None:
        """Write the support set to a folder that all ranks see: one safetensors file a rank and a JSON index,
        replaced last and at once, so that an interrupted save leaves the old classifier.
        """
        self._check_fitted()
        storage.save(self, self._world, self._sharded.shard, Path(path), weights=weights)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        head: nn.Module | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> Self:
        """Read what `save` wrote on any number of ranks, also that of the one-process classifier.

        Every rank reads its share of the rows only. Raises as in one process, on every rank.
        """
        world = World(group)
        classifier, shard, classes = world.attempt(
            lambda: storage.load(cls, world, Path(path), encoder, head, group)
        )
        comparison = Comparison(classifier.metric, head_of(encoder, head))
        classifier._hold(shard, classes, comparison)
        return cast(Self, classifier)

    @property
    def _world(self) -> World:
        return World(self.group)

    @property
    def _sharded(self) -> ShardedGallery:
        return cast(ShardedGallery, self._gallery)

    def _extend(self, X: Any, y: Any, held: ShardedGallery | None, comparison: Comparison) -> None:
        """Add every rank's examples to what is held, and share them out."""
        world = self._world
        like = None if held is None else held.embeddings
        known = None if held is None else self.classes_
        offer = world.attempt(lambda: self._offer(X, y, like, comparison))
        added, classes = united(world, offer, like, known, 0 if held is None else len(held))
        if held is not None:
            number = torch.from_numpy(np.searchsorted(classes, self.classes_)).to(added.position.device)
            renumbered = held.shard._replace(class_index=number[held.class_index])
            added = renumbered.joined(added)
        self._hold(added, classes, comparison)

    def _offer(self, X: Any, y: Any, like: Tensor | None, comparison: Comparison) -> Offer | None:
        """This rank's examples, embedded; None where it has none."""
        if X is None:
            return None
        rows = self._checked(X, None if like is None else like.shape[1])
        labels = as_labels(y, len(rows))
        if len(rows) == 0:
            return None
        embedded = embed(rows, embedder(self.encoder), batch_size=self.batch_size, like=like)
        embeddings = comparison.cast(embedded)
        self._world.check_device("X", embeddings)
        return Offer(embeddings, labels)

    def _hold(self, shard: Shard, classes: Array, comparison: Comparison) -> None:
        world = self._world
        mine = balanced(world, shard)
        total = int(world.sum(torch.tensor(len(mine.position), device=world.device)))

        def gallery() -> ShardedGallery:
            self._check_unknown_label(classes)
            return ShardedGallery(world, mine, len(classes), comparison, self.approximate, total)

        self._keep(world.agreed(gallery, lambda _: ((), self._settings()))[0], classes)

    def _settings(self) -> dict[str, str]:
        """What must be the same on every rank."""
        return {name: repr(getattr(self, name)) for name in SETTINGS}

    def _places_to_leave(self, label: Any, index: Any) -> Array:
        """The positions to remove, each on at least one rank; raises alike on every rank."""
        if (label is None) == (index is None):
            raise TypeError("remove takes exactly one of label= and index=")
        if index is not None:
            count, places = len(self._gallery), np.atleast_1d(np.asarray(index, dtype=np.int64))
            if wrong := places[(places < -count) | (places >= count)].tolist():
                raise IndexError(f"index {wrong[0]} is out of bounds for {count} examples")
            return places % count
        gone = np.atleast_1d(np.asarray(label))
        if missing := [x for x in gone.tolist() if x not in self.classes_.tolist()]:
            raise KeyError(f"label {missing[0]!r} is not among the {len(self.classes_)} known classes")
        return self.support_positions_[np.isin(self.support_labels_, gone.astype(self.classes_.dtype))]

    def _rows(self, X: Any) -> Rows:
        self._check_fitted()
        world = self._world
        rows, sizes = world.agreed(
            lambda: self._checked(X, self.support_.shape[1]) if world.rank == 0 else None,
            lambda rows: ((0 if rows is None else len(rows),), self._settings()),
        )
        return cast(
            Rows, rows if world.rank == 0 else range(sizes[0][0])
        )  # elsewhere only their number counts

    def _query_blocks(self, rows: Rows) -> Iterator[Tensor]:
        world, like = self._world, self.support_
        step = max(QUERY_ROWS, self.batch_size)
        for start in range(0, max(1, len(rows)), step):
            count = min(step, len(rows) - start)

            def queries(start: int = start, count: int = count) -> Tensor:
                if world.rank > 0:
                    return like.new_empty(count, like.shape[1])
                part, encoder = rows[start : start + step], embedder(self.encoder)
                return embed(part, encoder, batch_size=self.batch_size, like=like, first=start)

            yield world.broadcast(world.attempt(queries).contiguous())
