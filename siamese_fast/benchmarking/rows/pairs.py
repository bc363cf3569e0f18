"""The Koch head on given pairs, and its cross-entropy."""

from __future__ import annotations

from siamese_fast.benchmarking import draws, forms, ours
from siamese_fast.benchmarking.forms import koch as built
from siamese_fast.benchmarking.work import Aims, Cost, Work

_MANY, _DEEP = (65536, 128), (32768, 4096)
_LEAVES = ("h1", "h2", "weight", "bias")


def _sizes(shape: tuple[int, int]) -> tuple[str, dict[str, int], int]:
    """The shape in words, the named sizes, and the bytes of h1 and h2."""
    rows, depth = shape
    return f"{rows}x{depth}", {"B": rows, "D": depth}, 2 * 4 * rows * depth


def _forward(shape: tuple[int, int], *, full: bool = False) -> Work:
    words, size, both = _sizes(shape)
    plain = built.pairs()
    return Work(
        name=f"pairs {words}",
        operation="Koch pairs, forward",
        stage="forward",
        size=size,
        draw=draws.pairs,
        gate=(("l1_similarity", "koch"),),
        contenders=(ours.pairs(), plain, forms.compiled(plain)),
        cost=Cost(both, "byte", "h1 and h2 read once", {"read": both}),
        aims=Aims(share=0.9),
        full=full,
        main=not full,
    )


def _loss(shape: tuple[int, int], ratio: float, *, full: bool = False) -> Work:
    words, size, both = _sizes(shape)
    plain = built.pairs_bce()
    return Work(
        name=f"pairs + BCE {words}",
        operation=f"Koch pairs + cross-entropy {words}, forward + backward",
        stage="forward + backward",
        size=size,
        draw=draws.pairs,
        gate=(("l1_similarity_bce", "mean"),),
        contenders=(ours.pairs_bce(), plain, forms.compiled(plain)),
        cost=Cost(
            3 * both,
            "byte",
            "h1 and h2 read, then read again while two gradients are written",
            {"read": both, "copy": 2 * both},
        ),
        leaves=_LEAVES,
        aims=Aims({forms.compiled(plain).name: ratio}),
        full=full,
        memory=not full,
        main=not full,
    )


def _loss_and_gradients(shape: tuple[int, int], *, full: bool = False) -> Work:
    words, size, both = _sizes(shape)
    form = forms.compiled(built.pairs_bce_grad_out())
    return Work(
        name=f"pairs + BCE {words} out=",
        operation=f"Koch pairs + cross-entropy {words}, loss and gradients, out=",
        stage="forward + backward",
        size=size,
        draw=draws.pairs,
        gate=(("l1_similarity_bce_grad", "mean"),),
        contenders=(ours.pairs_bce_grad(), form),
        cost=Cost(2 * both, "byte", "h1 and h2 read once, two gradients written", {"copy": 2 * both}),
        aims=Aims({form.name: 4.0}, share=0.9),
        full=full,
        main=not full,
    )


def _half() -> Work:
    words, size, both = _sizes(_MANY)
    return Work(
        name=f"pairs + BCE {words} bfloat16",
        operation="Koch pairs + cross-entropy, bfloat16",
        stage="forward + backward",
        size=size,
        draw=draws.pairs_bfloat16,
        gate=(("l1_similarity_bce", "mean"),),
        contenders=(ours.pairs_bce(), ours.converted(ours.pairs_bce())),
        cost=Cost(1.5 * both, "byte", "as in float32, of half the bytes", {"read": both / 2, "copy": both}),
        leaves=_LEAVES,
        aims=Aims({ours.CONVERTED: 1.0}),
        dtype=draws.BFLOAT16,
    )


ROWS = (
    _forward(_MANY),
    _forward(_DEEP, full=True),
    _loss(_MANY, 1.0),
    _loss(_DEEP, 1.15, full=True),
    _loss_and_gradients(_MANY),
    _loss_and_gradients(_DEEP, full=True),
    _half(),
)
