"""Who answers in the drop-ins: fused code for every row of docs/migration.md, the library for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compat_checks import LOSSES, MINERS
from torch import Tensor, nn

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, miners, reducers, regularizers
from pytorch_metric_learning import losses as theirs

from siamese_fast.compat import pytorch_metric_learning as ours

NON_ZERO = ("SupConLoss", "CircleLoss", "ContrastiveLoss", "TripletMarginLoss")


class AskedTheLibraryError(Exception):
    pass


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own losses, miners and lists of pairs raise."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AskedTheLibraryError

    for name in LOSSES:
        monkeypatch.setattr(getattr(theirs, name), "compute_loss", refuse)
    for name in MINERS:
        monkeypatch.setattr(getattr(miners, name), "mine", refuse)
    monkeypatch.setattr(theirs.CrossBatchMemory, "create_indices_tuple", refuse)


def batch(depth: int = 5) -> tuple[Tensor, Tensor]:
    x = torch.randn(24, depth, generator=torch.Generator().manual_seed(0))
    return x.requires_grad_(), torch.arange(24) % 6


def answer(loss: Any, **given: Any) -> None:
    x, labels = batch()
    (gradient,) = torch.autograd.grad(loss(x, labels, **given), x)
    assert gradient.isfinite().all() and gradient.any()


def distances_of(name: str) -> list[Any]:
    similarities: list[Any] = [distances.CosineSimilarity()]
    if name != "CircleLoss":
        similarities.append(distances.DotProductSimilarity(normalize_embeddings=False))
        similarities += [distances.LpDistance(power=power) for power in (1, 2)]
    return similarities


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("separate", [False, True])
def test_losses_are_fused(name: str, separate: bool) -> None:
    x, labels = batch()
    given = {"ref_emb": x.detach() + 0.1, "ref_labels": labels.clone()} if separate else {}
    kinds = [reducers.MeanReducer] + [reducers.AvgNonZeroReducer] * (name in NON_ZERO)
    for reducer in (lambda: None, *kinds):
        for distance in distances_of(name):
            answer(getattr(ours, name)(distance=distance, reducer=reducer()), **given)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("options", [{}, {"smooth_loss": True}, {"swap": True}])
def test_triplets_are_fused(options: dict[str, Any]) -> None:
    found = ours.BatchHardMiner()(*batch())
    answer(ours.TripletMarginLoss(**options), indices_tuple=found)
    if "swap" not in options:
        answer(ours.TripletMarginLoss(**options))


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("distance", [*distances_of("miner"), distances.LpDistance(power=2)])
def test_hard_miners_are_fused(distance: Any) -> None:
    anchor, positive, negative = ours.BatchHardMiner(distance=distance)(*batch())
    assert anchor.shape == positive.shape == negative.shape == (24,)
    hard = {"pos_strategy": "hard", "neg_strategy": "hard"}
    assert len(ours.BatchEasyHardMiner(**hard, distance=distance)(*batch())) == 4


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("name", LOSSES)
def test_the_memory_is_fused(name: str) -> None:
    answer(ours.CrossBatchMemory(getattr(ours, name)(), embedding_size=5, memory_size=48))


NOT_FUSED: dict[str, Callable[[], Any]] = {
    "another distance": lambda: ours.ContrastiveLoss(distance=distances.LpDistance(p=1)),
    "another power": lambda: ours.ContrastiveLoss(distance=distances.LpDistance(power=3)),
    "another reducer": lambda: ours.SupConLoss(reducer=reducers.ThresholdReducer(low=0.1)),
    "ntxent over non-zero": lambda: ours.NTXentLoss(reducer=reducers.AvgNonZeroReducer()),
    "multi-similarity over non-zero": lambda: ours.MultiSimilarityLoss(reducer=reducers.AvgNonZeroReducer()),
    "a regulariser": lambda: ours.NTXentLoss(embedding_regularizer=regularizers.LpRegularizer()),
    "statistics": lambda: ours.NTXentLoss(collect_stats=True),
    "statistics of the distance": lambda: ours.NTXentLoss(
        distance=distances.CosineSimilarity(collect_stats=True)
    ),
    "swap": lambda: ours.TripletMarginLoss(swap=True),
    "some triplets": lambda: ours.TripletMarginLoss(triplets_per_anchor=2),
    "another optimum": lambda: moved_optimum(),
    "a miner beside a memory": lambda: ours.CrossBatchMemory(
        ours.NTXentLoss(), embedding_size=5, memory_size=48, miner=ours.BatchHardMiner()
    ),
}


def moved_optimum() -> Any:
    loss = ours.CircleLoss()
    loss.op = 1.0
    return loss


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("form", NOT_FUSED)
def test_the_library_answers_for_the_rest(form: str) -> None:
    with pytest.raises(AskedTheLibraryError):
        NOT_FUSED[form]()(*batch())


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("name", LOSSES[:-1])
def test_the_library_answers_for_given_pairs(name: str) -> None:
    pairs = (torch.tensor([0]), torch.tensor([6]), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(AskedTheLibraryError):
        getattr(ours, name)()(*batch(), indices_tuple=pairs)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BatchEasyHardMiner", {}),
        ("BatchEasyHardMiner", {"pos_strategy": "semihard", "neg_strategy": "hard"}),
        ("BatchEasyHardMiner", {"pos_strategy": "hard", "neg_strategy": "hard", "allowed_neg_range": [0, 1]}),
        ("TripletMarginMiner", {"type_of_triplets": "semihard"}),
        ("MultiSimilarityMiner", {}),
    ],
)
def test_miners_look_at_blocks_of_rows(name: str, options: dict[str, Any]) -> None:
    assert len(getattr(ours, name)(**options)(*batch())[0]) > 0


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BatchEasyHardMiner", {"pos_strategy": "all", "neg_strategy": "hard"}),
        ("BatchEasyHardMiner", {"pos_strategy": "hard", "neg_strategy": "all"}),
        ("BatchEasyHardMiner", {"distance": distances.LpDistance(p=1)}),
        ("BatchHardMiner", {"distance": distances.SNRDistance()}),
        ("TripletMarginMiner", {"distance": distances.LpDistance(power=3)}),
        ("TripletMarginMiner", {"margin": nn.Parameter(torch.tensor(0.2))}),
        ("MultiSimilarityMiner", {"collect_stats": True}),
        ("MultiSimilarityMiner", {"epsilon": torch.tensor(0.1)}),
    ],
)
def test_the_library_mines_the_rest(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(AskedTheLibraryError):
        getattr(ours, name)(**options)(*batch())


PARAMETERS = [
    ("NTXentLoss", "temperature"),
    ("SupConLoss", "temperature"),
    ("MultiSimilarityLoss", "base"),
    ("MultiSimilarityLoss", "alpha"),
    ("CircleLoss", "gamma"),
    ("ContrastiveLoss", "neg_margin"),
    ("TripletMarginLoss", "margin"),
]


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_parameters_of_other_types_are_the_librarys(name: str, parameter: str) -> None:
    """A learnt parameter gets its gradient, a numpy number its value."""
    x, labels = batch()
    losses, gradients = [], []
    for module in (ours, theirs):
        learnt = nn.Parameter(torch.tensor(0.5))
        loss = getattr(module, name)(**{parameter: learnt})(x, labels)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, learnt)[0])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()
    mine, library = (getattr(m, name)(**{parameter: np.float32(0.5)})(x, labels) for m in (ours, theirs))
    torch.testing.assert_close(mine, library)


def test_a_learnt_margin_over_the_triplets_of_a_miner() -> None:
    x, labels = batch()
    margin = nn.Parameter(torch.tensor(0.5))
    found = ours.BatchHardMiner()(x, labels)
    (gradient,) = torch.autograd.grad(ours.TripletMarginLoss(margin)(x, labels, found), margin)
    torch.testing.assert_close(gradient, torch.tensor(1.0))
