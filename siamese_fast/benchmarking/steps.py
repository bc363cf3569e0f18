"""Whole training steps: encoder, batch-hard loss, gradients and optimizer, with our loss, another's, or none.

Without a loss the step differentiates the sum of the embeddings: what the encoder alone takes. Each point is
a process of its own under a cap of memory and of time. The loss is a bottleneck where either library's takes
more of the step than `BOTTLENECK`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamese_fast.benchmarking import draws, ours, peers
from siamese_fast.benchmarking.contender import Call, Contender, Inputs
from siamese_fast.benchmarking.growth import Budget, Spend, Tell
from siamese_fast.benchmarking.isolated import NotSpent, spend
from siamese_fast.benchmarking.machine import describe, version_of
from siamese_fast.network import ConvEncoder, MLPEncoder

BOTTLENECK = 0.1
SIZES = (64, 256, 1024, 4096, 16384)
_SIDE, _DIM = 28, 128

LOSSES: dict[str, Contender] = {
    "siamese_fast": ours.batch_hard(),
    "pytorch-metric-learning": peers.pytorch_metric_learning(),
    "no loss": Contender("no loss", "baseline", lambda given: lambda: given["x"].sum()),
}
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "MLP 784-512-128": lambda: MLPEncoder(_SIDE * _SIDE, (512,), _DIM),
    "Conv-4, 16 channels": lambda: ConvEncoder(1, _SIDE, (16,) * 4, embedding_dim=_DIM),
}


def study(
    budget: Budget,
    threads: int = 1,
    sizes: Sequence[int] = SIZES,
    tell: Tell = lambda text, done, total: None,
    spend: Spend = spend,
) -> dict[str, Any]:
    """The study as JSON types: for each encoder and loss its points, the largest batch and what ended it."""
    end = time.monotonic() + budget.seconds
    cap = budget.bytes()
    found = [_entry(encoder, loss) for encoder in ENCODERS for loss in LOSSES]
    turns = [(entry, rows) for rows in sizes for entry in found]
    for number, (entry, rows) in enumerate(turns):
        if entry["ended"] is not None:
            continue
        tell(f"{entry['encoder']}, {entry['loss']}, N={rows}", number, len(turns))
        left = min(budget.process_seconds, end - time.monotonic())
        try:
            if left <= 0:
                raise NotSpent("time", "the study's time was over")
            spent = spend(step_task(entry["encoder"], entry["loss"], rows, threads), cap, left)
        except NotSpent as error:
            entry["ended"] = f"{error.cause}: {error}"
        else:
            entry["points"].append({"N": rows, "seconds": spent.seconds, "bytes": spent.bytes})
    return {
        "study": "steps",
        **describe(threads),
        "cap_bytes": cap,
        "cap_seconds": budget.process_seconds,
        "entries": found,
        "comparison": compared(found),
    }


def _entry(encoder: str, loss: str) -> dict[str, Any]:
    missing = [library for library in LOSSES[loss].libraries if version_of(library) is None]
    ended = f"missing: {', '.join(missing)} is not installed" if missing else None
    return {"encoder": encoder, "loss": loss, "points": [], "ended": ended}


def compared(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each encoder and batch, the share of the step that the loss takes and the ratio of the steps."""
    seconds = {
        (entry["encoder"], point["N"], entry["loss"]): point["seconds"]
        for entry in entries
        for point in entry["points"]
    }
    rows = []
    for encoder, size in dict.fromkeys((encoder, size) for encoder, size, _ in seconds):
        alone = seconds.get((encoder, size, "no loss"))
        steps = {loss: seconds.get((encoder, size, loss)) for loss in LOSSES if loss != "no loss"}
        shares = {
            loss: None if step is None or alone is None else max(0.0, 1 - alone / step)
            for loss, step in steps.items()
        }
        mine, theirs = steps["siamese_fast"], steps["pytorch-metric-learning"]
        known = [share for share in shares.values() if share is not None]
        rows.append(
            {
                "encoder": encoder,
                "N": size,
                "loss_share": shares,
                "faster": None if mine is None or theirs is None else theirs / mine,
                "bottleneck": None if not known else max(known) > BOTTLENECK,
            }
        )
    return rows


def step_task(encoder: str, loss: str, rows: int, threads: int) -> dict[str, Any]:
    """A step for `isolated.spend`."""
    return {"kind": "step", "encoder": encoder, "loss": loss, "rows": rows, "threads": threads}


def step_call(task: Mapping[str, Any]) -> Call:
    """The step of a task, once warmed up on a small batch."""
    torch.manual_seed(0)
    encoder = ENCODERS[task["encoder"]]()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1e-3)
    build = LOSSES[task["loss"]].build
    _step(encoder, optimizer, build, *_images(64))()
    return _step(encoder, optimizer, build, *_images(task["rows"]))


def _step(
    encoder: nn.Module,
    optimizer: torch.optim.Optimizer,
    build: Callable[[Inputs], Call],
    images: Tensor,
    labels: Tensor,
) -> Call:
    def step() -> None:
        optimizer.zero_grad()
        build({"x": encoder(images), "labels": labels})().backward()
        optimizer.step()

    return step


def _images(rows: int) -> tuple[Tensor, Tensor]:
    labels = draws.batch({"N": rows, "D": 1})["labels"]
    return draws.normal(rows, 1, _SIDE, _SIDE), labels
