"""Examples sorted by class, and classes by group: what every sampler draws from."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassTable:
    """Examples by class, and classes by group.

    Classes are numbered 0 .. C - 1 in order of (group, label), so that the classes of a group lie together.

    Attributes:
        values: `[C]`, the label of each class.
        counts: `[C]`, its number of examples.
        group_of: `[C]`, its group, 0 .. G - 1.
        group_counts, group_starts: `[G]`, classes of each group and the first of them.
    """

    def __init__(self, labels: Tensor, groups: Tensor | None) -> None:
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or not len(labels):
            raise ValueError(
                "labels must be integers of shape [N], at least one; "
                f"got {labels.dtype} of shape {list(labels.shape)}"
            )
        values, inverse, counts = _distinct(labels.cpu().long())
        by_label = torch.arange(len(values)) if groups is None else _look_up(groups.cpu(), values)
        _, group, self.group_counts = _distinct(by_label)
        order = group.argsort(stable=True)
        self.values, self.counts, self.group_of = values[order], counts[order], group[order]
        self.group_starts = self.group_counts.cumsum(0) - self.group_counts
        self._starts = self.counts.cumsum(0) - self.counts
        self._examples = order.argsort()[inverse].argsort(stable=True)
        self.num_classes, self.num_groups = len(self.values), len(self.group_counts)

    def example(self, classes: Tensor, places: Tensor) -> Tensor:
        """The index, in the data, of the example at each place of each class."""
        found: Tensor = self._examples[self._starts[classes] + places]
        return found


def _distinct(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct values, sorted; which of them each value is; how often each occurs."""
    found: tuple[Tensor, Tensor, Tensor] = torch.unique(values, return_inverse=True, return_counts=True)
    return found


def _look_up(groups: Tensor, values: Tensor) -> Tensor:
    if groups.ndim != 1 or int(values.min()) < 0 or int(values.max()) >= len(groups):
        raise ValueError(
            f"exclusive / groups must be of shape [C] and indexed by label; got shape {list(groups.shape)} "
            f"for labels from {int(values.min())} to {int(values.max())}"
        )
    return groups.long()[values]
