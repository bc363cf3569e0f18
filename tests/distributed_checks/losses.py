"""The cross-rank loss against the one-process loss on the concatenated batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import siamese_fast
from distributed_checks.common import own, raises, split
from siamese_fast.distributed import batch_hard_triplet_loss
from siamese_fast.distributed.world import World
from siamese_fast.testing import assert_close

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
STRATEGIES = ("ring", "gather", "auto")
D = 12


def batch(counts: list[int], dtype: torch.dtype, seed: int = 0, classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = sum(counts)
    labels = torch.randint(classes, (rows,), generator=generator)
    return torch.randn(rows, D, generator=generator).to(dtype), labels


def compare(
    world: World, counts: list[int], x: Tensor, labels: Tensor, strategy: str, **options: Any
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of this rank's rows, held to the one-process ones by the gap rule."""
    here, none = own(world, counts), options.get("reduction") == "none"
    weights = torch.linspace(-1, 1, len(x))

    def one_process(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        whole = x.detach().to(dtype).requires_grad_()
        loss = siamese_fast.batch_hard_triplet_loss(whole, labels, **options)
        assert isinstance(loss, Tensor)
        (loss * weights).sum().backward() if none else loss.backward()
        assert whole.grad is not None
        return loss.detach()[here] if none else loss.detach(), whole.grad[here] * (1 if none else world.size)

    exact, plain = one_process(torch.float64), one_process(x.dtype)
    local = x[here].clone().requires_grad_()
    loss = batch_hard_triplet_loss(local, labels[here], strategy=strategy, **options)
    assert isinstance(loss, Tensor) and loss.dtype == plain[0].dtype
    (loss * weights[here]).sum().backward() if none else loss.backward()
    assert local.grad is not None and local.grad.dtype == x.dtype
    if none:
        assert torch.equal(loss, plain[0])
    assert_close("loss", loss.detach(), exact[0], plain[0], exact[0].abs() + 1)
    # A row's gradient adds up to N terms; the largest entry bounds what they cancel to.
    largest = exact[1].abs().nan_to_num().max() if exact[1].numel() else torch.tensor(0.0)
    assert_close("gradient", local.grad, exact[1], plain[1], largest.double().expand_as(exact[1]) * 2)
    return loss.detach(), local.grad


def check_equals_one_process(world: World) -> None:
    for kind in ("equal", "unequal", "empty"):
        counts = split(world, 60, kind)
        x, labels = batch(counts, torch.float32)
        for metric, margin in itertools.product(METRICS, (0.2, None)):
            found = [compare(world, counts, x, labels, s, metric=metric, margin=margin) for s in STRATEGIES]
            assert all(torch.equal(found[0][i], other[i]) for other in found[1:] for i in (0, 1))


def check_every_option(world: World) -> None:
    counts = split(world, 40, "unequal")
    x, labels = batch(counts, torch.float64, seed=1, classes=12)  # some anchors have no positive
    for reduction, no_triplet in itertools.product(
        ("none", "mean", "sum", "mean_nonzero"), ("skip", "zero_positive")
    ):
        for options in ({"normalize": True}, {"smooth": True, "margin": 0.5}, {"margin": -1.0}):
            options = {"reduction": reduction, "no_triplet": no_triplet, **options}
            compare(world, counts, x, labels, "ring", **options)


def check_every_dtype(world: World) -> None:
    counts = split(world, 48, "unequal")
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        x, labels = batch(counts, dtype, seed=2)
        x = x[:, :11]  # an odd number of bytes a row and a block
        for strategy, normalize in itertools.product(("ring", "gather"), (False, True)):
            compare(world, counts, x, labels, strategy, normalize=normalize)


def check_labels_of_any_integer_dtype(world: World) -> None:
    counts = split(world, 24, "equal")
    x, labels = batch(counts, torch.float32, classes=2)
    expected = siamese_fast.batch_hard_triplet_loss(x, labels)
    here = own(world, counts)
    dtypes = (torch.int32, torch.bool, torch.uint8, torch.int16)  # another one on each rank
    found = batch_hard_triplet_loss(x[here], labels[here].to(dtypes[world.rank % 4]), strategy="ring")
    torch.testing.assert_close(found, expected)
    strided = torch.stack([x, x], 2)[here, :, 0]
    assert not strided.is_contiguous()
    torch.testing.assert_close(batch_hard_triplet_loss(strided, labels[here], strategy="ring"), expected)
    negative = labels[here] - 2**62
    torch.testing.assert_close(batch_hard_triplet_loss(x[here], negative), expected)


def check_ties_go_to_the_lowest_row(world: World) -> None:
    """Whole numbers: many exact ties, and every choice decides where gradient goes."""
    for seed in range(4):
        counts = split(world, 32, "unequal")
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(-1, 2, (sum(counts), 3), generator=generator).double()
        labels = torch.randint(3, (sum(counts),), generator=generator)
        for metric in ("sqeuclidean", "dot", "manhattan"):
            compare(world, counts, x, labels, "ring", metric=metric, margin=1.0)


def check_degenerate_batches(world: World) -> None:
    cases = {
        "one class": torch.zeros(16, dtype=torch.int64),
        "all distinct": torch.arange(16),
        "a class a rank": torch.arange(16) // (16 // world.size),
    }
    for labels in cases.values():
        counts = split(world, 16, "equal")
        x = batch(counts, torch.float32)[0]
        for options in ({}, {"no_triplet": "zero_positive"}, {"reduction": "mean_nonzero"}):
            for strategy in ("ring", "gather"):
                compare(world, counts, x, labels, strategy, **options)
    empty = torch.zeros(0, D, requires_grad=True)
    for strategy in STRATEGIES:
        loss = batch_hard_triplet_loss(empty, torch.zeros(0, dtype=torch.int64), strategy=strategy)
        loss.backward()
        assert loss == 0 and empty.grad is not None and empty.grad.shape == (0, D)


def check_hub_and_identical_rows(world: World) -> None:
    """Everybody's nearest negative is one row of the last rank; and a collapsed batch, all distances 0."""
    counts = split(world, 40, "equal")
    x, labels = batch(counts, torch.float32)
    x = x + 10 * labels[:, None]
    x[-1], labels[-1] = 20.0, 99
    compare(world, counts, x, labels, "ring", margin=50.0)
    compare(world, counts, torch.ones(40 // world.size * world.size, D), labels, "ring")


def check_rows_that_are_not_finite(world: World) -> None:
    counts = split(world, 24, "equal")
    for value in (torch.nan, torch.inf, 1e25):
        x, labels = batch(counts, torch.float32)
        x[3, 2] = x[-2] = value
        here = own(world, counts)
        expected, valid = siamese_fast.batch_hard_triplet_loss(x, labels, reduction="none", return_valid=True)
        for strategy in ("ring", "gather"):
            local = x[here].clone().requires_grad_()
            each, own_valid = batch_hard_triplet_loss(
                local, labels[here], reduction="none", return_valid=True, strategy=strategy
            )
            torch.testing.assert_close(each, expected[here], equal_nan=True)
            assert torch.equal(own_valid, valid[here])
            each.sum().backward()
            if value != value:  # NaN stays in its own row
                bad = x[here].isnan().any(1)
                assert local.grad.isnan().any(1).equal(bad)


def check_a_separate_reference_set(world: World) -> None:
    counts, others = split(world, 24, "unequal"), split(world, 36, "empty")
    x, labels = batch(counts, torch.float64)
    ref, ref_labels = batch(others, torch.float64, seed=5)
    self_index = torch.arange(len(x)) % len(ref)
    self_index[::3] = -1
    here, there = own(world, counts), own(world, others)
    for metric, itself in itertools.product(("euclidean", "cosine"), (None, self_index)):
        whole, memory = x.clone().requires_grad_(), ref.clone().requires_grad_()
        siamese_fast.batch_hard_triplet_loss(
            whole, labels, metric=metric, ref=memory, ref_labels=ref_labels, self_index=itself
        ).backward()
        for strategy in ("ring", "gather"):
            a, b = x[here].clone().requires_grad_(), ref[there].clone().requires_grad_()
            batch_hard_triplet_loss(
                a,
                labels[here],
                metric=metric,
                ref=b,
                ref_labels=ref_labels[there],
                self_index=None if itself is None else itself[here],
                strategy=strategy,
            ).backward()
            torch.testing.assert_close(a.grad, whole.grad[here] * world.size, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(b.grad, memory.grad[there] * world.size, rtol=1e-12, atol=1e-14)


def check_parameters_under_ddp(world: World) -> None:
    """DDP's average over the ranks is the one-process gradient of the parameters."""
    for kind in ("unequal", "empty"):
        counts = split(world, 40, kind)
        x, labels = batch(counts, torch.float64)
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 8)).double()
        siamese_fast.batch_hard_triplet_loss(encoder(x), labels).backward()
        expected = [parameter.grad.clone() for parameter in encoder.parameters()]
        for strategy in ("ring", "gather"):
            encoder.zero_grad()
            parallel = nn.parallel.DistributedDataParallel(encoder)
            here = own(world, counts)
            batch_hard_triplet_loss(parallel(x[here]), labels[here], strategy=strategy).backward()
            for parameter, exact in zip(encoder.parameters(), expected, strict=True):
                torch.testing.assert_close(parameter.grad, exact, rtol=1e-11, atol=1e-13)


def check_parameters_under_fsdp(world: World) -> None:
    """Sharded parameters, averaged by a reduce_scatter, have the same gradient."""
    counts = split(world, 40, "unequal")
    x, labels = batch(counts, torch.float64)
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 8)).double()
    siamese_fast.batch_hard_triplet_loss(encoder(x), labels).backward()
    expected = [parameter.grad.clone() for parameter in encoder.parameters()]
    encoder.zero_grad()
    fully_shard(encoder, mesh=init_device_mesh("cpu", (world.size,)))
    here = own(world, counts)
    batch_hard_triplet_loss(encoder(x[here]), labels[here], strategy="ring").backward()
    for parameter, exact in zip(encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.full_tensor(), exact, rtol=1e-11, atol=1e-13)


def check_the_gradient_is_of_the_sum_over_ranks(world: World) -> None:
    """A rank that scales its loss scales its part: as autograd through an all_reduce."""
    counts = split(world, 24, "equal")
    x, labels = batch(counts, torch.float64)
    here = own(world, counts)
    grads = []
    for scale in (1.0, float(world.rank)):
        local = x[here].clone().requires_grad_()
        (scale * batch_hard_triplet_loss(local, labels[here])).backward()
        grads.append(local.grad)
    factor = sum(range(world.size)) / world.size
    torch.testing.assert_close(grads[1], factor * grads[0])


def check_same_bits_on_every_run(world: World) -> None:
    counts = split(world, 200, "unequal")
    x, labels = batch(counts, torch.float32)
    here = own(world, counts)

    def run() -> tuple[Tensor, Tensor]:
        local = x[here].clone().requires_grad_()
        loss = batch_hard_triplet_loss(local, labels[here], margin=None, strategy="ring")
        loss.backward()
        return loss.detach(), local.grad

    first = run()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    losses = world.gather(first[0])
    assert (losses == losses[0]).all()


def check_disagreement_is_an_error_on_every_rank(world: World) -> None:
    odd = world.rank == world.size - 1
    labels = torch.arange(8) // 2
    x = torch.randn(8, D)

    def call(x: Tensor = x, labels: Tensor = labels, **options: Any) -> Callable[[], object]:
        return lambda: batch_hard_triplet_loss(x, labels, **options)

    last = world.size - 1
    raises(ValueError, "number of columns of x must be the same", call(x[:, : D - odd]))
    raises(ValueError, f"dtype of x.*rank {last} has 'torch.float64'", call(x.double() if odd else x))
    raises(ValueError, "metric must be the same", call(metric="dot" if odd else "cosine"))
    raises(ValueError, "margin must be the same.*rank 0 has 0.2", call(margin=None if odd else 0.2))
    raises(ValueError, "reduction must be the same", call(reduction="sum" if odd else "mean"))
    raises(ValueError, "strategy must be the same", call(strategy="ring" if odd else "gather"))
    raises(ValueError, "whether x requires a gradient", call(x.clone().requires_grad_(odd)))
    reference = {"ref": x, "ref_labels": labels}
    raises(ValueError, "whether ref is given", call(**(reference if odd else {})))
    raises(TypeError, "labels must be of an integer", call(x, labels.float() if odd else labels))
    raises(ValueError, r"labels must have shape \[8\]", call(x, labels[:3] if odd else labels))
    raises(ValueError, "margin must be a number", call(margin="0.2" if odd else 0.2))
    raises(TypeError, "x must be a torch.Tensor", call([1.0] if odd else x))
    index = torch.full((8,), 8 * world.size if odd else -1)
    raises(IndexError, f"rank {last}: self_index must lie in", call(**reference, self_index=index))
    raises(ValueError, "self_index needs ref", call(self_index=index if odd else None))
    raises(ValueError, "all ranks have no positive", call(x, torch.arange(8) + 8 * odd, no_triplet="error"))
    assert torch.isfinite(call()())  # and the ranks are still in step
    settings = {"first": "x" * 2000, "second": odd}
    raises(
        ValueError, "second must be the same", lambda: world.agreed(lambda: None, lambda _: ((), settings))
    )


def check_a_group_of_some_ranks(world: World) -> None:
    last = [world.size - 2, world.size - 1]  # numbered 0 and 1 in the group
    group = dist.new_group(last)
    if world.rank in last:
        pair = World(group)
        counts = split(pair, 20, "equal")
        x, labels = batch(counts, torch.float32)
        here = own(pair, counts)
        found = batch_hard_triplet_loss(x[here], labels[here], group=group, strategy="ring")
        torch.testing.assert_close(found, siamese_fast.batch_hard_triplet_loss(x, labels))
    else:
        raises(ValueError, "group must be one that this process belongs to", lambda: World(group))


def check_without_gradient(world: World) -> None:
    counts = split(world, 20, "equal")
    x, labels = batch(counts, torch.float32)
    here = own(world, counts)
    with torch.no_grad():
        loss = batch_hard_triplet_loss(x[here].clone().requires_grad_(), labels[here])
    assert not loss.requires_grad
    torch.testing.assert_close(loss, siamese_fast.batch_hard_triplet_loss(x, labels))


def check_differentiated_twice_is_an_error(world: World) -> None:
    x = torch.randn(6, D, requires_grad=True)
    loss = batch_hard_triplet_loss(x, torch.arange(6) % 2)
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    raises(RuntimeError, "once_differentiable", lambda: grad.square().sum().backward())
