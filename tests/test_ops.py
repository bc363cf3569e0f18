"""Every operation on every backend, instruction set and dtype: values, chosen indices and gradients by the
gap rule.
"""

from __future__ import annotations

import pytest
import torch
from rooms import DTYPES, WORKLOADS, dtype_name, split, variants

from siamese_fast.testing import KINDS, Case, Draw, Size, check


@pytest.mark.sanitize
@pytest.mark.parametrize("tier", ["short", pytest.param("rest", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(("case", "variant"), variants())
def test_gap_rule(case: Case, variant: str, dtype: torch.dtype, tier: str, room: str) -> None:
    short, rest = split(f"{case.name} {variant} {dtype} {room}", share=7)
    for number in short if tier == "short" else rest:
        size, kind = WORKLOADS[number]
        check(case, variant, size, Draw(dtype, kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "variant"), variants())
def test_gap_rule_at_every_depth(case: Case, variant: str, kind: str, native_room: str) -> None:
    for depth in (1, 3, 15, 16, 17, 31, 33, 127, 128, 255, 256, 257, 300, 1000):
        for seed, dtype in enumerate(DTYPES):
            check(case, variant, Size(9, 35, depth), Draw(dtype, kind, seed))


@pytest.mark.parametrize(("case", "variant"), variants(first_only=True))
def test_gap_rule_with_many_rows(case: Case, variant: str, native_room: str) -> None:
    """Past the chunks of rows that partial sums are made of, and past one tile in either direction."""
    check(case, variant, Size(1100, 530, 5), Draw(torch.float32, "normal"))
