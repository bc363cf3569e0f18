"""Classes of published libraries beside those of the same name in `siamese_fast.compat`, used alike: what
changing one import gains. A library is imported when its adapter is built.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from siamese_fast.benchmarking.contender import Call, Contender, Inputs, Sizes
from siamese_fast.benchmarking.draws import PER_CLASS
from siamese_fast.benchmarking.ours import MARGIN

SUFFIX = " drop-in"
METRIC_LEARNING = "pytorch-metric-learning"
SENTENCE_TRANSFORMERS = "sentence-transformers"
TORCH = "torch.nn"


class _Modules(NamedTuple):
    losses: str
    miners: str

    def part(self, name: str) -> Any:
        """The class of that name."""
        return getattr(importlib.import_module(self.miners if name.endswith("Miner") else self.losses), name)


_THEIRS = {
    METRIC_LEARNING: _Modules("pytorch_metric_learning.losses", "pytorch_metric_learning.miners"),
    SENTENCE_TRANSFORMERS: _Modules("sentence_transformers.sentence_transformer.losses", ""),
    TORCH: _Modules("torch.nn", ""),
}

Build = Callable[[_Modules, Inputs], Call]


def _both(library: str, build: Build, needs: Callable[[Sizes], int]) -> tuple[Contender, Contender]:
    compat = f"siamese_fast.compat.{re.sub('[-.]', '_', library)}"
    ours = partial(build, _Modules(compat, compat))
    distributions = () if library == TORCH else (library,)
    return (
        Contender(library, "published", partial(build, _THEIRS[library]), distributions, needs=needs),
        Contender(f"{library}{SUFFIX}", "baseline", ours, distributions),
    )


def metric_learning_loss(name: str, **options: Any) -> tuple[Contender, Contender]:
    """A loss of pytorch-metric-learning over all pairs or triplets. Distances are those of the rows as they
    are; the losses of similarities keep the cosine. Reducers are set to our mean where theirs is another.
    """

    def build(modules: _Modules, given: Inputs) -> Call:
        distances, reducers = _parts("distances", "reducers")
        settings = dict(options)
        if name in ("ContrastiveLoss", "TripletMarginLoss"):
            settings["distance"] = distances.LpDistance(normalize_embeddings=False)
        if name in ("SupConLoss", "CircleLoss"):
            settings["reducer"] = reducers.MeanReducer()
        loss = modules.part(name)(**settings)
        return lambda: loss(given["x"], given["labels"])

    def needs(size: Sizes) -> int:
        """NT-Xent makes a matrix of all positive pairs by all negative pairs; triplets are listed by way of
        an N x N x N mask.
        """
        rows, positives = size["N"], (PER_CLASS - 1) * size["N"]
        if name == "NTXentLoss":
            return 20 * positives * rows**2
        return 60 * positives * rows + 3 * rows**3 if name == "TripletMarginLoss" else 80 * rows**2

    return _both(METRIC_LEARNING, build, needs)


def metric_learning_batch_hard() -> tuple[Contender, Contender]:
    """BatchHardMiner + TripletMarginLoss."""

    def build(modules: _Modules, given: Inputs) -> Call:
        distances, reducers = _parts("distances", "reducers")
        distance = distances.LpDistance(normalize_embeddings=False)
        miner = modules.part("BatchHardMiner")(distance=distance)
        loss = modules.part("TripletMarginLoss")(
            margin=MARGIN, distance=distance, reducer=reducers.MeanReducer()
        )
        x, labels = given["x"], given["labels"]
        return lambda: loss(x, labels, miner(x, labels))

    return _both(METRIC_LEARNING, build, lambda size: 28 * size["N"] ** 2)


def sentence_transformers_loss(name: str) -> tuple[Contender, Contender]:
    """A triplet loss of sentence-transformers on given embeddings."""

    def build(modules: _Modules, given: Inputs) -> Call:
        loss = modules.part(name)(model=None, margin=MARGIN)
        return lambda: loss.compute_loss_from_embeddings([given["x"]], given["labels"])

    return _both(SENTENCE_TRANSFORMERS, build, lambda size: 80 * size["N"] ** 2)


def torch_triplets() -> tuple[Contender, Contender]:
    """TripletMarginLoss of given rows."""

    def build(modules: _Modules, given: Inputs) -> Call:
        loss = modules.part("TripletMarginLoss")(margin=MARGIN)
        return lambda: loss(given["anchor"], given["positive"], given["negative"])

    return _both(TORCH, build, lambda size: 40 * size["T"] * size["D"])


def _parts(*names: str) -> list[Any]:
    return [importlib.import_module(f"pytorch_metric_learning.{name}") for name in names]
