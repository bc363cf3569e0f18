"""What native operations need: the extension, codes of arguments, the thread count, checked operands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from siamese_fast import _native as extension
from siamese_fast.ops._checks import compute_dtype

__all__ = [
    "DTYPE",
    "HINGE",
    "METRIC",
    "REDUCTION",
    "address",
    "compute_dtype",
    "extension",
    "fresh",
    "fresh_like",
    "operand",
    "receiver",
    "threads",
]

DTYPE = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
METRIC = {"euclidean": 0, "sqeuclidean": 1, "cosine": 2, "dot": 3, "manhattan": 4, "koch": 5}
HINGE = {"relu": 0, "softplus": 1}
REDUCTION = {"none": 0, "mean": 1, "sum": 2, "mean_nonzero": 3}

LARGE = 1 << 22  # bytes

threads = torch.get_num_threads


def address(value: Tensor | None) -> int:
    """Where the elements of a tensor begin; 0 for none, never for an empty tensor, whose address is 0 too."""
    return 0 if value is None else value.data_ptr() or 1


def fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised output. A large one takes memory that an earlier one left: page faults cost more than
    arithmetic. Its storage cannot be resized, like that of a tensor from numpy.
    """
    count = math.prod(shape)
    if count * dtype.itemsize < LARGE:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(extension.Output(count * dtype.itemsize), dtype=dtype).resize_(shape)


def fresh_like(value: Tensor) -> Tensor:
    """The same for an output of the shape and dtype of a contiguous tensor."""
    return fresh(value.shape, value.dtype)


def operand(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """`value`, contiguous, once it is what its address will be read as."""
    if value.dtype != dtype or value.shape != shape or not value.is_cpu:
        _mismatch(name, value, dtype, shape, "")
    return value.contiguous()


def receiver(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """`value`, once it can be written to as contiguous elements of `dtype`."""
    if value.dtype != dtype or value.shape != shape or not value.is_cpu or not value.is_contiguous():
        _mismatch(name, value, dtype, shape, "contiguous ")
    return value


def _mismatch(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], layout: str) -> None:
    got = f"{value.dtype} {list(value.shape)} with strides {list(value.stride())} on {value.device}"
    raise ValueError(f"{name} must be {layout}{dtype} {list(shape)} on the CPU, got {got}")
