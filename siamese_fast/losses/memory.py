"""Cross-batch memory: the embeddings of earlier batches as a reference set of any in-batch loss.

Source: Wang, Zhang, Huang, Scott, "Cross-Batch Memory for Embedding Learning", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamese_fast.losses.pairs import PairLoss

EMPTY = -(2**63)
"""The label of a place that holds nothing yet."""


class CrossBatchMemory(nn.Module):
    """An in-batch loss whose positives and negatives are the last `size` rows seen, this batch's among them.

    The memory holds no gradients: they go to the batch's rows as anchors. What it holds, and where it goes
    on, are buffers: `state_dict` keeps them.

    Args:
        loss: a loss over pairs or triplets of this package, such as `NTXentLoss()`.
        dim: columns of the embeddings.
        size: rows kept; the oldest go first.

    Shapes:
        embeddings `[N, dim]`, labels `[N]`, N <= size, to what the loss returns.

    Raises:
        ValueError: a batch does not fit the memory, or `size` or `dim` is not positive.

    Example:
        >>> loss = CrossBatchMemory(NTXentLoss(), dim=128, size=65_536)(encoder(images), labels)
        >>> loss.backward()
    """

    rows: Tensor
    labels: Tensor
    place: Tensor

    def __init__(self, loss: PairLoss, dim: int, size: int = 1024) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("size", size)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self.loss = loss
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), EMPTY))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor, labels: Tensor, *, weight: Tensor | None = None) -> Tensor:
        size, dim = self.rows.shape
        count = embeddings.shape[0]
        if embeddings.dim() != 2 or embeddings.shape[1] != dim or count > size:
            raise ValueError(
                f"embeddings must have shape [N, {dim}] with N <= {size}, got {list(embeddings.shape)}"
            )
        own = (self.place + torch.arange(count, device=self.place.device)) % size
        # New tensors: what an earlier batch's backward pass still needs is not written over.
        self.rows = self.rows.index_copy(0, own, embeddings.detach().to(self.rows.dtype))
        self.labels = self.labels.index_copy(0, own, labels.to(self.labels.dtype))
        self.place = (self.place + count) % size
        loss: Tensor = self.loss(
            embeddings,
            labels,
            ref=self.rows.to(embeddings.dtype),
            ref_labels=self.labels,
            self_index=own,
            weight=weight,
            ignore_label=EMPTY,
        )
        return loss

    def extra_repr(self) -> str:
        return f"size={self.rows.shape[0]}, dim={self.rows.shape[1]}"
