"""Cross-rank losses as modules: what `fit` takes, and the loops of users."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor, nn

from siamese_fast import losses
from siamese_fast.distributed import pair_losses
from siamese_fast.distributed.losses import batch_hard_triplet_loss
from siamese_fast.losses.pairs import PairLoss


class AcrossRanks(nn.Module):
    """A loss over the embeddings of all ranks of `group`."""

    group: dist.ProcessGroup | None
    strategy: str


class BatchHardTripletLoss(losses.BatchHardTripletLoss, AcrossRanks):
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


class _PairLoss(PairLoss, AcrossRanks):
    """A module of `siamese_fast.losses` whose operation is that of all ranks.

    Args:
        parameters, options: as in one process.
        group, strategy: as in the function of `siamese_fast.distributed`.
    """

    across: Callable[..., Tensor]

    def __init__(
        self,
        *parameters: Any,
        group: dist.ProcessGroup | None = None,
        strategy: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(*parameters, **options)
        self.group, self.strategy = group, strategy
        self.operation: Callable[..., Tensor] = partial(type(self).across, group=group, strategy=strategy)


class NTXentLoss(_PairLoss, losses.NTXentLoss):
    """`siamese_fast.NTXentLoss` over the embeddings of all ranks.

    Args:
        group, strategy: as in `siamese_fast.distributed.ntxent_loss`; the rest as in one process.

    Example:
        >>> loss = siamese_fast.distributed.NTXentLoss(0.1)(ddp_encoder(images), labels)
        >>> loss.backward()
    """

    across = staticmethod(pair_losses.ntxent_loss)


class SupConLoss(_PairLoss, losses.SupConLoss):
    """`siamese_fast.SupConLoss` over the embeddings of all ranks.

    Args:
        group, strategy: as in `siamese_fast.distributed.supcon_loss`; the rest as in one process.

    Example:
        >>> loss = siamese_fast.distributed.SupConLoss()(ddp_encoder(images), labels)
        >>> loss.backward()
    """

    across = staticmethod(pair_losses.supcon_loss)


class ContrastiveLoss(_PairLoss, losses.ContrastiveLoss):
    """`siamese_fast.ContrastiveLoss` over the embeddings of all ranks.

    Args:
        group, strategy: as in `siamese_fast.distributed.contrastive_loss`; the rest as in one process.

    Example:
        >>> loss = siamese_fast.distributed.ContrastiveLoss(neg_margin=0.5)(ddp_encoder(images), labels)
        >>> loss.backward()
    """

    across = staticmethod(pair_losses.contrastive_loss)


class MultiSimilarityLoss(_PairLoss, losses.MultiSimilarityLoss):
    """`siamese_fast.MultiSimilarityLoss` over the embeddings of all ranks.

    Args:
        group, strategy: as in `siamese_fast.distributed.multi_similarity_loss`; the rest as in one process.

    Example:
        >>> loss = siamese_fast.distributed.MultiSimilarityLoss()(ddp_encoder(images), labels)
        >>> loss.backward()
    """

    across = staticmethod(pair_losses.multi_similarity_loss)


class CircleLoss(_PairLoss, losses.CircleLoss):
    """`siamese_fast.CircleLoss` over the embeddings of all ranks.

    Args:
        group, strategy: as in `siamese_fast.distributed.circle_loss`; the rest as in one process.

    Example:
        >>> loss = siamese_fast.distributed.CircleLoss()(ddp_encoder(images), labels)
        >>> loss.backward()
    """

    across = staticmethod(pair_losses.circle_loss)


class BatchAllTripletLoss(_PairLoss, losses.BatchAllTripletLoss):
    """`siamese_fast.BatchAllTripletLoss` over the embeddings of all ranks.

    Args:
        group, strategy: as in `siamese_fast.distributed.batch_all_triplet_loss`; the rest as in one process.

    Example:
        >>> loss = siamese_fast.distributed.BatchAllTripletLoss(0.1)(ddp_encoder(images), labels)
        >>> loss.backward()
    """

    across = staticmethod(pair_losses.batch_all_triplet_loss)
