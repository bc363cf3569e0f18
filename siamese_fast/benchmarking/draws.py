"""Seeded inputs of the rows, by their sizes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from siamese_fast.benchmarking.contender import Inputs, Sizes

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16
PER_CLASS = 4
"""Rows of a class in the batches of the batch-hard rows, as the grouped forms rely on."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def permutation(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(1))


def batch(size: Sizes) -> Inputs:
    """Embeddings with `PER_CLASS` of every class, in random order."""
    labels = torch.arange(size["N"]) // PER_CLASS
    return {"x": normal(size["N"], size["D"]), "labels": labels[permutation(size["N"])]}


def batch_bfloat16(size: Sizes) -> Inputs:
    drawn = batch(size)
    return {**drawn, "x": drawn["x"].bfloat16()}


def hub(size: Sizes) -> Inputs:
    """Rows on a sphere, the first at its centre and so nearest to all others; `other` has none there."""
    drawn = batch(size)
    other = normalize(drawn["x"])
    x = other.clone()
    x[0] = 0
    return {"x": x, "labels": drawn["labels"], "other": other}


def koch(size: Sizes) -> Inputs:
    """Weights are not negative: what torch.cdist needs to take part with a single call."""
    q, s = normal(size["Q"], size["D"]), normal(size["S"], size["D"], seed=1)
    return {"q": q, "s": s, "weight": normal(size["D"], seed=2).abs(), "bias": normal(1, seed=3)[0]}


def koch_bfloat16(size: Sizes) -> Inputs:
    drawn = koch(size)
    return {**drawn, "q": drawn["q"].bfloat16(), "s": drawn["s"].bfloat16()}


def koch_similarity(size: Sizes) -> Inputs:
    """Weights of a trained head, not positive: the nearest support in weighted L1 has the best logit."""
    drawn = koch(size)
    return {**drawn, "weight": -drawn["weight"]}


def pairs(size: Sizes) -> Inputs:
    h1, h2 = normal(size["B"], size["D"]), normal(size["B"], size["D"], seed=1)
    target = torch.randint(0, 2, (size["B"],), generator=torch.Generator().manual_seed(4))
    weight = normal(size["D"], seed=2) / size["D"]
    return {"h1": h1, "h2": h2, "weight": weight, "bias": normal(1, seed=3)[0], "target": target}


def pairs_bfloat16(size: Sizes) -> Inputs:
    drawn = pairs(size)
    return {**drawn, "h1": drawn["h1"].bfloat16(), "h2": drawn["h2"].bfloat16()}


def triplets(size: Sizes) -> Inputs:
    names = ("anchor", "positive", "negative")
    return {name: normal(size["T"], size["D"], seed=seed) for seed, name in enumerate(names)}


def queries(size: Sizes) -> Inputs:
    return {"q": normal(size["Q"], size["D"]), "s": normal(size["S"], size["D"], seed=1)}


def queries_float16(size: Sizes) -> Inputs:
    """`q` and `s` in half precision; the same values in `q_single` and `s_single` for libraries without."""
    q, s = (value.half() for value in queries(size).values())
    return {"q": q, "s": s, "q_single": q.float(), "s_single": s.float()}


def classes(size: Sizes) -> Inputs:
    numbers = torch.arange(size["S"]) % size["C"]
    return {**queries(size), "class_index": numbers[permutation(size["S"])]}
