"""Cross-rank losses, look-ups and training on worlds of gloo processes, against one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_death import TIMEOUT
from distributed_world import run_world

import siamese_fast
from siamese_fast import distributed
from siamese_fast.distributed import OneShotClassifier, batch_hard_triplet_loss
from siamese_fast.distributed.extremes import _Extreme

TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}


@pytest.mark.parametrize(
    ("module", "size"), [(m, w) for m in ("losses", "pair_losses", "support", "training") for w in (2, 4)]
)
def test_a_world(module: str, size: int, tmp_path: Path) -> None:
    found = run_world(module, size, tmp_path)
    assert found and not any(found.values()), "\n".join(f"{k}: {v}" for k, v in found.items() if v)


@pytest.mark.parametrize(
    ("how", "loss"),
    [
        ("dies", "batch_hard_triplet_loss"),
        ("stalls", "batch_hard_triplet_loss"),
        ("dies", "supcon_loss"),
        pytest.param("stalls", "supcon_loss", marks=pytest.mark.slow),
    ],
)
def test_a_lost_rank_is_an_error_within_the_timeout(how: str, loss: str, tmp_path: Path) -> None:
    command = [sys.executable, str(TESTS / "distributed_death.py")]
    processes = [
        subprocess.Popen(
            [*command, str(rank), "3", str(tmp_path / "store"), how, loss],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        for rank in range(3)
    ]
    waited = [process.communicate(timeout=120)[0] for process in processes]
    for seconds in waited[:2]:
        assert 0 <= float(seconds) < 2 * TIMEOUT + 4, (
            waited
        )  # at most one exchange waits it out, and a busy machine


def test_fit_resumes_when_torchrun_restarts_it(tmp_path: Path) -> None:
    """The run in which a rank died ends with the weights of one that was left in peace."""
    # A store of its own for each attempt: in the one that torchrun shares, ranks of the second attempt can
    # read the addresses of the first (pytorch/pytorch#135712).
    environment = {**ENVIRONMENT, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    results: list[dict[str, Any]] = []
    for restarts in (1, 0):
        folder = tmp_path / str(restarts)
        folder.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["--max-restarts", str(restarts), str(TESTS / "distributed_restart.py"), str(folder)]
        command += ["6"] if restarts else []
        done = subprocess.run(command, timeout=240, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results.append(torch.load(folder / "result.pt", weights_only=True))
        assert sorted(path.name for path in folder.iterdir()) == ["result.pt", "run.pt"]
    assert [result["attempt"] for result in results] == [1, 0]
    assert [result["steps"] for result in results] == [5, 9]  # the second attempt began at the checkpoint
    assert torch.equal(results[0]["weights"], results[1]["weights"])
    assert results[0]["losses"] == results[1]["losses"]


def test_a_distance_of_nan_chooses_no_row() -> None:
    x = torch.zeros(2, 3)
    for sign, best in ((1.0, 4.0), (-1.0, 1.0)):
        extreme = _Extreme(x, "euclidean", sign)
        blocks = torch.tensor([torch.nan, 1.0, 4.0, torch.nan])[:, None].expand(4, 3)
        for first in range(4):
            extreme.take(blocks[first : first + 1], torch.tensor([0, 0]), first)
        assert (extreme.rows == best).all() and (extreme.index == (2 if best == 4 else 1)).all()


def test_without_processes_it_is_the_one_process_result() -> None:
    x, labels = torch.randn(20, 4, requires_grad=True), torch.arange(20) % 5
    loss = batch_hard_triplet_loss(x, labels, strategy="ring")
    assert isinstance(loss, torch.Tensor)
    assert torch.equal(loss, siamese_fast.batch_hard_triplet_loss(x, labels))
    loss.backward()
    one = siamese_fast.OneShotClassifier().fit(x.detach(), labels).add_support(x.detach()[:3], [7, 8, 9])
    alone = OneShotClassifier().fit(x.detach(), labels).add_support(x.detach()[:3], [7, 8, 9])
    for each in (one, alone):
        each.remove(label=3).remove(index=[0, -1])
    queries = torch.randn(6, 4)
    assert (alone.class_scores(queries) == one.class_scores(queries)).all()
    assert (alone.kneighbors(queries, 3, False) == one.kneighbors(queries, 3, False)).all()
    assert alone.score(queries, [0] * 6) == one.score(queries, [0] * 6)
    with pytest.raises(ValueError, match="x must have shape"):
        batch_hard_triplet_loss(x[0], labels)


def test_without_processes_every_loss_is_the_one_process_loss() -> None:
    x, labels = torch.randn(20, 4), torch.arange(20) % 5
    for name in distributed.__all__:
        if name.endswith("_loss") and name not in ("info_nce_loss", "prototypical_loss"):
            over_ranks, alone = getattr(distributed, name), getattr(siamese_fast, name)
            assert torch.equal(over_ranks(x, labels), alone(x, labels))
            with pytest.raises(ValueError, match="strategy must be one of"):
                over_ranks(x, labels, strategy="star")
        elif name.endswith("Loss"):
            module = (
                getattr(distributed, name)(normalize=True)
                if name != "CircleLoss"
                else distributed.CircleLoss()
            )
            alone = getattr(siamese_fast, name)(**module.options)
            assert torch.equal(module(x, labels), alone(x, labels)) and repr(module) == repr(alone)
    assert torch.equal(distributed.info_nce_loss(x[:8], x[8:]), siamese_fast.info_nce_loss(x[:8], x[8:]))
    episode = (x[:8], labels[:8], x[8:], labels[8:])
    assert torch.equal(distributed.prototypical_loss(*episode), siamese_fast.prototypical_loss(*episode))
