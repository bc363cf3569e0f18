"""torch.compile, torch.export, torch.func and autocast: each gives what the plain call gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from rooms import variants
from torch import Tensor, nn

from siamese_fast import batch_hard_triplet_loss, l1_similarity_matrix, nearest_support
from siamese_fast.testing import CASES, Case, Draw, Inputs, Size, outputs_of, prepare

FIRST = variants(first_only=True)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def run(case: Case, variant: str, inputs: Inputs, function: Callable[..., Any]) -> tuple[Tensor, ...]:
    """Outputs and the gradients of all differentiable inputs."""
    leaves = [inputs[name] for name in case.differentiable if name in inputs]
    outputs = function(**inputs, **case.variants[variant])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs[0].sum(), leaves) if leaves else ()
    return (*outputs, *gradients)


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], *, bits: bool = True) -> None:
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        if bits:
            assert torch.equal(got, want)
        else:
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("case", "variant"), FIRST)
def test_compile_without_graph_breaks(case: Case, variant: str, dynamic: bool) -> None:
    compiled = torch.compile(case.function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (Size(9, 7, 5), Size(12, 11, 6)) if dynamic else (Size(9, 7, 5),):
        inputs = prepare(case, size, Draw(torch.float32))
        assert_same(run(case, variant, inputs, compiled), run(case, variant, inputs, case.function))


def test_compile_with_inductor() -> None:
    """A training step of an encoder and both losses; fused by inductor around the operations."""

    def loss(weight: Tensor, x: Tensor, labels: Tensor, head: Tensor) -> Tensor:
        h = torch.relu(x @ weight)
        return batch_hard_triplet_loss(h, labels) + l1_similarity_matrix(h, h, head).sigmoid().mean()

    draw = Draw(torch.float32)
    labels = draw.labels(16, 4)
    weight, head = draw.rows(8, 6).requires_grad_(), draw.weight(6).requires_grad_()
    x = draw.rows(16, 8)
    expected = torch.autograd.grad(loss(weight, x, labels, head), (weight, head))
    compiled = torch.compile(loss, fullgraph=True)
    assert_same(torch.autograd.grad(compiled(weight, x, labels, head), (weight, head)), expected, bits=False)


def test_compile_of_a_whole_look_up() -> None:
    q, s = Draw(torch.float32).rows(6, 5), Draw(torch.float32, seed=1).rows(9, 5)

    def best(queries: Tensor, supports: Tensor) -> Tensor:
        scores, index = nearest_support(queries, supports, 3, metric="cosine")
        return supports[index[:, 0]] * scores[:, :1]

    assert torch.equal(torch.compile(best, fullgraph=True, backend="aot_eager")(q, s), best(q, s))


class Module(nn.Module):
    """A case as a module of positional tensors, as torch.export wants it."""

    def __init__(self, case: Case, variant: str, names: tuple[str, ...]) -> None:
        super().__init__()
        self.function, self.options, self.names = case.function, case.variants[variant], names

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(**dict(zip(self.names, tensors, strict=True)), **self.options)


@pytest.mark.parametrize(("case", "variant"), FIRST)
def test_export(case: Case, variant: str) -> None:
    inputs = {
        name: value.detach() for name, value in prepare(case, Size(9, 7, 5), Draw(torch.float32)).items()
    }
    module = Module(case, variant, tuple(inputs))
    exported = torch.export.export(module, tuple(inputs.values())).module()
    found, expected = exported(*inputs.values()), outputs_of(case, inputs, case.variants[variant])
    assert_same(found if isinstance(found, (tuple, list)) else (found,), expected)


def as_function(case: Case, variant: str, inputs: Inputs) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The summed first output as a function of the differentiable inputs, and their values."""
    names = [name for name in case.differentiable if name in inputs]
    options = case.variants[variant]

    def call(*leaves: Tensor) -> Tensor:
        return outputs_of(case, inputs | dict(zip(names, leaves, strict=True)), options)[0].sum()

    return call, tuple(inputs[name].detach() for name in names)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True))
def test_func_grad(case: Case, variant: str) -> None:
    inputs = prepare(case, Size(9, 7, 5), Draw(torch.float32))
    call, leaves = as_function(case, variant, inputs)
    found = torch.func.grad(call, argnums=tuple(range(len(leaves))))(*leaves)
    tracked = [leaf.clone().requires_grad_() for leaf in leaves]
    assert_same(found, torch.autograd.grad(call(*tracked), tracked), bits=False)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True, first_only=True))
def test_vmap_of_grad(case: Case, variant: str) -> None:
    """Per-example gradients over a batch of problems are those of a loop over them."""
    inputs = prepare(case, Size(6, 5, 4), Draw(torch.float32))
    call, leaves = as_function(case, variant, inputs)
    batch = [torch.stack([leaf, leaf + 0.25, leaf.flip(0)]) for leaf in leaves]
    gradient = torch.func.grad(call, argnums=tuple(range(len(leaves))))
    looped = [
        torch.stack(parts)
        for parts in zip(*(gradient(*one) for one in zip(*batch, strict=True)), strict=True)
    ]
    assert_same(torch.func.vmap(gradient)(*batch), tuple(looped), bits=False)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True, first_only=True))
def test_hessian_vector_products(case: Case, variant: str) -> None:
    """grad of grad through torch.func, against autograd's double backward."""
    inputs = prepare(case, Size(6, 5, 4), Draw(torch.float64))
    call, leaves = as_function(case, variant, inputs)

    def slope(leaf: Tensor) -> Tensor:
        return torch.func.grad(call)(leaf, *leaves[1:]).square().sum()

    tracked = leaves[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(call(tracked, *leaves[1:]), tracked, create_graph=True)
    expected = (
        torch.autograd.grad(first.square().sum(), tracked)
        if first.requires_grad
        else (torch.zeros_like(tracked),)
    )
    assert_same((torch.func.grad(slope)(leaves[0]),), expected, bits=False)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True, first_only=True))
def test_forward_mode_fails_loudly(case: Case, variant: str) -> None:
    inputs = prepare(case, Size(6, 5, 4), Draw(torch.float32))
    call, leaves = as_function(case, variant, inputs)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward|Forward"):
        torch.func.jvp(call, leaves, leaves)


@pytest.mark.parametrize("outer", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(CASES))
def test_autocast_leaves_dtypes_alone(name: str, outer: torch.dtype) -> None:
    case, variant = CASES[name], next(iter(CASES[name].variants))
    inputs = prepare(case, Size(9, 7, 5), Draw(torch.float32))
    expected = run(case, variant, inputs, case.function)
    with torch.autocast("cpu", dtype=outer):
        assert_same(run(case, variant, inputs, case.function), expected)
