"""A training run that torchrun starts; given a step, rank 1 dies there in the first attempt.

torchrun --nproc-per-node 2 --max-restarts 1 tests/distributed_restart.py FOLDER [STEP]
"""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from distributed_checks.training import QUIET, images, network, weights
from torch import Tensor

from siamese_fast.data import PKSampler
from siamese_fast.distributed import BatchHardTripletLoss
from siamese_fast.training import FitOptions, fit


def main(folder: Path, last_step: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
    rank, attempt = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    batches: list[int] = []

    def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        noisy = batch + 0.1 * torch.rand(batch.shape, generator=generator)
        if rank == 1 and attempt == 0 and len(batches) == last_step:
            os._exit(3)
        batches.append(len(batch))
        return noisy

    trained = network(dropout=0.2)
    sampler = PKSampler(images().labels, 4, 3, generator=rank)
    options = FitOptions(
        steps=9, checkpoint=folder / "run.pt", resume=True, checkpoint_every=4, log_every=1, **QUIET
    )
    history = fit(trained, BatchHardTripletLoss(None), images(), sampler, options, augment=augment)
    if rank == 0:
        result = {
            "weights": weights(trained),
            "attempt": attempt,
            "steps": len(batches),
            "losses": history.curve("loss")[1],
        }
        torch.save(result, folder / "result.pt")
    dist.barrier()  # a rank that leaves while another still speaks to it may abort
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
