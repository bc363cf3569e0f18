"""The only file that knows which backends exist: what serves each operation, and how to choose another.

    reference   plain torch, any device
    native      the C++ kernels on the CPU

Native kernels are registered at the dispatcher's CPU key when the extension is there; where it was never
built the reference serves, after one warning. An extension that is there but does not load is an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from siamese_fast.ops._define import LIBRARY, REFERENCES, layer

BACKENDS = ("native", "reference")
_ROOMS = (
    "l1_similarity",
    "distance",
    "triplet_loss",
    "matrix",
    "hardest_pairs",
    "support",
    "pair_loss",
    "batch_all",
)
_NATIVE: dict[str, Callable[..., Any]] = {}
_layers: list[str] = []


def install() -> None:
    """Register the native kernels, once, when the package is imported."""
    if importlib.util.find_spec("siamese_fast._native") is None:
        warnings.warn(
            "siamese_fast was built without its C++ extension: the plain torch reference serves on the CPU",
            stacklevel=2,
        )
        return
    for room in _ROOMS:
        _NATIVE.update(importlib.import_module(f"siamese_fast.native.{room}").KERNELS)
    for name, kernel in _NATIVE.items():
        LIBRARY.impl(name, kernel, "CPU")


@contextmanager
def use(name: str) -> Iterator[None]:
    """Serve every operation by one backend inside a `with` block, in the whole process.

    Raises when that cannot be honoured.

    Example:
        >>> with siamese_fast.backend.use("reference"):
        ...     loss = batch_hard_triplet_loss(x, labels)
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {name!r}")
    if name == "native" and not _NATIVE:
        raise RuntimeError(
            "backend 'native' is not available: siamese_fast was built without its C++ extension"
        )
    kernels = REFERENCES if name == "reference" else _NATIVE
    with layer({operation: kernels[operation] for operation in _NATIVE}, "CPU"):
        _layers.append(name)
        try:
            yield
        finally:
            _layers.pop()


def table() -> dict[str, str]:
    """Which kernel serves each operation on the CPU: "native (avx512)" or "reference"."""
    native = bool(_NATIVE) and (not _layers or _layers[-1] == "native")
    return {
        name: f"native ({instruction_set()})" if native and name in _NATIVE else "reference"
        for name in REFERENCES
    }


def instruction_set() -> str | None:
    """The instruction set of the native kernels in use; None without the extension."""
    return str(_extension().instruction_set()) if _NATIVE else None


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this machine runs, slowest first."""
    return tuple(_extension().instruction_sets()) if _NATIVE else ()


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Run one instruction set's kernels inside a `with` block, as SIAMESE_FAST_ISA does for a process."""
    if not _NATIVE:
        raise RuntimeError(
            "siamese_fast was built without its C++ extension: there is no instruction set to choose"
        )
    before = instruction_set()
    _extension().use_instruction_set(name)
    try:
        yield
    finally:
        _extension().use_instruction_set(before)


def release_memory() -> int:
    """Give the memory that operations keep for their next call back to the system; returns how many bytes.

    On the CPU, scratch (64 MiB at most) and the memory of large results that are gone (1 GiB at most, which
    the system may take back whenever it runs short) are kept: fresh memory costs more than most operations.
    """
    return int(_extension().release_kept_memory()) if _NATIVE else 0


def _extension() -> Any:
    return importlib.import_module("siamese_fast._native")
