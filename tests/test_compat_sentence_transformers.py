"""The drop-ins for sentence-transformers against the library itself, in float64, in its trainer, and who
answers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from compat_checks import rows
from hypothesis import given, settings
from torch import Tensor, nn

pytest.importorskip("sentence_transformers.sentence_transformer.losses")
from sentence_transformers.sentence_transformer import losses as theirs

from siamese_fast.compat import sentence_transformers as ours

BATCH = theirs.BatchHardTripletLossDistanceFunction
PAIRS = theirs.SiameseDistanceMetric
TRIPLETS = {
    "BatchHardTripletLoss": {"margin": 0.7},
    "BatchHardSoftMarginTripletLoss": {},
    "BatchAllTripletLoss": {"margin": 0.7},
    "BatchSemiHardTripletLoss": {"margin": 0.7},
}
CONTRASTIVE = ("ContrastiveLoss", "OnlineContrastiveLoss")


def same(mine: Any, library: Any, embeddings: list[Tensor], labels: Tensor) -> None:
    values, gradients = [], []
    for loss in (mine, library):
        leaves = [x.clone().requires_grad_() for x in embeddings]
        values.append(loss.compute_loss_from_embeddings(leaves, labels))
        gradients.append(torch.autograd.grad(values[-1], leaves))
    assert values[0].dtype == values[1].dtype and values[0].shape == values[1].shape
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def pair_of(name: str, **options: Any) -> tuple[Any, Any]:
    return getattr(ours, name)(None, **options), getattr(theirs, name)(None, **options)


@given(
    st.sampled_from(list(TRIPLETS)),
    st.sampled_from([BATCH.euclidean_distance, BATCH.cosine_distance, BATCH.eucledian_distance]),
    st.lists(st.integers(0, 4), min_size=1, max_size=14),
    st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.float32]),
    st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None)
def test_any_batch_of_any_triplet_loss(
    name: str, distance: Any, labels: list[int], dtype: torch.dtype, seed: int
) -> None:
    """Random labels hold the degenerate batches: one row, one class, no positives, no negatives."""
    mine, library = pair_of(name, distance_metric=distance, **TRIPLETS[name])
    same(mine, library, [rows(len(labels), seed)], torch.tensor(labels, dtype=dtype))


@pytest.mark.parametrize("name", TRIPLETS)
@pytest.mark.parametrize("distance", [BATCH.euclidean_distance, BATCH.cosine_distance])
def test_larger_batches_and_other_layouts(name: str, distance: Any) -> None:
    mine, library = pair_of(name, distance_metric=distance, **TRIPLETS[name])
    for seed, count in enumerate((150, 700)):
        labels = torch.randint(count // 5, (count, 1), generator=torch.Generator().manual_seed(seed))
        same(mine, library, [rows(9, seed, count).T], labels)
    same(mine, library, [rows(40, 3)], torch.arange(40) % 2 == 0)


@pytest.mark.parametrize("name", TRIPLETS)
def test_identical_rows_and_float32(name: str) -> None:
    """Identical rows are at distance 0 here, in float32 ours is no further from float64 than the library."""
    mine, library = pair_of(name, **TRIPLETS[name])
    x, labels = rows(60, 1, 33).round(decimals=2), torch.arange(60) % 9
    exact = library.compute_loss_from_embeddings([x], labels)
    got, want = (loss.compute_loss_from_embeddings([x.float()], labels) for loss in (mine, library))
    assert got.dtype == want.dtype == torch.float32
    assert (got - exact).abs() <= 2 * (want - exact).abs() + 4 * torch.finfo(torch.float32).eps * exact.abs()
    x[9:18] = x[:9]
    x[30] = x[31]
    same(mine, library, [x], labels)


@pytest.mark.parametrize("name", TRIPLETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_give_float32(name: str, dtype: torch.dtype) -> None:
    mine, library = pair_of(name, **TRIPLETS[name])
    x, labels = rows(20, 1).to(dtype), torch.arange(20) % 4
    got, want = (loss.compute_loss_from_embeddings([x], labels) for loss in (mine, library))
    assert got.dtype == want.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@given(
    st.sampled_from(CONTRASTIVE),
    st.sampled_from([PAIRS.EUCLIDEAN, PAIRS.MANHATTAN, PAIRS.COSINE_DISTANCE]),
    st.lists(st.integers(0, 1), min_size=1, max_size=12),
    st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_any_pairs(name: str, distance: Any, labels: list[int], seed: int) -> None:
    mine, library = pair_of(name, distance_metric=distance, margin=1.3)
    pairs = [rows(len(labels), seed), rows(len(labels), seed + 1)]
    same(mine, library, pairs, torch.tensor(labels))


def test_options_of_the_contrastive_loss() -> None:
    pairs, labels = [rows(9, 0), rows(9, 1)], torch.arange(9) % 2
    same(*pair_of("ContrastiveLoss", size_average=False), pairs, labels)
    with pytest.warns(UserWarning, match="binary labels"):
        same(*pair_of("ContrastiveLoss"), pairs, torch.linspace(0, 1, 9))
    mine, library = pair_of("ContrastiveLoss")
    with pytest.raises(ValueError, match="expects 9 labels"):
        mine.compute_loss_from_embeddings(pairs, labels[:8])
    mine.distance_metric = library.distance_metric = PAIRS.MANHATTAN
    same(mine, library, pairs, labels)


@pytest.mark.parametrize("name", ours.__all__)
def test_names_and_cards_are_the_librarys(name: str) -> None:
    mine, library = getattr(ours, name), getattr(theirs, name)
    assert mine.__name__ == name and issubclass(mine, library)
    assert mine(None).get_config_dict() == library(None).get_config_dict()
    assert getattr(mine, "citation", None) is getattr(library, "citation", None)
    embeddings = [rows(3, 0)] * (2 if name in CONTRASTIVE else 1)
    with pytest.raises(ValueError, match="expects 3 labels"):
        mine(None).compute_loss_from_embeddings(embeddings, torch.arange(2))


class AskedTheLibraryError(Exception):
    pass


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own losses and distances raise."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AskedTheLibraryError

    for name, method in {
        "BatchHardTripletLoss": "batch_hard_triplet_loss",
        "BatchHardSoftMarginTripletLoss": "batch_hard_triplet_soft_margin_loss",
        "BatchAllTripletLoss": "batch_all_triplet_loss",
        "BatchSemiHardTripletLoss": "batch_semi_hard_triplet_loss",
    }.items():
        monkeypatch.setattr(getattr(theirs, name), method, refuse)
    for name in ("pairwise_distance", "cosine_similarity"):
        monkeypatch.setattr(torch.nn.functional, name, refuse)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("name", TRIPLETS)
def test_triplet_losses_are_fused_and_the_library_answers_for_the_rest(name: str) -> None:
    x, labels = rows(12, 0).requires_grad_(), torch.arange(12) % 4
    fused = getattr(ours, name)
    for distance in (BATCH.euclidean_distance, BATCH.cosine_distance):
        loss = fused(None, distance_metric=distance).compute_loss_from_embeddings([x], labels)
        (gradient,) = torch.autograd.grad(loss, x)
        assert gradient.isfinite().all() and gradient.any()
    squared = partial(BATCH.euclidean_distance, squared=True)
    rest = [
        (fused(None, distance_metric=squared), x, labels),
        (fused(None), x, labels.float()),
        (fused(None), x, torch.zeros_like(labels)),
        (fused(None), x[:0], labels[:0]),
    ]
    if "Soft" not in name:
        rest.append((fused(None, margin=nn.Parameter(torch.tensor(1.0))), x, labels))
    for loss, embeddings, classes in rest:
        with pytest.raises(AskedTheLibraryError):
            loss.compute_loss_from_embeddings([embeddings], classes)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_distances_of_pairs_are_fused_and_the_library_answers_for_the_rest(name: str) -> None:
    pairs, labels = [rows(8, 0).requires_grad_(), rows(8, 1)], torch.arange(8) % 2
    for distance in (PAIRS.EUCLIDEAN, PAIRS.MANHATTAN, PAIRS.COSINE_DISTANCE):
        loss = getattr(ours, name)(None, distance_metric=distance, margin=3)
        assert loss.compute_loss_from_embeddings(pairs, labels).requires_grad
    asked = getattr(ours, name)(
        None, distance_metric=lambda x, y: torch.nn.functional.pairwise_distance(x, y)
    )
    with pytest.raises(AskedTheLibraryError):
        asked.compute_loss_from_embeddings(pairs, labels)


TRAINED = [*TRIPLETS, *CONTRASTIVE]
ONE_OF_EACH = ("BatchHardTripletLoss", "ContrastiveLoss")


@pytest.mark.parametrize("name", TRAINED)
def test_fifty_steps_of_training_are_the_same(name: str) -> None:
    def curve(module: Any) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).double()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        loss, values = getattr(module, name)(None), []
        for step in range(50):
            labels = torch.arange(32) % (2 if name in CONTRASTIVE else 8)
            inputs = [rows(32, seed, 6) + labels[:, None] for seed in (step, step + 100)]
            embeddings = [model(x) for x in inputs[: 2 if name in CONTRASTIVE else 1]]
            value = loss.compute_loss_from_embeddings(embeddings, labels)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(value.detach())
        return torch.stack(values)

    torch.testing.assert_close(curve(ours), curve(theirs), rtol=1e-6, atol=1e-9)


WORDS = [f"{colour}{thing}" for colour in ("red", "blue", "grey") for thing in range(20)]


def tiny_model() -> Any:
    """A bag of random token vectors in float64; nothing is downloaded."""
    tokenizers = pytest.importorskip("tokenizers")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    static = pytest.importorskip("sentence_transformers.sentence_transformer.modules").StaticEmbedding
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {word: number for number, word in enumerate(["?", *WORDS])}, unk_token="?"
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    modules = [static(tokenizer, embedding_dim=8)]
    return sentence_transformers.SentenceTransformer(modules=modules, device="cpu").double()


@pytest.mark.parametrize(
    "name",
    [
        *ONE_OF_EACH,
        *(pytest.param(name, marks=pytest.mark.slow) for name in TRAINED if name not in ONE_OF_EACH),
    ],
)
def test_the_trainer_of_the_library_takes_them(name: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the trainer needs datasets")
    pytest.importorskip("accelerate", reason="the trainer needs accelerate")
    sentence_transformers = pytest.importorskip("sentence_transformers")

    def curve(module: Any, folder: str) -> list[float]:
        texts = [f"{WORDS[i]} {WORDS[(i + 7) % 60]} {WORDS[(i * 3) % 60]}" for i in range(60)]
        columns: dict[str, Any] = {"text": texts, "label": [i // 20 for i in range(60)]}
        if name in CONTRASTIVE:
            columns = {"text": texts, "other": texts[9:] + texts[:9], "label": [i % 2 for i in range(60)]}
        model = tiny_model()
        arguments = sentence_transformers.SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / folder),
            per_device_train_batch_size=12,
            num_train_epochs=2,
            learning_rate=0.05,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        trainer = sentence_transformers.SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=datasets.Dataset.from_dict(columns),
            loss=getattr(module, name)(model),
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    mine, library = curve(ours, "ours"), curve(theirs, "theirs")
    assert len(mine) == 10 and len(set(mine)) > 5
    assert mine == pytest.approx(library, rel=1e-6)
