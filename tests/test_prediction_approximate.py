"""Approximate look-up: exact scores of what faiss proposes, exact answers where that is everything."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from siamese_fast.network import KochHead
from siamese_fast.prediction import OneShotClassifier

pytest.importorskip("faiss")
METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")


def data(rows: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("description", ["Flat", "IVF4,Flat;nprobe=4"])
def test_proposals_of_everything_are_the_exact_answer(metric: str, description: str) -> None:
    x, y, queries = data(200, 0), np.arange(200) % 40, data(30, 1)
    exact = OneShotClassifier(metric=metric).fit(x, y)
    found = OneShotClassifier(metric=metric, approximate=description).fit(x, y)
    labels, ties = found.predict(queries, return_ties=True)
    assert (labels == exact.predict(queries)).all() and (ties == 1).all()
    for k in (1, 5, 200):
        distances, positions = found.kneighbors(queries, k)
        expected, exact_positions = exact.kneighbors(queries, k)
        np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-5)
        assert (positions == exact_positions).mean() > 0.99
    np.testing.assert_array_equal(found.class_scores(queries), exact.class_scores(queries))
    assert found.score(queries, labels) == 1
    assert found.predict(data(0, 2)).shape == (0,)


def test_few_lists_miss_supports_and_scores_stay_exact() -> None:
    x, queries = data(4000, 0), data(200, 1)
    exact = OneShotClassifier().fit(x, np.arange(4000))
    recalls = []
    for probes in (1, 8, 64):
        found = OneShotClassifier(approximate=f"IVF64,Flat;nprobe={probes}").fit(x, np.arange(4000))
        distances, positions = found.kneighbors(queries, 1)
        recalls.append((positions == exact.kneighbors(queries, 1, False)).mean())
        truth = torch.linalg.vector_norm(queries - x[positions[:, 0]], dim=1)
        np.testing.assert_allclose(distances[:, 0], truth.numpy(), rtol=1e-5)
    assert recalls[0] < recalls[1] < recalls[2] == 1


def test_ties_and_growth_and_half_precision(tmp_path: Path) -> None:
    x = data(60, 0, torch.float16)
    found = OneShotClassifier(approximate="Flat").fit(torch.cat([x, x]), np.arange(120))
    labels, ties = found.predict(x, return_ties=True)
    assert (labels == np.arange(60)).all() and (ties == 2).all()
    found.remove(index=np.arange(60)).add_support(x[:3] + 9, [200, 201, 202])
    assert (found.predict(x[:3] + 9) == [200, 201, 202]).all() and found.predict(x[:1]) == 60
    found.save(tmp_path / "saved")
    again = OneShotClassifier.load(tmp_path / "saved")
    assert again.approximate == "Flat" and (again.predict(x) == found.predict(x)).all()


def test_what_faiss_does_not_find_has_position_minus_one() -> None:
    x = torch.cat([data(100, 0), data(4, 1) + 1000])
    found = OneShotClassifier(approximate="IVF2,Flat;nprobe=1").fit(x, np.arange(104))
    distances, positions = found.kneighbors(data(1, 2) + 1000, 9)
    assert (positions[0, :4] >= 100).all() and (positions[0, 4:] == -1).all()
    assert np.isinf(distances[0, 4:]).all()


def test_bad_descriptions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(20, 0), np.arange(20)
    for description in ("no index", "Flat;probes=2", "IVF4096,Flat"):
        with pytest.raises(ValueError, match="is not possible here"):
            OneShotClassifier(approximate=description).fit(x, y)
    with pytest.raises(ValueError, match="a head with parameters has no index"):
        OneShotClassifier(head=KochHead(8), approximate="Flat").fit(x, y)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"siamese-fast\[faiss\]"):
        OneShotClassifier(approximate="Flat").fit(x, y)
