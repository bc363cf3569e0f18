"""The Koch head: all pairs, given pairs and their cross-entropy."""

from __future__ import annotations

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor

from siamese_fast.benchmarking.contender import Call, Contender, Inputs


def koch_broadcast() -> Contender:
    """The formula over [Q, S, D], which torch.compile fuses into its reduction."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        return lambda: ((q[:, None] - s[None]).abs() * weight).sum(2) + bias

    return Contender("broadcast", "constructed", build)


def koch_broadcast_out() -> Contender:
    """The same into a tensor that the caller reuses."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        out = torch.empty(len(q), len(s))
        return lambda: out.copy_(((q[:, None] - s[None]).abs() * weight).sum(2) + bias)

    return Contender("broadcast, out=", "constructed", build)


def koch_numba() -> Contender:
    """Forward and all gradients in two numba loops."""

    def build(given: Inputs) -> Call:
        numba_forms = importlib.import_module("siamese_fast.benchmarking.forms.loops")
        q, s, weight = (given[name].detach().numpy() for name in ("q", "s", "weight"))
        bias = given["bias"].item()
        generator = torch.Generator().manual_seed(0)
        upstream = torch.randn(len(q), len(s), generator=generator)
        grad = upstream.numpy()

        def call() -> tuple[Tensor, ...]:
            logits = numba_forms.koch_forward(q, s, weight, bias)
            found = numba_forms.koch_backward(grad, q, s, weight)
            return (*map(torch.from_numpy, (logits, *found)), upstream.sum())

        return call

    return Contender("numba", "constructed", build, ("numba",), whole=True, compiled=True)


def koch_numba_forward() -> Contender:
    """The logits in a numba loop."""

    def build(given: Inputs) -> Call:
        numba_forms = importlib.import_module("siamese_fast.benchmarking.forms.loops")
        q, s, weight = (given[name].numpy() for name in ("q", "s", "weight"))
        bias = given["bias"].item()
        return lambda: torch.from_numpy(numba_forms.koch_forward(q, s, weight, bias))

    return Contender("numba", "constructed", build, ("numba",), compiled=True)


def pairs() -> Contender:
    """The logits as the formula stands."""

    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name] for name in ("h1", "h2", "weight", "bias"))
        return lambda: ((h1 - h2).abs() * weight).sum(1) + bias

    return Contender("plain torch", "constructed", build)


def pairs_bce() -> Contender:
    """The formula as it stands."""

    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name] for name in ("h1", "h2", "weight", "bias"))
        target = given["target"].to(h1.dtype)
        return lambda: F.binary_cross_entropy_with_logits(((h1 - h2).abs() * weight).sum(1) + bias, target)

    return Contender("plain torch", "constructed", build)


def pairs_bce_grad_out() -> Contender:
    """Loss and gradients by their formulas, into tensors that the caller reuses."""

    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name].detach() for name in ("h1", "h2", "weight", "bias"))
        target = given["target"].to(h1.dtype)
        grad1, grad2 = torch.empty_like(h1), torch.empty_like(h2)

        def call() -> tuple[Tensor, ...]:
            difference = h1 - h2
            logits = (difference.abs() * weight).sum(1) + bias
            residual = (logits.sigmoid() - target) / len(h1)
            slope = residual[:, None] * weight * difference.sign()
            of_weight = (residual[:, None] * difference.abs()).sum(0)
            loss = F.binary_cross_entropy_with_logits(logits, target)
            return loss, grad1.copy_(slope), grad2.copy_(-slope), of_weight, residual.sum()

        return call

    return Contender("formulas, out=", "constructed", build, whole=True)
