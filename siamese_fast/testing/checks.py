"""Runs one Case on drawn arguments and holds values, chosen indices and gradients to the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops._checks import compute_dtype
from siamese_fast.testing.case import Case, Draw, Inputs, Options, Size, as_dtype
from siamese_fast.testing.gap import assert_close


def prepare(case: Case, size: Size, draw: Draw) -> Inputs:
    """Drawn inputs, with `requires_grad` on the differentiable ones."""
    inputs = case.make(draw, size)
    for name in case.differentiable:
        if name in inputs:
            inputs[name].requires_grad_()
    return inputs


def outputs_of(case: Case, inputs: Inputs, options: Options) -> tuple[Tensor, ...]:
    """What the operation returns, as a tuple."""
    found = case.function(**inputs, **options)
    return found if isinstance(found, tuple) else (found,)


def check(case: Case, variant: str, size: Size, draw: Draw) -> None:
    """One call: values at the chosen indices, the quality of these indices, gradients.

    Raises:
        AssertionError: says which output or gradient, where, and by how much.
    """
    options = case.variants[variant]
    inputs = prepare(case, size, draw)
    label = f"{case.name}[{variant}] {tuple(size)} {draw.dtype} {draw.kind} seed {draw.seed}: "
    found = outputs_of(case, inputs, options)
    chosen = case.chosen(found, inputs, options)
    if case.inspect is not None:
        case.inspect(inputs, options, chosen, label)
    compute = compute_dtype(draw.dtype)
    exact_inputs, same_inputs = as_dtype(inputs, torch.float64), as_dtype(inputs, compute)
    names = [name for name in case.differentiable if name in inputs]
    for leaves in (exact_inputs, same_inputs):
        for name in names:
            leaves[name].requires_grad_()
    exact = case.truth(exact_inputs, options, chosen)
    same = (case.plain or case.truth)(same_inputs, options, chosen)
    with torch.no_grad():
        terms = case.terms(exact_inputs, options, chosen)
    values = [value for value in found if value.is_floating_point()]
    for number, value in enumerate(values[: len(exact)]):
        expected = exact[number]
        half = value.dtype not in (torch.float32, torch.float64)
        assert value.dtype == compute or half, f"{label}output {number} is {value.dtype}"
        assert_close(
            f"{label}output {number}", value.detach(), expected.detach(), same[number].detach(), terms[number]
        )
    if names:
        _check_gradients(
            case,
            options,
            inputs,
            chosen,
            names,
            (values[0], exact[0], same[0]),
            (exact_inputs, same_inputs),
            label,
        )


def _check_gradients(
    case: Case,
    options: Options,
    inputs: Inputs,
    chosen: Inputs,
    names: list[str],
    outputs: tuple[Tensor, Tensor, Tensor],
    references: tuple[Inputs, Inputs],
    label: str,
) -> None:
    assert case.gradient_terms is not None
    value, exact, same = outputs
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    got = torch.autograd.grad(value, [inputs[n] for n in names], upstream)
    truth = _gradients(exact, [references[0][n] for n in names], upstream.double())
    plain = _gradients(same, [references[1][n] for n in names], upstream)
    with torch.no_grad():
        terms = case.gradient_terms(upstream.double(), as_dtype(inputs, torch.float64), options, chosen)
    for name, gradient, expected, yardstick in zip(names, got, truth, plain, strict=True):
        assert gradient.dtype == inputs[name].dtype, f"{label}gradient of {name} is {gradient.dtype}"
        assert_close(f"{label}gradient of {name}", gradient, expected, yardstick, terms[name])


def _gradients(output: Tensor, leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(output, leaves, upstream.reshape(output.shape), allow_unused=True)
    return [
        torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)
    ]
