"""The quality of chosen indices: what was chosen is within rounding of the true extreme, and exactly it where
arithmetic is exact.

A candidate is chosen by its mining value: the squared distance in its product form, |x|^2 + |y|^2 - 2 x.y,
for euclidean, sqeuclidean and cosine; the distance or logit itself for the others. Two mining values closer
than their errors may be chosen in either order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops._checks import compute_dtype
from siamese_fast.testing.case import Inputs, Options, as_dtype
from siamese_fast.testing.formulas import pair_terms, pair_values, unit_rows

EXACT_METRICS = ("sqeuclidean", "dot", "manhattan")


def mining_values(x: Tensor, y: Tensor, metric: str, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """What candidates are compared by, smaller is nearer: float64 values [N, M], their terms, and torch's
    error in `inputs`' dtype.
    """
    if metric == "koch":
        weight, bias = (inputs[name].double() for name in ("weight", "bias"))
        values = -pair_values(x[:, None], y[None], metric, weight, bias)
        return values, pair_terms(x[:, None], y[None], metric, weight, bias), values.new_zeros(())
    if metric == "manhattan":
        values = pair_values(x[:, None], y[None], metric)
        return values, values, values.new_zeros(())
    if metric == "cosine":
        x, y = unit_rows(x), unit_rows(y)
    product, norms = x @ y.T, 0.5 * (x.square().sum(1)[:, None] + y.square().sum(1)[None])
    single = x.float() @ y.float().T
    error = (single.double() - product).abs().max() if product.numel() else product.new_zeros(())
    if metric == "dot":
        return -product, x.abs() @ y.abs().T, error
    if metric == "cosine":
        return -product, norms + 1, error
    return 2 * (norms - product), 2 * norms, 2 * error


def uncertainty(inputs: Inputs, terms: Tensor, torch_error: Tensor) -> Tensor:
    rows = next(value for value in inputs.values() if value.is_floating_point())
    compute = compute_dtype(rows.dtype)
    return 4 * torch.finfo(compute).eps * terms + (2 * torch_error if compute == torch.float32 else 0)


def check_hardest(inputs: Inputs, options: Options, chosen: Inputs, label: str) -> None:
    """Positives are compared by exact differences, negatives by mining values."""
    exact = as_dtype(inputs, torch.float64)
    x, labels = exact["x"], exact["labels"]
    ref, ref_labels = exact.get("ref", x), exact.get("ref_labels", labels)
    own = exact.get("self_index") if "ref" in exact else torch.arange(x.shape[0])
    values, terms, torch_error = mining_values(x, ref, options["metric"], inputs)
    same = labels[:, None] == ref_labels[None]
    positives = same.clone()
    if own is not None:
        positives &= own[:, None] != torch.arange(ref.shape[0])
    distances = pair_values(x[:, None], ref[None], options["metric"])
    distance_terms = pair_terms(x[:, None], ref[None], options["metric"], unit=options["metric"] == "cosine")
    exactly = options["metric"] in EXACT_METRICS and is_integral(inputs)
    rounding = torch_error if options["metric"] == "dot" else torch.zeros_like(torch_error)
    for name, key, bound, allowed in (
        ("positive", -distances, uncertainty(inputs, distance_terms, rounding), positives),
        ("negative", values, uncertainty(inputs, terms, torch_error), ~same),
    ):
        check_ranked(chosen[name][:, None], key, bound, allowed, exactly, f"{label}{name} index")


def check_ranked(
    index: Tensor, key: Tensor, uncertainty: Tensor, allowed: Tensor, exactly: bool, label: str
) -> None:
    """The columns `index` [N, k] are those of the k smallest allowed keys of each row, in order, as far as
    `uncertainty` decides it.

    Where nothing more is allowed the index is -1. With `exactly`, the order is exact and equal keys come by
    ascending column.
    """
    rows, k = index.shape
    key = key.masked_fill(~allowed, torch.inf)
    if key.shape[1] < k:
        padding = (rows, k - key.shape[1])
        key = torch.cat([key, key.new_full(padding, torch.inf)], 1)
        uncertainty = torch.cat([uncertainty, uncertainty.new_zeros(padding)], 1)
        allowed = torch.cat([allowed, allowed.new_zeros(padding)], 1)
    best, order = (part[:, :k] for part in key.sort(dim=1, stable=True))
    expected = torch.where(allowed.gather(1, order), order, -1)
    assert index.dtype == torch.int64, f"{label} is {index.dtype}"
    assert torch.equal(index < 0, expected < 0), (
        f"{label}: -1 in the wrong places: {index.tolist()}, expected {expected.tolist()}"
    )
    if exactly:
        assert torch.equal(index, expected), f"{label}: {index.tolist()}, expected {expected.tolist()}"
        return
    found = index.clamp_min(0)
    legal = allowed.gather(1, found) | (index < 0)
    assert bool(legal.all()), f"{label} names a row that is not allowed: {index.tolist()}"
    if k > 1:
        repeated = (index[:, :, None] == index[:, None, :]) & (index[:, :, None] >= 0)
        assert bool((repeated.sum(2) <= 1).all()), f"{label} names a row twice: {index.tolist()}"
    gap = torch.where(index < 0, 0.0, (key.gather(1, found) - best).abs())
    bound = uncertainty.amax(1, keepdim=True) * 2 if uncertainty.shape[1] else gap
    worst = (gap - bound).max() if gap.numel() else gap.new_zeros(())
    assert worst <= 0, f"{label}: {gap.max():.3g} from the true extreme, allowed {bound.max():.3g}"


def is_integral(inputs: Inputs) -> bool:
    """Whether all embeddings are small integers, so that sums of their products are exact."""
    values = [value for value in inputs.values() if value.is_floating_point()]
    return all(bool(((value == value.round()) & (value.abs() < 64)).all()) for value in values)
