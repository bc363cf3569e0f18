"""Losses over all pairs or all triplets of a batch, and what changing one import gains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from siamese_fast.benchmarking import draws, drop_ins, forms, ours
from siamese_fast.benchmarking.contender import Contender, Sizes
from siamese_fast.benchmarking.forms import losses as built
from siamese_fast.benchmarking.work import Aims, Cost, Work

_DEPTH = 128
_MEGABYTE = 10**6
_OF_BATCH_HARD = 3.5
"""Times that of batch-hard that batch-all may take."""


def _all_pairs(size: Sizes) -> Cost:
    flops = 3 * size["N"] ** 2 * size["D"]
    counted = "3 N^2 D: the product of half the pairs, and that of their slopes with the rows"
    return Cost(flops, "flop", counted, {"fma": flops})


def _mined(size: Sizes) -> Cost:
    flops = size["N"] ** 2 * size["D"]
    return Cost(flops, "flop", "N^2 D: the product of half the pairs; the rest is small", {"fma": flops})


def _row(
    name: str,
    n: int,
    gate: tuple[str, str],
    contenders: tuple[Contender, ...],
    aims: Aims | None = None,
    *,
    cost: Callable[[Sizes], Cost] = _all_pairs,
    memory: bool = False,
) -> Work:
    size = {"N": n, "D": _DEPTH}
    return Work(
        name=f"{name} N={n}",
        operation=f"{name} loss",
        stage="forward + backward",
        size=size,
        draw=draws.batch,
        gate=(gate,),
        contenders=contenders,
        cost=cost(size),
        leaves=("x",),
        aims=aims or Aims(),
        full=True,
        memory=memory,
        main=aims is not None,
    )


def _softmax(name: str, operation: str, peer: str, form: Contender) -> Work:
    """A loss of the softmax kind, against everybody, under torch.compile too."""
    options = {"temperature": 0.07}
    contenders = (
        ours.loss(operation, **options),
        *drop_ins.metric_learning_loss(peer, **options),
        form,
        forms.compiled(form),
    )
    return _row(name, 4096, (operation, "cosine"), contenders, Aims({"best peer": 3.0}), memory=True)


def _pairs(name: str, gate: tuple[str, str], given: dict[str, Any], *others: Contender) -> Work:
    return _row(name, 4096, gate, (ours.loss(gate[0], **given), *others))


def _batch_all(n: int, aims: Aims, *libraries: Contender, memory: bool = False) -> Work:
    contenders = (ours.loss("batch_all_triplet_loss", margin=ours.MARGIN), *libraries)
    return _row("batch-all", n, ("batch_all_triplet_loss", "euclidean"), contenders, aims, memory=memory)


def _drop_ins(n: int) -> Work:
    """Batch-hard by the classes of the libraries, and by theirs of the same name in `siamese_fast.compat`."""
    contenders = (
        ours.batch_hard(),
        *drop_ins.metric_learning_batch_hard(),
        *drop_ins.sentence_transformers_loss("BatchHardTripletLoss"),
    )
    gate = ("batch_hard_triplet_loss", "euclidean-unit")
    return _row("drop-ins, batch-hard", n, gate, contenders, cost=_mined)


def _given(count: int) -> Work:
    size, rows = {"T": count, "D": _DEPTH}, 3 * 4 * count * _DEPTH
    counted = "three tensors read, then read again while three gradients are written"
    return Work(
        name=f"drop-ins, given triplets T={count}",
        operation="triplet loss of given triplets",
        stage="forward + backward",
        size=size,
        draw=draws.triplets,
        gate=(("triplet_loss.rows", "euclidean"),),
        contenders=(ours.given_triplets(), *drop_ins.torch_triplets()),
        cost=Cost(3 * rows, "byte", counted, {"read": rows, "copy": 2 * rows}),
        leaves=("anchor", "positive", "negative"),
        full=True,
    )


_METRIC_LEARNING = drop_ins.metric_learning_loss("TripletMarginLoss", margin=ours.MARGIN)
_SENTENCES = drop_ins.sentence_transformers_loss("BatchAllTripletLoss")
_HALF_OF_PAIRS = 16.0
"""A distance that half of the pairs of normal rows exceed."""
_MULTI_SIMILARITY = {"alpha": 2.0, "beta": 50.0, "base": 0.5}

ROWS = (
    _softmax("NT-Xent", "ntxent_loss", "NTXentLoss", built.ntxent(0.07)),
    _softmax("SupCon", "supcon_loss", "SupConLoss", built.supcon(0.07)),
    _pairs(
        "multi-similarity",
        ("multi_similarity_loss", "cosine"),
        _MULTI_SIMILARITY,
        *drop_ins.metric_learning_loss("MultiSimilarityLoss", **_MULTI_SIMILARITY),
        built.multi_similarity(**_MULTI_SIMILARITY),
    ),
    _pairs(
        "circle",
        ("circle_loss", "cosine"),
        {"margin": 0.4, "gamma": 80.0},
        *drop_ins.metric_learning_loss("CircleLoss", m=0.4, gamma=80),
        built.circle(0.4, 80.0),
    ),
    _pairs(
        "contrastive",
        ("contrastive_loss", "euclidean"),
        {"neg_margin": _HALF_OF_PAIRS},
        *drop_ins.metric_learning_loss("ContrastiveLoss", neg_margin=_HALF_OF_PAIRS),
        built.contrastive(_HALF_OF_PAIRS),
    ),
    _batch_all(
        512, Aims({drop_ins.METRIC_LEARNING: 150.0}), *_METRIC_LEARNING, *_SENTENCES, built.batch_all()
    ),
    _batch_all(
        4096,
        Aims({ours.BATCH_HARD: 1 / _OF_BATCH_HARD}, share=0.6),
        *_SENTENCES,
        built.batch_all(),
        ours.batch_hard_beside(),
        memory=True,
    ),
    _batch_all(16384, Aims(memory=100 * _MEGABYTE), memory=True),
    _drop_ins(1024),
    _drop_ins(4096),
    _given(16384),
)
