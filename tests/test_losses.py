"""Loss modules: each against its formula written out, and what happens in degenerate batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_fast.losses import (
    BatchHardTripletLoss,
    KochAllPairsLoss,
    KochPairLoss,
    KochSoftmaxLoss,
    TripletLoss,
)
from siamese_fast.network import DistanceHead, Head, KochHead

D = 16


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(3)
    return torch.randn(18, D, generator=generator, requires_grad=True), labels


def heads() -> list[Head]:
    torch.manual_seed(0)
    return [KochHead(D), KochHead(D, hidden=(8,)), DistanceHead("euclidean")]


def test_batch_hard_is_its_formula(batch: tuple[Tensor, Tensor]) -> None:
    x, labels = batch
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    farthest = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    for margin, smooth in ((0.2, False), (0.5, True), (None, False)):
        violation = farthest - nearest + (margin or 0.0)
        per_anchor = functional.softplus(violation) if smooth or margin is None else violation.relu()
        loss = BatchHardTripletLoss(margin, smooth=smooth)(x, labels)
        torch.testing.assert_close(loss, per_anchor.mean())


def test_triplet_loss_is_torchs(batch: tuple[Tensor, Tensor]) -> None:
    x, _ = batch
    anchor, positive, negative = x[:6], x[6:12], x[12:]
    loss = TripletLoss(1.0)(anchor, positive, negative)
    torch.testing.assert_close(loss, nn.TripletMarginLoss(1.0, eps=0.0)(anchor, positive, negative))


@pytest.mark.parametrize("head", heads(), ids=("koch", "hidden", "distance"))
@pytest.mark.parametrize("pos_weight", [None, 3.0])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_given_pairs_are_torchs_bce(
    batch: tuple[Tensor, Tensor], head: Head, pos_weight: float | None, dtype: torch.dtype
) -> None:
    x, _ = batch
    target = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1]).to(dtype)
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    logits = head.pairs(x[:9], x[9:])
    expected = functional.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=weight)
    loss = KochPairLoss(head, pos_weight=pos_weight)(x[:9], x[9:], target)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("hard_negatives", [None, 2.0, 1000.0])
def test_all_pairs_are_a_double_loop(batch: tuple[Tensor, Tensor], hard_negatives: float | None) -> None:
    x, labels = batch
    head = KochHead(D)
    positives, negatives = [], []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            logit = head.pairs(x[i : i + 1], x[j : j + 1])
            (positives if labels[i] == labels[j] else negatives).append(logit)
    kept = torch.cat(negatives).sort(descending=True).values
    if hard_negatives is not None:
        kept = kept[: round(hard_negatives * len(positives))]
    expected = (functional.softplus(-torch.cat(positives)).mean() + functional.softplus(kept).mean()) / 2
    torch.testing.assert_close(KochAllPairsLoss(head, hard_negatives=hard_negatives)(x, labels), expected)


def test_softmax_is_a_cross_entropy_for_each_positive(batch: tuple[Tensor, Tensor]) -> None:
    x, labels = batch
    head = KochHead(D)
    logits, terms = head.matrix(x, x), []
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j and labels[i] == labels[j]:
                row = torch.cat([logits[i, j : j + 1], logits[i, labels != labels[i]]])
                terms.append(functional.cross_entropy(row, torch.tensor(0)))
    loss = KochSoftmaxLoss(head)(x, labels)
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_softmax_ignores_the_bias(batch: tuple[Tensor, Tensor]) -> None:
    head = KochHead(D)
    before = KochSoftmaxLoss(head)(*batch)
    head.rescale(1.0, 3.0)
    torch.testing.assert_close(KochSoftmaxLoss(head)(*batch), before)


LOSSES = {
    "batch hard": lambda head: BatchHardTripletLoss(),
    "all pairs": KochAllPairsLoss,
    "softmax": KochSoftmaxLoss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_reach_embeddings_and_head(batch: tuple[Tensor, Tensor], name: str) -> None:
    x, labels = batch
    head = KochHead(D)
    LOSSES[name](head)(x, labels).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    if name != "batch hard":
        assert head.weight.grad is not None and head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "labels", [torch.zeros(4, dtype=torch.int64), torch.arange(4)], ids=("one", "distinct")
)
def test_degenerate_batches_are_finite(name: str, labels: Tensor) -> None:
    x = torch.randn(4, D, requires_grad=True)
    loss = LOSSES[name](KochHead(D))(x, labels)
    loss.backward()
    assert torch.isfinite(loss) and x.grad is not None and torch.isfinite(x.grad).all()
    if name == "batch hard" or (name == "softmax" and len(labels.unique()) == 4):
        assert loss == 0


def test_hard_negatives_must_be_positive() -> None:
    with pytest.raises(ValueError, match="hard_negatives must be None or greater than 0"):
        KochAllPairsLoss(KochHead(D), hard_negatives=0)


def test_repr_names_the_options() -> None:
    assert "margin=None, metric='cosine'" in repr(BatchHardTripletLoss(None, metric="cosine"))
