"""What is timed: a contender is one way of doing a row's work, ours, a library's, or a form that we wrote.

Contenders receive the row's tensors by name and return a callable without arguments; everything that a user
does once (building an index, compiling, preparing supports) happens before it is returned and is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
Sizes = Mapping[str, int]
Call = Callable[[], Any]
Column = Literal["ours", "published", "constructed", "baseline"]
Stage = Literal["forward", "forward + backward"]


@dataclass(frozen=True)
class Contender:
    """One way of doing the work.

    Attributes:
        name: as the tables show it.
        column: "ours"; "published", a library used as it is documented; "constructed", from `forms`;
            "baseline", ours in another setting, such as one thread.
        build: from the row's inputs, the call to time. In a row with a backward stage it is the forward part.
        libraries: distributions that it needs beside torch and numpy; without one it is "missing".
        whole: the call does all stages itself and returns the value and the gradients.
        compiled: the first call compiles; memory is measured on the second.
        answer: from what the call returns and the inputs, the tensors that are compared with ours.
        needs: bytes that it takes at a size, where that may exceed what the machine has.
    """

    name: str
    column: Column
    build: Callable[[Inputs], Call]
    libraries: tuple[str, ...] = ()
    whole: bool = False
    compiled: bool = False
    answer: Callable[[Any, Inputs], tuple[Tensor, ...]] | None = None
    needs: Callable[[Sizes], int] | None = None

    def answers(self, found: Any, inputs: Inputs) -> tuple[Tensor, ...]:
        """The tensors in what the call returned that every contender of the row must agree on."""
        if self.answer is not None:
            return self.answer(found, inputs)
        return found if isinstance(found, tuple) else (found,)


def stage_call(contender: Contender, inputs: Inputs, leaves: tuple[str, ...], stage: Stage) -> Call:
    """The call to time: without gradients, or forward and then the gradients of `leaves`."""
    forward = contender.build(inputs)
    if contender.whole:
        return forward
    if stage == "forward":
        return _without_gradients(forward)
    variables = [inputs[name] for name in leaves]
    upstream: list[Tensor] = []

    def both() -> tuple[Tensor, ...]:
        value = forward()
        if not upstream:
            generator = torch.Generator().manual_seed(0)
            upstream.append(torch.randn(value.shape, generator=generator, dtype=value.dtype))
        grad = None if value.dim() == 0 else upstream[0]
        return (value.detach(), *torch.autograd.grad(value, variables, grad))

    return both


def _without_gradients(forward: Call) -> Call:
    def call() -> Any:
        with torch.no_grad():
            return forward()

    return call


def disagreement(got: tuple[Tensor, ...], ours: tuple[Tensor, ...]) -> float:
    """The largest difference between two answers, relative to the largest value of each tensor."""
    worst = 0.0
    for theirs, mine in zip(got, ours, strict=False):
        if theirs.shape != mine.shape:
            return float("inf")
        if mine.numel():
            scale = mine.abs().max().clamp_min(1e-30)
            worst = max(worst, float((theirs.double() - mine.double()).abs().max() / scale))
    return worst
