"""What a public function accepts: every argument is checked here before any kernel sees it."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
REDUCTIONS = ("none", "mean", "sum")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of arithmetic, losses, scores and distances: float64 for float64, float32 for the rest."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def embeddings(name: str, value: Tensor, like: tuple[str, Tensor] | None = None) -> Tensor:
    """A contiguous matrix [N, D] of a floating dtype; with `like`, of the same D, dtype and device as that
    argument.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor [N, D], got {type(value).__name__}")
    if value.dim() != 2:
        raise ValueError(f"{name} must have shape [N, D], got {list(value.shape)}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {value.dtype}")
    if value.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got {list(value.shape)}")
    if like is not None:
        other_name, other = like
        if value.shape[1] != other.shape[1]:
            raise ValueError(
                f"{name} has {value.shape[1]} columns and {other_name} has {other.shape[1]}: they must agree"
            )
        if value.dtype != other.dtype:
            raise TypeError(f"{name} is {value.dtype} and {other_name} is {other.dtype}: they must agree")
        same_device(name, value, other_name, other)
    return value.contiguous()


def same_rows(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.shape[0] != other.shape[0]:
        raise ValueError(
            f"{name} has {value.shape[0]} rows and {other_name} has {other.shape[0]}: they must agree"
        )


def same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(
            f"{name} is on {value.device} and {other_name} is on {other.device}: they must agree"
        )


def weight(value: Tensor, x: Tensor) -> Tensor:
    """The Koch weights as [D] in the compute dtype; given as [D] or [1, D], in the dtype of `x` or the
    compute dtype.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"weight must be a torch.Tensor [D], got {type(value).__name__}")
    columns = x.shape[1]
    if tuple(value.shape) not in ((columns,), (1, columns)):
        raise ValueError(f"weight must have shape [{columns}] or [1, {columns}], got {list(value.shape)}")
    _parameter_dtype("weight", value, x)
    same_device("weight", value, "the embeddings", x)
    return value.reshape(columns).to(compute_dtype(x.dtype)).contiguous()


def bias(value: Tensor | float | None, x: Tensor) -> Tensor:
    """The Koch bias as a scalar tensor in the compute dtype; given as None (0), a number, [] or [1]."""
    compute = compute_dtype(x.dtype)
    if value is None:
        return torch.zeros((), dtype=compute, device=x.device)
    if not isinstance(value, Tensor):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                f"bias must be None, a number or a tensor of one element, got {type(value).__name__}"
            )
        return torch.tensor(float(value), dtype=compute, device=x.device)
    if tuple(value.shape) not in ((), (1,)):
        raise ValueError(f"bias must have shape [] or [1], got {list(value.shape)}")
    _parameter_dtype("bias", value, x)
    same_device("bias", value, "the embeddings", x)
    return value.reshape(()).to(compute)


def parameter(name: str, value: Tensor, shape: tuple[int, ...], x: Tensor) -> Tensor:
    """A parameter of a head, of this shape, in the compute dtype; given in that or in the dtype of `x`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {list(shape)}, got {type(value).__name__}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(value.shape)}")
    _parameter_dtype(name, value, x)
    same_device(name, value, "the embeddings", x)
    return value.to(compute_dtype(x.dtype)).contiguous()


def _parameter_dtype(name: str, value: Tensor, x: Tensor) -> None:
    accepted = {x.dtype, compute_dtype(x.dtype)}
    if value.dtype not in accepted:
        names = " or ".join(sorted(str(dtype) for dtype in accepted))
        raise TypeError(f"{name} must be {names} beside {x.dtype} embeddings, got {value.dtype}")


def labels(name: str, value: Tensor, rows: int, x: Tensor) -> Tensor:
    """Class labels [N] of any integer or bool dtype, as int64."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor [N], got {type(value).__name__}")
    if value.dim() != 1 or value.shape[0] != rows:
        raise ValueError(f"{name} must have shape [{rows}], got {list(value.shape)}")
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name} must be of an integer or bool dtype, got {value.dtype}")
    same_device(name, value, "the embeddings", x)
    return value.to(torch.int64).contiguous()


def indices(name: str, value: Tensor, count: int | None, table: Tensor, lowest: int = 0) -> Tensor:
    """Row indices into `table`, int64.

    Checked against its range on the CPU (a kernel masks them elsewhere).
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of row indices, got {type(value).__name__}")
    if value.dim() != 1 or (count is not None and value.shape[0] != count):
        expected = f"[{count}]" if count is not None else "[T]"
        raise ValueError(f"{name} must have shape {expected}, got {list(value.shape)}")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be of an integer dtype, got {value.dtype}")
    same_device(name, value, "the embeddings", table)
    value = value.to(torch.int64)
    if value.device.type == "cpu" and value.numel() and not torch.compiler.is_compiling():
        low, high = torch.aminmax(value)
        if int(low) < lowest or int(high) >= table.shape[0]:
            raise IndexError(
                f"{name} must lie in [{lowest}, {table.shape[0]}), got values from {int(low)} to {int(high)}"
            )
    return value.contiguous()


def receiver(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> None:
    """An `out` buffer: contiguous, of this shape and dtype, beside `like`, and outside autograd."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if (
        value.shape != shape
        or value.dtype != dtype
        or value.device != like.device
        or not value.is_contiguous()
    ):
        expected = f"contiguous {dtype} {list(shape)} on {like.device}"
        raise ValueError(
            f"{name} must be {expected}, got {value.dtype} {list(value.shape)} on {value.device}"
        )
    if value.requires_grad:
        raise ValueError(f"{name} must not require a gradient: out= does not take part in autograd")


def written(value: Tensor) -> None:
    """Tell autograd that a buffer's content changed, so that a graph that saved it raises."""
    if not torch.compiler.is_compiling() and not value.is_inference():
        torch.autograd.graph.increment_version(value)


def choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")


def margin(value: float | None) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or value != value
    ):
        raise ValueError(f"margin must be a number, or None for the soft margin, got {value!r}")
