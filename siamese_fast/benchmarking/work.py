"""The rows of the benchmark: what is computed, at which size, by whom, what it costs, and what we aim at.

A new row is one entry of `WORK`; a new peer is one adapter in `peers.py` (or `forms.py`) and its call in
the rows it applies to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from siamese_fast.benchmarking import forms, ours, peers
from siamese_fast.benchmarking.contender import Contender, Inputs, Sizes, Stage

LimitName = Literal["product", "read", "copy"]


@dataclass(frozen=True)
class Cost:
    """What a row costs at least: an amount, its unit, how it is counted, the limit it is held against."""

    amount: float
    unit: Literal["flop", "byte", "element"]
    counted: str
    limit: LimitName | None = None


@dataclass(frozen=True)
class Work:
    """One row.

    Attributes:
        name: unique; `--only` matches any part of it.
        operation: rows of one operation share a plot and a name of their own in tables.
        size: named sizes, N, Q, S, B, D, k.
        draw: seeded inputs of a size.
        leaves: inputs that take gradients in a row with a backward stage.
        gate: (Case, variant) that must pass before ours is timed.
        contenders: ours first.
        targets: their time over ours, for the best of a column ("published", "constructed") or one contender.
        full: only in the full set. memory: peak memory is measured too.
    """

    name: str
    operation: str
    stage: Stage
    size: Sizes
    draw: Callable[[Sizes], Inputs]
    gate: tuple[tuple[str, str], ...]
    contenders: tuple[Contender, ...]
    cost: Cost
    leaves: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=dict)
    full: bool = False
    memory: bool = False

    @property
    def slug(self) -> str:
        """The name without spaces and signs, for the identifiers of pytest."""
        return re.sub(r"[^\w.]+", "-", self.name.replace("=", "")).strip("-")

    def inputs(self) -> Inputs:
        """Fresh inputs, with `requires_grad` where the stage needs it."""
        drawn = self.draw(self.size)
        if self.stage != "forward":
            for name in self.leaves:
                drawn[name].requires_grad_()
        return drawn


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _batch(size: Sizes) -> Inputs:
    order = torch.randperm(size["N"], generator=torch.Generator().manual_seed(1))
    return {"x": _normal(size["N"], size["D"]), "labels": (torch.arange(size["N"]) // forms.PER_CLASS)[order]}


def _koch(size: Sizes) -> Inputs:
    """Weights are not negative: what torch.cdist needs to take part with a single call."""
    q, s = _normal(size["Q"], size["D"]), _normal(size["S"], size["D"], seed=1)
    return {"q": q, "s": s, "weight": _normal(size["D"], seed=2).abs(), "bias": _normal(1, seed=3)[0]}


def _pairs(size: Sizes) -> Inputs:
    h1, h2 = _normal(size["B"], size["D"]), _normal(size["B"], size["D"], seed=1)
    target = torch.randint(0, 2, (size["B"],), generator=torch.Generator().manual_seed(4))
    weight = _normal(size["D"], seed=2) / size["D"]
    return {"h1": h1, "h2": h2, "weight": weight, "bias": _normal(1, seed=3)[0], "target": target}


def _queries(size: Sizes) -> Inputs:
    return {"q": _normal(size["Q"], size["D"]), "s": _normal(size["S"], size["D"], seed=1)}


def _classes(size: Sizes) -> Inputs:
    order = torch.randperm(size["S"], generator=torch.Generator().manual_seed(1))
    return {**_queries(size), "class_index": (torch.arange(size["S"]) % size["C"])[order]}


def _batch_hard(n: int, *, full: bool = False, **targets: float) -> Work:
    depth = 128
    named = {name.replace("_", "-"): ratio for name, ratio in targets.items()}
    contenders = [ours.batch_hard(), peers.pytorch_metric_learning(), peers.sentence_transformers()]
    contenders += [peers.open_metric_learning(), forms.whole(), forms.chunked(), forms.grouped()]
    contenders += [forms.faiss_negatives(), forms.numba_scan(), forms.compiled(forms.whole())]
    return Work(
        name=f"batch-hard N={n}",
        operation="batch-hard triplet loss",
        stage="forward + backward",
        size={"N": n, "D": depth},
        draw=_batch,
        gate=(("hardest_pairs", "euclidean"), ("batch_hard_triplet_loss", "euclidean-unit")),
        contenders=tuple(contenders),
        cost=Cost(
            n * n * depth, "flop", "N^2 D: the product on half the pairs, the rest is small", "product"
        ),
        leaves=("x",),
        targets=named,
        full=full,
        memory=n >= 4096,
    )


def _koch_rows() -> list[Work]:
    size = {"Q": 1024, "S": 4096, "D": 128}
    elements = size["Q"] * size["S"] * size["D"]
    gate = (("l1_similarity_matrix", "exact"),)
    compiled = forms.compiled(forms.koch_broadcast())
    name = "koch all pairs 1024x4096x128"
    return [
        Work(
            name=name,
            operation="Koch all pairs, forward",
            stage="forward",
            size=size,
            draw=_koch,
            gate=gate,
            contenders=(ours.koch_matrix(), peers.cdist_l1(), compiled),
            cost=Cost(elements, "element", "Q S D"),
            targets={compiled.name: 2.0},
        ),
        Work(
            name=f"{name} out=",
            operation="Koch all pairs, forward, out=",
            stage="forward",
            size=size,
            draw=_koch,
            gate=gate,
            contenders=(
                ours.koch_matrix_out(),
                peers.cdist_l1(),
                forms.compiled(forms.koch_broadcast_out()),
            ),
            cost=Cost(elements, "element", "Q S D"),
        ),
        Work(
            name=f"{name} backward",
            operation="Koch all pairs, forward + backward",
            stage="forward + backward",
            size=size,
            draw=_koch,
            gate=gate,
            contenders=(ours.koch_matrix(), peers.cdist_l1(), compiled, forms.koch_numba()),
            cost=Cost(3 * elements, "element", "Q S D forward, twice as many backward"),
            leaves=("q", "s", "weight", "bias"),
            targets={"torch.cdist(p=1)": 5.0},
            memory=True,
        ),
    ]


def _pair_rows() -> list[Work]:
    size = {"B": 65536, "D": 128}
    matrix_bytes = 4 * size["B"] * size["D"]
    plain, into = forms.pairs_bce(), forms.pairs_bce_grad_out()
    return [
        Work(
            name="pairs + BCE 65536x128",
            operation="Koch pairs + cross-entropy, forward + backward",
            stage="forward + backward",
            size=size,
            draw=_pairs,
            gate=(("l1_similarity_bce", "mean"),),
            contenders=(ours.pairs_bce(), plain, forms.compiled(plain)),
            cost=Cost(6 * matrix_bytes, "byte", "h1 and h2 read twice, two gradients written", "copy"),
            leaves=("h1", "h2", "weight", "bias"),
            memory=True,
        ),
        Work(
            name="pairs + BCE 65536x128 out=",
            operation="Koch pairs + cross-entropy, loss and gradients, out=",
            stage="forward + backward",
            size=size,
            draw=_pairs,
            gate=(("l1_similarity_bce_grad", "mean"),),
            contenders=(ours.pairs_bce_grad(), forms.compiled(into)),
            cost=Cost(4 * matrix_bytes, "byte", "h1 and h2 read once, two gradients written", "copy"),
        ),
    ]


def _nearest(supports: int, k: int) -> Work:
    size = {"Q": 1000, "S": supports, "D": 128, "k": k}
    contenders = (
        ours.nearest(k),
        peers.faiss_flat(k),
        peers.scikit_learn(k),
        peers.keops_nearest(k),
        peers.topk_product(k),
    )
    return Work(
        name=f"nearest S={supports} k={k}",
        operation=f"nearest support, k={k}",
        stage="forward",
        size=size,
        draw=_queries,
        gate=(("nearest_support.prepared", "sqeuclidean" if k == 1 else "sqeuclidean-top5"),),
        contenders=contenders,
        cost=Cost(2 * 1000 * supports * 128, "flop", "2 Q S D", "product"),
        memory=supports >= 100_000 and k == 1,
    )


def _class_scores() -> Work:
    size = {"Q": 1000, "S": 100_000, "C": 1000, "D": 128}
    form = forms.class_maximum()
    return Work(
        name="class scores S=100000 C=1000",
        operation="best score of each class",
        stage="forward",
        size=size,
        draw=_classes,
        gate=(("class_scores.prepared", "sqeuclidean-max"),),
        contenders=(ours.class_scores(), form, forms.compiled(form)),
        cost=Cost(2 * size["Q"] * size["S"] * size["D"], "flop", "2 Q S D", "product"),
        memory=True,
    )


WORK: tuple[Work, ...] = (
    _batch_hard(256),
    _batch_hard(1024),
    _batch_hard(4096, pytorch_metric_learning=20.0, constructed=2.0),
    _batch_hard(16384, full=True),
    *_koch_rows(),
    *_pair_rows(),
    *(_nearest(supports, k) for supports in (20, 1000, 100_000) for k in (1, 5)),
    _class_scores(),
)


def select(only: str | None = None, *, full: bool = False) -> list[Work]:
    """Rows of the small or the full set, or every row whose name contains `only`."""
    if only is not None:
        return [work for work in WORK if only.casefold() in work.name.casefold()]
    return [work for work in WORK if full or not work.full]
