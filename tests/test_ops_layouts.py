"""Inputs of any strides give the bits of contiguous ones, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from rooms import DTYPES, dtype_name, variants
from torch import Tensor

from siamese_fast.testing import Case, Draw, Inputs, Options, Size, outputs_of, prepare


def transposed(value: Tensor) -> Tensor:
    return value.mT.contiguous().mT if value.dim() == 2 else every_other(value)


def every_other(value: Tensor) -> Tensor:
    """A view of every second element of a larger tensor, whose other elements are as large as they get."""
    wide = torch.empty(*value.shape[:-1], 2 * value.shape[-1], dtype=value.dtype)
    wide.fill_(torch.finfo(value.dtype).max if value.is_floating_point() else torch.iinfo(value.dtype).max)
    wide[..., ::2] = value
    return wide[..., ::2]


def offset(value: Tensor) -> Tensor:
    """Contiguous, but not aligned to anything beyond its element."""
    store = torch.zeros(value.numel() + 1, dtype=value.dtype)
    store[1:] = value.reshape(-1)
    return store[1:].view(value.shape)


def padded_rows(value: Tensor) -> Tensor:
    wide = torch.full((*value.shape[:-1], value.shape[-1] + 3), 7, dtype=value.dtype)
    wide[..., :-3] = value
    return wide[..., :-3]


LAYOUTS = (transposed, every_other, offset, padded_rows)


def run(case: Case, inputs: Inputs, options: Options) -> tuple[Tensor, ...]:
    leaves = [inputs[name] for name in case.differentiable if name in inputs]
    outputs = outputs_of(case, inputs, options)
    generator = torch.Generator().manual_seed(2)
    upstream = torch.randn(outputs[0].shape, generator=generator).to(outputs[0].dtype)
    return (*outputs, *(torch.autograd.grad(outputs[0], leaves, upstream) if leaves else ()))


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(("case", "variant"), variants(first_only=True))
def test_strides(case: Case, variant: str, dtype: torch.dtype, native_room: str) -> None:
    inputs = prepare(case, Size(9, 7, 19), Draw(dtype))
    expected = run(case, inputs, case.variants[variant])
    for layout in LAYOUTS:
        moved = {
            name: layout(value.detach()).requires_grad_(value.requires_grad) if value.dim() else value
            for name, value in inputs.items()
        }
        for name, value in moved.items():
            assert torch.equal(value, inputs[name])
        for found, want in zip(run(case, moved, case.variants[variant]), expected, strict=True):
            assert torch.equal(found, want), layout.__name__


@pytest.mark.parametrize(("case", "variant"), variants(first_only=True))
def test_expanded_inputs(case: Case, variant: str, native_room: str) -> None:
    """One row for all, stride 0; its gradient is the sum over the rows it stands for."""
    inputs = prepare(case, Size(9, 9, 5), Draw(torch.float64))
    options = case.variants[variant]
    for name, value in inputs.items():
        if value.dim() != 2:
            continue
        row = value.detach()[:1]
        spread, copied = row.expand(value.shape), row.repeat(value.shape[0], 1)
        tracked = [one.requires_grad_(value.requires_grad) for one in (row.clone(), copied)]
        spread = tracked[0].expand(value.shape)
        found, expected = (
            outputs_of(case, inputs | {name: spread}, options),
            outputs_of(case, inputs | {name: copied}, options),
        )
        for got, want in zip(found, expected, strict=True):
            assert torch.equal(got, want)
        if value.requires_grad:
            (of_row,) = torch.autograd.grad(found[0].sum(), tracked[0])
            (of_copies,) = torch.autograd.grad(expected[0].sum(), tracked[1])
            torch.testing.assert_close(of_row, of_copies.sum(0, keepdim=True))


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True))
def test_expanded_upstream_gradient(case: Case, variant: str, native_room: str) -> None:
    """`sum().backward()` hands over a gradient of stride 0."""
    inputs = prepare(case, Size(9, 7, 19), Draw(torch.float32))
    leaves = [inputs[name] for name in case.differentiable if name in inputs]

    def gradients(reduce: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(reduce(outputs_of(case, inputs, case.variants[variant])[0]), leaves)

    def whole(output: Tensor) -> Tensor:
        return (output * torch.ones_like(output)).sum()

    for expanded, contiguous in zip(gradients(torch.sum), gradients(whole), strict=True):
        assert torch.equal(expanded, contiguous)


@pytest.mark.parametrize(("case", "variant"), variants(first_only=True))
def test_inputs_are_left_as_they_were(case: Case, variant: str, native_room: str) -> None:
    inputs = prepare(case, Size(33, 31, 17), Draw(torch.float32))
    before = {name: value.detach().clone() for name, value in inputs.items()}
    run(case, inputs, case.variants[variant])
    for name, value in inputs.items():
        assert torch.equal(value, before[name]), name
