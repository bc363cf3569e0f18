"""The machine and the software a result belongs to, and the number of threads that everybody may use."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import siamese_fast
from siamese_fast import backend

LIBRARIES = (
    "torch",
    "numpy",
    "pytorch-metric-learning",
    "sentence-transformers",
    "open-metric-learning",
    "faiss-cpu",
    "numba",
    "pykeops",
    "scikit-learn",
)


def limit_threads(threads: int) -> None:
    """One number for every library of the process; call it again after loading one."""
    torch.set_num_threads(threads)
    if importlib.util.find_spec("threadpoolctl") is not None:
        importlib.import_module("threadpoolctl").threadpool_limits(limits=threads)
    if (numba := sys.modules.get("numba")) is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe(threads: int) -> dict[str, Any]:
    """What a result must say about where it comes from, as JSON types."""
    return {
        "siamese_fast": siamese_fast.__version__,
        **_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "memory_bytes": memory_bytes(),
            "device": "cpu",
            "instruction_set": backend.instruction_set(),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: version_of(name) for name in LIBRARIES},
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Memory that is free for new processes, where the system tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return None


def _commit() -> dict[str, Any]:
    """The commit of the checkout that the package runs from; None where it was installed."""
    folder = Path(siamese_fast.__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", "__init__.py") is not None
    changes = git("status", "--porcelain", "--untracked-files=no") if tracked else None
    return {"commit": git("rev-parse", "HEAD") if tracked else None, "changed": bool(changes)}
