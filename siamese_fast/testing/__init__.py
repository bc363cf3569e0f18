"""What tests and benchmarks share: one Case for each operation, and the gap rule that every kernel is held
to.

A new operation needs one `Case` (in `siamese_fast.testing.cases`); the test suite then runs it on every
backend, instruction set and dtype, and the benchmarks gate on it.

    check(CASES["distance"], "euclidean", Size(64, 64, 128), Draw(torch.float32))
"""

from siamese_fast.testing.case import KINDS, Case, Draw, Inputs, Options, Size, register
from siamese_fast.testing.cases import CASES
from siamese_fast.testing.checks import check, outputs_of, prepare
from siamese_fast.testing.gap import assert_close

__all__ = [
    "CASES",
    "KINDS",
    "Case",
    "Draw",
    "Inputs",
    "Options",
    "Size",
    "assert_close",
    "check",
    "outputs_of",
    "prepare",
    "register",
]
