"""Cross-rank losses as modules: what `fit` takes, and the loops of users."""

from __future__ import annotations

from typing import Any, cast

import torch.distributed as dist
from torch import Tensor

from siamese_fast import losses
from siamese_fast.distributed.losses import batch_hard_triplet_loss


class BatchHardTripletLoss(losses.BatchHardTripletLoss):
    """`siamese_fast.BatchHardTripletLoss` over the embeddings of all ranks.

    Args:
        margin: of the hinge; None is the soft margin.
        group, strategy: as in `siamese_fast.distributed.batch_hard_triplet_loss`.
        options: metric, normalize, smooth, reduction, no_triplet.

    Example:
        >>> options = FitOptions(steps=500, distributed=True)
        >>> fit(network, siamese_fast.distributed.BatchHardTripletLoss(None), images, sampler, options)
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        *,
        group: dist.ProcessGroup | None = None,
        strategy: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(margin, **options)
        self.group, self.strategy = group, strategy

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        loss = batch_hard_triplet_loss(
            embeddings, labels, self.margin, group=self.group, strategy=self.strategy, **self.options
        )
        return cast(Tensor, loss)
