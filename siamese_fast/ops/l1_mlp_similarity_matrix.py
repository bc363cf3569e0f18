"""The Koch head with a hidden dense layer over all pairs, without the [Q, S, D] differences,

    logit_ij = bias + sum_h w_h max(0, a_ijh),    a_ijh = c_h + sum_k W_hk |q_ik - s_jk|.

With e_ijh = g_ij w_h [a_ijh > 0] and f_ijk = sum_h e_ijh W_hk the gradients are

    dq_ik = sum_j f_ijk sign(q_ik - s_jk),    ds_jk = -sum_i f_ijk sign(q_ik - s_jk),    dc_h = sum_ij e_ijh,
    dW_hk = sum_ij e_ijh |q_ik - s_jk|,       dw_h = sum_ij g_ij max(0, a_ijh),           dbias = sum_ij g_ij.

The backward pass makes blocks of the differences and of `a` again: memory O((Q + S) D + Q S + H D).

Source: Koch, Zemel, Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops._metrics import row_blocks

PIECE = 512
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def l1_mlp_similarity_matrix(
    q: Tensor,
    s: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    weight: Tensor,
    bias: Tensor | float | None = None,
) -> Tensor:
    """Logits of a one-layer perceptron on |q - s|, of every query against every support.

    Args:
        q: queries [Q, D].
        s: supports [S, D], of the dtype of `q`.
        hidden_weight, hidden_bias: [H, D] and [H] of the hidden layer, as `torch.nn.Linear(D, H)` holds them;
            a ReLU follows it.
        weight: [H], of the last sum; bias: None, a number, or a tensor [] or [1].

    Returns:
        Logits [Q, S], float64 for float64 inputs and float32 otherwise.

    Raises:
        TypeError, ValueError: an argument is not as above.

    Example:
        >>> hidden = head.hidden[0]
        >>> logits = l1_mlp_similarity_matrix(q, s, hidden.weight, hidden.bias, head.weight, head.bias)
    """
    q = check.embeddings("q", q)
    s = check.embeddings("s", s, like=("q", q))
    width = hidden_weight.shape[0] if isinstance(hidden_weight, Tensor) and hidden_weight.dim() == 2 else 1
    hidden_weight = check.parameter("hidden_weight", hidden_weight, (width, q.shape[1]), q)
    hidden_bias = check.parameter("hidden_bias", hidden_bias, (width,), q)
    weight = check.parameter("weight", weight, (width,), q)
    logits: Tensor = _apply(q, s, hidden_weight, hidden_bias, weight, check.bias(bias, q))
    return logits


def _formula(
    q: Tensor, s: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    difference = q.to(weight.dtype)[:, None, :] - s.to(weight.dtype)[None, :, :]
    features = (difference.abs() @ hidden_weight.T + hidden_bias).relu()
    return (features * weight).sum(2) + bias


def _reference(
    q: Tensor, s: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    out = weight.new_empty(q.shape[0], s.shape[0])
    with torch.autocast(q.device.type, enabled=False):
        for rows in row_blocks(q.shape[0], s.shape[0] * max(hidden_weight.shape)):
            out[rows] = _formula(q[rows], s, hidden_weight, hidden_bias, weight, bias)
    return out


def _sum_of_products(x: Tensor, y: Tensor) -> Tensor:
    """x^T y of [n, H] and [n, D] in pieces of fixed length: a long product is cut by the thread count."""
    total = x.new_zeros(x.shape[1], y.shape[1])
    for left, right in zip(x.split(PIECE), y.split(PIECE), strict=True):
        total += left.T @ right
    return total


def _backward(
    grad: Tensor, q: Tensor, s: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, weight: Tensor
) -> Gradients:
    queries, supports = q.to(weight.dtype), s.to(weight.dtype)
    grad_q, grad_s = torch.zeros_like(queries), torch.zeros_like(supports)
    grad_hidden, grad_shift, grad_weight = (torch.zeros_like(t) for t in (hidden_weight, hidden_bias, weight))
    with torch.autocast(q.device.type, enabled=False):
        for rows in row_blocks(q.shape[0], s.shape[0] * max(hidden_weight.shape)):
            difference = queries[rows, None, :] - supports[None, :, :]
            features = (difference.abs() @ hidden_weight.T + hidden_bias).relu()
            upstream = grad[rows, :, None]
            slope = torch.where(features <= 0, 0.0, upstream * weight)
            signed = (slope @ hidden_weight) * difference.sign()
            grad_q[rows] = signed.sum(1)
            grad_s -= signed.sum(0)
            grad_hidden += _sum_of_products(slope.flatten(0, 1), difference.abs_().flatten(0, 1))
            grad_shift += slope.sum((0, 1))
            grad_weight += (upstream * features).sum((0, 1))
    return grad_q.to(q.dtype), grad_s.to(s.dtype), grad_hidden, grad_shift, grad_weight, grad.sum()


_op = define(
    "l1_mlp_similarity_matrix(Tensor q, Tensor s, Tensor hidden_weight, Tensor hidden_bias, Tensor weight,"
    " Tensor bias) -> Tensor",
    _reference,
    lambda q, s, hidden_weight, hidden_bias, weight, bias: weight.new_empty(q.shape[0], s.shape[0]),
)
_backward_op = define(
    "l1_mlp_similarity_matrix_backward(Tensor grad, Tensor q, Tensor s, Tensor hidden_weight,"
    " Tensor hidden_bias, Tensor weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    lambda grad, *inputs: (*(torch.empty_like(value) for value in inputs), grad.new_empty(())),
)


def _gradients(grad: Tensor, inputs: tuple[Tensor, ...], tape: tuple[Tensor, ...]) -> Grads:
    found: Gradients = _backward_op(grad.contiguous(), *inputs[:-1])
    return found


_apply = differentiable(_op, backward=_gradients, formula=_formula)
