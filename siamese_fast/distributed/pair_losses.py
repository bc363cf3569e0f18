"""The losses over all pairs and all triplets, over the embeddings of all ranks as if they were one batch.

Each is its one-process function with `group` and `strategy`. All are collective: every rank calls the loss,
and `backward`. The loss is one number on every rank (but `reduction="none"`: the losses [N] of this rank's
anchors) with W times the one-process gradient in this rank's rows: DDP's average over W ranks is then exact.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from siamese_fast import ops
from siamese_fast.distributed.batch import Batch
from siamese_fast.distributed.pairs import Family, over_ranks
from siamese_fast.ops.circle_loss import circle_parameters
from siamese_fast.ops.contrastive_loss import contrastive_parameters
from siamese_fast.ops.multi_similarity_loss import multi_similarity_parameters
from siamese_fast.ops.pair_loss import finite

_NTXENT = Family(
    ops.ntxent_loss,
    lambda options: [finite("temperature", options["temperature"], positive=True)],
    "ntxent",
    mean="terms",
    mean_nonzero="losses",
)
SUPCON = Family(
    ops.supcon_loss,
    lambda options: [finite("temperature", options["temperature"], positive=True)],
    "supcon",
    mean="terms",
    mean_nonzero="losses",
)
_CONTRASTIVE = Family(
    ops.contrastive_loss,
    lambda options: contrastive_parameters(options["pos_margin"], options["neg_margin"], options["metric"]),
    "contrastive",
    mean="pairs",
    mean_nonzero="terms",
)
_MULTI_SIMILARITY = Family(
    ops.multi_similarity_loss,
    lambda options: multi_similarity_parameters(options["alpha"], options["beta"], options["base"]),
    "multi_similarity",
    mean="rows",
    mean_nonzero="losses",
)
_CIRCLE = Family(
    ops.circle_loss,
    lambda options: circle_parameters(options["margin"], options["gamma"], options["constant_weights"]),
    "circle",
    mean="terms",
    mean_nonzero="losses",
    metric="cosine",
)
_BATCH_ALL = Family(
    ops.batch_all_triplet_loss,
    lambda options: [finite("margin", options["margin"])],
    None,
    mean="triplets",
    mean_nonzero="terms",
)


def ntxent_loss(
    x: Tensor,
    labels: Tensor,
    temperature: float = 0.07,
    *,
    metric: str = "cosine",
    normalize: bool = False,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.ntxent_loss` of the batch that all ranks hold together; collective.

    Args:
        x, labels: this rank's embeddings [N, D] and labels [N]; N may differ between ranks and be 0. D, dtype
            and all settings may not: ValueError on every rank. Labels may be of any integer or bool dtype,
            also another one on each rank; one numbering for all ranks.
        temperature, metric, normalize: as in one process.
        reduction: "mean", "mean_nonzero", "sum": the number of the whole batch, on every rank. "none": the
            losses [N] of this rank's anchors.
        ref, ref_labels: this rank's part [M, D], [M] of a separate set; all parts together are it.
        self_index: [N], which row of all parts, in the order of the ranks, the anchor itself is; -1 for none.
        group: the ranks; None for all. Without torch.distributed the loss is that of this process alone.
        strategy: "ring": blocks travel from rank to rank, O(N D) memory. "gather": all blocks at once, one
            exchange fewer. Equal to rounding; "auto" gathers what is small.

    Returns:
        The loss, [] or [N]. Its gradient in `x` (and `ref`) is that of the sum over ranks of what every rank
        makes of its result: the world size times the one-process gradient when each calls `loss.backward()`.
        It can be differentiated once.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.ntxent_loss(ddp_encoder(images), labels)
        >>> loss.backward()
    """
    options = {"temperature": temperature, "metric": metric, "normalize": normalize, "reduction": reduction}
    return over_ranks(_NTXENT, Batch(x, labels, ref, ref_labels, self_index), options, group, strategy)


def supcon_loss(
    x: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    *,
    metric: str = "cosine",
    normalize: bool = False,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.supcon_loss` of the batch that all ranks hold together; collective.

    Args:
        temperature, metric, normalize: as in one process.
        x, labels, reduction, ref, ref_labels, self_index, group, strategy: as for `ntxent_loss`.

    Returns:
        The loss, [] or [N]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.supcon_loss(ddp_encoder(images), labels)
        >>> loss.backward()
    """
    options = {"temperature": temperature, "metric": metric, "normalize": normalize, "reduction": reduction}
    return over_ranks(SUPCON, Batch(x, labels, ref, ref_labels, self_index), options, group, strategy)


def contrastive_loss(
    x: Tensor,
    labels: Tensor,
    pos_margin: float = 0.0,
    neg_margin: float = 1.0,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    reduction: str = "mean_nonzero",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.contrastive_loss` of the batch that all ranks hold together; collective.

    Args:
        pos_margin, neg_margin, metric, normalize: as in one process.
        x, labels, reduction, ref, ref_labels, self_index, group, strategy: as for `ntxent_loss`.

    Returns:
        The loss, [] or [N]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.contrastive_loss(ddp_encoder(images), labels, neg_margin=0.5)
        >>> loss.backward()
    """
    options = {
        "pos_margin": pos_margin,
        "neg_margin": neg_margin,
        "metric": metric,
        "normalize": normalize,
        "reduction": reduction,
    }
    return over_ranks(_CONTRASTIVE, Batch(x, labels, ref, ref_labels, self_index), options, group, strategy)


def multi_similarity_loss(
    x: Tensor,
    labels: Tensor,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    *,
    metric: str = "cosine",
    normalize: bool = False,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.multi_similarity_loss` of the batch that all ranks hold together; collective.

    Args:
        alpha, beta, base, metric, normalize: as in one process.
        x, labels, reduction, ref, ref_labels, self_index, group, strategy: as for `ntxent_loss`.

    Returns:
        The loss, [] or [N]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.multi_similarity_loss(ddp_encoder(images), labels)
        >>> loss.backward()
    """
    options = {
        "alpha": alpha,
        "beta": beta,
        "base": base,
        "metric": metric,
        "normalize": normalize,
        "reduction": reduction,
    }
    return over_ranks(
        _MULTI_SIMILARITY, Batch(x, labels, ref, ref_labels, self_index), options, group, strategy
    )


def circle_loss(
    x: Tensor,
    labels: Tensor,
    margin: float = 0.4,
    gamma: float = 80.0,
    *,
    constant_weights: bool = True,
    reduction: str = "mean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.circle_loss` of the batch that all ranks hold together; collective.

    Args:
        margin, gamma, constant_weights: as in one process.
        x, labels, reduction, ref, ref_labels, self_index, group, strategy: as for `ntxent_loss`.

    Returns:
        The loss, [] or [N]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.circle_loss(ddp_encoder(images), labels)
        >>> loss.backward()
    """
    options = {"margin": margin, "gamma": gamma, "constant_weights": constant_weights, "reduction": reduction}
    return over_ranks(_CIRCLE, Batch(x, labels, ref, ref_labels, self_index), options, group, strategy)


def batch_all_triplet_loss(
    x: Tensor,
    labels: Tensor,
    margin: float = 0.2,
    *,
    metric: str = "euclidean",
    normalize: bool = False,
    reduction: str = "mean_nonzero",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    self_index: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    strategy: str = "auto",
) -> Tensor:
    """`siamese_fast.batch_all_triplet_loss` of the batch that all ranks hold together; collective.

    Args:
        margin, metric, normalize: as in one process.
        x, labels, reduction, ref, ref_labels, self_index, group, strategy: as for `ntxent_loss`,
            but strategy: "gather", which is also what "auto" does. There is no ring: what an anchor keeps of
            its positives is not bounded, so O(N D) memory could not be kept. ValueError for "ring".

    Returns:
        The loss, [] or [N]; its gradient is as that of `ntxent_loss`.

    Raises:
        TypeError, ValueError, IndexError: an argument of any rank is not as above; on every rank.

    Example:
        >>> loss = siamese_fast.distributed.batch_all_triplet_loss(ddp_encoder(images), labels)
        >>> loss.backward()
    """
    options = {"margin": margin, "metric": metric, "normalize": normalize, "reduction": reduction}
    return over_ranks(_BATCH_ALL, Batch(x, labels, ref, ref_labels, self_index), options, group, strategy)
