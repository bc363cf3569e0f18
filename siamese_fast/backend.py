"""The only file that knows which backends exist: what serves each operation, and how to choose another.

    reference   plain torch, any device
    native      the C++ kernels on the CPU, and on CUDA devices those of the Koch head where they were built
    triton      Triton kernels on CUDA devices; on the CPU under TRITON_INTERPRET=1, for tests

Native kernels are registered at the dispatcher's CPU key when the extension is there; the Koch head with a
hidden layer has none: its time is that of torch's own products. Where the extension was never built the
reference serves, after one warning. An extension that is there but does not load is an error. At
its CUDA key the first of native, Triton and reference that is there serves, found at the first call:
importing the package imports no triton and touches no GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from siamese_fast.ops._define import LIBRARY, REFERENCES, layer

BACKENDS = ("native", "triton", "reference")
_ROOMS = (
    "l1_similarity",
    "distance",
    "triplet_loss",
    "matrix",
    "hardest_pairs",
    "support",
    "pair_loss",
    "triplet_sums",
    "ranked_pairs",
)
_NATIVE: dict[str, Callable[..., Any]] = {}
# Which Triton kernels there are, by room: known without importing triton.
_TRITON = {
    "hardest_pairs": ("hardest_pairs",),
    "class_scores": ("class_scores",),
    "distance": ("distance", "distance_backward"),
    "l1_similarity": (
        "l1_similarity",
        "l1_similarity_backward",
        "l1_similarity_bce",
        "l1_similarity_bce_grad",
    ),
    "l1_mlp_similarity_matrix": ("l1_mlp_similarity_matrix", "l1_mlp_similarity_matrix_backward"),
    "matrix": ("distance_matrix", "l1_similarity_matrix", "l1_similarity_matrix_out"),
    "matrix_backward": ("distance_matrix_backward", "l1_similarity_matrix_backward"),
    "nearest_support": ("nearest_support",),
    "pair_loss": ("pair_loss",),
    "pair_loss_backward": ("pair_loss_backward",),
    "triplet_loss": ("triplet_loss", "triplet_rows_loss"),
    "triplet_loss_backward": ("triplet_loss_backward", "triplet_rows_loss_backward"),
}
# Operations with a CUDA C++ kernel, which takes every dtype but float64.
_NATIVE_CUDA = (*_TRITON["l1_similarity"], "l1_similarity_matrix", "l1_similarity_matrix_out")
_NATIVE_CUDA += ("l1_similarity_matrix_backward",)
_TRITON_ROOM = {operation: room for room, operations in _TRITON.items() for operation in operations}
_layers: list[str] = []


def install() -> None:
    """Register the kernels, once, when the package is imported."""
    for name, kernel in _on_cuda().items():
        LIBRARY.impl(name, kernel, "CUDA")
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
    on_cpu, on_cuda = _kernels_of(name)
    with layer(on_cpu, "CPU"), layer(on_cuda, "CUDA"):
        _layers.append(name)
        try:
            yield
        finally:
            _layers.pop()


def table(device: str = "cpu") -> dict[str, str]:
    """Which kernel serves each operation on "cpu" or "cuda": "native (avx512)", "triton" or "reference"."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}")
    chosen = _layers[-1] if _layers else None
    return {name: _server(name, device, chosen) for name in REFERENCES}


def _server(name: str, device: str, chosen: str | None) -> str:
    if chosen == "reference":
        return "reference"
    if device == "cuda":
        if name in _NATIVE_CUDA and chosen != "triton" and _there("siamese_fast._cuda"):
            return "native (cuda)"
        return "triton" if name in _TRITON_ROOM and _there("triton") else "reference"
    if chosen == "triton":
        return "triton (interpreted)" if name in _TRITON_ROOM and _interpreting() else "reference"
    return f"native ({instruction_set()})" if name in _NATIVE else "reference"


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _kernels_of(name: str) -> tuple[dict[str, Callable[..., Any]], dict[str, Callable[..., Any]]]:
    """What an explicit choice puts at the CPU and at the CUDA key."""
    if name == "native":
        return dict(_NATIVE), _on_cuda()
    if name == "reference":
        return {operation: REFERENCES[operation] for operation in _NATIVE}, {
            operation: REFERENCES[operation] for operation in _TRITON_ROOM
        }
    if not _there("triton"):
        raise RuntimeError("backend 'triton' is not available: triton is not installed")
    interpreting = _interpreting()
    if not interpreting and not torch.cuda.is_available():
        raise RuntimeError(
            "backend 'triton' is not available: there is no CUDA device, and kernels run on the CPU only if"
            " TRITON_INTERPRET=1 was set before triton was imported"
        )
    try:
        kernels = {operation: triton_kernel(operation) for operation in _TRITON_ROOM}
    except ImportError as error:
        raise RuntimeError(f"backend 'triton' is not available: {error}") from error
    rest = {operation: REFERENCES[operation] for operation in REFERENCES.keys() - kernels.keys()}
    refused = {operation: _refusal(operation) for operation in REFERENCES}
    return rest | kernels if interpreting else refused, kernels


def _interpreting() -> bool:
    if "siamese_fast.kernels._launch" in sys.modules:
        return bool(sys.modules["siamese_fast.kernels._launch"].interpreting)
    return os.environ.get("TRITON_INTERPRET") == "1"


def triton_operations() -> tuple[str, ...]:
    """The operations that have a Triton kernel."""
    return tuple(_TRITON_ROOM)


def triton_kernel(name: str) -> Callable[..., Any]:
    """The Triton kernel of an operation; imports triton."""
    room = importlib.import_module(f"siamese_fast.kernels.{_TRITON_ROOM[name]}")
    kernel: Callable[..., Any] = room.KERNELS[name]
    return kernel


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        raise RuntimeError(f"backend 'triton' cannot serve {name} on the CPU without TRITON_INTERPRET=1")

    return refuse


def _on_cuda() -> dict[str, Callable[..., Any]]:
    """What serves CUDA tensors where nothing else was chosen."""
    native = _NATIVE_CUDA if _there("siamese_fast._cuda") else ()
    triton = _TRITON_ROOM if _there("triton") else ()
    return {
        name: _first_there(name, name in native) for name in _TRITON_ROOM if name in native or name in triton
    }


def _first_there(name: str, native: bool) -> Callable[..., Any]:
    """Calls the native kernel but for float64, else the Triton kernel, else the reference after one
    warning.
    """
    found: dict[bool, Callable[..., Any]] = {}

    def serve(*arguments: Any) -> Any:
        by_native = native and not any(
            isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in arguments
        )
        if by_native not in found:
            found[by_native] = _native_cuda_kernel(name) if by_native else _triton_or_reference(name)
        return found[by_native](*arguments)

    return serve


def _native_cuda_kernel(name: str) -> Callable[..., Any]:
    kernel: Callable[..., Any] = importlib.import_module("siamese_fast.native.l1_similarity_cuda").KERNELS[
        name
    ]
    return kernel


def _triton_or_reference(name: str) -> Callable[..., Any]:
    try:
        return triton_kernel(name)
    except ImportError as error:
        message = f"triton does not import, plain torch serves {name} on CUDA devices: {error}"
        warnings.warn(message, stacklevel=3)
        return REFERENCES[name]


def use_mining_precision(name: str) -> AbstractContextManager[None]:
    """How Triton kernels multiply float32 rows when they mine and look up, inside a `with` block.

    "tf32x3" (the default) keeps float32's digits; "tf32" and "bf16" are faster, with an error relative to
    the norms of the rows, not to their distance; "ieee" does without tensor cores. Losses and scores stay
    exact.
    """
    launch = importlib.import_module("siamese_fast.kernels._launch")
    chosen: AbstractContextManager[None] = launch.use_precision(name)
    return chosen


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
