"""Nearest supports, one query at a time, and scores per class."""

from __future__ import annotations

from siamese_fast.benchmarking import draws, forms, ours, peers
from siamese_fast.benchmarking.contender import Contender, Sizes
from siamese_fast.benchmarking.forms import lookup as built
from siamese_fast.benchmarking.work import Aims, Cost, Work

FAISS = "faiss IndexFlatL2"
_MILLION = 1_000_000


def _products(size: Sizes) -> Cost:
    flops = 2 * size["Q"] * size["S"] * size["D"]
    return Cost(flops, "flop", "2 Q S D", {"fma": flops})


def _nearest(supports: int, k: int) -> Work:
    size = {"Q": 1000, "S": supports, "D": 128, "k": k}
    return Work(
        name=f"nearest S={supports} k={k}",
        operation=f"nearest support, k={k}",
        stage="forward",
        size=size,
        draw=draws.queries,
        gate=(("nearest_support.prepared", "sqeuclidean" if k == 1 else "sqeuclidean-top5"),),
        contenders=(
            ours.nearest(k),
            peers.faiss_flat(k),
            peers.scikit_learn(k),
            peers.keops_nearest(k),
            peers.topk_product(k),
        ),
        cost=_products(size),
        aims=Aims(
            {FAISS: 1.2},
            share=0.84 if supports >= 1000 else None,
            memory=8 * 10**6 if k == 1 and supports >= 100_000 else None,
            threads=1.8 if supports >= 100_000 else None,
        ),
        full=supports == _MILLION or (k == 5 and supports == 1000),
        memory=supports == 100_000 and k == 1,
        main=k == 1,
    )


def _nearest_half(supports: int) -> Work:
    size = {"Q": 1000, "S": supports, "D": 128, "k": 1}
    return Work(
        name=f"nearest S={supports} k=1 float16",
        operation="nearest support, k=1, float16",
        stage="forward",
        size=size,
        draw=draws.queries_float16,
        gate=(("nearest_support.prepared", "sqeuclidean"),),
        contenders=(
            ours.nearest(1),
            ours.nearest_converted(1),
        ),
        cost=_products(size),
        aims=Aims({ours.CONVERTED: 1.0}),
        dtype=draws.FLOAT16,
        full=True,
    )


def _nearest_koch(supports: int, *, full: bool = False) -> Work:
    size = {"Q": 1000, "S": supports, "D": 128, "k": 1}
    elements = size["Q"] * supports * size["D"]
    return Work(
        name=f"nearest koch S={supports} k=1",
        operation="nearest support by the Koch head",
        stage="forward",
        size=size,
        draw=draws.koch_similarity,
        gate=(("nearest_support.prepared_koch", "best"),),
        contenders=(
            ours.nearest_koch(1),
            peers.faiss_l1(1),
            peers.keops_nearest_koch(1),
            peers.cdist_topk(1),
            forms.compiled(built.koch_topk(1)),
        ),
        cost=Cost(elements, "element", "Q S D", {"abs": elements}),
        aims=Aims({peers.faiss_l1(1).name: 1.2}, share=0.75),
        full=full,
        main=not full,
    )


def _serving(supports: int, *, half: bool = False) -> Work:
    """One query: the supports pass through the processor once, and nothing else counts."""
    size = {"Q": 1, "S": supports, "D": 128, "k": 1}
    read = (2 if half else 4) * supports * size["D"]
    peer: tuple[Contender, ...] = (peers.faiss_flat(1), peers.topk_product(1))
    if half:
        single = ("q_single", "s_single")
        peer = (peers.faiss_flat(1, *single), peers.faiss_half(1, *single))
    return Work(
        name=f"one query S={supports}" + (" float16" if half else ""),
        operation="one query at a time" + (", float16" if half else ""),
        stage="forward",
        size=size,
        draw=draws.queries_float16 if half else draws.queries,
        gate=(("nearest_support.prepared", "sqeuclidean"),),
        contenders=(ours.nearest(1), *peer),
        cost=Cost(read, "byte", "the supports read once", {"read": read}),
        aims=Aims({FAISS: 1.7 if half else 1.0}, share=0.9),
        dtype=draws.FLOAT16 if half else draws.FLOAT32,
        main=True,
    )


def _class_scores(metric: str, reduce: str, form: Contender, *, full: bool = False) -> Work:
    size = {"Q": 1000, "S": 100_000, "C": 1000, "D": 128}
    return Work(
        name=f"class scores {reduce} S=100000 C=1000",
        operation=f"scores of classes, {reduce}",
        stage="forward",
        size=size,
        draw=draws.classes,
        gate=(("class_scores.prepared", f"{metric}-{reduce}"),),
        contenders=(ours.class_scores(metric, reduce), form, forms.compiled(form)),
        cost=_products(size),
        aims=Aims({form.name: 3.0}, threads=1.8),
        full=full,
        memory=True,
        main=not full,
    )


ROWS = (
    *(_nearest(supports, k) for supports in (20, 1000, 100_000, _MILLION) for k in (1, 5)),
    _nearest_half(100_000),
    _nearest_koch(20, full=True),
    _nearest_koch(1000),
    _nearest_koch(100_000, full=True),
    _serving(100_000),
    _serving(100_000, half=True),
    _class_scores("sqeuclidean", "max", built.class_maximum()),
    _class_scores("euclidean", "mean", built.class_mean(), full=True),
)
