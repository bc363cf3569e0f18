"""Batch-hard mining, and the loss with its gradient."""

from __future__ import annotations

from siamese_fast.benchmarking import draws, forms, ours, peers
from siamese_fast.benchmarking.contender import Contender, Sizes
from siamese_fast.benchmarking.forms import triplets as built
from siamese_fast.benchmarking.work import Aims, Cost, Work

GATE = (("hardest_pairs", "euclidean"), ("batch_hard_triplet_loss", "euclidean-unit"))
PML = "pytorch-metric-learning"
_MEGABYTE = 10**6
_HUB_SLOWER = 1.1


def _contenders() -> tuple[Contender, ...]:
    return (
        ours.batch_hard(),
        peers.pytorch_metric_learning(),
        peers.sentence_transformers(),
        peers.open_metric_learning(),
        built.whole(),
        built.chunked(),
        built.grouped(),
        built.faiss_negatives(),
        built.numba_scan(),
        built.keops_extremes(),
        forms.compiled(built.whole()),
    )


def _product(size: Sizes) -> Cost:
    flops = size["N"] ** 2 * size["D"]
    return Cost(flops, "flop", "N^2 D: the product of half the pairs; the rest is small", {"fma": flops})


def _loss(n: int, depth: int, aims: Aims, *, full: bool = False, main: bool = True) -> Work:
    size = {"N": n, "D": depth}
    return Work(
        name=f"batch-hard N={n}" + (f" D={depth}" if depth != 128 else ""),
        operation="batch-hard triplet loss" + (f", D={depth}" if depth != 128 else ""),
        stage="forward + backward",
        size=size,
        draw=draws.batch,
        gate=GATE,
        contenders=_contenders(),
        cost=_product(size),
        leaves=("x",),
        aims=aims,
        full=full,
        memory=n >= 4096,
        main=main,
    )


def _mining(n: int, *, full: bool = False) -> Work:
    size = {"N": n, "D": 128}
    return Work(
        name=f"hardest pairs N={n}",
        operation="hardest pairs, mining alone",
        stage="forward",
        size=size,
        draw=draws.batch,
        gate=(("hardest_pairs", "euclidean"),),
        contenders=(
            ours.hardest_pairs(),
            peers.pytorch_metric_learning_miner(),
            built.whole(gathers=False),
            built.chunked(gathers=False),
            built.grouped(gathers=False),
            built.faiss_negatives(gathers=False),
            built.numba_scan(gathers=False),
            built.keops_extremes(gathers=False),
        ),
        cost=_product(size),
        aims=Aims(share=0.8, threads=1.8),
        full=full,
        main=not full,
    )


def _hub(n: int) -> Work:
    size = {"N": n, "D": 128}
    return Work(
        name=f"batch-hard N={n} hub",
        operation="batch-hard triplet loss, one negative hardest for all",
        stage="forward + backward",
        size=size,
        draw=draws.hub,
        gate=GATE,
        contenders=(ours.batch_hard(), ours.batch_hard_random()),
        cost=_product(size),
        leaves=("x",),
        aims=Aims({ours.batch_hard_random().name: 1 / _HUB_SLOWER}),
    )


def _half(n: int) -> Work:
    size = {"N": n, "D": 128}
    return Work(
        name=f"batch-hard N={n} bfloat16",
        operation="batch-hard triplet loss, bfloat16",
        stage="forward + backward",
        size=size,
        draw=draws.batch_bfloat16,
        gate=GATE,
        contenders=(ours.batch_hard(), ours.converted(ours.batch_hard())),
        cost=_product(size),
        leaves=("x",),
        aims=Aims({ours.CONVERTED: 1.0}),
        dtype=draws.BFLOAT16,
    )


ROWS = (
    _loss(256, 128, Aims({"best peer": 3.0, PML: 15.0})),
    _loss(1024, 128, Aims({"best peer": 3.3, PML: 25.0})),
    _loss(4096, 128, Aims({"best peer": 3.5, PML: 45.0})),
    _loss(
        16384,
        128,
        Aims({"best peer": 3.0, PML: 75.0}, memory=60 * _MEGABYTE, threads=1.8),
        full=True,
    ),
    _loss(1024, 512, Aims({"best peer": 2.3}), full=True, main=False),
    _loss(4096, 512, Aims({"best peer": 2.3}), full=True),
    _mining(4096),
    _mining(16384, full=True),
    _hub(4096),
    _half(4096),
)
