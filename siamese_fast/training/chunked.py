"""Encoding in chunks: batches larger than the encoder's memory, with the gradient of the whole batch.

    forward    h = cat over chunks of encoder(chunk), keeping embeddings and no activations
    loss       on the whole of h: its gradient dh is that of the whole batch
    backward   for each chunk, encoder(chunk) once more, then its backward pass from its part of dh

So activations of one chunk exist at a time, for one forward pass more. The second pass draws the same random
numbers (dropout) as the first and leaves buffers as the first left them. What one image's embedding takes
from the rest of its batch, as in batch normalisation, is taken from the rest of its chunk: over vectors that
raises where the last chunk is a single image.

Sources: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(2021); Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def encode_in_chunks(
    encode: Callable[[Tensor], Tensor], batch: Tensor, size: int | None, module: nn.Module
) -> Tensor:
    """`encode(batch)` `[N, D]`, at most `size` examples at a time; `module` is what `encode` runs."""
    if size is None or len(batch) <= size:
        return encode(batch)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _buffers_kept(module)

    parts = [
        checkpoint(encode, chunk, use_reentrant=False, context_fn=contexts) for chunk in batch.split(size)
    ]
    return torch.cat(parts)


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Running statistics count each chunk once, though it is encoded twice."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            # Past the version counter: the backward pass that follows does not read running statistics.
            buffer.data.copy_(value)
