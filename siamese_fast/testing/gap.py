"""The gap rule: how far a kernel may be from the truth.

    |got - ref64| <= 2 max |torch_same_dtype - ref64| + 4 eps(dtype) sum |terms|

The first part is what plain torch achieves in the same dtype; the second is rounding, element by element,
relative to what was added up. The truth is rounded to float64 too, which doubles the second part for float64
kernels. There are no other tolerances anywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.testing.formulas import LEFT_OUT


def assert_close(name: str, got: Tensor, exact: Tensor, same_dtype: Tensor, terms: Tensor) -> None:
    """Hold `got` to the gap rule.

    Args:
        name: for the message.
        got: what the kernel returned.
        exact: the float64 reference.
        same_dtype: plain torch in the dtype of the arithmetic; it is rounded to the dtype of `got` here.
        terms: float64 sums of absolute terms, of the shape of `got`.

    Raises:
        AssertionError: shapes differ, non-finite values are not where the reference has them, or the rule is
            broken.
    """
    if got.shape != exact.shape:
        raise AssertionError(f"{name}: shape {list(got.shape)}, expected {list(exact.shape)}")
    if got.numel() == 0:
        return
    finite = exact.isfinite()
    wrong = ~torch.where(
        finite, got.isfinite(), torch.eq(got.double(), exact) | (got.isnan() & exact.isnan())
    )
    if wrong.any():
        where = _first(wrong)
        raise AssertionError(f"{name}{where}: {got[tuple(where)]}, expected {exact[tuple(where)]}")
    exact, error = exact[finite], (got[finite].double() - exact[finite]).abs()
    if error.numel() == 0:
        return
    precision = torch.finfo(got.dtype)
    torch_error = (same_dtype[finite].to(got.dtype).double() - exact).abs().max()
    kept = terms[finite] < LEFT_OUT / 1e6
    if error.numel() >= 256 and kept.double().mean() < 0.5:
        raise AssertionError(f"{name}: most elements lie beside a kink, the test says nothing")
    rounding = precision.eps + torch.finfo(torch.float64).eps  # of the kernel, and of the truth itself
    bound = 2 * torch_error + 4 * rounding * terms[finite] + precision.smallest_normal * precision.eps
    excess = torch.where(kept, error - bound, -torch.ones_like(error))
    if excess.max() > 0:
        worst = int(excess.argmax())
        where = finite.nonzero()[worst].tolist()
        raise AssertionError(
            f"{name}{where}: got {got[finite][worst].item():.9g}, exact {exact[worst].item():.9g},"
            f" error {error[worst].item():.3g} > bound {bound[worst].item():.3g}"
            f" (torch's own error {torch_error.item():.3g}, eps {precision.eps:.3g},"
            f" terms {terms[finite][worst].item():.3g});"
            f" {int((excess > 0).sum())} of {error.numel()} elements"
        )


def _first(mask: Tensor) -> list[int]:
    where: list[int] = mask.nonzero()[0].tolist()
    return where
