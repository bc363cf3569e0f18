"""What users hand in (arrays, tensors, lists of raw examples), turned into embeddings and labels.

Embeddings are `[n, D]` floating tensors. Raw examples go through the encoder in batches, in evaluation mode
and without gradients, so memory is that of one batch of activations whatever `n` is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from siamese_fast._extras import require
from siamese_fast.network import SiameseNetwork

Encoder = Callable[[Any], Any]
Rows = Tensor | np.ndarray[Any, Any] | list[Any]


@contextmanager
def evaluating(encoder: Encoder) -> Iterator[None]:
    """Evaluation mode for the module behind `encoder` (a module, or a method of one).

    Every part of it gets its own mode back afterwards.
    """
    owner: Any = getattr(encoder, "__self__", encoder)
    modes = [(m, m.training) for m in owner.modules()] if isinstance(owner, nn.Module) else []
    try:
        if modes:
            owner.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def embedder(encoder: Encoder | None) -> Encoder | None:
    """What turns raw examples into embeddings: `embed` of a network, else the encoder itself."""
    return encoder.embed if isinstance(encoder, SiameseNetwork) else encoder


def head_of(encoder: Encoder | None, head: nn.Module | None) -> nn.Module | None:
    """The head given, or the network's own."""
    return encoder.head if head is None and isinstance(encoder, SiameseNetwork) else head


def as_rows(data: Any, *, raw: bool) -> Rows:
    """Something with a length that slices by example; when `raw`, also a list of what the encoder takes.

    Raises TypeError for sparse matrices, ValueError for complex or non-numeric data and for a scalar.
    """
    if isinstance(data, Sequence) and len(data) and isinstance(data[0], Tensor):
        data = torch.stack(list(data))
    rows: Tensor | np.ndarray[Any, Any]
    if isinstance(data, Tensor):
        rows = data.detach()
    elif raw and isinstance(data, Sequence) and len(data) and not _is_numeric(data[0]):
        return list(data)
    elif hasattr(data, "tocsr"):
        raise TypeError("X is a sparse matrix or array; only dense input is accepted: pass X.toarray()")
    else:
        rows = np.asarray(data)
        if rows.dtype == object:
            rows = rows.astype(np.float64)
        if rows.dtype.kind not in "buifc":
            raise ValueError(f"X must be numeric, got an array of dtype {rows.dtype}")
    if rows.dtype in (torch.complex64, torch.complex128) or getattr(rows.dtype, "kind", "") == "c":
        raise ValueError(f"Complex data not supported: X has dtype {rows.dtype}")
    if rows.ndim == 0:
        raise ValueError("X must hold one example a row, got a scalar")
    return rows


def check_embeddings(rows: Rows, features: int | None, name: str) -> None:
    """Raise ValueError unless `rows` is `[n, D]` with D >= 1, and D = `features` when that is known."""
    shape = np.shape(rows)
    if len(shape) != 2:
        raise ValueError(
            f"Expected 2D array of embeddings [n, D], got {len(shape)}D array of shape {tuple(shape)}. "
            "Reshape your data to (1, -1) if it is a single example, or give the classifier an encoder."
        )
    if shape[1] == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={tuple(shape)}) while a minimum of 1 is required."
        )
    if features is not None and shape[1] != features:
        raise ValueError(f"X has {shape[1]} features, but {name} is expecting {features} features as input")


def _is_numeric(example: Any) -> bool:
    return isinstance(example, (int, float, complex, np.generic, np.ndarray, list, tuple))


def _tensor(rows: Rows, start: int, stop: int) -> Any:
    """Rows [start, stop) as a tensor of their own (lists stay lists)."""
    part = rows[start:stop]
    return torch.tensor(part) if isinstance(part, np.ndarray) else part


def embed(
    rows: Rows, encoder: Encoder | None, *, batch_size: int, like: Tensor | None = None, first: int = 0
) -> Tensor:
    """Embeddings `[n, D]` of `rows`, in the dtype and on the device of `like` when it is given.

    Raises ValueError when an embedding is not a finite vector; `first` is the number of row 0 there.
    """
    with torch.no_grad():
        if like is not None and len(rows) == 0:
            return like[:0]
        if encoder is None:
            out: Tensor = _tensor(rows, 0, len(rows))
            out = out if out.is_floating_point() else out.to(torch.get_default_dtype())
        else:
            out = _encode(rows, encoder, batch_size)
        if like is not None:
            if out.shape[1] != like.shape[1]:
                raise ValueError(
                    f"the encoder returned {out.shape[1]} features, {like.shape[1]} when it was fitted"
                )
            out = out.to(device=like.device, dtype=like.dtype)
        finite = torch.isfinite(out).all(1)
        if not finite.all():
            row = first + int(finite.logical_not().nonzero()[0, 0])
            what = "X contains" if encoder is None else "the encoder's embedding of X contains"
            raise ValueError(
                f"{what} NaN or infinity (first in row {row}); only finite embeddings are accepted"
            )
    return out


def _encode(rows: Rows, encoder: Encoder, batch_size: int) -> Tensor:
    owner = getattr(encoder, "__self__", encoder)
    tensors = [*owner.parameters(), *owner.buffers()] if isinstance(owner, nn.Module) else []
    floating = next((t for t in tensors if t.is_floating_point()), None)
    parts = []
    with evaluating(encoder):
        for start in range(0, len(rows), batch_size):
            batch = _tensor(rows, start, start + batch_size)
            if isinstance(batch, Tensor) and floating is not None:
                dtype = floating.dtype if batch.is_floating_point() else batch.dtype
                batch = batch.to(device=floating.device, dtype=dtype)
            part = torch.as_tensor(encoder(batch))
            if part.ndim != 2 or len(part) != len(batch):
                raise ValueError(
                    f"the encoder must return embeddings [{len(batch)}, D] for {len(batch)} examples, "
                    f"got shape {tuple(part.shape)}"
                )
            parts.append(part)
    return torch.cat(parts)


def as_labels(labels: Any, count: int, *, mixed: bool = False) -> np.ndarray[Any, Any]:
    """One label an example, `[count]`: strings, integers, bools or whole floats, in an object array too.

    With `mixed`, an object array may hold several kinds, and None. Raises ValueError for labels that are
    missing, continuous, not finite, two-dimensional, of several kinds, or not `count`.
    """
    if labels is None:
        raise ValueError("fit requires y to be passed, but the target y is None")
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected.", _conversion_warning(), stacklevel=3
        )
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"y should be a 1d array with one label an example, got shape {array.shape}")
    if len(array) != count:
        raise ValueError(f"y must have one label an example: got {len(array)} labels for {count} examples")
    if array.dtype.kind not in "biufUO":
        raise ValueError(f"Unknown label type: dtype {array.dtype}; use strings, integers or bools")
    if array.dtype == object and label_kind(array) == "mixed" and not mixed:
        raise ValueError("y must hold labels of one kind: all strings, all numbers or all bools")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError("Input y contains NaN or infinity.")
        if (array != np.trunc(array)).any():
            raise ValueError(
                "Unknown label type: continuous. Labels must name classes: strings, integers or bools"
            )
    return array


def merged_classes(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """All labels of the parts, sorted, each once; ValueError where the dtype of all of them would make two
    labels one, as float64 does of large int64 and uint64.
    """
    together = np.concatenate(parts)
    for part in parts:
        if part.astype(together.dtype).tolist() != part.tolist():
            dtypes = ", ".join(sorted({str(part.dtype) for part in parts}))
            raise ValueError(f"labels must go together without rounding: {dtypes} make {together.dtype}")
    return np.unique(together)


def among(labels: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The place in `classes` of each label, -1 for one that is not there; integers are not rounded."""
    if labels.dtype.kind + classes.dtype.kind in ("iu", "ui"):
        cast = labels.astype(classes.dtype)
        known = np.isin(cast, classes) & (cast == labels)
        labels = cast
    else:
        known = np.isin(labels, classes)
    return np.where(known, np.searchsorted(classes, np.where(known, labels, classes[:1])), -1)


def label_kind(labels: np.ndarray[Any, Any]) -> str:
    """`text`, `number` or `bool`; `mixed` for an object array of several, which no class list may be."""
    if labels.dtype == object:
        kinds = {label_kind(np.asarray(x)) if x is not None else "mixed" for x in labels.flat}
        return kinds.pop() if len(kinds) == 1 else "mixed"
    return {"U": "text", "b": "bool", "i": "number", "u": "number", "f": "number"}.get(
        labels.dtype.kind, "mixed"
    )


def _conversion_warning() -> type[Warning]:
    try:
        kind: type[Warning] = require("sklearn.exceptions", extra="data").DataConversionWarning
    except ImportError:
        kind = UserWarning
    return kind
