"""The pytorch-metric-learning drop-in inside the library's own wrappers, memories, calculators and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from compat_checks import LOSSES, MINERS, rows, same
from distributed_world import run_world
from torch import Tensor, nn

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, miners, regularizers
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning.utils import distributed
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN, InferenceModel

from siamese_fast.compat import pytorch_metric_learning as ours


@pytest.mark.parametrize("name", [*LOSSES, *MINERS, "CrossBatchMemory"])
def test_names_and_bases_are_the_librarys(name: str) -> None:
    library = getattr(theirs, name, None) or getattr(miners, name)
    assert getattr(ours, name).__name__ == name and issubclass(getattr(ours, name), library)


@pytest.mark.parametrize("name", LOSSES)
def test_regularisers_and_wrappers(name: str) -> None:
    def pair(wrapped: Any) -> tuple[Any, Any]:
        return wrapped(getattr(ours, name)), wrapped(getattr(theirs, name))

    x, labels = rows(30, 4), torch.arange(30) % 6
    same(*pair(lambda loss: loss(embedding_regularizer=regularizers.LpRegularizer())), x, labels)
    for symmetric in (True, False):
        same(*pair(lambda loss, s=symmetric: theirs.SelfSupervisedLoss(loss(), symmetric=s)), x, rows(30, 5))
    several = pair(lambda loss: theirs.MultipleLosses([loss(), theirs.ContrastiveLoss()], weights=[1, 0.5]))
    same(*several, x, labels)
    mined = pair(lambda loss: theirs.MultipleLosses([loss()], miners=[ours.MultiSimilarityMiner()]))
    same(*mined, x, labels)
    with pytest.warns(UserWarning, match="non-distributed"):
        same(*pair(lambda loss: distributed.DistributedLossWrapper(loss())), x, labels)


def test_ranks_of_the_librarys_distributed_wrappers(tmp_path: Path) -> None:
    found = run_world("wrappers", 2, tmp_path)
    assert found and not any(found.values()), "\n".join(f"{k}: {v}" for k, v in found.items() if v)


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


@pytest.mark.parametrize("name", LOSSES)
def test_a_memory_that_keeps_some_rows_of_a_batch(name: str) -> None:
    """With `enqueue_mask` the other rows are the anchors, and none is in the memory."""
    mine, library = (
        module.CrossBatchMemory(getattr(module, name)(), embedding_size=5, memory_size=25)
        for module in (ours, theirs)
    )
    for step in range(5):
        mask = torch.arange(16) % 2 == step % 2
        same(mine, library, rows(16, step), torch.arange(16) % 3, enqueue_mask=mask)


def test_nearest_support_serves_the_accuracy_calculator() -> None:
    x, labels = rows(60, 0).float(), torch.arange(60) % 6
    options = {"include": ("precision_at_1", "mean_average_precision"), "k": 9}
    expected = AccuracyCalculator(
        **options, knn_func=CustomKNN(distances.LpDistance(normalize_embeddings=False))
    )
    found = AccuracyCalculator(**options, knn_func=ours.NearestSupportKNN())
    assert found.get_accuracy(x, labels) == expected.get_accuracy(x, labels)
    queries = rows(11, 1).float()
    separate = (queries, torch.arange(11) % 6, x, labels)
    assert found.get_accuracy(*separate) == expected.get_accuracy(*separate)


def test_nearest_support_serves_the_inference_model(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    table, more, queries = rows(40, 0).float(), rows(20, 1).float(), rows(7, 2).float()
    mine = InferenceModel(nn.Identity(), knn_func=ours.NearestSupportKNN("sqeuclidean"), data_device="cpu")
    library = InferenceModel(nn.Identity(), data_device="cpu")
    found: list[tuple[Tensor, Tensor]] = []
    for model in (mine, library):
        model.train_knn(table)
        model.add_to_knn(more)
        found.append(model.get_nearest_neighbors(queries, k=4))
    torch.testing.assert_close(found[0], found[1])
    mine.save_knn_func(tmp_path / "rows.pt")
    again = InferenceModel(nn.Identity(), knn_func=ours.NearestSupportKNN("sqeuclidean"), data_device="cpu")
    again.load_knn_func(tmp_path / "rows.pt")
    assert all(map(torch.equal, again.get_nearest_neighbors(queries, k=4), found[0]))
    mine.knn_func.reset()
    assert (mine.get_nearest_neighbors(queries, k=1)[1][:, 0] == torch.arange(7)).all()
