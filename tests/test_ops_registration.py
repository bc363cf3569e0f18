"""What the dispatcher knows: `torch.library.opcheck` on every registered operation, forward and backward."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from rooms import ROOMS, serving
from torch.utils._python_dispatch import TorchDispatchMode

from siamese_fast import backend, l1_similarity_matrix
from siamese_fast.ops.pair_parts import folded
from siamese_fast.testing import CASES, Draw, Size, outputs_of, prepare

SAMPLES = 3
Call = tuple[Any, tuple[Any, ...]]


class Recorder(TorchDispatchMode):
    """Keeps the arguments of every call of a siamese_fast operation."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "siamese_fast":
            copies = tuple(a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args)
            self.calls.append((func, copies))
        return func(*args, **(kwargs or {}))


@cache
def recorded() -> dict[str, list[Call]]:
    """Calls of every operation, taken from running every case forward and backward."""
    with Recorder() as recorder:
        for case in CASES.values():
            for options in case.variants.values():
                inputs = prepare(case, Size(9, 7, 5), Draw(torch.float32))
                output = outputs_of(case, inputs, options)[0]
                if output.requires_grad:
                    output.sum().backward()
        draw = Draw(torch.float64)
        q, s, weight = draw.rows(4, 3), draw.rows(5, 3), draw.weight(3)
        l1_similarity_matrix(q, s, weight, 0.5, out=torch.empty(4, 5, dtype=torch.float64))
        folded(q, torch.arange(4) % 2, lambda: [(None, None, None)], "ntxent", "dot", [0.5])
    found: dict[str, list[Call]] = {}
    for operation, arguments in recorder.calls:
        found.setdefault(operation._schema.name.removeprefix("siamese_fast::"), []).append(
            (operation, arguments)
        )
    return found


def test_the_cases_reach_every_registered_operation() -> None:
    assert set(recorded()) == set(backend.table())


def operation_and_room() -> list[Any]:
    names = backend.table()
    return [pytest.param(name, room, id=f"{name}-{room}") for name in names for room in (ROOMS[0], ROOMS[-1])]


@pytest.mark.parametrize(("name", "room"), operation_and_room())
def test_opcheck(name: str, room: str) -> None:
    calls = recorded()[name]
    step = max(1, len(calls) // SAMPLES)
    with serving(room):
        for operation, arguments in calls[::step][:SAMPLES]:
            torch.library.opcheck(operation, arguments)


@pytest.mark.parametrize("name", [name for name in backend.table() if name != "pack_support"])
def test_meta_tensors_have_the_shapes_and_dtypes_of_real_ones(name: str) -> None:
    operation, arguments = recorded()[name][0]
    meta = tuple(a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments)
    real, shaped = operation(*arguments), operation(*meta)
    as_tuple = real if isinstance(real, tuple) else (real,)
    for expected, found in zip(as_tuple, shaped if isinstance(shaped, tuple) else (shaped,), strict=True):
        if expected is None:
            continue
        assert (found.shape, found.dtype, found.device.type) == (expected.shape, expected.dtype, "meta")
