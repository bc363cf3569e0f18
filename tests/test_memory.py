"""Memory is O(N D), measured; and sizes past 2^31 elements are addressed right."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from siamese_fast import distance_matrix, l1_similarity_matrix, nearest_support

MEASURE = """
import json, sys, torch
from siamese_fast import *
torch.set_num_threads(1)
backend_name, rows = sys.argv[1], int(sys.argv[2])

def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

def run(rows):
    x = torch.randn(rows, 32, requires_grad=True)
    y = torch.randn(rows, 32, requires_grad=True)
    labels = torch.arange(rows) % (rows // 4)
    few = torch.randn(512, 512, requires_grad=True)
    weight = torch.ones(512, requires_grad=True)
    support = prepare_support(y)
    return {
        **{f"batch_hard_triplet_loss {m}": (lambda m=m: batch_hard_triplet_loss(x, labels,
        metric=m).backward())
           for m in ("euclidean", "cosine", "dot", "manhattan")},
        **{f.__name__: (lambda f=f: f(x, labels).backward())
           for f in (ntxent_loss, supcon_loss, contrastive_loss, multi_similarity_loss, circle_loss,
                     batch_all_triplet_loss, semi_hard_triplet_loss, ranked_triplet_loss)},
        "batch_all_triplet_loss two classes":
            lambda: batch_all_triplet_loss(x[:2048], labels[:2048] % 2).backward(),
        "semi_hard_triplet_loss two classes":
            lambda: semi_hard_triplet_loss(x[:2048], labels[:2048] % 2).backward(),
        "hardest_pairs": lambda: hardest_pairs(x, labels, ref=y, ref_labels=labels),
        "nearest_support": lambda: nearest_support(x, y, 5),
        "nearest_support prepared": lambda: nearest_support(x, support, 5),
        "nearest_support of one query": lambda: nearest_support(x[:1, :1], y[:, :1], 1000),
        "nearest_support koch": lambda: nearest_support(x, y, 5, weight=weight[:32]),
        "class_scores": lambda: class_scores(x, y, torch.arange(rows) % 10, 10),
        "class_scores mean": lambda: class_scores(x, y, torch.arange(rows) % 10, 10, reduce="mean"),
        "triplet_loss": lambda: triplet_loss(x, y, y.flip(0)).backward(),
        "l1_similarity_bce": lambda: l1_similarity_bce(x, y, weight[:32], None, labels > 9).backward(),
        "l1_similarity_matrix": lambda: l1_similarity_matrix(few, few, weight).sum().backward(),
        "distance_matrix": lambda: distance_matrix(few, few.flip(0)).sum().backward(),
    }

grown = {}
with backend.use(backend_name):
    for call in run(64).values():
        call()
    for name, call in run(rows).items():
        open("/proc/self/clear_refs", "w").write("5")
        before = kilobytes("VmRSS")
        call()
        grown[name] = (kilobytes("VmHWM") - before) * 1024
print(json.dumps(grown))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("backend", "rows"), [("native", 8192), pytest.param("reference", 4096, marks=pytest.mark.slow)]
)
def test_memory_grows_with_n_d(backend: str, rows: int) -> None:
    """Forward and backward at D = 32: N x N would be 256 MiB (64 for the reference), the Koch differences
    512^3 512 MiB.

    The allowance: 24 arrays of [N, D], and 24 MiB for blocks of a fixed size and the page cache of the
        allocator.
    """
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, backend, str(rows)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    grown = json.loads(done.stdout)
    allowed = 24 * rows * 32 * 4 + 24 * 2**20
    assert len(grown) == 25
    over = {name: f"{size / 2**20:.0f} MiB" for name, size in grown.items() if size > allowed}
    assert not over, f"more than {allowed / 2**20:.0f} MiB: {over}"


def available() -> int:
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def need(gigabytes: float) -> None:
    if sys.platform != "linux" or available() < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GiB of free memory")


@pytest.mark.slow
def test_a_matrix_of_more_than_2_31_elements() -> None:
    need(11)
    q, s = (
        torch.arange(46400, dtype=torch.float32)[:, None] / 64,
        torch.arange(46401, dtype=torch.float32)[:, None] / 64,
    )
    logits = l1_similarity_matrix(q, s, torch.ones(1))
    assert logits.numel() > 2**31
    for i, j in ((0, 0), (0, 46400), (46399, 46400), (46399, 0), (23200, 46399), (46398, 17)):
        assert logits[i, j].item() == abs(i - j) / 64
    del logits
    distances = distance_matrix(q, s, "sqeuclidean")
    for i, j in ((0, 46400), (46399, 46400), (46399, 0)):
        assert distances[i, j].item() == torch.tensor((i - j) / 64).square().item()


@pytest.mark.slow
def test_embeddings_of_more_than_2_31_elements() -> None:
    need(10)
    rows, depth = (1 << 21) + 3, 1 << 10
    h = torch.zeros(rows, depth, dtype=torch.float16)
    assert h.numel() > 2**31
    h[-1], h[-2, -1], h[0, 0] = 1.0, 2.0, 3.0
    scores, index = nearest_support(h[-1:], h, 2, metric="dot")
    assert index.tolist() == [[rows - 1, 0]]
    assert scores.tolist() == [[float(depth), 3.0]]
    scores, index = nearest_support(h[-2:-1], h, 1, metric="sqeuclidean")
    assert index.tolist() == [[rows - 2]]
