"""Gradients of the kernels by finite differences in float64, second derivatives, and what reductions do to
gradients.
"""

from __future__ import annotations

import pytest
import torch
from rooms import variants
from torch import Tensor

from siamese_fast import (
    batch_hard_triplet_loss,
    hardest_pairs,
    l1_similarity_bce,
    l1_similarity_matrix,
    triplet_loss,
)
from siamese_fast.testing import CASES, Case, Draw, Inputs, Options, Size, assert_close, outputs_of, prepare

SMALL = Size(6, 5, 4)


def function_of_leaves(case: Case, inputs: Inputs, options: Options) -> tuple[object, tuple[Tensor, ...]]:
    """The operation as a function of its differentiable inputs, and these."""
    names = [name for name in case.differentiable if name in inputs]

    def call(*leaves: Tensor) -> Tensor:
        return outputs_of(case, inputs | dict(zip(names, leaves, strict=True)), options)[0]

    return call, tuple(inputs[name] for name in names)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True))
def test_gradcheck(case: Case, variant: str, room: str) -> None:
    inputs = prepare(case, SMALL, Draw(torch.float64, seed=3))
    call, leaves = function_of_leaves(case, inputs, case.variants[variant])
    assert torch.autograd.gradcheck(call, leaves, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True))
def test_second_derivatives(case: Case, variant: str) -> None:
    inputs = prepare(case, Size(4, 3, 3), Draw(torch.float64, seed=5))
    call, leaves = function_of_leaves(case, inputs, case.variants[variant])
    assert torch.autograd.gradgradcheck(call, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True))
def test_gradient_with_a_graph_is_the_gradient_without(case: Case, variant: str, native_room: str) -> None:
    inputs = prepare(case, Size(9, 7, 5), Draw(torch.float64))
    call, leaves = function_of_leaves(case, inputs, case.variants[variant])
    output = call(*leaves)
    plain = torch.autograd.grad(output.sum(), leaves, retain_graph=True)
    with_graph = torch.autograd.grad(output.sum(), leaves, create_graph=True)
    for without, found in zip(plain, with_graph, strict=True):
        torch.testing.assert_close(without, found)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable=True, first_only=True))
def test_gradients_of_some_inputs_only(case: Case, variant: str, native_room: str) -> None:
    """An input that needs no gradient gets none, and the others are the same bits as when all need one."""
    inputs = prepare(case, Size(9, 7, 5), Draw(torch.float32))
    names = [name for name in case.differentiable if name in inputs]
    options = case.variants[variant]
    together = torch.autograd.grad(outputs_of(case, inputs, options)[0].sum(), [inputs[n] for n in names])
    for name, expected in zip(names, together, strict=True):
        alone = {key: value.detach() for key, value in inputs.items()}
        alone[name].requires_grad_()
        outputs_of(case, alone, options)[0].sum().backward()
        assert torch.equal(alone[name].grad, expected), name
        assert all(value.grad is None for key, value in alone.items() if key != name)


@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_nonzero"])
@pytest.mark.parametrize("margin", [0.2, None])
def test_reductions_are_of_the_losses_of_each_anchor(reduction: str, margin: float | None, room: str) -> None:
    draw = Draw(torch.float32, seed=1)
    labels = draw.labels(700, 60)
    labels[5] = 999  # an anchor without a positive
    x = draw.rows(700, 20, labels).requires_grad_()
    each, valid = batch_hard_triplet_loss(x, labels, margin, reduction="none", return_valid=True)
    loss = batch_hard_triplet_loss(x, labels, margin, reduction=reduction)
    assert not valid[5]
    assert valid.sum() > 600
    count = {"mean": int(valid.sum()), "sum": 1, "mean_nonzero": int((each > 0).sum())}[reduction]
    exact = each.detach().double().sum() / count
    assert_close("loss", loss.detach(), exact, each.detach().sum() / count, exact)
    (gradient,) = torch.autograd.grad(loss, x)
    (expected,) = torch.autograd.grad(each, x, torch.ones(()).div(count).expand(700))
    assert torch.equal(gradient, expected)


def test_the_three_forms_of_a_triplet_agree(native_room: str) -> None:
    """By rows, by index and mined: the same losses to the bit."""
    draw = Draw(torch.float32)
    labels = draw.labels(50, 8)
    x = draw.rows(50, 33, labels)
    positive, negative = hardest_pairs(x, labels)
    assert bool((positive >= 0).all())
    mined = batch_hard_triplet_loss(x, labels, reduction="none")
    by_index = triplet_loss(torch.arange(50), positive, negative, embeddings=x, reduction="none")
    by_rows = triplet_loss(x, x[positive], x[negative], reduction="none")
    assert torch.equal(mined, by_index)
    assert torch.equal(mined, by_rows)


def test_losses_without_any_triplet_backpropagate_zeros(room: str) -> None:
    for labels in (torch.zeros(6, dtype=torch.int64), torch.arange(6)):
        for reduction in ("mean", "sum", "mean_nonzero", "none"):
            x = torch.randn(6, 5, requires_grad=True)
            loss, valid = batch_hard_triplet_loss(x, labels, reduction=reduction, return_valid=True)
            loss.sum().backward()
            assert not valid.any()
            assert torch.equal(loss.detach(), torch.zeros_like(loss))
            assert torch.equal(x.grad, torch.zeros_like(x))


def test_cross_entropy_of_confident_logits_keeps_its_digits(room: str) -> None:
    """At logits of +-60 the loss of the right side is exp(-60), not 0; that of the wrong side is finite."""
    h1 = torch.full((4, 1), 60.0, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0], dtype=torch.float64)
    target = torch.tensor([1, 0, 1, 0])
    sign = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    for pair in range(4):
        loss = l1_similarity_bce(
            h1[pair : pair + 1],
            torch.zeros(1, 1, dtype=torch.float64),
            weight * sign[pair],
            None,
            target[pair : pair + 1],
        )
        right = pair in (0, 3)
        expected = (
            torch.tensor(-60.0, dtype=torch.float64).exp()
            if right
            else torch.tensor(60.0, dtype=torch.float64)
        )
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "name", ["distance", "distance_matrix", "similarity_matrix", "l1_similarity_matrix", "l1_similarity"]
)
def test_one_tensor_as_both_arguments(name: str) -> None:
    """Its gradient is the sum of both, in the plain backward pass, with a graph, and through torch.func."""
    case = CASES[name]
    first, second = case.differentiable[:2]
    inputs = {key: value.detach() for key, value in prepare(case, Size(7, 7, 5), Draw(torch.float64)).items()}
    options = next(iter(case.variants.values()))
    x, inputs[second] = inputs[first].clone().requires_grad_(), inputs[first].clone().requires_grad_()
    apart = outputs_of(case, inputs | {first: x}, options)[0]
    upstream = torch.randn_like(apart)
    expected = sum(torch.autograd.grad(apart, (x, inputs[second]), upstream))

    def together(value: Tensor) -> Tensor:
        return (outputs_of(case, inputs | {first: value, second: value}, options)[0] * upstream).sum()

    torch.testing.assert_close(torch.autograd.grad(together(x), x)[0], expected)
    torch.testing.assert_close(torch.autograd.grad(together(x), x, create_graph=True)[0], expected)
    torch.testing.assert_close(torch.func.grad(together)(x.detach()), expected)


def test_weight_gradient_of_embeddings_far_from_the_origin(native_room: str) -> None:
    """It is summed around a column mean: around 0 it would lose three digits here."""
    draw = Draw(torch.float32)
    q, s = draw.rows(300, 20) + 1000, draw.rows(280, 20) + 1000
    weight, upstream = draw.weight(20).requires_grad_(), draw.rows(300, 280)
    (found,) = torch.autograd.grad(l1_similarity_matrix(q, s, weight), weight, upstream)
    differences = (q.double()[:, None] - s.double()).abs()
    exact = torch.einsum("ij,ijk->k", upstream.double(), differences)
    terms = torch.einsum("ij,ijk->k", upstream.double().abs(), differences)
    assert_close("weight", found, exact, torch.einsum("ij,ijk->k", upstream, differences.float()), terms)
