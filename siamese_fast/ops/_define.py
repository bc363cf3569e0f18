"""The only file that knows `torch.library`: how an operation is defined, served and differentiated.

An operation is a schema, a reference in plain torch (every device, every dtype) and a fake (shapes only).
Faster kernels are registered at their dispatch key by `siamese_fast.backend`; choosing among them is the
PyTorch dispatcher's work and nobody else's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("siamese_fast", "DEF")
REFERENCES: dict[str, Callable[..., Any]] = {}

Grads = tuple[Tensor | None, ...]


def define(schema: str, reference: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register one operation and return the callable that its public function binds once."""
    name = LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"siamese_fast::{name}", fake, lib=LIBRARY)
    REFERENCES[name] = reference
    overload: Callable[..., Any] = getattr(torch.ops.siamese_fast, name).default
    return overload


@contextmanager
def layer(kernels: Mapping[str, Callable[..., Any]], key: str) -> Iterator[None]:
    """Serve operations by other kernels at one dispatch key, until the block ends; layers nest."""
    with torch.library._scoped_library("siamese_fast", "IMPL") as library:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"(?s).*Overriding a previously registered kernel")
            for name, kernel in kernels.items():
                library.impl(name, kernel, key, allow_override=True)
        yield


def unknown_size() -> torch.SymInt:
    """For a fake: a dimension that is known only once the kernel ran."""
    return torch.library.get_ctx().new_dynamic_size()


def differentiable(
    operation: Callable[..., Any],
    *,
    backward: Callable[[Tensor, tuple[Any, ...], tuple[Tensor, ...]], Grads],
    formula: Callable[..., Tensor],
    tape: slice = slice(0, 0),
) -> Callable[..., Any]:
    """Wrap an operation in autograd; only its first output is differentiable.

    `tape` selects the outputs that the backward pass needs. `backward(grad, inputs, tape)` returns one
    gradient for each input. When the backward pass may itself be differentiated (`create_graph=True`,
    any `torch.func.grad`), the gradient is taken of `formula(*inputs, *tape)` instead: the first output once
    more, in plain torch.

    Two Functions share this: the one whose context is filled in `forward` costs a third of the other's call
    overhead, the one with `setup_context` is the only kind that `torch.compile` and functorch can see
    through.
    """

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.set_materialize_grads(False)
        if len(outputs) > 1:  # dynamo does not take a call without arguments
            ctx.mark_non_differentiable(*outputs[1:])
        ctx.is_tensor = tuple(isinstance(value, Tensor) for value in inputs)
        ctx.constants = tuple(None if isinstance(value, Tensor) else value for value in inputs)
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)), *outputs[tape])

    def gradients(ctx: Any, grad: Tensor | None) -> Grads:
        if grad is None:
            return (None,) * len(ctx.constants)
        saved = list(ctx.saved_tensors)
        inputs = tuple(saved.pop(0) if t else c for t, c in zip(ctx.is_tensor, ctx.constants, strict=True))
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _of_formula(formula, grad, inputs, tuple(saved), ctx.needs_input_grad)
        return backward(grad, inputs, tuple(saved))

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = operation(*inputs)
            remember(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, grad: Any, *_: Any) -> Any:
            return gradients(ctx, grad)

    class Composable(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Any:
            return operation(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            remember(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, grad: Any, *_: Any) -> Any:
            return gradients(ctx, grad)

    def call(*inputs: Any) -> Any:
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return Composable.apply(*_distinct(inputs))  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled() and any(
            isinstance(value, Tensor) and value.requires_grad for value in inputs
        ):
            return Eager.apply(*inputs)  # type: ignore[no-untyped-call]
        return operation(*inputs)

    return call


def _distinct(inputs: tuple[Any, ...]) -> list[Any]:
    """The inputs, a tensor that comes again as a view of itself: dynamo takes each tensor once."""
    found: list[Any] = []
    for value in inputs:
        again = isinstance(value, Tensor) and any(value is other for other in found)
        found.append(value.view_as(value) if again else value)
    return found


def _of_formula(
    formula: Callable[..., Tensor],
    grad: Tensor,
    inputs: tuple[Any, ...],
    tape: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> Grads:
    with torch.enable_grad():
        # Views: the gradient in a tensor that was given twice would be that of both arguments together.
        inputs = tuple(value.view_as(value) if isinstance(value, Tensor) else value for value in inputs)
        wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
        found = iter(
            torch.autograd.grad(formula(*inputs, *tape), wanted, grad, create_graph=True, allow_unused=True)
        )
    return tuple(next(found) if need else None for need in needed)
