"""Cross-rank losses over all pairs and triplets against the one-process losses on the concatenated batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import siamese_fast
from distributed_checks.common import own, raises, split
from distributed_checks.losses import D, batch
from siamese_fast import backend, distributed
from siamese_fast.distributed.world import World
from siamese_fast.testing import assert_close

LOSSES: dict[str, dict[str, Any]] = {
    "ntxent_loss": {"temperature": 0.2},
    "supcon_loss": {"temperature": 0.2},
    "contrastive_loss": {"pos_margin": 0.5, "neg_margin": 4.0},
    "multi_similarity_loss": {"beta": 10.0},
    "circle_loss": {"gamma": 8.0},
    "batch_all_triplet_loss": {"margin": 0.21},
}
METRICS = ("euclidean", "sqeuclidean", "cosine", "dot")
REDUCTIONS = ("none", "mean", "sum", "mean_nonzero")


def strategies(name: str) -> tuple[str, ...]:
    return ("gather", "auto") if name == "batch_all_triplet_loss" else ("ring", "gather", "auto")


def everywhere() -> list[tuple[str, str]]:
    return [(name, strategy) for name in LOSSES for strategy in strategies(name)[:2]]


def compare(
    world: World, name: str, counts: list[int], x: Tensor, labels: Tensor, strategy: str, **options: Any
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of this rank's rows, held to the one-process ones by the gap rule."""
    options = {**LOSSES[name], **options}
    here, none = own(world, counts), options.get("reduction") == "none"
    weights = torch.linspace(-1, 1, len(x))
    one_process, over_ranks = getattr(siamese_fast, name), getattr(distributed, name)

    def expected(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        whole = x.detach().to(dtype).requires_grad_()
        loss = one_process(whole, labels, **options)
        (loss * weights).sum().backward() if none else loss.backward()
        assert whole.grad is not None
        return loss.detach()[here] if none else loss.detach(), whole.grad[here] * (1 if none else world.size)

    exact, plain = expected(torch.float64), expected(x.dtype)
    local = x[here].clone().requires_grad_()
    loss = over_ranks(local, labels[here], strategy=strategy, **options)
    (loss * weights[here]).sum().backward() if none else loss.backward()
    assert loss.dtype == plain[0].dtype and loss.shape == plain[0].shape
    assert local.grad is not None and local.grad.dtype == x.dtype
    assert_close("loss", loss.detach(), exact[0], plain[0], 8 * (exact[0].abs() + 1))
    # Terms of exponents and of many rows cancel in a row's gradient: the largest entry bounds them.
    largest = exact[1].abs().max().double() if exact[1].numel() else torch.tensor(0.0).double()
    assert_close("gradient", local.grad, exact[1], plain[1], (64 * largest).expand_as(exact[1]))
    return loss.detach(), local.grad


def check_equals_one_process(world: World) -> None:
    for kind in ("equal", "unequal", "empty"):
        counts = split(world, 60, kind)
        x, labels = batch(counts, torch.float64, classes=9)
        for name, strategy in everywhere():
            compare(world, name, counts, x, labels, strategy)


def check_every_metric_and_reduction(world: World) -> None:
    counts = split(world, 40, "unequal")
    x, labels = batch(counts, torch.float64, seed=1, classes=17)  # some anchors have no positive
    for name, reduction in itertools.product(LOSSES, REDUCTIONS):
        strategy = strategies(name)[0]
        compare(world, name, counts, x, labels, strategy, reduction=reduction)
    for name, metric in itertools.product(LOSSES, METRICS):
        if name != "circle_loss":
            compare(world, name, counts, x, labels, strategies(name)[0], metric=metric)
            compare(world, name, counts, x, labels, strategies(name)[0], metric=metric, normalize=True)
    compare(world, "circle_loss", counts, x, labels, "ring", constant_weights=False)


def check_every_dtype(world: World) -> None:
    counts = split(world, 48, "unequal")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x, labels = batch(counts, dtype, seed=2)
        x = x[:, :11]  # an odd number of bytes a row and a block
        for name, strategy in everywhere():
            compare(world, name, counts, x, labels, strategy)


def check_labels_of_any_integer_dtype(world: World) -> None:
    counts = split(world, 24, "equal")
    x, labels = batch(counts, torch.float64, classes=2)
    here = own(world, counts)
    dtypes = (torch.int32, torch.bool, torch.uint8, torch.int16)  # another one on each rank
    for name, strategy in everywhere():
        expected = getattr(siamese_fast, name)(x, labels)
        over_ranks = getattr(distributed, name)
        found = over_ranks(x[here], labels[here].to(dtypes[world.rank % 4]), strategy=strategy)
        torch.testing.assert_close(found, expected)
        strided = torch.stack([x, x], 2)[here, :, 0]
        torch.testing.assert_close(over_ranks(strided, labels[here] - 2**62, strategy=strategy), expected)


def check_degenerate_batches(world: World) -> None:
    counts = split(world, 16, "equal")
    x = batch(counts, torch.float64)[0]
    for labels in (torch.zeros(16).long(), torch.arange(16), torch.arange(16) // (16 // world.size)):
        for name, strategy in everywhere():
            compare(world, name, counts, x, labels, strategy)
    for rows in (0, 1):  # nothing at all, and one row on the last rank
        last = rows if world.rank == world.size - 1 else 0
        for name, strategy in everywhere():
            few = torch.randn(last, D, requires_grad=True)
            loss = getattr(distributed, name)(few, torch.zeros(last).long(), strategy=strategy)
            loss.backward()
            assert loss == 0 and few.grad is not None and torch.equal(few.grad, torch.zeros(last, D))


def check_a_nan_is_told(world: World) -> None:
    counts = split(world, 24, "equal")
    x, labels = batch(counts, torch.float32)
    x[-2, 3] = torch.nan
    here = own(world, counts)
    for name, strategy in everywhere():
        local = x[here].clone().requires_grad_()
        each = getattr(distributed, name)(local, labels[here], strategy=strategy, reduction="none")
        each.sum().backward()
        if world.rank == world.size - 1:
            assert each[-2].isnan() and local.grad is not None and local.grad[-2].isnan().any()


def check_a_separate_reference_set(world: World) -> None:
    counts, others = split(world, 24, "unequal"), split(world, 36, "empty")
    x, labels = batch(counts, torch.float64)
    ref, ref_labels = batch(others, torch.float64, seed=5)
    self_index = torch.arange(len(x)) % len(ref)
    self_index[::3] = -1
    here, there = own(world, counts), own(world, others)
    for (name, strategy), itself, trained in itertools.product(
        everywhere(), (None, self_index), (False, True)
    ):
        options = LOSSES[name]
        whole, memory = x.clone().requires_grad_(), ref.clone().requires_grad_(trained)
        expected = getattr(siamese_fast, name)(
            whole, labels, ref=memory, ref_labels=ref_labels, self_index=itself, **options
        )
        expected.backward()
        a, b = x[here].clone().requires_grad_(), ref[there].clone().requires_grad_(trained)
        apart = {"ref": b, "ref_labels": ref_labels[there]}
        apart["self_index"] = None if itself is None else itself[here]
        loss = getattr(distributed, name)(a, labels[here], strategy=strategy, **apart, **options)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(a.grad, whole.grad[here] * world.size)
        if trained:
            torch.testing.assert_close(b.grad, memory.grad[there] * world.size)


def check_parameters_under_ddp(world: World) -> None:
    """DDP's average over the ranks is the one-process gradient of the parameters."""
    counts = split(world, 40, "empty")
    x, labels = batch(counts, torch.float64)
    here = own(world, counts)
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 8)).double()
    parallel = nn.parallel.DistributedDataParallel(encoder)
    for name, strategy in everywhere():
        encoder.zero_grad()
        getattr(siamese_fast, name)(encoder(x), labels).backward()
        expected = [parameter.grad.clone() for parameter in encoder.parameters()]
        parallel.zero_grad()
        getattr(distributed, name)(parallel(x[here]), labels[here], strategy=strategy).backward()
        for parameter, exact in zip(encoder.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, exact, rtol=1e-9, atol=1e-12)


def check_the_reference_kernels_too(world: World) -> None:
    """What serves where there are no C++ kernels."""
    counts = split(world, 30, "unequal")
    x, labels = batch(counts, torch.float64)
    with backend.use("reference"):
        for name, strategy in everywhere():
            compare(world, name, counts, x, labels, strategy)


def check_same_bits_on_every_run(world: World) -> None:
    counts = split(world, 400, "unequal")
    x, labels = batch(counts, torch.float32, classes=30)
    here = own(world, counts)
    for name, strategy in everywhere():
        runs = []
        for _ in range(3):
            local = x[here].clone().requires_grad_()
            loss = getattr(distributed, name)(local, labels[here], strategy=strategy)
            loss.backward()
            runs.append((loss.detach(), local.grad))
        assert all(torch.equal(a, b) for run in runs for a, b in zip(runs[0], run, strict=True))
        gathered = world.gather(runs[0][0])
        assert (gathered == gathered[0]).all()


def check_disagreement_is_an_error_on_every_rank(world: World) -> None:
    odd, last = world.rank == world.size - 1, world.size - 1
    labels, x = torch.arange(8) // 2, torch.randn(8, D)

    def call(
        x: Tensor = x, labels: Tensor = labels, name: str = "supcon_loss", **options: Any
    ) -> Callable[[], object]:
        return lambda: getattr(distributed, name)(x, labels, **options)

    raises(ValueError, "number of columns of x must be the same", call(x[:, : D - odd]))
    raises(ValueError, f"dtype of x.*rank {last} has 'torch.float64'", call(x.double() if odd else x))
    raises(ValueError, "temperature must be the same.*rank 0 has 0.1", call(temperature=0.1 + odd))
    raises(ValueError, "temperature must be a positive finite", call(temperature=-1.0 if odd else 0.1))
    raises(ValueError, "metric must be one of", call(metric="manhattan" if odd else "cosine"))
    raises(ValueError, "metric must be the same", call(metric="dot" if odd else "cosine"))
    raises(ValueError, "reduction must be one of", call(reduction="median" if odd else "mean"))
    raises(ValueError, "strategy must be the same", call(strategy="ring" if odd else "gather"))
    raises(TypeError, "labels must be of an integer", call(x, labels.float() if odd else labels))
    raises(TypeError, "x must be a torch.Tensor", call(None if odd else x))  # type: ignore[arg-type]
    raises(ValueError, "margin must be", call(name="circle_loss", margin=float("nan") if odd else 0.4))
    raises(TypeError, "constant_weights must", call(name="circle_loss", constant_weights=1 if odd else True))
    raises(ValueError, "over all triplets", call(name="batch_all_triplet_loss", strategy="ring"))
    reference = {"ref": x, "ref_labels": labels, "self_index": torch.full((8,), 8 * world.size - 1 + odd)}
    raises(IndexError, r"self_index must lie in", call(**reference))
    for others in ("ntxent_loss", "batch_hard_triplet_loss"):
        for names in (("supcon_loss", others), (others, "supcon_loss")):
            raises(ValueError, "loss must be the same", call(name=names[odd]))
    dist.barrier()
    torch.testing.assert_close(call()(), call(strategy="ring")())  # the ranks are in step


def check_two_views(world: World) -> None:
    """InfoNCE: keys beyond a rank's queries are negatives of all, wherever they are in the whole batch."""
    for kind in ("unequal", "empty"):
        counts = split(world, 40, kind)
        more = [rows + rank % 3 for rank, rows in enumerate(counts)]
        queries, keys = batch(counts, torch.float64)[0], batch(more, torch.float64, seed=3)[0]
        here, there = own(world, counts), own(world, more)
        starts = [sum(more[:rank]) for rank in range(world.size)]
        paired = torch.cat([torch.arange(s, s + n) for s, n in zip(starts, counts, strict=True)])
        rest = torch.ones(len(keys), dtype=torch.bool).index_fill(0, paired, False).nonzero()[:, 0]
        a, b = queries.clone().requires_grad_(), keys.clone().requires_grad_()
        for reduction, strategy in itertools.product(("mean", "sum", "none"), ("ring", "gather")):
            expected = siamese_fast.info_nce_loss(a, b[torch.cat([paired, rest])], 0.3, reduction=reduction)
            found = torch.autograd.grad(expected.sum(), (a, b))
            q, k = queries[here].clone().requires_grad_(), keys[there].clone().requires_grad_()
            loss = distributed.info_nce_loss(q, k, 0.3, reduction=reduction, strategy=strategy)
            scale = 1 if reduction == "none" else world.size
            torch.testing.assert_close(loss, expected[here] if reduction == "none" else expected)
            got = torch.autograd.grad(loss.sum(), (q, k))
            torch.testing.assert_close(got[0], found[0][here] * scale)
            torch.testing.assert_close(got[1], found[1][there] * scale)
    odd = world.rank == 0
    short = partial(distributed.info_nce_loss, torch.ones(4, D), torch.ones(3 if odd else 5, D))
    raises(ValueError, "keys must have at least the 4 rows", short)
    narrow = partial(distributed.info_nce_loss, torch.ones(4, D - odd), torch.ones(4, D - odd))
    raises(ValueError, "number of columns of queries", narrow)


def check_an_episode(world: World) -> None:
    """Prototypical: supports of a class on several ranks, a query of a class without supports."""
    counts, others = split(world, 24, "unequal"), split(world, 36, "empty")
    queries, labels = batch(counts, torch.float64, classes=6)
    supports, support_labels = batch(others, torch.float64, seed=4, classes=7)
    support_labels[support_labels == 2] = 3
    here, there = own(world, counts), own(world, others)
    for metric, reduction in itertools.product(METRICS, ("mean", "sum", "none")):
        options = {"metric": metric, "temperature": 2.0, "reduction": reduction}
        a, b = queries.clone().requires_grad_(), supports.clone().requires_grad_()
        expected = siamese_fast.prototypical_loss(a, labels, b, support_labels, **options)
        found = torch.autograd.grad(expected.sum(), (a, b))
        q, s = queries[here].clone().requires_grad_(), supports[there].clone().requires_grad_()
        loss = distributed.prototypical_loss(q, labels[here].int(), s, support_labels[there], **options)
        scale = 1 if reduction == "none" else world.size
        torch.testing.assert_close(loss, expected[here] if reduction == "none" else expected)
        got = torch.autograd.grad(loss.sum(), (q, s))
        torch.testing.assert_close(got[0], found[0][here] * scale)
        torch.testing.assert_close(got[1], found[1][there] * scale)
    odd, few = world.rank == 0, torch.ones(2, D)
    for wrong, kind, message in (
        (torch.tensor([0, 99 if odd else 1]), IndexError, "support_labels must lie in"),
        (torch.tensor([0, -1 if odd else 1]), IndexError, "support_labels must be at least 0"),
        (torch.tensor([0.0, 1.0]), TypeError, "support_labels must be of an integer"),
    ):
        call = partial(distributed.prototypical_loss, few, torch.arange(2), few, wrong)
        raises(kind, message, call)
    none = partial(distributed.prototypical_loss, few, torch.arange(2), few[:0], torch.arange(0))
    raises(ValueError, "at least one row on some rank", none)


def check_memory_is_that_of_some_blocks(world: World) -> None:
    """The scores of one rank's rows alone are as large as 64 blocks."""
    status, peak = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if world.size != 4 or not peak.exists():
        return

    def kilobytes(field: str) -> int:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    def step(name: str, rows: int) -> int:
        x, labels = torch.randn(rows, 128, requires_grad=True), torch.arange(rows) // 4
        peak.write_text("5")
        before = kilobytes("VmRSS")
        getattr(distributed, name)(x, labels, strategy="ring").backward()
        return 1024 * (kilobytes("VmHWM") - before)

    for name in ("batch_hard_triplet_loss", "ntxent_loss", "supcon_loss"):
        step(name, 64)
        assert step(name, 2048) < 32 * 2048 * 128 * 4
