"""How kernels are launched: shapes from configs.json, by architecture, dtype and depth, never by the number
of rows.

A shape decides in which order a score's terms are added, so a row's result would depend on its batch if the
batch chose the shape; and a table costs nothing in the hot path, where an autotuner would run the kernel
many times.
"""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.ops._checks import compute_dtype

METRIC = {"euclidean": 0, "sqeuclidean": 1, "cosine": 2, "dot": 3, "manhattan": 4, "koch": 5}
HINGE = {"relu": 0, "softplus": 1}
REDUCTION = {"none": 0, "mean": 1, "sum": 2, "mean_nonzero": 3}
COMPUTE = {torch.float32: tl.float32, torch.float64: tl.float64}
PRECISIONS = ("tf32x3", "tf32", "bf16", "ieee")
LARGEST = 2**31 - 1

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 6):
    raise ImportError(f"the kernels need triton 3.6 or newer, this is {triton.__version__}")

interpreting = os.environ.get("TRITON_INTERPRET") == "1"
_precision = ["tf32x3"]


@dataclass(frozen=True)
class Launch:
    """One launch as it would have been made: what ahead-of-time compilation needs to know."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


_recorded: list[Launch] | None = None
_architecture: str | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run `kernel` over `grid`; nothing for an empty one."""
    if _recorded is not None:
        _recorded.append(Launch(kernel, arguments, constants))
    elif 0 not in grid:
        kernel[grid](*arguments, **constants)


@contextmanager
def recording(architecture: str) -> Iterator[list[Launch]]:
    """Launches inside the block are collected as they would be made on `architecture`; none runs."""
    global _recorded, _architecture
    _recorded, _architecture = [], architecture
    try:
        yield _recorded
    finally:
        _recorded, _architecture = None, None


@functools.cache
def _table() -> dict[str, dict[str, dict[str, list[dict[str, int]]]]]:
    found: dict[str, dict[str, dict[str, list[dict[str, int]]]]] = json.loads(
        Path(__file__).with_name("configs.json").read_text()
    )
    return found


@functools.cache
def _capability(device: int) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))


@functools.cache
def _lookup(family: str, architecture: str, dtype: str, depth: int) -> dict[str, int]:
    table = _table()[family]
    known = [name for name in table if name != "interpreter" and _number(name) <= _number(architecture)]
    by_dtype = table[max(known, key=_number, default=min(table.keys() - {"interpreter"}, key=_number))]
    rows = by_dtype.get(dtype, by_dtype["any"])
    row = next(row for row in rows if depth <= row.get("depth", depth))
    return {name: value for name, value in row.items() if name != "depth"}


def config(family: str, x: Tensor) -> dict[str, int]:
    """Launch shape of a family of kernels for rows like `x`; the tile's depth never exceeds that of the
    rows.
    """
    if interpreting and _architecture is None:
        found = dict(_table()[family]["interpreter"]["any"][0])
    else:
        architecture = _architecture or _capability(x.device.index)
        found = dict(_lookup(family, architecture, str(x.dtype).removeprefix("torch."), x.shape[1]))
    if "BK" in found:
        found["BK"] = min(found["BK"], max(16, triton.next_power_of_2(x.shape[1])))
    return found


@functools.cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def processors(x: Tensor) -> int:
    return _processors(x.device.index) if x.is_cuda else 1


def strips(x: Tensor, row_blocks: int, columns: int, width: int, most: int = 64) -> tuple[int, int]:
    """How many strips the columns are cut into so that few rows still fill the device, and a strip's length.

    Maxima over strips do not depend on the cut.
    """
    blocks = max(1, triton.cdiv(columns, width))
    wanted = max(1, min(most, blocks, triton.cdiv(2 * processors(x), max(1, row_blocks))))
    length = triton.cdiv(blocks, wanted) * width
    return max(1, triton.cdiv(columns, length)), length


def precision(dtype: torch.dtype) -> str:
    """How float32 rows enter a product: by default as three tf32 terms, which keeps float32's digits."""
    return _precision[-1] if dtype == torch.float32 else "ieee"


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {name!r}")
    _precision.append(name)
    try:
        yield
    finally:
        _precision.pop()


def bits(value: float) -> int:
    """A number as kernels take it: Triton would round it to float32."""
    found: int = struct.unpack("q", struct.pack("d", value))[0]
    return found


def columns_first(x: Tensor) -> Tensor:
    """[D, N'] in the dtype of the arithmetic, N padded by zeros to whole tiles: for difference tiles."""
    padded = triton.cdiv(max(1, x.shape[0]), 128) * 128
    columns = torch.nn.functional.pad(x.to(compute_dtype(x.dtype)).T, (0, padded - x.shape[0]))
    return columns.contiguous()  # without anything to pad it is a copy in the layout of x


def on_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `kernel` with its first tensor's device as the current one, on that device's current stream."""

    @functools.wraps(kernel)
    def call(first: Tensor, *rest: Any) -> Any:
        if not first.is_cuda or first.device.index == torch.cuda.current_device():
            return kernel(first, *rest)
        with torch.cuda.device(first.device):
            return kernel(first, *rest)

    return call


def checked(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """`value`, contiguous, once it is what a kernel will read it as."""
    if value.dtype != dtype or value.shape != shape or value.device != like.device:
        got = f"{value.dtype} {list(value.shape)} on {value.device}"
        raise ValueError(f"{name} must be {dtype} {list(shape)} on {like.device}, got {got}")
    return value.contiguous()


def receiver(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if not value.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {list(value.stride())}")
    return checked(name, value, dtype, shape, like)


def row_count(name: str, rows: int) -> int:
    if rows > LARGEST:
        raise ValueError(f"{name} has {rows} rows: kernels take at most 2^31 - 1")
    return rows
