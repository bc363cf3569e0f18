"""The Koch head over all pairs: logit_ij = bias + sum_k w_k |q_ik - s_jk|, without the [Q, S, D] tensor.

With A_ik = sum_j g_ij sign(q_ik - s_jk) and B_jk = sum_i g_ij sign(q_ik - s_jk), where sign(0) = 0, the
gradients are dq = w A, ds = -w B and dw_k = sum_i (q_ik - c_k) A_ik - sum_j (s_jk - c_k) B_jk for any c: the
weight gradient costs O((Q + S) D) once A and B are there. c_k is a column mean, which keeps the two sums
small.

Source: Koch, Zemel, Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops._define import Grads, define, differentiable
from siamese_fast.ops._metrics import row_blocks


def l1_similarity_matrix(
    q: Tensor,
    s: Tensor,
    weight: Tensor,
    bias: Tensor | float | None = None,
    exact: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """Koch logits of every query against every support.

    Args:
        q: queries [Q, D].
        s: supports [S, D], of the dtype of `q`.
        weight: [D] or [1, D]; bias: None, a number, or a tensor [] or [1].
        exact: True sums w |q - s|. False allows 2 sum w max(q, s) - sum w q - sum w s, a third fewer
            instructions; its error is relative to sum |w| (|q| + |s|), not to sum |w| |q - s|.
        out: a contiguous [Q, S] tensor of the compute dtype that receives the logits; outside autograd only.

    Returns:
        Logits [Q, S], float64 for float64 inputs and float32 otherwise.

    Example:
        >>> scores = l1_similarity_matrix(queries, supports, head.weight, head.bias)
        >>> best = scores.argmax(dim=1)
    """
    q = check.embeddings("q", q)
    s = check.embeddings("s", s, like=("q", q))
    weight, bias = check.weight(weight, q), check.bias(bias, q)
    if out is None:
        logits: Tensor = _apply(q, s, weight, bias, exact)
        return logits
    if torch.is_grad_enabled() and any(value.requires_grad for value in (q, s, weight, bias)):
        raise ValueError("out= does not take part in autograd: call under torch.no_grad() or leave it out")
    check.receiver("out", out, (q.shape[0], s.shape[0]), weight.dtype, q)
    _out_op(q, s, weight, bias, exact, out)
    check.written(out)
    return out


def _formula(q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:
    difference = q.to(weight.dtype)[:, None, :] - s.to(weight.dtype)[None, :, :]
    return (difference.abs() * weight).sum(2) + bias


def _reference_out(q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool, out: Tensor) -> None:
    for rows in row_blocks(q.shape[0], s.shape[0] * q.shape[1]):
        out[rows] = _formula(q[rows], s, weight, bias, exact)


def _reference(q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:
    out = weight.new_empty(q.shape[0], s.shape[0])
    _reference_out(q, s, weight, bias, exact, out)
    return out


def _backward(grad: Tensor, q: Tensor, s: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    queries, supports = q.to(weight.dtype), s.to(weight.dtype)
    row_sums, column_sums, grad_weight = (
        torch.zeros_like(queries),
        torch.zeros_like(supports),
        torch.zeros_like(weight),
    )
    for rows in row_blocks(q.shape[0], s.shape[0] * q.shape[1]):
        difference = queries[rows, None, :] - supports[None, :, :]
        signed = grad[rows, :, None] * difference.sign()
        row_sums[rows] = signed.sum(1)
        column_sums += signed.sum(0)
        grad_weight += (grad[rows, :, None] * difference.abs()).sum((0, 1))
    return (weight * row_sums).to(q.dtype), (-weight * column_sums).to(s.dtype), grad_weight, grad.sum()


_op = define(
    "l1_similarity_matrix(Tensor q, Tensor s, Tensor weight, Tensor bias, bool exact) -> Tensor",
    _reference,
    lambda q, s, weight, bias, exact: weight.new_empty(q.shape[0], s.shape[0]),
)
_out_op = define(
    "l1_similarity_matrix_out(Tensor q, Tensor s, Tensor weight, Tensor bias, bool exact, Tensor(a!) out)"
    " -> ()",
    _reference_out,
    lambda *_: None,
)
_backward_op = define(
    "l1_similarity_matrix_backward(Tensor grad, Tensor q, Tensor s, Tensor weight)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    lambda grad, q, s, weight: (
        torch.empty_like(q),
        torch.empty_like(s),
        torch.empty_like(weight),
        weight.new_empty(()),
    ),
)


def _gradients(grad: Tensor, inputs: tuple[Tensor, ...], tape: tuple[Tensor, ...]) -> Grads:
    q, s, weight = inputs[:3]
    return (*_backward_op(grad.contiguous(), q, s, weight), None)


_apply = differentiable(_op, backward=_gradients, formula=_formula)
