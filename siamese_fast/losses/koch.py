"""Losses of the Koch head as modules; they hold the head that they train.

pairs:    cross-entropy of p = sigmoid(b + sum_k w_k |h1_k - h2_k|), target 1 for the same class, else 0
softmax:  -log(exp l_ap / (exp l_ap + sum_n exp l_an)), l the same logit, n the negatives in the batch
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_fast import ops
from siamese_fast.network.heads import Head


class KochPairLoss(nn.Module):
    """Binary cross-entropy of the head's probability on given pairs (method 1 as published); fused for a
    linear Koch head.

    Args:
        head: the head of the network that is trained.
        pos_weight: weight of the positive pairs; 1 for balanced pairs.

    Shapes:
        h1, h2 `[B, D]`, target `[B]` (1 same class, 0 different; bool, integer or float) to a scalar.

    Source: Koch, Zemel, Salakhutdinov (2015).

    Example:
        >>> loss = KochPairLoss(network.head)(network.embed(a), network.embed(b), target)
    """

    def __init__(self, head: Head, *, pos_weight: float | None = None) -> None:
        super().__init__()
        self.head = head
        self.pos_weight = pos_weight

    def forward(self, h1: Tensor, h2: Tensor, target: Tensor) -> Tensor:
        koch = self.head.lookup() or {}
        if "weight" in koch:
            return ops.l1_similarity_bce(h1, h2, **koch, target=target, pos_weight=self.pos_weight)
        logits = self.head.pairs(h1, h2)
        weight = None if self.pos_weight is None else logits.new_tensor(self.pos_weight)
        return functional.binary_cross_entropy_with_logits(logits, target.to(logits), pos_weight=weight)


class KochAllPairsLoss(nn.Module):
    """Binary cross-entropy over all pairs of a batch: positives and the hardest negatives, each side half of
    the loss.

    A batch of N images holds N(N-1)/2 pairs for N passes of the encoder, most of them easy negatives that
    drown the gradient; keeping the hardest about halves the one-shot error.

    Args:
        head: the head of the network that is trained.
        hard_negatives: negatives kept for each positive, those with the highest logits; None keeps all.

    Shapes:
        embeddings `[N, D]`, labels `[N]` to a scalar; 0 (with zero gradients) for a batch without pairs of a
        kind.

    Raises:
        ValueError: `hard_negatives` is not positive.

    Source: Koch et al. (2015) for the loss; hard negatives as in Shrivastava, Gupta, Girshick (2016).

    Example:
        >>> loss = KochAllPairsLoss(network.head)(network.embed(images), labels)
    """

    def __init__(self, head: Head, *, hard_negatives: float | None = 2.0) -> None:
        super().__init__()
        if hard_negatives is not None and not hard_negatives > 0:
            raise ValueError(f"hard_negatives must be None or greater than 0, got {hard_negatives}")
        self.head = head
        self.hard_negatives = hard_negatives

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        logits = self.head.matrix(embeddings, embeddings)
        once = torch.ones_like(logits, dtype=torch.bool).triu(1)
        same = labels[:, None] == labels
        positives, negatives = logits[same & once], logits[~same & once]
        if self.hard_negatives is not None:
            kept = min(len(negatives), max(1, round(self.hard_negatives * len(positives))))
            negatives = negatives.topk(kept).values
        return 0.5 * (_mean(functional.softplus(-positives)) + _mean(functional.softplus(negatives)))


class KochSoftmaxLoss(nn.Module):
    """In-batch N-way classification: each positive of an anchor must outscore all of the anchor's negatives.

    It trains what one-shot recognition asks for, but any shift of the logits cancels, so call
    `SiameseNetwork.calibrate` afterwards if probabilities are wanted.

    Args:
        head: the head of the network that is trained.

    Shapes:
        embeddings `[N, D]`, labels `[N]` to a scalar, the mean over (anchor, positive) pairs; 0 (with zero
        gradients) for a batch without positives.

    Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective" (2016), with Koch's
    logits.

    Example:
        >>> loss = KochSoftmaxLoss(network.head)(network.embed(images), labels)
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        logits = self.head.matrix(embeddings, embeddings)
        same = labels[:, None] == labels
        against = logits.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)  # [N, 1]
        positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return _mean(functional.softplus(against - logits)[positives])


def _mean(values: Tensor) -> Tensor:
    """The mean, and 0 (that still backpropagates zeros) of nothing."""
    return values.sum() / max(1, len(values))
