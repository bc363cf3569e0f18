"""The drop-ins against the libraries themselves, in float64: values, gradients, indices, odd batches."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

pml = pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, miners, reducers, regularizers  # noqa: E402
from pytorch_metric_learning import losses as theirs  # noqa: E402
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator  # noqa: E402

from siamese_fast.compat import pytorch_metric_learning as ours  # noqa: E402

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


def rows(count: int, seed: int, depth: int = 5) -> Tensor:
    return torch.randn(count, depth, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(loss: Tensor, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def same(mine: Any, library: Any, x: Tensor, labels: Tensor, **given: Any) -> None:
    leaves = (
        x.requires_grad_(),
        *(t for t in given.values() if isinstance(t, Tensor) and t.is_floating_point()),
    )
    for leaf in leaves:
        leaf.requires_grad_()
    got, want = mine(x, labels, **given), library(x, labels, **given)
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want)
    for mine_gradient, their_gradient in zip(gradients(got, leaves), gradients(want, leaves), strict=True):
        torch.testing.assert_close(mine_gradient, their_gradient)


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


@pytest.mark.parametrize("distance", ["lp", "raw lp", "squared", "cosine", "dot", "manhattan"])
@pytest.mark.parametrize("separate", [False, True])
def test_miners_find_the_same_triplets(distance: str, separate: bool) -> None:
    for seed in range(5):
        x, labels = rows(30, seed), torch.randint(6, (30,), generator=torch.Generator().manual_seed(seed))
        given = {"ref_emb": rows(17, seed + 9), "ref_labels": torch.arange(17) % 7} if separate else {}
        for name, options in (
            ("BatchHardMiner", {}),
            ("BatchEasyHardMiner", {"pos_strategy": "hard", "neg_strategy": "hard"}),
            ("BatchEasyHardMiner", {}),
            ("TripletMarginMiner", {"margin": 0.1}),
            ("MultiSimilarityMiner", {}),
        ):
            pair = [getattr(m, name)(**options, distance=DISTANCES[distance]()) for m in (ours, miners)]
            found, expected = (miner(x, labels, **given) for miner in pair)
            assert len(found) == len(expected)
            for got, want in zip(found, expected, strict=True):
                assert torch.equal(got, want), name


def test_losses_take_what_a_miner_found() -> None:
    x, labels = rows(40, 3), torch.arange(40) % 8
    found = ours.BatchHardMiner()(x, labels)
    for options in ({}, {"smooth_loss": True}, {"distance": distances.CosineSimilarity()}, {"swap": True}):
        pair = (ours.TripletMarginLoss(**options), theirs.TripletMarginLoss(**options))
        same(*pair, x, labels, indices_tuple=found)
    for name in ("NTXentLoss", "ContrastiveLoss", "MultiSimilarityLoss"):
        same(getattr(ours, name)(), getattr(theirs, name)(), x, labels, indices_tuple=found)


def test_regularisers_and_wrappers_of_the_library() -> None:
    x, labels = rows(30, 4), torch.arange(30) % 6
    regularised = {"embedding_regularizer": regularizers.LpRegularizer()}
    same(ours.NTXentLoss(**regularised), theirs.NTXentLoss(**regularised), x, labels)
    same(
        theirs.SelfSupervisedLoss(ours.NTXentLoss()),
        theirs.SelfSupervisedLoss(theirs.NTXentLoss()),
        x,
        rows(30, 5),
    )
    for name in ours.__all__:
        if name != "NearestSupportKNN":
            library = getattr(theirs, name, None) or getattr(miners, name)
            assert getattr(ours, name).__name__ == name and issubclass(getattr(ours, name), library)


def test_ntxent_is_exact_where_the_library_saturates() -> None:
    """Theirs is -log(ratio + smallest number): no pair costs more than 708. Here one costs 2000."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 1e-3], [1.0, 1e-3]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    assert theirs.NTXentLoss(temperature=1e-3)(x, labels) < 709 / 2 + 1
    torch.testing.assert_close(
        ours.NTXentLoss(temperature=1e-3)(x, labels), torch.tensor(1000.35).double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("name", ["NTXentLoss", "ContrastiveLoss", "TripletMarginLoss", "SupConLoss"])
@pytest.mark.parametrize("mined", [False, True])
def test_cross_batch_memory(name: str, mined: bool) -> None:
    """Through the first filling and around the end of the queue, and again from a checkpoint."""

    def memory(module: Any, loss: Any, miner: Any) -> Any:
        return module.CrossBatchMemory(loss, embedding_size=5, memory_size=25, miner=miner)

    mine = memory(ours, getattr(ours, name)(), ours.BatchHardMiner() if mined else None)
    library = memory(theirs, getattr(theirs, name)(), miners.BatchHardMiner() if mined else None)
    for step in range(6):
        same(mine, library, rows(10, step), torch.arange(10) % 4)
    again = memory(ours, getattr(ours, name)(), ours.BatchHardMiner() if mined else None)
    again.load_state_dict(mine.state_dict())
    assert (again.queue_idx, again.has_been_filled) == (library.queue_idx, True)
    same(again, library, rows(10, 9), torch.arange(10) % 4)
    again.load_state_dict(library.state_dict())


def test_nearest_support_serves_the_accuracy_calculator() -> None:
    x, labels = rows(60, 0).float(), torch.arange(60) % 6
    options = {"include": ("precision_at_1", "mean_average_precision"), "k": 9}
    expected = AccuracyCalculator(
        **options, knn_func=pml.utils.inference.CustomKNN(distances.LpDistance(normalize_embeddings=False))
    )
    found = AccuracyCalculator(**options, knn_func=ours.NearestSupportKNN())
    assert found.get_accuracy(x, labels) == expected.get_accuracy(x, labels)
    queries = rows(11, 1).float()
    separate = (queries, torch.arange(11) % 6, x, labels)
    assert found.get_accuracy(*separate) == expected.get_accuracy(*separate)


@pytest.mark.parametrize(
    "form", ["NTXentLoss", "SupConLoss", "ContrastiveLoss", "TripletMarginLoss", "mined"]
)
def test_fifty_steps_of_training_are_the_same(form: str) -> None:
    def curve(module: Any, miner_module: Any) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).double()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        loss = getattr(module, "TripletMarginLoss" if form == "mined" else form)()
        miner = miner_module.BatchHardMiner() if form == "mined" else None
        labels, values = torch.arange(32) % 8, []
        for step in range(50):
            embeddings = model(rows(32, step, 6) + labels[:, None])
            value = loss(embeddings, labels, miner(embeddings, labels) if miner else None)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(value.detach())
        return torch.stack(values)

    torch.testing.assert_close(curve(ours, ours), curve(theirs, miners), rtol=1e-6, atol=1e-9)
