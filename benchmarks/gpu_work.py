"""The workloads that are timed on a GPU, and the libraries beside them: imported when their turn comes, a
missing one reported as missing and one that runs out of memory as such.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from gpu_clock import Call, Clock
from torch import Tensor

import siamese_fast as sf


@dataclass(frozen=True)
class Work:
    """`calls`: who does it, and how to prepare the call; `amount` of `unit` is what one call must do at
    least.
    """

    name: str
    calls: dict[str, Callable[[], Call]]
    amount: float
    unit: str


def eager_batch_hard(x: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    distance = torch.cdist(x.float(), x.float())
    same = labels[:, None] == labels[None]
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    positive = distance.masked_fill(~same | itself, -torch.inf).amax(1)
    negative = distance.masked_fill(same, torch.inf).amin(1)
    return F.relu(positive - negative + margin).mean()


def backpropagated(loss: Callable[[], Tensor], *leaves: Tensor) -> Call:
    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return call


def graphed(call: Call, device: str) -> Call:
    if device != "cuda":
        raise ImportError("CUDA graphs need a GPU")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def batch_hard(device: str, rows: int, dtype: torch.dtype, hub: bool = False) -> Work:
    x = torch.randn(rows, 128, device=device, dtype=dtype)
    if hub:
        x[0] = 0  # nearer to every row than any other
    x.requires_grad_()
    labels = torch.arange(rows, device=device) // 4

    def metric_learning() -> Call:
        losses = importlib.import_module("pytorch_metric_learning.losses")
        miners = importlib.import_module("pytorch_metric_learning.miners")
        distances = importlib.import_module("pytorch_metric_learning.distances")
        distance = distances.LpDistance(normalize_embeddings=False)
        miner, loss = (
            miners.BatchHardMiner(distance=distance),
            losses.TripletMarginLoss(margin=0.2, distance=distance),
        )
        return backpropagated(lambda: loss(x, labels, miner(x, labels)), x)

    def sentence_transformers() -> Call:
        module = importlib.import_module("sentence_transformers.losses").BatchHardTripletLoss
        loss = module(model=torch.nn.Identity(), margin=0.2)
        return backpropagated(lambda: loss.batch_hard_triplet_loss(labels, x), x)

    def ours() -> Call:
        return backpropagated(lambda: sf.batch_hard_triplet_loss(x, labels, 0.2), x)

    compiled = torch.compile(eager_batch_hard)
    calls: dict[str, Callable[[], Call]] = {"siamese_fast": ours}
    if rows <= 1024:
        calls["siamese_fast, CUDA graph"] = lambda: graphed(ours(), device)
    if rows <= 65536:
        calls |= {
            "pytorch-metric-learning": metric_learning,
            "sentence-transformers": sentence_transformers,
            "torch": lambda: backpropagated(lambda: eager_batch_hard(x, labels), x),
            "torch.compile": lambda: backpropagated(lambda: compiled(x, labels), x),
        }
    name = f"batch-hard N={rows} {str(dtype)[6:]}{' hub' if hub else ''}, forward + backward"
    return Work(name, calls, 2.0 * rows * rows * 128, "flop (2 N^2 D)")


def koch_all_pairs(device: str, rows: int, backward: bool) -> Work:
    q, s = (torch.randn(rows, 128, device=device, requires_grad=backward) for _ in range(2))
    weight = torch.randn(128, device=device, requires_grad=backward)
    upstream = torch.randn(rows, rows, device=device)

    def run(logits: Callable[[], Tensor]) -> Call:
        if not backward:
            return logits
        return lambda: torch.autograd.grad(logits(), (q, s, weight), upstream)

    def broadcast() -> Call:
        step = max(1, (1 << 28) // (rows * 128))

        def call() -> None:
            for start in range(0, rows, step):
                part = ((q[start : start + step, None] - s[None]).abs() * weight).sum(2)
                if backward:
                    torch.autograd.grad(part, (q, s, weight), upstream[start : start + step])

        return call

    def cdist() -> Call:  # positive weights only: the nearest that it can do
        return run(lambda: torch.cdist(q * weight.abs(), s * weight.abs(), p=1.0))

    def keops() -> Call:
        lazy = importlib.import_module("pykeops.torch").LazyTensor
        left, right = lazy(q[:, None]), lazy(s[None])

        def logits() -> Tensor:  # KeOps reduces: the sum over supports, not the matrix
            found: Tensor = ((left - right).abs() | lazy(weight[None, None])).sum(1)
            return found

        return logits if not backward else lambda: torch.autograd.grad(logits().sum(), (q, s, weight))

    calls: dict[str, Callable[[], Call]] = {
        "siamese_fast": lambda: run(lambda: sf.l1_similarity_matrix(q, s, weight)),
        "torch.cdist(p=1)": cdist,
        "broadcasting in blocks": broadcast,
        "KeOps (row sums only)": keops,
    }
    name = f"koch all pairs {rows}x{rows}x128, forward{' + backward' if backward else ''}"
    return Work(name, calls, (2.0 + (8.0 if backward else 0.0)) * rows * rows * 128, "fp32 instructions")


def koch_hidden(device: str, rows: int, width: int) -> Work:
    q, s = (torch.randn(rows, 128, device=device, requires_grad=True) for _ in range(2))
    hidden = torch.randn(width, 128, device=device, requires_grad=True)
    shift, weight = (torch.randn(width, device=device, requires_grad=True) for _ in range(2))
    leaves = (q, s, hidden, shift, weight)

    def plain(part: Tensor) -> Tensor:
        return F.relu(F.linear((part[:, None] - s[None]).abs(), hidden, shift)) @ weight

    def blocks() -> Call:
        step = max(1, (1 << 28) // (rows * max(128, width)))

        def call() -> None:
            for part in q.split(step):
                torch.autograd.grad(plain(part).sum(), leaves)

        return call

    calls: dict[str, Callable[[], Call]] = {
        "siamese_fast": lambda: (
            lambda: torch.autograd.grad(
                sf.l1_mlp_similarity_matrix(q, s, hidden, shift, weight).sum(), leaves
            )
        ),
        "torch in blocks": blocks,
    }
    name = f"koch hidden layer {rows}x{rows}x128x{width}, forward + backward"
    return Work(name, calls, 14.0 * rows * rows * 128 * width, "flop")


def all_pairs_loss(device: str, rows: int) -> Work:
    x = torch.randn(rows, 128, device=device, requires_grad=True)
    labels = torch.arange(rows, device=device) // 4

    def metric_learning() -> Call:
        losses = importlib.import_module("pytorch_metric_learning.losses")
        loss = losses.SupConLoss(temperature=0.1)
        return backpropagated(lambda: loss(x, labels), x)

    def plain() -> Tensor:
        unit = F.normalize(x)
        scores = (unit @ unit.T / 0.1).fill_diagonal_(-torch.inf)
        positive = (labels[:, None] == labels[None]).fill_diagonal_(False)
        mean = torch.where(positive, scores, 0.0).sum(1) / positive.sum(1).clamp_min(1)
        return (scores.logsumexp(1) - mean).mean()

    compiled = torch.compile(plain)
    calls: dict[str, Callable[[], Call]] = {
        "siamese_fast": lambda: backpropagated(lambda: sf.supcon_loss(x, labels, 0.1), x),
        "pytorch-metric-learning": metric_learning,
        "torch": lambda: backpropagated(plain, x),
        "torch.compile": lambda: backpropagated(compiled, x),
    }
    return Work(f"SupCon N={rows}, forward + backward", calls, 6.0 * rows * rows * 128, "flop (6 N^2 D)")


def koch_pairs(device: str, rows: int) -> Work:
    h1, h2 = (torch.randn(rows, 128, device=device, requires_grad=True) for _ in range(2))
    weight, bias = (
        torch.randn(128, device=device, requires_grad=True),
        torch.zeros((), device=device, requires_grad=True),
    )
    target = (torch.rand(rows, device=device) > 0.5).float()
    out = (torch.empty_like(h1, requires_grad=False), torch.empty_like(h2, requires_grad=False))

    def plain() -> Tensor:
        return F.binary_cross_entropy_with_logits(((h1 - h2).abs() * weight).sum(1) + bias, target)

    compiled, leaves = torch.compile(plain), (h1, h2, weight, bias)
    calls: dict[str, Callable[[], Call]] = {
        "siamese_fast, one pass, out=": lambda: (
            lambda: sf.l1_similarity_bce_grad(h1, h2, weight, bias, target, out=out)
        ),
        "siamese_fast": lambda: backpropagated(
            lambda: sf.l1_similarity_bce(h1, h2, weight, bias, target), *leaves
        ),
        "torch": lambda: backpropagated(plain, *leaves),
        "torch.compile": lambda: backpropagated(compiled, *leaves),
    }
    return Work(f"pairs + BCE {rows}x128, forward + backward", calls, 4.0 * rows * 128 * 4, "bytes")


def nearest(device: str, queries: int, supports: int, k: int, dtype: torch.dtype) -> Work:
    q, s = (
        torch.randn(queries, 128, device=device, dtype=dtype),
        torch.randn(supports, 128, device=device, dtype=dtype),
    )

    def chunks() -> Call:
        step = max(1, (1 << 30) // queries)

        def call() -> None:
            kept = []
            for start in range(0, supports, step):
                part = s[start : start + step]
                score = q @ part.T - part.float().square().sum(1).to(dtype) / 2
                kept.append(score.topk(min(k, len(part)), dim=1))
            torch.cat([one.values for one in kept], 1).topk(k, dim=1)

        return call

    def faiss() -> Call:
        module = importlib.import_module("faiss")
        if device != "cuda" or not hasattr(module, "StandardGpuResources"):
            raise ImportError("faiss has no GPU half here")
        resources = module.StandardGpuResources()
        left, right = q.float(), s.float()
        return lambda: module.knn_gpu(resources, left.cpu().numpy(), right.cpu().numpy(), k)

    def cuvs() -> Call:
        module = importlib.import_module("cuvs.neighbors.brute_force")
        index = module.build(s.float(), metric="sqeuclidean")
        return lambda: module.search(index, q.float(), k)

    calls = {
        "siamese_fast": lambda: lambda: sf.nearest_support(q, s, k, metric="sqeuclidean"),
        "matmul + topk in blocks": chunks,
        "faiss-gpu": faiss,
        "cuVS": cuvs,
    }
    return Work(
        f"nearest Q={queries} S={supports} k={k} {str(dtype)[6:]}",
        calls,
        2.0 * queries * supports * 128,
        "flop",
    )


def works(device: str, tiny: bool) -> Iterator[Callable[[], Work]]:
    half = torch.bfloat16
    for rows in (24, 40) if tiny else (256, 4096, 32768):
        yield lambda rows=rows: batch_hard(device, rows, half)  # type: ignore[misc]
        yield lambda rows=rows: batch_hard(device, rows, torch.float32)  # type: ignore[misc]
    for hub in (False, True):
        yield lambda hub=hub: batch_hard(device, 40 if tiny else 1 << 20, half, hub)  # type: ignore[misc]
    for backward in (False, True):
        yield lambda backward=backward: koch_all_pairs(device, 64 if tiny else 8192, backward)  # type: ignore[misc]
    yield lambda: koch_hidden(device, 6 if tiny else 2048, 16 if tiny else 128)
    for rows in (64,) if tiny else (4096, 32768):
        yield lambda rows=rows: all_pairs_loss(device, rows)  # type: ignore[misc]
    yield lambda: koch_pairs(device, 64 if tiny else 1 << 20)
    for k in (1, 10):
        yield lambda k=k: nearest(device, 6 if tiny else 10_000, 140 if tiny else 10_000_000, k, half)  # type: ignore[misc]


def limits(clock: Clock, tiny: bool) -> dict[str, float]:
    """What the machine reaches in the same run: products, a copy, fp32 instructions."""
    n, device = 64 if tiny else 8192, clock.device
    found = {}
    for name, dtype, tf32 in (("bf16 flop/s", torch.bfloat16, False), ("tf32 flop/s", torch.float32, True)):
        a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        found[name] = 2 * n**3 / clock.measure(lambda a=a, b=b: a @ b)["seconds"]  # type: ignore[misc]
        torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.randn(1 << (12 if tiny else 28), device=device)
    target = torch.empty_like(source)
    found["copied bytes/s"] = 2 * source.nbytes / clock.measure(lambda: target.copy_(source))["seconds"]
    gpu_rate = importlib.import_module("gpu_rate")
    spent = clock.measure(lambda: gpu_rate.run(device))["seconds"]
    found["fp32 instructions/s"] = gpu_rate.instructions(device) / spent
    return found


def time_all(device: str, tiny: bool) -> dict[str, Any]:
    clock = Clock(device, 1 if tiny else 15)
    found: dict[str, Any] = {"limits": limits(clock, tiny), "works": []}
    for make in works(device, tiny):
        work = make()
        row: dict[str, Any] = {"name": work.name, "amount": work.amount, "unit": work.unit, "results": {}}
        for who, prepare in work.calls.items():
            row["results"][who] = _measured(clock, prepare)
            print(work.name, "|", who, "|", row["results"][who], flush=True)
        found["works"].append(row)
    return found


def _measured(clock: Clock, prepare: Callable[[], Call]) -> dict[str, Any]:
    try:
        return {**clock.measure(prepare())}
    except ImportError as error:
        return {"missing": str(error)}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"missing": "out of memory"}
    except Exception as error:  # a peer that breaks is a result, not the end of the run
        return {"missing": f"{type(error).__name__}: {error}"[:300]}
