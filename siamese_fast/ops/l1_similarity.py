"""The Koch head on given pairs: logit_b = bias + sum_k w_k |h1_bk - h2_bk|, with its sigmoid cross-entropy
fused.

The peers' form writes |h1 - h2| [B, D] and reads it again, forward and backward. Here the forward pass reads
h1 and h2 once and keeps one number a row; the backward pass reads them once more and writes the two
gradients.

Source: Koch, Zemel, Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops._metrics import softplus


def l1_similarity(h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor | float | None = None) -> Tensor:
    """Koch logits of given pairs.

    Args:
        h1, h2: embeddings [B, D] of one floating dtype.
        weight: [D] or [1, D], in the dtype of the embeddings or in the compute dtype.
        bias: None, a number, or a tensor [] or [1].

    Returns:
        Logits [B], float64 for float64 embeddings and float32 otherwise.

    Example:
        >>> logits = l1_similarity(encoder(a), encoder(b), head.weight, head.bias)
        >>> probability = logits.sigmoid()
    """
    h1, h2, weight, bias = _koch_arguments(h1, h2, weight, bias)
    logits: Tensor = _apply(h1, h2, weight, bias)
    return logits


def l1_similarity_bce(
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor | float | None,
    target: Tensor,
    reduction: str = "mean",
    pos_weight: Tensor | float | None = None,
) -> Tensor:
    """Binary cross-entropy of the Koch probabilities, fused with them.

    Args:
        h1, h2, weight, bias: as for `l1_similarity`.
        target: [B], 1 for a positive pair and 0 for a negative one; bool, integer or floating (soft targets).
        reduction: "mean", "sum" or "none".
        pos_weight: weight of the positive term, as in `torch.nn.BCEWithLogitsLoss`; a number or one element.

    Returns:
        The loss, [] or [B] for "none", float64 for float64 embeddings and float32 otherwise.

    Example:
        >>> loss = l1_similarity_bce(h1, h2, head.weight, head.bias, same_class)
        >>> loss.backward()
    """
    check.choice("reduction", reduction, check.REDUCTIONS)
    h1, h2, weight, bias = _koch_arguments(h1, h2, weight, bias)
    loss: Tensor = _apply_bce(h1, h2, weight, bias, _target(target, h1), _pos_weight(pos_weight), reduction)[
        0
    ]
    return loss


def l1_similarity_bce_grad(
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor | float | None,
    target: Tensor,
    reduction: str = "mean",
    pos_weight: Tensor | float | None = None,
    *,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss of `l1_similarity_bce` and its gradients in one pass over h1 and h2, outside autograd.

    Args:
        out: two contiguous tensors like h1 and h2 that receive their gradients. A custom loop that
            reuses them saves the page faults of fresh memory, which can cost more than the arithmetic.
        The others as for `l1_similarity_bce`; `reduction` is "mean" or "sum".

    Returns:
        loss [], gradients of h1 [B, D], h2 [B, D] (in their dtype), weight [D] and bias [] (in the compute
        dtype).
    """
    check.choice("reduction", reduction, ("mean", "sum"))
    h1, h2, weight, bias = (value.detach() for value in _koch_arguments(h1, h2, weight, bias))
    if out is None:
        out = (torch.empty_like(h1), torch.empty_like(h2))
    for name, buffer, like in (("out[0]", out[0], h1), ("out[1]", out[1], h2)):
        check.receiver(name, buffer, tuple(like.shape), like.dtype, like)
    if out[0] is out[1]:
        raise ValueError("out must be two different tensors: one would hold both gradients")
    arguments = (h1, h2, weight, bias, _target(target, h1), _pos_weight(pos_weight), reduction)
    loss, grad_weight, grad_bias = _bce_grad_op(*arguments, *out)
    check.written(out[0])
    check.written(out[1])
    return loss, out[0], out[1], grad_weight, grad_bias


def _koch_arguments(
    h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor | float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h1 = check.embeddings("h1", h1)
    h2 = check.embeddings("h2", h2, like=("h1", h1))
    check.same_rows("h2", h2, "h1", h1)
    return h1, h2, check.weight(weight, h1), check.bias(bias, h1)


def _target(target: Tensor, h1: Tensor) -> Tensor:
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a torch.Tensor [B], got {type(target).__name__}")
    if target.shape != h1.shape[:1]:
        raise ValueError(f"target must have shape [{h1.shape[0]}], got {list(target.shape)}")
    if target.is_complex():
        raise TypeError(f"target must be of a bool, integer or floating dtype, got {target.dtype}")
    check.same_device("target", target, "h1", h1)
    return target.detach().to(check.compute_dtype(h1.dtype)).contiguous()


def _pos_weight(value: Tensor | float | None) -> float:
    if value is None:
        return 1.0
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"pos_weight must be a number or one element, got shape {list(value.shape)}")
    return float(value)


def _logits(h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ((h1.to(weight.dtype) - h2.to(weight.dtype)).abs() * weight).sum(1) + bias


def _backward(grad: Tensor, h1: Tensor, h2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    difference = h1.to(weight.dtype) - h2.to(weight.dtype)
    grad_h1 = grad[:, None] * weight * difference.sign()
    return grad_h1.to(h1.dtype), (-grad_h1).to(h2.dtype), grad @ difference.abs(), grad.sum()


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    total = loss.sum()
    return total / max(1, loss.shape[0]) if reduction == "mean" else total


def _bce(
    h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor, target: Tensor, pos_weight: float, reduction: str
) -> tuple[Tensor, Tensor]:
    """The loss and its residual: the gradient of the reduced loss in each logit."""
    logits = _logits(h1, h2, weight, bias)
    positive = pos_weight * target
    loss = (1 - target) * softplus(logits) + positive * softplus(-logits)
    residual = (1 - target) * torch.sigmoid(logits) - positive * torch.sigmoid(-logits)
    if reduction == "mean":
        residual = residual / max(1, residual.shape[0])
    return _reduce(loss, reduction), residual


def _bce_grad(
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    pos_weight: float,
    reduction: str,
    grad_h1: Tensor,
    grad_h2: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    loss, residual = _bce(h1, h2, weight, bias, target, pos_weight, reduction)
    first, second, grad_weight, grad_bias = _backward(residual, h1, h2, weight)
    grad_h1.copy_(first)
    grad_h2.copy_(second)
    return loss, grad_weight, grad_bias


_op = define(
    "l1_similarity(Tensor h1, Tensor h2, Tensor weight, Tensor bias) -> Tensor",
    _logits,
    lambda h1, h2, weight, bias: weight.new_empty(h1.shape[0]),
)
_backward_op = define(
    "l1_similarity_backward(Tensor grad, Tensor h1, Tensor h2, Tensor weight)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    lambda grad, h1, h2, weight: (
        torch.empty_like(h1),
        torch.empty_like(h2),
        torch.empty_like(weight),
        weight.new_empty(()),
    ),
)
_bce_op = define(
    "l1_similarity_bce(Tensor h1, Tensor h2, Tensor weight, Tensor bias, Tensor target, float pos_weight,"
    " str reduction) -> (Tensor, Tensor)",
    _bce,
    lambda h1, h2, weight, bias, target, pos_weight, reduction: (
        weight.new_empty(h1.shape[:1] if reduction == "none" else ()),
        weight.new_empty(h1.shape[0]),
    ),
)
_bce_grad_op = define(
    "l1_similarity_bce_grad(Tensor h1, Tensor h2, Tensor weight, Tensor bias, Tensor target,"
    " float pos_weight, str reduction, Tensor(a!) grad_h1, Tensor(b!) grad_h2) -> (Tensor, Tensor, Tensor)",
    _bce_grad,
    lambda h1, h2, weight, *_: (weight.new_empty(()), torch.empty_like(weight), weight.new_empty(())),
)


def _pair_gradients(grad: Tensor, inputs: tuple[Tensor, ...], tape: tuple[Tensor, ...]) -> Grads:
    h1, h2, weight, _ = inputs
    gradients: Grads = _backward_op(grad.contiguous(), h1, h2, weight)
    return gradients


def _bce_gradients(grad: Tensor, inputs: tuple[Tensor, ...], tape: tuple[Tensor, ...]) -> Grads:
    h1, h2, weight = inputs[:3]
    return (*_backward_op(grad * tape[0], h1, h2, weight), None, None, None)


_apply = differentiable(_op, backward=_pair_gradients, formula=_logits)
_apply_bce = differentiable(
    _bce_op, backward=_bce_gradients, formula=lambda *inputs: _bce(*inputs[:7])[0], tape=slice(1, 2)
)
