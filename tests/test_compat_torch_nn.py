"""The drop-ins for `torch.nn` against torch, in float64: values, gradients, odd shapes, who answers."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from siamese_fast.compat import torch_nn as ours

NAMES = ("TripletMarginLoss", "TripletMarginWithDistanceLoss", "CosineEmbeddingLoss")
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("TripletMarginLoss", {}),
    ("TripletMarginLoss", {"p": 1.0, "margin": 0.5, "reduction": "sum"}),
    ("TripletMarginLoss", {"p": 1, "swap": True, "reduction": "none"}),
    ("TripletMarginLoss", {"p": 3.0}),
    ("TripletMarginLoss", {"swap": True}),
    ("TripletMarginLoss", {"eps": 0.01, "reduction": "none"}),
    ("TripletMarginLoss", {"size_average": False}),
    ("TripletMarginLoss", {"reduce": False}),
    ("TripletMarginWithDistanceLoss", {}),
    ("TripletMarginWithDistanceLoss", {"distance_function": nn.PairwiseDistance(), "reduction": "none"}),
    ("TripletMarginWithDistanceLoss", {"distance_function": nn.PairwiseDistance(p=1.0, eps=0.01)}),
    ("TripletMarginWithDistanceLoss", {"distance_function": nn.PairwiseDistance(p=4.0)}),
    ("TripletMarginWithDistanceLoss", {"distance_function": nn.PairwiseDistance(keepdim=True)}),
    ("TripletMarginWithDistanceLoss", {"distance_function": lambda x, y: (x - y).abs().amax(-1)}),
    ("TripletMarginWithDistanceLoss", {"swap": True, "margin": 0.3, "reduction": "sum"}),
]


def same(mine: Any, library: Any, rows: list[Tensor], *rest: Tensor) -> None:
    values, gradients = [], []
    for loss in (mine, library):
        leaves = [x.clone().requires_grad_() for x in rows]
        values.append(loss(*leaves, *rest))
        upstream = torch.linspace(0.5, 1.5, values[-1].numel(), dtype=values[-1].dtype)
        gradients.append(torch.autograd.grad(values[-1], leaves, upstream.reshape(values[-1].shape)))
    assert values[0].dtype == values[1].dtype and values[0].shape == values[1].shape
    torch.testing.assert_close(*values, equal_nan=True)
    torch.testing.assert_close(*gradients, equal_nan=True)


@given(
    st.sampled_from(OPTIONS),
    st.sampled_from([(1, 1), (9, 5), (5,), (2, 3, 5), (0, 5), (2, 0, 3), (64, 33)]),
    st.booleans(),
    st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
def test_triplets_of_any_shape(
    options: tuple[str, dict[str, Any]], shape: tuple[int, ...], equal: bool, seed: int
) -> None:
    """`equal`: the positive is the anchor itself."""
    name, given_options = options
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3)]
    if equal:
        rows[1] = rows[0].clone()
    same(getattr(ours, name)(**given_options), getattr(nn, name)(**given_options), rows)


@given(
    st.sampled_from(["none", "mean", "sum"]),
    st.lists(st.sampled_from([1, -1, 0]), max_size=9),
    st.floats(-1, 1),
    st.integers(0, 10_000),
)
@settings(max_examples=100, deadline=None)
def test_cosines_of_any_batch(reduction: str, target: list[int], margin: float, seed: int) -> None:
    """Targets that are neither 1 nor -1 count with a loss of 0."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(len(target), 5, dtype=torch.float64, generator=generator) for _ in range(2)]
    options = {"margin": margin, "reduction": reduction}
    pair = (ours.CosineEmbeddingLoss(**options), nn.CosineEmbeddingLoss(**options))
    same(*pair, rows, torch.tensor(target, dtype=torch.int64))


def test_the_cosine_of_two_vectors() -> None:
    rows = [torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    for sign in (1, -1):
        same(ours.CosineEmbeddingLoss(), nn.CosineEmbeddingLoss(), rows, torch.tensor(sign))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_other_dtypes(name: str, dtype: torch.dtype) -> None:
    """Halves are computed in float32 and rounded once: no further from float64 than torch."""
    generator = torch.Generator().manual_seed(0)
    count = 2 if name == "CosineEmbeddingLoss" else 3
    rows = [torch.randn(40, 33, generator=generator).to(dtype) for _ in range(count)]
    rest = (torch.where(torch.arange(40) % 2 == 0, 1, -1),) if count == 2 else ()
    exact = getattr(nn, name)()(*(x.double() for x in rows), *rest)
    got, want = (getattr(module, name)()(*rows, *rest) for module in (ours, nn))
    assert got.dtype == want.dtype == dtype
    assert (got - exact).abs() <= 2 * (want - exact).abs() + 4 * torch.finfo(dtype).eps * exact.abs()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("TripletMarginLoss", {"margin": 0.0}, "margin to be greater than 0"),
        ("TripletMarginWithDistanceLoss", {"margin": -1.0}, "margin to be greater than 0"),
        ("TripletMarginLoss", {"reduction": "some"}, "some is not a valid value for reduction"),
        ("TripletMarginWithDistanceLoss", {"reduction": "some"}, "some is not a valid value for reduction"),
        ("CosineEmbeddingLoss", {"reduction": "some"}, "some is not a valid value for reduction"),
    ],
)
def test_errors_are_torchs(name: str, options: dict[str, Any], message: str) -> None:
    rows = [torch.randn(4, 3) for _ in range(3)]
    if name == "CosineEmbeddingLoss":
        rows[2] = torch.ones(4)
    for module in (nn, ours):
        with pytest.raises(ValueError, match=message):
            getattr(module, name)(**options)(*rows)


def test_a_margin_set_later_is_checked_as_torch_checks_it() -> None:
    loss = ours.TripletMarginLoss()
    loss.margin = 0.0
    with pytest.raises(ValueError, match="margin must be greater than 0"):
        loss(*(torch.randn(4, 3) for _ in range(3)))


@pytest.mark.parametrize("swap", [False, True])
def test_torch_is_not_asked_where_there_is_a_fused_form(swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(getattr(nn, name), "forward", lambda *_: pytest.fail("torch was asked"))
    rows = [torch.randn(4, 3) for _ in range(3)]
    for p in (1, 2):
        ours.TripletMarginLoss(p=p, swap=swap)(*rows)
        ours.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(p=p), swap=swap)(*rows)
    ours.TripletMarginWithDistanceLoss(swap=swap)(*rows)
    ours.CosineEmbeddingLoss()(*rows[:2], torch.ones(4))


@pytest.mark.parametrize("name", NAMES)
def test_fifty_steps_of_training_are_the_same(name: str) -> None:
    def curve(module: Any) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).double()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        loss, generator, values = getattr(module, name)(), torch.Generator().manual_seed(0), []
        for _ in range(50):
            rows = [torch.randn(32, 6, dtype=torch.float64, generator=generator) + n for n in range(3)]
            embeddings = [model(x) for x in rows]
            if name == "CosineEmbeddingLoss":
                embeddings[2] = torch.where(torch.arange(32) % 2 == 0, 1, -1)
            value = loss(*embeddings)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(value.detach())
        return torch.stack(values)

    torch.testing.assert_close(curve(ours), curve(nn), rtol=1e-6, atol=1e-9)
