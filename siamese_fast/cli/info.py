"""`siamese-fast info`: versions, hardware, and which kernel serves each operation."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch
from rich.console import Console

import siamese_fast
from siamese_fast import backend
from siamese_fast.benchmarking.machine import processor
from siamese_fast.cli._common import Json, emit, table
from siamese_fast.data._cache import cache_dir

_LIBRARIES = (
    "torch",
    "numpy",
    "triton",
    "scikit-learn",
    "scikit-image",
    "matplotlib",
    "pytorch-metric-learning",
    "onnx",
)


def info(as_json: Json = False) -> None:
    """Print versions, instruction set, threads, GPU, and which kernel serves each operation.

    For bug reports. The variable SIAMESE_FAST_ISA (scalar, avx2, avx512) chooses the instruction set.
    """
    found = collect()

    def show(console: Console) -> None:
        facts = table("siamese_fast", found["siamese_fast"])
        for name, value in found.items():
            if not isinstance(value, dict) and name != "siamese_fast":
                facts.add_row(
                    name.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value)
                )
        for name, value in found["libraries"].items():
            facts.add_row(name, value or "not installed")
        console.print(facts, "")
        kernels = table("operation", "kernel on the CPU", "on CUDA devices")
        for name, kernel in found["kernels"].items():
            kernels.add_row(name, kernel, found["kernels_on_cuda"][name])
        console.print(kernels)

    emit(found, as_json, show)


def collect() -> dict[str, Any]:
    """Everything that `info` prints, as JSON types."""
    return {
        "siamese_fast": siamese_fast.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "instruction_set": backend.instruction_set() or "none (no extension)",
        "instruction_sets": list(backend.instruction_sets()),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cache": str(cache_dir()),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "kernels": _forward(backend.table()),
        "kernels_on_cuda": _forward(backend.table("cuda")),
    }


def _forward(kernels: dict[str, str]) -> dict[str, str]:
    return {name: kernel for name, kernel in kernels.items() if "backward" not in name}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
