"""What each loss over all pairs makes of a tile of scores: what a row keeps, its loss, the slope of a pair.

Four numbers a row, two by two: the largest exponent and a sum of exponentials relative to it, or two plain
sums. The formulas are those of `siamese_fast.ops`; `a`, `b`, `c` are the parameters as `parameters_of` gives
them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from siamese_fast.kernels.tile import sigmoid, softplus

FORMULA = {"ntxent": 0, "supcon": 1, "contrastive": 2, "multi_similarity": 3, "circle": 4}
NTXENT = tl.constexpr(0)
SUPCON = tl.constexpr(1)
CONTRASTIVE = tl.constexpr(2)
MULTI_SIMILARITY = tl.constexpr(3)
CIRCLE = tl.constexpr(4)


def sweeps(formula: str) -> int:
    """NT-Xent meets the positives once more, when the sum over the negatives is known."""
    return 2 if formula == "ntxent" else 1


def parameters_of(formula: str, parameters: list[float]) -> tuple[float, float, float]:
    if formula in ("ntxent", "supcon"):
        return 1 / parameters[0], 0.0, 0.0
    a, b, *c = parameters
    return a, b, c[0] if c else 0.0


@triton.jit
def finite_shift(largest):
    return tl.where(tl.abs(largest) == float("inf"), 0.0, largest)


@triton.jit
def join_logs(top, total, other_top, other_total):
    """Two sums of exponentials as one, relative to the larger of their largest exponents."""
    largest = tl.maximum(top, other_top)
    shift = finite_shift(largest)
    left = tl.where(total == 0, 0.0, total * tl.exp(finite_shift(top) - shift))
    right = tl.where(other_total == 0, 0.0, other_total * tl.exp(finite_shift(other_top) - shift))
    return largest, left + right


@triton.jit
def add_logs(top, total, exponents, kept):
    """The sum [BM] with the kept exponents [BM, BN] added."""
    exponents = tl.where(kept, exponents, -float("inf"))
    most = tl.max(exponents, 1)
    each = tl.exp(exponents - finite_shift(most)[:, None])
    return join_logs(top, total, most, tl.sum(each, 1))


@triton.jit
def log_of(top, total):
    none = total == 0
    return tl.where(none, -float("inf"), finite_shift(top) + tl.log(tl.where(none, 1.0, total)))


@triton.jit
def starting(FORMULA: tl.constexpr, BM: tl.constexpr):
    """What a row keeps of no pair at all."""
    zero = tl.zeros([BM], tl.float32)
    nothing = zero - float("inf")
    first = zero if FORMULA == CONTRASTIVE else nothing
    second = nothing if FORMULA >= MULTI_SIMILARITY else zero
    return first, zero, second, zero


@triton.jit
def circle_exponent(s, a, b, POSITIVE: tl.constexpr):
    """gamma w (distance to the boundary), the weight w, and that distance."""
    weight = 1.0 + a - s if POSITIVE else s + a
    weight = tl.where(weight < 0, 0.0, weight)
    distance = 1.0 - a - s if POSITIVE else s - a
    return b * weight * distance, weight, distance


@triton.jit
def hinge_sums(total, count, violation, kept):
    hinge = tl.where(kept & ((violation <= 0) == 0), violation, 0.0)
    return total + tl.sum(hinge, 1), count + tl.sum((hinge > 0).to(tl.float32), 1)


@triton.jit
def visit(
    f0, f1, f2, f3, s, positive, negative, against, a, b, c, FORMULA: tl.constexpr, SWEEP: tl.constexpr
):
    """The four numbers [BM] with a tile of scores [BM, BN] added; `against` [BM]: NT-Xent's first result."""
    if FORMULA == NTXENT and SWEEP == 0:
        f0, f1 = add_logs(f0, f1, a * s, negative)
    elif FORMULA == NTXENT:
        counted = positive & (against != -float("inf"))[:, None]
        gap = tl.where(counted, against[:, None] - a * s, 0.0)
        f2 += tl.sum(tl.where(counted, softplus(gap), 0.0), 1)
        f3 += tl.sum(tl.where(counted, sigmoid(gap), 0.0), 1)
    elif FORMULA == SUPCON:
        f0, f1 = add_logs(f0, f1, a * s, positive | negative)
        f2 += tl.sum(tl.where(positive, a * s, 0.0), 1)
    elif FORMULA == CONTRASTIVE:
        f0, f1 = hinge_sums(f0, f1, a - s, positive)
        f2, f3 = hinge_sums(f2, f3, s - b, negative)
    elif FORMULA == MULTI_SIMILARITY:
        f0, f1 = add_logs(f0, f1, a * (c - s), positive)
        f2, f3 = add_logs(f2, f3, b * (s - c), negative)
    else:
        f0, f1 = add_logs(f0, f1, circle_exponent(s, a, b, True)[0], positive)
        f2, f3 = add_logs(f2, f3, circle_exponent(s, a, b, False)[0], negative)
    return f0, f1, f2, f3


@triton.jit
def join(f0, f1, f2, f3, g0, g1, g2, g3, FORMULA: tl.constexpr):
    """The numbers of two sets of pairs as those of their union."""
    if FORMULA == CONTRASTIVE:
        f0, f1 = f0 + g0, f1 + g1
    else:
        f0, f1 = join_logs(f0, f1, g0, g1)
    if FORMULA >= MULTI_SIMILARITY:
        f2, f3 = join_logs(f2, f3, g2, g3)
    else:
        f2, f3 = f2 + g2, f3 + g3
    return f0, f1, f2, f3


@triton.jit
def completed(f0, f1, f2, f3, positives, negatives, a, b, FORMULA: tl.constexpr):
    """The statistics as `Formula.slopes` takes them, up to four, the two losses and the two counts."""
    zero = 0.0 * positives
    some = positives > 0
    if FORMULA == SUPCON:
        share = tl.where(some, 1.0 / tl.where(some, positives, 1.0), 0.0)
        total = log_of(f0, f1)
        loss = tl.where(some, total - f2 * share, 0.0)
        return tl.where(some, total, float("inf")), share, f2, zero, loss, zero, some.to(tl.float32), zero
    if FORMULA == CONTRASTIVE:
        return f0, f1, f2, f3, f0, f2, f1, f3
    if FORMULA == MULTI_SIMILARITY:
        pull = tl.where(some, softplus(log_of(f0, f1)), 0.0)
        push = tl.where(negatives > 0, softplus(log_of(f2, f3)), 0.0)
        loss = pull / a + push / b
        return pull, zero, push, zero, loss, zero, zero + 1.0, zero
    if FORMULA == CIRCLE:
        valid = some & (negatives > 0)
        pull, push = log_of(f0, f1), log_of(f2, f3)
        loss = tl.where(valid, softplus(pull + push), 0.0)
        slope = tl.where(valid, sigmoid(pull + push), 0.0)
        pull, push = tl.where(valid, pull, float("inf")), tl.where(valid, push, float("inf"))
        return pull, slope, push, zero, loss, zero, valid.to(tl.float32), zero
    return f0, zero, f2, f3, f2, zero, positives, zero


@triton.jit
def slope(s, positive, negative, f0, f1, f2, f3, g0, g1, a, b, c, FORMULA: tl.constexpr):
    """d loss / d score times the upstream gradients g0, g1 of the components; 0 for what is no pair."""
    if FORMULA == NTXENT:
        gap = a * s - f0
        pull = tl.where(positive, sigmoid(-gap), 0.0)
        return g0 * a * (tl.where(negative, f3 * tl.exp(gap), 0.0) - pull)
    if FORMULA == SUPCON:
        share = tl.where(positive | negative, tl.exp(a * s - f0), 0.0)
        return g0 * a * (share - tl.where(positive, f1, 0.0))
    if FORMULA == CONTRASTIVE:
        return tl.where(negative & (s - b > 0), g1, 0.0) - tl.where(positive & (a - s > 0), g0, 0.0)
    if FORMULA == MULTI_SIMILARITY:
        push = tl.where(negative, tl.exp(b * (s - c) - f2), 0.0)
        return g0 * (push - tl.where(positive, tl.exp(a * (c - s) - f0), 0.0))
    pull, to_one, before_one = circle_exponent(s, a, b, True)
    push, to_zero, past_zero = circle_exponent(s, a, b, False)
    to_one += c * tl.where(to_one > 0, before_one, 0.0)  # c: 1 if weights take a gradient
    to_zero += c * tl.where(to_zero > 0, past_zero, 0.0)
    pull = tl.where(positive, to_one * tl.exp(pull - f0), 0.0)
    return g0 * b * f1 * (tl.where(negative, to_zero * tl.exp(push - f2), 0.0) - pull)
