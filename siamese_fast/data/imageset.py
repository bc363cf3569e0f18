"""ImageSet: labelled images held in memory, the one form in which every loader of this package returns data.

Ink is bright and paper is dark: a stored 255 is full ink, and `tensor()` turns it into 1.0. Pixels stay
    `uint8` until
a batch is asked for, which keeps 100,000 characters of 28x28 pixels in 78 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Attributes:
        images: uint8 `[N, H, W]` (grey) or `[N, C, H, W]`.
        labels: int64 `[N]`, values 0 .. number of classes - 1.
        classes: the name of each class.
        groups: int64 `[number of classes]`, the alphabet (or other family) of each class; zeros if not given.
        group_names: the name of each group.
        exclusive: int64 `[number of classes]`; classes with the same number are never put in one batch (the
            rotations of one character, which may look alike). By default every class has a number of its own.

    Raises:
        ValueError: a shape, dtype or label does not fit the description above.

    Example:
        >>> letters = ImageSet(torch.zeros(4, 28, 28, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), ("a",
        "b")) >>> batch = letters.tensor([0, 2])  # float32 [2, 1, 28, 28]
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    groups: Tensor = None  # type: ignore[assignment]
    group_names: tuple[str, ...] = ("",)
    exclusive: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        count = len(self.classes)
        if self.groups is None:
            object.__setattr__(self, "groups", torch.zeros(count, dtype=torch.int64))
        if self.exclusive is None:
            object.__setattr__(self, "exclusive", torch.arange(count))
        _check_images(self.images, self.labels)
        _check_index("labels", self.labels, count, "class")
        for name, value in (("groups", self.groups), ("exclusive", self.exclusive)):
            if value.dtype != torch.int64 or value.shape != (count,):
                raise ValueError(
                    f"{name} must be int64 of shape [{count}], one per class; "
                    f"got {value.dtype} of shape {list(value.shape)}"
                )
        _check_index("groups", self.groups, len(self.group_names), "group name")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def counts(self) -> Tensor:
        """Examples of each class, int64 `[number of classes]`."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def tensor(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """The images at `indices` (all when None) as float32 `[n, C, H, W]` in [0, 1], ink = 1."""
        chosen = self.images if indices is None else self.images[torch.as_tensor(indices, dtype=torch.int64)]
        if chosen.ndim == 3:
            chosen = chosen.unsqueeze(1)
        return chosen.to(torch.float32).div_(255.0)

    def subset(self, class_indices: Tensor | Sequence[int]) -> ImageSet:
        """Only the given classes, renumbered 0, 1, ... in the order given.

        Raises:
            ValueError: a class index out of range or given twice.
        """
        wanted = torch.as_tensor(class_indices, dtype=torch.int64).reshape(-1)
        _check_index("class_indices", wanted, self.num_classes, "class")
        if len(set(wanted.tolist())) != len(wanted):
            raise ValueError("class_indices must not repeat a class")
        new_label = torch.full((self.num_classes,), -1, dtype=torch.int64)
        new_label[wanted] = torch.arange(len(wanted))
        labels = new_label[self.labels]
        kept = labels >= 0
        return ImageSet(
            images=self.images[kept],
            labels=labels[kept],
            classes=tuple(self.classes[i] for i in wanted.tolist()),
            groups=self.groups[wanted],
            group_names=self.group_names,
            exclusive=self.exclusive[wanted],
        )


def _check_images(images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            "images must be uint8 of shape [N, H, W] or [N, C, H, W]; "
            f"got {images.dtype} of shape {list(images.shape)}"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must be int64 of shape [{len(images)}], one per image; "
            f"got {labels.dtype} of shape {list(labels.shape)}"
        )


def _check_index(name: str, index: Tensor, bound: int, what: str) -> None:
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= bound):
        raise ValueError(
            f"{name} must lie in 0 .. {bound - 1} (there is one {what} for each); "
            f"got values from {int(index.min())} to {int(index.max())}"
        )
