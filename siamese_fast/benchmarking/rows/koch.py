"""The Koch head over all pairs, forward and backward.

KeOps takes no part: it reduces over one side of the pairs, and here all logits [Q, S] are wanted.
"""

from __future__ import annotations

from siamese_fast.benchmarking import draws, forms, ours, peers
from siamese_fast.benchmarking.contender import Contender
from siamese_fast.benchmarking.forms import koch as built
from siamese_fast.benchmarking.work import Aims, Cost, Work

_GATES = {True: (("l1_similarity_matrix", "exact"),), False: (("l1_similarity_matrix", "fast"),)}
_SHARES = {True: 0.75, False: 0.65}
_SQUARE, _WIDE = (1024, 4096, 128), (256, 65536, 128)


def _sizes(shape: tuple[int, int, int]) -> tuple[str, dict[str, int], int]:
    """The shape in words, the named sizes, and the elements Q S D."""
    queries, supports, depth = shape
    words = f"{queries}x{supports}x{depth}"
    return words, {"Q": queries, "S": supports, "D": depth}, queries * supports * depth


def _forward(
    shape: tuple[int, int, int],
    ratio: float,
    *,
    exact: bool = True,
    out: bool = False,
    full: bool = False,
    threads: float | None = None,
) -> Work:
    words, size, elements = _sizes(shape)
    mode = ("" if exact else " exact=False") + (" out=" if out else "")
    mine = ours.koch_matrix_out(exact=exact) if out else ours.koch_matrix(exact=exact)
    form = built.koch_broadcast_out() if out else built.koch_broadcast()
    return Work(
        name=f"koch all pairs {words}{mode}",
        operation=f"Koch all pairs {words}, forward{mode.replace(' ', ', ')}",
        stage="forward",
        size=size,
        draw=draws.koch,
        gate=_GATES[exact],
        contenders=(mine, peers.cdist_l1(), forms.compiled(form), built.koch_numba_forward()),
        cost=Cost(elements, "element", "Q S D", {"abs" if exact else "max": elements}),
        aims=Aims({"best peer": ratio}, share=_SHARES[exact] if out else None, threads=threads),
        full=full,
        main=not full and exact,
    )


def _both() -> tuple[Contender, ...]:
    return ours.koch_matrix(), peers.cdist_l1(), forms.compiled(built.koch_broadcast()), built.koch_numba()


def _backward() -> Work:
    words, size, elements = _sizes(_SQUARE)
    return Work(
        name=f"koch all pairs {words} backward",
        operation="Koch all pairs, forward + backward",
        stage="forward + backward",
        size=size,
        draw=draws.koch,
        gate=_GATES[True],
        contenders=_both(),
        cost=Cost(
            2 * elements,
            "element",
            "Q S D forward, as many backward for both gradients",
            {"abs": elements, "sign": elements},
        ),
        leaves=("q", "s", "weight", "bias"),
        aims=Aims(
            {"best peer": 9.0, peers.cdist_l1().name: 13.0},
            memory=2 * 4 * size["Q"] * size["S"],
            threads=1.8,
        ),
        memory=True,
        main=True,
    )


def _half() -> Work:
    words, size, elements = _sizes(_SQUARE)
    return Work(
        name=f"koch all pairs {words} backward bfloat16",
        operation="Koch all pairs, forward + backward, bfloat16",
        stage="forward + backward",
        size=size,
        draw=draws.koch_bfloat16,
        gate=_GATES[True],
        contenders=(ours.koch_matrix(), ours.converted(ours.koch_matrix())),
        cost=Cost(2 * elements, "element", "as in float32", {"abs": elements, "sign": elements}),
        leaves=("q", "s", "weight", "bias"),
        aims=Aims({ours.CONVERTED: 1.0}),
        dtype=draws.BFLOAT16,
        full=True,
    )


ROWS = (
    _forward(_SQUARE, 2.5),
    _forward(_SQUARE, 3.0, out=True, threads=1.8),
    _forward(_SQUARE, 3.0, exact=False, out=True),
    _forward(_WIDE, 5.0, full=True),
    _forward(_WIDE, 7.0, out=True, full=True, threads=1.8),
    _forward(_WIDE, 7.0, exact=False, out=True, full=True),
    _backward(),
    _half(),
)
