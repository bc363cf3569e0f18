"""Samplers: which examples make a batch of pairs, a P x K batch for triplets, or a one-shot episode.

Every sampler is driven by a seed or an explicit `torch.Generator` and nothing else, so the batches of a run
are a function of its seed; `state_dict()` and `load_state_dict()` continue it at the next batch, to the same
bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamese_fast.data._classes import ClassTable


class Pairs(NamedTuple):
    """A batch of pairs: int64 `[B]` indices of both sides and float32 `[B]` targets, 1 for one class."""

    index_a: Tensor
    index_b: Tensor
    target: Tensor


class Episode(NamedTuple):
    """One N-way k-shot task: indices into the data, and labels 0 .. N - 1 that hold within the episode.

    `support` and `support_labels` are int64 `[N * k]`, `query` and `query_labels` int64 `[number of
    queries]`. `classes` int64 `[N]` says which class of the data each label is.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    classes: Tensor


class _Seeded:
    """The random state that the endless samplers share."""

    def __init__(self, generator: torch.Generator | int) -> None:
        self.generator = _as_generator(generator)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the batches to come."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.generator.set_state(state["generator"])


class PairSampler(_Seeded):
    """Endless batches of pairs, half of them of one class (target 1) and half of two (target 0).

    Classes are drawn uniformly, whatever their number of examples. The two sides of a positive pair are
    different examples; classes with a single example appear in negative pairs only.

    Args:
        labels: integer `[N]`, the class of each example; any values.
        batch_size: pairs in a batch. An odd one has one negative more.
        generator: a generator, or the seed of one.
        exclusive: int64, indexed by label: classes with the same number never meet in a negative pair.

    Raises:
        ValueError: there is no class with two examples, or no two classes that may meet.

    Example:
        >>> sampler = PairSampler(torch.tensor([0, 0, 1, 1]), batch_size=8)
        >>> index_a, index_b, target = next(sampler)
    """

    def __init__(
        self,
        labels: Tensor,
        batch_size: int,
        generator: torch.Generator | int = 0,
        *,
        exclusive: Tensor | None = None,
    ) -> None:
        super().__init__(generator)
        if batch_size < 2:
            raise ValueError(
                f"batch_size must be at least 2 (a positive and a negative pair), got {batch_size}"
            )
        self.batch_size = batch_size
        self._table = ClassTable(labels, exclusive)
        self._repeated = (self._table.counts >= 2).nonzero().squeeze(1)
        if not len(self._repeated):
            raise ValueError("labels must hold a class with at least two examples, to make a positive pair")
        if self._table.num_groups < 2:
            raise ValueError(
                "labels must hold at least two classes that may share a batch, to make a negative pair"
            )

    def __iter__(self) -> Iterator[Pairs]:
        return self

    def __next__(self) -> Pairs:
        positives = self.batch_size // 2
        same = self._repeated[self._below(torch.full((positives,), len(self._repeated)))]
        first = self._below(self._table.counts[same])
        # A draw among the others, by skipping the first.
        second = self._below(self._table.counts[same] - 1)
        second += second >= first
        one, other = self._two_classes(self.batch_size - positives)
        left = self._table.example(
            torch.cat([same, one]), torch.cat([first, self._below(self._table.counts[one])])
        )
        right = self._table.example(
            torch.cat([same, other]), torch.cat([second, self._below(self._table.counts[other])])
        )
        target = torch.zeros(self.batch_size)
        target[:positives] = 1
        return Pairs(left, right, target)

    def _two_classes(self, count: int) -> tuple[Tensor, Tensor]:
        """Two classes of different exclusive groups for each of `count` pairs."""
        table = self._table
        one = self._below(torch.full((count,), table.num_classes))
        size = table.group_counts[table.group_of[one]]
        # Classes lie sorted by group: a draw that reaches the group of the first skips over the whole of it.
        other = self._below(table.num_classes - size)
        other += size * (other >= table.group_starts[table.group_of[one]])
        return one, other

    def _below(self, bounds: Tensor) -> Tensor:
        draws = torch.rand(bounds.shape, generator=self.generator, dtype=torch.float64)
        return (draws * bounds).long()


class PKSampler(_Seeded):
    """Endless batches of P classes with K examples each, drawn uniformly: int64 `[P * K]`, the K of a class
    together.

    A class with fewer than K examples gives each of them before any again, so an example repeats only where
    it must.

    Args:
        labels: integer `[N]`, the class of each example; any values.
        p, k: classes in a batch, examples of a class.
        generator: a generator, or the seed of one.
        exclusive: int64, indexed by label: classes with the same number never share a batch (the rotations of
            one character, which may look alike).

    Raises:
        ValueError: `p` or `k` is below 1, or there are fewer than P classes that may share a batch.

    Example:
        >>> sampler = PKSampler(torch.tensor([0, 0, 1, 1, 2]), p=2, k=2)
        >>> batch = next(sampler)  # int64 [4]
    """

    def __init__(
        self,
        labels: Tensor,
        p: int,
        k: int,
        generator: torch.Generator | int = 0,
        *,
        exclusive: Tensor | None = None,
    ) -> None:
        super().__init__(generator)
        if p < 1 or k < 1:
            raise ValueError(f"p and k must be at least 1, got p={p} and k={k}")
        self.p, self.k = p, k
        self._table = ClassTable(labels, exclusive)
        if self._table.num_groups < p:
            raise ValueError(
                f"p must be at most {self._table.num_groups}, the classes that may share a batch, got {p}"
            )

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        table = self._table
        classes = self._classes()
        counts = table.counts[classes].unsqueeze(1)  # [P, 1]
        places = torch.arange(int(counts.max()))
        keys = torch.rand(self.p, len(places), generator=self.generator).masked_fill_(places >= counts, 2.0)
        shuffled = keys.argsort(dim=1)
        chosen = shuffled.gather(1, torch.arange(self.k) % counts)  # [P, K]
        return table.example(classes.unsqueeze(1), chosen).flatten()

    def _classes(self) -> Tensor:
        """P classes: those of a random order of all, without the ones whose exclusive number came before."""
        table = self._table
        order = torch.randperm(table.num_classes, generator=self.generator)
        first = torch.full((table.num_groups,), table.num_classes)
        first.scatter_reduce_(0, table.group_of[order], torch.arange(table.num_classes), "amin")
        return order[first.sort().values[: self.p]]


class EpisodeSampler:
    """A fixed list of N-way k-shot episodes: episode i follows from the seed and i alone.

    So the list is the same however often it is read, in whatever order, by whatever method is tested on it,
    and there
    is no state to save: to resume at episode i is to go on reading at i.

    Args:
        labels: integer `[N]`, the class of each example; any values.
        n_way, k_shot: classes in an episode, support examples of each.
        n_query: query examples of each class; None for all that are not support.
        n_episodes: length of the list.
        groups: int64, indexed by label: the alphabet of each class. Given, an episode stays within one
            alphabet, drawn uniformly among those with enough classes.
        seed: of the whole list.

    Raises:
        ValueError: an argument is below 1, or no alphabet has `n_way` classes of enough examples.
        IndexError: an episode beyond the list.

    Example:
        >>> for episode in EpisodeSampler(test.labels, n_way=10, k_shot=1, n_query=5, n_episodes=200):
        ...     support = test.tensor(episode.support)
    """

    def __init__(
        self,
        labels: Tensor,
        n_way: int,
        k_shot: int,
        n_query: int | None,
        n_episodes: int,
        groups: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        asked = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query, "n_episodes": n_episodes}
        for name, value in asked.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.n_way, self.k_shot, self.n_query, self.n_episodes = n_way, k_shot, n_query, n_episodes
        self.seed = seed
        self._table = ClassTable(labels, groups)
        needed = k_shot + (1 if n_query is None else n_query)
        usable = (self._table.counts >= needed).nonzero().squeeze(1)
        group_of = self._table.group_of[usable] if groups is not None else torch.zeros_like(usable)
        pools = [usable[group_of == group] for group in range(self._table.num_groups)]
        self._pools = [pool for pool in pools if len(pool) >= n_way]
        if not self._pools:
            where = "labels hold" if groups is None else "the largest group holds"
            most = max((len(pool) for pool in pools), default=0)
            raise ValueError(
                f"n_way={n_way} classes of at least {needed} examples each are needed, {where} only {most}"
            )

    def __len__(self) -> int:
        return self.n_episodes

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(self.n_episodes))

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < self.n_episodes:
            raise IndexError(f"episode must lie in 0 .. {self.n_episodes - 1}, got {index}")
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B1 + index) % 2**63)
        pool = self._pools[int(torch.randint(len(self._pools), (1,), generator=generator))]
        chosen = pool[torch.randperm(len(pool), generator=generator)[: self.n_way]]
        support, query = [], []
        for which in chosen.tolist():
            count = int(self._table.counts[which])
            shuffled = self._table.example(torch.tensor(which), torch.randperm(count, generator=generator))
            support.append(shuffled[: self.k_shot])
            end = count if self.n_query is None else self.k_shot + self.n_query
            query.append(shuffled[self.k_shot : end])
        way = torch.arange(self.n_way)
        return Episode(
            support=torch.cat(support),
            support_labels=way.repeat_interleave(self.k_shot),
            query=torch.cat(query),
            query_labels=way.repeat_interleave(torch.tensor([len(part) for part in query])),
            classes=self._table.values[chosen],
        )


def _as_generator(generator: torch.Generator | int) -> torch.Generator:
    if isinstance(generator, torch.Generator):
        return generator
    return torch.Generator().manual_seed(generator)
