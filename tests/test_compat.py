"""The drop-ins against the libraries themselves, in float64: values, gradients, indices, odd batches."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from compat_checks import LOSSES, MINERS, rows, same
from hypothesis import given, settings
from torch import Tensor, nn

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, miners, reducers
from pytorch_metric_learning import losses as theirs

from siamese_fast.compat import pytorch_metric_learning as ours

DISTANCES = {
    "lp": distances.LpDistance,
    "raw lp": lambda: distances.LpDistance(normalize_embeddings=False),
    "squared": lambda: distances.LpDistance(power=2),
    "cosine": distances.CosineSimilarity,
    "dot": lambda: distances.DotProductSimilarity(normalize_embeddings=False),
    "manhattan": lambda: distances.LpDistance(p=1),
}
REDUCERS = {"default": lambda: None, "mean": reducers.MeanReducer, "non-zero": reducers.AvgNonZeroReducer}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ntxent": ("NTXentLoss", {"temperature": 0.5}),
    "supcon": ("SupConLoss", {"temperature": 0.5}),
    "multi-similarity": ("MultiSimilarityLoss", {"beta": 5}),
    "contrastive": ("ContrastiveLoss", {"pos_margin": 0.2, "neg_margin": 0.9}),
    "triplets": ("TripletMarginLoss", {"margin": 0.3}),
    "smooth triplets": ("TripletMarginLoss", {"margin": 0.3, "smooth_loss": True}),
    "swapped triplets": ("TripletMarginLoss", {"margin": 0.3, "swap": True}),
}


@given(
    st.sampled_from(list(FORMS)),
    st.sampled_from(list(DISTANCES)),
    st.sampled_from(list(REDUCERS)),
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.lists(st.integers(0, 4), max_size=7),
    st.integers(0, 1000),
)
@settings(max_examples=300)
def test_any_batch_of_any_loss(
    form: str, distance: str, reducer: str, labels: list[int], ref_labels: list[int], seed: int
) -> None:
    """Random labels hold the degenerate batches: one row, one class, no positives, no negatives."""
    name, options = FORMS[form]
    if distance == "dot" and name in ("NTXentLoss", "MultiSimilarityLoss"):
        distance = "cosine"
    pair = [
        getattr(module, name)(**options, distance=DISTANCES[distance](), reducer=REDUCERS[reducer]())
        for module in (ours, theirs)
    ]
    x, names = rows(len(labels), seed), torch.tensor(labels)
    if ref_labels and not options.get("swap"):
        same(*pair, x, names, ref_emb=rows(len(ref_labels), seed + 1), ref_labels=torch.tensor(ref_labels))
    else:
        same(*pair, x, names)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=14), st.integers(0, 1000))
@settings(max_examples=60)
def test_any_batch_of_the_circle_loss(labels: list[int], seed: int) -> None:
    same(
        ours.CircleLoss(gamma=10), theirs.CircleLoss(gamma=10), rows(len(labels), seed), torch.tensor(labels)
    )


def test_the_same_object_as_reference_labels_leaves_out_the_diagonal() -> None:
    x, labels = rows(20, 0), torch.arange(20) % 4
    for given_labels in (labels, labels.clone()):
        for name in ("NTXentLoss", "ContrastiveLoss", "TripletMarginLoss"):
            same(
                getattr(ours, name)(),
                getattr(theirs, name)(),
                x,
                labels,
                ref_emb=rows(20, 1),
                ref_labels=given_labels,
            )


def test_losses_take_what_a_miner_found() -> None:
    x, labels = rows(40, 3), torch.arange(40) % 8
    found = ours.BatchHardMiner()(x, labels)
    for options in ({}, {"smooth_loss": True}, {"distance": distances.CosineSimilarity()}, {"swap": True}):
        pair = (ours.TripletMarginLoss(**options), theirs.TripletMarginLoss(**options))
        same(*pair, x, labels, indices_tuple=found)
    for name in ("NTXentLoss", "ContrastiveLoss", "MultiSimilarityLoss"):
        same(getattr(ours, name)(), getattr(theirs, name)(), x, labels, indices_tuple=found)


def test_ntxent_is_exact_where_the_library_saturates() -> None:
    """Theirs is -log(ratio + smallest number): no pair costs more than 708. Here one costs 2000."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 1e-3], [1.0, 1e-3]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    assert theirs.NTXentLoss(temperature=1e-3)(x, labels) < 709 / 2 + 1
    torch.testing.assert_close(
        ours.NTXentLoss(temperature=1e-3)(x, labels), torch.tensor(1000.35).double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_any_dtype_and_rows_of_any_layout(name: str) -> None:
    pair = (getattr(ours, name)(), getattr(theirs, name)())
    for dtype in (torch.bool, torch.int32, torch.uint8, torch.float32):
        same(*pair, rows(5, 2, 12).T, (torch.arange(24) % 2).to(dtype)[::2])


@pytest.mark.parametrize("name", [*LOSSES, *MINERS])
def test_errors_and_empty_batches_are_the_librarys(name: str) -> None:
    x, labels = rows(6, 0), torch.arange(6) % 2
    found = []
    for module in (ours, theirs if name in LOSSES else miners):
        part = getattr(module, name)()
        for batch in ((x[None], labels), (x, labels[:4]), (x, labels, None, x, labels[:4])):
            with pytest.raises((ValueError, TypeError)) as raised:
                part(*batch)
            found.append(str(raised.value))
        if name in LOSSES:
            with pytest.raises(ValueError, match="cannot both be None"):
                part(x)
            empty = part(x[:0].requires_grad_(), labels[:0])
            assert empty == 0 and empty.requires_grad
            assert part(x, labels, ref_emb=x[:0], ref_labels=labels[:0]) == 0
    assert found[:3] == found[3:]


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_no_further_from_float64_than_the_library(name: str) -> None:
    """By the largest error over ten batches, as single errors are luck."""
    eps, errors = torch.finfo(torch.float32).eps, []
    for seed in range(10):
        x, labels = rows(64, seed, 33), torch.arange(64) % 16
        answers = []
        for module, dtype in ((theirs, torch.float64), (theirs, torch.float32), (ours, torch.float32)):
            leaf = x.to(dtype).requires_grad_()
            loss = getattr(module, name)()(leaf, labels)
            answers.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
        exact, *found = answers
        scale = [value.abs().max() for value in exact]
        errors.append(
            [[(a - b).abs().max() / s for a, b, s in zip(one, exact, scale, strict=True)] for one in found]
        )
    library, mine = torch.tensor(errors).amax(0)
    assert (mine <= 2 * library + 4 * eps).all(), (mine, library)


def test_a_nan_is_never_mined() -> None:
    x, labels = rows(12, 0), torch.arange(12) % 3
    x[5] = torch.nan
    for name in MINERS:
        found = getattr(ours, name)()(x, labels)
        assert len(found[0]) > 0 and not any((index == 5).any() for index in found)


@pytest.mark.parametrize(
    ("name", "miner"),
    [
        *((name, None) for name in LOSSES),
        *(("TripletMarginLoss", miner) for miner in MINERS),
        ("MultiSimilarityLoss", "MultiSimilarityMiner"),
    ],
)
@pytest.mark.parametrize("memory", [False, True])
def test_fifty_steps_of_training_are_the_same(name: str, miner: str | None, memory: bool) -> None:
    def curve(module: Any, of_miners: Any) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).double()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        loss, mine = getattr(module, name)(), getattr(of_miners, miner)() if miner else None
        if memory:
            loss = module.CrossBatchMemory(loss, embedding_size=4, memory_size=80, miner=mine)
        labels, values = torch.arange(32) % 8, []
        for step in range(50):
            embeddings = model(rows(32, step, 6) + labels[:, None])
            value = loss(embeddings, labels, mine(embeddings, labels) if mine and not memory else None)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(value.detach())
        return torch.stack(values)

    torch.testing.assert_close(curve(ours, ours), curve(theirs, miners), rtol=1e-6, atol=1e-9)
