"""Cross-rank losses against all_gather and eager torch: time, bytes and memory a step, on this machine.

    python benchmarks/distributed.py [--quick]      writes benchmarks/results/distributed.json

Worlds of gloo processes with one thread each. Where they share cores, the wall time of a step is that of all
ranks one after the other; `cpu_seconds` is the sum over ranks, whatever else the machine does. Bytes are what
the loopback device carried (Linux), the least of several steps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor
from torch.nn import functional

from siamese_fast.benchmarking.machine import describe
from siamese_fast.distributed import batch_hard_triplet_loss, supcon_loss
from siamese_fast.distributed.blocks import pack
from siamese_fast.distributed.world import World
from siamese_fast.ops.hardest_pairs import mine

RESULTS = Path(__file__).parent / "results" / "distributed.json"
D, PER_CLASS, MARGIN, TEMPERATURE = 128, 4, 0.2, 0.1
ROWS, SIZES = (64, 256, 1024, 2048), (1, 2, 4)
MEMORY_ROWS, MEMORY_SIZE = (512, 1024, 2048), 4
LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


def everyone(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is usually written: gather everything. All rows, their labels, and where they are of one class."""
    if dist.get_world_size() == 1:
        rows, classes = x, labels
    else:
        rows = torch.cat(differentiable.all_gather(x))
        parts = [torch.empty_like(labels) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, labels)
        classes = torch.cat(parts)
    return rows, labels[:, None] == classes, torch.arange(len(x)) + len(x) * dist.get_rank()


def mean_of_ranks(local: Tensor) -> Tensor:
    return differentiable.all_reduce(local) / dist.get_world_size() if dist.get_world_size() > 1 else local


def eager(x: Tensor, labels: Tensor) -> Tensor:
    """All distances, masks, extremes."""
    rows, same, itself = everyone(x, labels)
    squares = x.square().sum(1)[:, None] + rows.square().sum(1) - 2 * x @ rows.T
    distances = squares.clamp_min(1e-12).sqrt()
    others = same.clone()
    others[torch.arange(len(x)), itself] = False
    farthest = distances.masked_fill(~others, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return mean_of_ranks((farthest - nearest + MARGIN).relu().mean())


def eager_supcon(x: Tensor, labels: Tensor) -> Tensor:
    """All cosines, masks, their softmax."""
    rows, same, itself = everyone(functional.normalize(x), labels)
    scores = functional.normalize(x) @ rows.T / TEMPERATURE
    own = functional.one_hot(itself, len(rows)).bool()
    total = scores.masked_fill(own, -torch.inf).logsumexp(1)
    positive = same & ~own
    return mean_of_ranks((total - torch.where(positive, scores, 0).sum(1) / positive.sum(1)).mean())


CONTENDERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "ring": lambda x, labels: batch_hard_triplet_loss(x, labels, MARGIN, strategy="ring"),
    "gather": lambda x, labels: batch_hard_triplet_loss(x, labels, MARGIN, strategy="gather"),
    "all_gather, eager": eager,
    "SupCon: ring": lambda x, labels: supcon_loss(x, labels, TEMPERATURE, strategy="ring"),
    "SupCon: gather": lambda x, labels: supcon_loss(x, labels, TEMPERATURE, strategy="gather"),
    "SupCon: all_gather, eager": eager_supcon,
}
"""Of the batch-hard triplet loss, and of the loss that is named."""


def batch(rows: int) -> tuple[Tensor, Tensor]:
    """Random rows; the members of a class are spread over the ranks."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    labels = torch.arange(rows) % max(1, rows * dist.get_world_size() // PER_CLASS)
    return torch.randn(rows, D, generator=generator).requires_grad_(), labels


def step(name: str, x: Tensor, labels: Tensor) -> Tensor:
    x.grad = None
    loss: Tensor = CONTENDERS[name](x, labels)
    loss.backward()
    return loss.detach()


def timed(call: Callable[[], object], seconds: float, fewest: int = 3) -> dict[str, Any]:
    """Medians over steps: wall seconds, CPU seconds of all ranks, bytes of all ranks."""
    call()
    wall, cpu, sent = [], [], []
    enough = torch.tensor(0.0)
    start = time.perf_counter()
    while not enough.item():
        dist.barrier()
        bytes_before, cpu_before, before = _loopback(), time.process_time(), time.perf_counter()
        call()
        own = torch.tensor(time.process_time() - cpu_before, dtype=torch.float64)
        wall.append(time.perf_counter() - before)
        dist.all_reduce(own)
        cpu.append(float(own))
        sent.append(_loopback() - bytes_before)
        enough.fill_(len(wall) >= fewest and time.perf_counter() - start > seconds)
        dist.broadcast(enough, 0)
    found = {"seconds": statistics.median(wall), "cpu_seconds": statistics.median(cpu), "steps": len(wall)}
    return {**found, "least_cpu_seconds": min(cpu), "bytes": min(sent)}


def steps(rows_of: list[int], seconds: float) -> list[dict[str, Any]]:
    found = []
    for rows in rows_of:
        x, labels = batch(rows)
        losses: dict[str, list[float]] = {}
        for name in CONTENDERS:
            losses.setdefault(name.rpartition(":")[0], []).append(float(step(name, x, labels)))
        for found_losses in losses.values():
            if max(found_losses) - min(found_losses) > 1e-4 * abs(found_losses[0]):  # never timed if wrong
                raise AssertionError(f"the contenders disagree: {losses}")
        for name in CONTENDERS:
            result = timed(lambda name=name, x=x, labels=labels: step(name, x, labels), seconds)
            found.append({"contender": name, "rows": rows, **result})
    return found


def parts(seconds: float) -> dict[str, Any]:
    """What the cost model is made of: mining a visiting block, and a round of the ring by message size."""
    world = World()
    rows = 1024
    x, other = torch.randn(rows, D), torch.randn(rows, D)
    labels = torch.arange(rows)
    found: dict[str, Any] = {}
    if world.size == 1:
        mined = timed(lambda: mine(x, labels, other, labels, None, "euclidean"), seconds)
        found["flops_a_second"] = 2 * rows * rows * D / mined["least_cpu_seconds"]
        own = timed(lambda: mine(x, labels, None, None, None, "euclidean"), seconds)
        found["own_block_share"] = own["least_cpu_seconds"] / mined["least_cpu_seconds"]
        return found
    rounds = []
    for count in (1, 64, 1024, 16384):
        block = pack(torch.arange(count), torch.zeros(count, D))
        received = torch.empty_like(block)

        def exchange(block: Tensor = block, received: Tensor = received) -> None:
            for work in world.start(
                block, (world.rank + 1) % world.size, received, (world.rank - 1) % world.size
            ):
                work.wait()

        result = timed(exchange, seconds, fewest=20)
        rounds.append({"message_bytes": len(block), **result})
    return {"rounds": rounds}


def memory(name: str, rows: int) -> int:
    """Bytes that a step needs beyond its inputs, on the rank that needs most."""
    step(name, *batch(64))
    x, labels = batch(rows)
    dist.barrier()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    step(name, x, labels)
    peak = torch.tensor((_kilobytes("VmHWM") - before) * 1024)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return int(peak)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _loopback() -> int:
    return int(LOOPBACK.read_text()) if LOOPBACK.exists() else 0


def rank_main(task: dict[str, Any], rank: int, size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=300),
    )
    found = {
        "memory": [
            {"contender": name, "rows": rows, "W": size, "bytes": memory(name, rows)}
            for name in CONTENDERS
            for rows in task["memory_rows"]
        ],
        "parts": parts(task["seconds"]),
        "steps": steps(task["rows"], task["seconds"]),
    }
    if rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def in_world(size: int, task: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--task", json.dumps(task), "--size", str(size)]
        command += ["--store", f"{folder}/store", "--rank"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, env=environment)
            for rank in range(size)
        ]
        outputs = [rank.communicate(timeout=1800)[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise RuntimeError(f"{task} failed at W={size}")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--task", type=json.loads)
    for name in ("rank", "size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--store")
    given = parser.parse_args()
    if given.task is not None:
        rank_main(given.task, given.rank, given.size, given.store)
        return
    seconds = 0.1 if given.quick else 0.5
    rows = list(ROWS[:2] if given.quick else ROWS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result: dict[str, Any] = {**describe(1), "cores": cores, "D": D, "steps": {}, "parts": {}, "memory": []}
    for size in SIZES:
        memory_rows = [] if size < MEMORY_SIZE else MEMORY_ROWS[: 1 if given.quick else None]
        found = in_world(size, {"rows": rows, "memory_rows": memory_rows, "seconds": seconds})
        result["parts"][str(size)], result["steps"][str(size)] = found["parts"], found["steps"]
        result["memory"] += found["memory"]
    if given.quick:
        print(json.dumps(result, indent=1))
    else:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
