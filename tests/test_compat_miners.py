"""The miners of the pytorch-metric-learning drop-in against the library's, index by index, in float64."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from compat_checks import rows
from hypothesis import given, settings
from torch import Tensor

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, miners

from siamese_fast.compat import pytorch_metric_learning as ours

DISTANCES = {
    "lp": distances.LpDistance,
    "raw lp": lambda: distances.LpDistance(normalize_embeddings=False),
    "squared": lambda: distances.LpDistance(power=2),
    "cosine": distances.CosineSimilarity,
    "dot": lambda: distances.DotProductSimilarity(normalize_embeddings=False),
    "manhattan": lambda: distances.LpDistance(p=1),
}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("BatchHardMiner", {}),
    *(
        ("BatchEasyHardMiner", {"pos_strategy": positive, "neg_strategy": negative})
        for positive in ("easy", "hard", "semihard", "all")
        for negative in ("easy", "hard", "semihard", "all")
        if "semihard" not in (positive, negative) or {positive, negative} & {"easy", "hard"}
    ),
    ("BatchEasyHardMiner", {"allowed_pos_range": (0.2, 1.1), "allowed_neg_range": (0.5, 1.3)}),
    (
        "BatchEasyHardMiner",
        {"pos_strategy": "semihard", "neg_strategy": "hard", "allowed_neg_range": (-0.5, 1)},
    ),
    *(("TripletMarginMiner", {"type_of_triplets": kind}) for kind in ("all", "hard", "semihard", "easy")),
    ("TripletMarginMiner", {"margin": 0.0}),
    ("MultiSimilarityMiner", {}),
    ("MultiSimilarityMiner", {"epsilon": 0.5}),
]


def same(name: str, options: dict[str, Any], distance: str, *batch: Tensor) -> int:
    mine, library = (getattr(m, name)(**options, distance=DISTANCES[distance]()) for m in (ours, miners))
    found, expected = mine(*batch), library(*batch)
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want), (got, want)
    return len(found[0])


@given(
    st.sampled_from(FORMS),
    st.sampled_from(list(DISTANCES)),
    st.lists(st.integers(0, 4), min_size=1, max_size=14),
    st.lists(st.integers(0, 4), max_size=9),
    st.integers(0, 10_000),
)
@settings(max_examples=400, deadline=None)
def test_any_batch_of_any_miner(
    form: tuple[str, dict[str, Any]], distance: str, labels: list[int], ref_labels: list[int], seed: int
) -> None:
    """Random labels hold the degenerate batches: one row, one class, no positives, no negatives."""
    separate = (rows(len(ref_labels), seed + 1), torch.tensor(ref_labels)) if ref_labels else ()
    same(*form, distance, rows(len(labels), seed), torch.tensor(labels), *separate)


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_more_rows_than_a_block_holds(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siamese_fast.ops._metrics.BLOCK_ELEMENTS", 300)
    monkeypatch.setattr("siamese_fast.compat.pytorch_metric_learning._blocks.BLOCK_ELEMENTS", 300)
    labels = torch.randint(9, (70,), generator=torch.Generator().manual_seed(0))
    for distance in ("lp", "cosine"):
        assert same(name, options, distance, rows(70, 0), labels) > 0
        assert same(name, options, distance, rows(70, 0), labels, rows(31, 1), labels[:31]) > 0


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_whose_rows_and_labels_are_the_batchs_own(name: str, options: dict[str, Any]) -> None:
    """The library leaves out the pair of a row and itself by the identity of tensors."""
    x, labels = rows(20, 0), torch.arange(20) % 4
    other = rows(20, 1)
    for ref, ref_labels in ((x, labels), (x, labels.clone()), (other, labels), (other, labels.clone())):
        same(name, options, "lp", x, labels, ref, ref_labels)


def test_miners_keep_no_more_than_they_return() -> None:
    """The list of all triplets of this batch takes 3 GB, its [N, N, N] mask 8 GB."""
    x, labels = rows(2000, 0).float(), torch.arange(2000) % 250
    anchor, *_ = ours.TripletMarginMiner(margin=0.01, type_of_triplets="semihard")(x, labels)
    assert 0 < len(anchor) < 500_000
