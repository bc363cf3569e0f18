"""Spawned worlds: the checks of one module run on W gloo processes, each process once for all of them.

    python tests/distributed_world.py MODULE RANK SIZE STORE FOLDER

A check is a function `check_*(world)` of `tests/distributed_checks/MODULE.py`, run by every rank in the order
of the file. Every rank writes FOLDER/RANK.json, {check: "" or the traceback}. After the first failure the
ranks may be out of step, so the checks that follow are not run.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMEOUT = 120
"""Seconds after which an exchange that nobody answers fails."""


def run_world(
    module: str,
    size: int,
    folder: Path,
    *,
    store: str | None = None,
    launchers: Sequence[Sequence[str]] = (),
    timeout: float = 600,
) -> dict[str, str]:
    """{check: "" or what went wrong on which rank}; `launchers[r]` starts rank r, say on another host."""
    processes = []
    for rank in range(size):
        meeting = store or f"file://{folder / 'store'}"
        command = [*launchers[rank]] if launchers else []
        command += [sys.executable, __file__, module, str(rank), str(size), meeting, str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        log = (folder / f"{rank}.log").open("w")
        processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        log.close()
    try:
        for process in processes:
            process.wait(timeout)
    finally:
        for process in processes:
            process.kill()
    found: dict[str, list[str]] = {}
    for rank in range(size):
        path = folder / f"{rank}.json"
        if not path.exists():
            raise AssertionError(f"rank {rank} died: {(folder / f'{rank}.log').read_text()[-2000:]}")
        for name, problem in json.loads(path.read_text()).items():
            found.setdefault(name, []).append(f"rank {rank}: {problem}" if problem else "")
    return {name: "\n".join(filter(None, problems)) for name, problems in found.items()}


def _main(module: str, rank: int, size: int, store: str, folder: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=store,
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )
    checks: Any = importlib.import_module(f"distributed_checks.{module}")
    found: dict[str, str] = {}
    for name, check in vars(checks).items():
        if name.startswith("check_") and not any(found.values()):
            try:
                check(checks.World())
            except Exception:
                found[name] = traceback.format_exc()
            else:
                found[name] = ""
            failed = torch.tensor(float(bool(found[name])))
            try:
                dist.all_reduce(failed)
            except RuntimeError as error:
                found[name] = found[name] or f"the other ranks gave up: {error}"
            if failed.item() and not found[name]:
                break
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
