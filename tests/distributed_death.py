"""One rank dies or stalls in the middle of a loss; the others print how long they waited for their error.

python tests/distributed_death.py RANK SIZE STORE HOW LOSS
"""

from __future__ import annotations

import datetime
import os
import sys
import time

import torch
import torch.distributed as dist

from siamese_fast import distributed

TIMEOUT = 6


def main(rank: int, size: int, store: str, how: str, name: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )
    over_ranks = getattr(distributed, name)
    x, labels = torch.randn(64, 8, requires_grad=True), torch.arange(64) % 8
    loss = over_ranks(x, labels, strategy="ring")
    if rank == size - 1:
        if how == "dies":
            os._exit(0)
        time.sleep(3 * TIMEOUT)
    start = time.perf_counter()
    try:
        loss.backward()
        over_ranks(x, labels, strategy="ring")
    except RuntimeError:
        print(time.perf_counter() - start, flush=True)
    os._exit(0)  # the process group of a broken world does not shut down in order


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
