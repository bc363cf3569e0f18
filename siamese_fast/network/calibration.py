"""From scores to probabilities: Platt's scaling, and a threshold at a chosen rate of false accepts.

    p(same class | score) = sigmoid(scale * score + bias)

with scale and bias fitted by maximum likelihood to pairs whose answer is known. Same-class and
different-class pairs get equal total weight, so p = 0.5 is the point where both explanations are equally
good, however rare positives are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ITERATIONS = 100


def fit_platt(scores: Tensor, target: Tensor) -> tuple[float, float]:
    """Scale and bias of Platt's sigmoid.

    Args:
        scores: `[B]`, floating; larger means more alike.
        target: `[B]`, bool; True for pairs of one class.

    Returns:
        (scale, bias), scale > 0.

    Raises:
        ValueError: only one kind of pair, or different-class pairs score no lower than same-class ones.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999), with his smoothed targets,
    which keep the fit finite when the two kinds are perfectly separated.

    Example:
        >>> scores, target = torch.tensor([-3.0, -1.0, -2.0, 0.0]), torch.tensor([0, 1, 0, 1]).bool()
        >>> scale, bias = fit_platt(scores, target)
        >>> scale > 0
        True
    """
    positives, negatives = int(target.sum()), int((~target).sum())
    if not positives or not negatives:
        raise ValueError(
            f"target must hold both kinds of pair, got {positives} positive and {negatives} negative"
        )
    x = scores.detach().double()
    mean, spread = x.mean(), x.std().clamp_min(1e-12)
    x = (x - mean) / spread
    wanted = torch.where(target, (positives + 1) / (positives + 2), 1 / (negatives + 2)).double()
    share = torch.where(target, 0.5 / positives, 0.5 / negatives).double()
    theta = torch.zeros(2, dtype=torch.float64)
    design = torch.stack([x, torch.ones_like(x)], 1)  # [B, 2]
    for _ in range(_ITERATIONS):
        theta, moved = _newton_step(theta, design, wanted, share)
        if moved < 1e-10:
            break
    scale = float(theta[0] / spread)
    if not scale > 0:
        raise ValueError("same-class pairs score no higher than different-class pairs: nothing to calibrate")
    return scale, float(theta[1]) - scale * float(mean)


def threshold_at(probabilities: Tensor, false_accept_rate: float) -> float:
    """The lowest threshold t at which at most this share of different-class pairs has `probability >= t`.

    Args:
        probabilities: `[B]` of different-class pairs.
        false_accept_rate: 0 <= rate <= 1.

    Raises:
        ValueError: the rate lies outside [0, 1], or there is no pair.
    """
    if not 0 <= false_accept_rate <= 1:
        raise ValueError(f"false_accept_rate must lie in [0, 1], got {false_accept_rate}")
    if not len(probabilities):
        raise ValueError("probabilities must hold at least one different-class pair, got none")
    ordered = probabilities.sort(descending=True).values
    allowed = int(false_accept_rate * len(ordered))
    if allowed == len(ordered):
        return 0.0
    return float(torch.nextafter(ordered[allowed], ordered.new_tensor(torch.inf)))


def _newton_step(theta: Tensor, design: Tensor, wanted: Tensor, share: Tensor) -> tuple[Tensor, float]:
    """One damped Newton step on the weighted cross-entropy; returns the new parameters and how far they
    moved.
    """
    logits = design @ theta
    p = logits.sigmoid()
    gradient = design.T @ (share * (p - wanted))
    curvature = (design * (share * p * (1 - p)).unsqueeze(1)).T @ design
    step = torch.linalg.solve(curvature + 1e-12 * torch.eye(2, dtype=torch.float64), gradient)
    before = _cross_entropy(theta, design, wanted, share)
    for _ in range(30):
        if _cross_entropy(theta - step, design, wanted, share) <= before:
            break
        step = step / 2
    return theta - step, float(step.abs().max())


def _cross_entropy(theta: Tensor, design: Tensor, wanted: Tensor, share: Tensor) -> float:
    losses = functional.binary_cross_entropy_with_logits(design @ theta, wanted, reduction="none")
    return float((share * losses).sum())
