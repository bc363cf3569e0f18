"""Cases of the losses over the triplets of a batch that a rule names, as formulas of the matrix of scores.

Where a score lies beside the kink of a hinge, or beside another so that float32 does not decide which
negative is chosen, pairs and rows are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast.testing.case import Options
from siamese_fast.testing.cases.pairs import DECIDES, Pairs, decided, pair_case, register_variants
from siamese_fast.testing.formulas import hinge


def _soft(options: Options) -> bool:
    return options["margin"] is None or bool(options.get("smooth"))


def _gaps(s: Tensor, positive: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors and positives of all such pairs, and each pair's violations with every column."""
    anchor, index = positive.nonzero(as_tuple=True)
    return anchor, index, s[anchor] - s[anchor, index][:, None] + (options["margin"] or 0.0)


def _batch_all(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    anchor, _, gaps = _gaps(s, positive, options)
    each = torch.where(negative[anchor], hinge(gaps, _soft(options)), 0.0).sum(1)
    return s.new_zeros(s.shape[0]).index_add(0, anchor, each)


def _beside_hinges(pairs: Pairs, options: Options, terms: Tensor) -> tuple[Tensor, Tensor]:
    near, rows = decided(pairs, options, terms)
    if _soft(options):
        return near, rows
    anchor, index, gaps = _gaps(pairs.scores, pairs.positive, options)
    beside = gaps.abs() <= DECIDES * (terms[anchor] + terms[anchor, index][:, None] + 1)
    beside &= pairs.negative[anchor]
    near = near.to(torch.int64).index_add(0, anchor, beside.to(torch.int64)) > 0
    near[anchor, index] |= beside.any(1)
    return near, rows


def _nearest(rivals: Tensor, farther: Tensor, negative: Tensor) -> Tensor:
    """Score of the nearest of the farther negatives, or of the farthest negative where there is none."""
    nearest = rivals.masked_fill(~farther, -torch.inf).max(1).values
    farthest = rivals.masked_fill(~negative, torch.inf).min(1).values
    return torch.where(farther.any(1), nearest, farthest)


def _semi_hard(s: Tensor, positive: Tensor, negative: Tensor, options: Options) -> Tensor:
    anchor, index = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
    losses = s.new_zeros(s.shape[0])
    if anchor.shape[0] == 0:
        return losses + s.sum(1) * 0
    rivals, own, among = s[anchor], s[anchor, index], negative[anchor]
    chosen = _nearest(rivals, among & (rivals < own[:, None]), among)
    return losses.index_add(0, anchor, hinge(chosen - own + (options["margin"] or 0.0), _soft(options)))


def _undecided_choices(pairs: Pairs, options: Options, terms: Tensor) -> tuple[Tensor, Tensor]:
    """Equal rows have equal scores; so have others that are exact, but not those of rows made unit."""
    near, rows = decided(pairs, options, terms)
    anchor, index = (pairs.positive & pairs.negative.any(1, keepdim=True)).nonzero(as_tuple=True)
    if anchor.shape[0] == 0:
        return near, rows
    alike = (pairs.y[:, None] == pairs.y).all(-1)
    exact = not options.get("normalize") and options["metric"] != "cosine"
    rivals, own, among = pairs.scores[anchor], pairs.scores[anchor, index, None], pairs.negative[anchor]
    slack = DECIDES / 8 * (terms[anchor] + terms[anchor, index, None])
    certain = among & (rivals < own - slack)
    tied = (rivals == own) if exact else alike[index]
    possible = among & (rivals < own + slack) & ~tied
    lowest, highest = (_nearest(rivals, farther, among)[:, None] for farther in (certain, possible))
    chosen = among & (((rivals - lowest).abs() <= slack) | ((rivals - highest).abs() <= slack))
    first = chosen.to(torch.uint8).argmax(1)
    other = rivals != rivals.gather(1, first[:, None]) if exact else ~alike[first]
    doubtful = (chosen & other).any(1)
    if not _soft(options):
        violation = highest - own + options["margin"]
        doubtful |= (violation.abs() <= slack.amax(1, keepdim=True))[:, 0]
    near = near.to(torch.int64).index_add(0, anchor[doubtful], chosen[doubtful].to(torch.int64)) > 0
    near[anchor[doubtful], index[doubtful]] = True
    jumps = ((highest - lowest).abs() > slack.amin(1, keepdim=True))[:, 0]
    rows[anchor[jumps]] = True
    return near, rows


def _sharpness(options: Options) -> float:
    return 1.0 if _soft(options) else 0.0


register_variants(
    pair_case("batch_all_triplet_loss", ops.batch_all_triplet_loss, _batch_all, _sharpness, _beside_hinges),
    {
        "euclidean": {"metric": "euclidean", "margin": 0.21, "reduction": "none"},
        "sqeuclidean-unit": {"metric": "sqeuclidean", "normalize": True, "margin": 0.3, "reduction": "mean"},
        "cosine": {"metric": "cosine", "margin": 0.1, "reduction": "mean"},
        "dot": {"metric": "dot", "margin": 0.7, "reduction": "mean"},
        "soft-margin": {"metric": "euclidean", "margin": None, "reduction": "none"},
    },
    with_ref=("euclidean", "dot"),
)
register_variants(
    pair_case(
        "semi_hard_triplet_loss", ops.semi_hard_triplet_loss, _semi_hard, _sharpness, _undecided_choices
    ),
    {
        "euclidean": {"metric": "euclidean", "margin": 0.21, "reduction": "none"},
        "sqeuclidean": {"metric": "sqeuclidean", "margin": 1.3, "reduction": "none"},
        "soft-margin": {"metric": "euclidean", "margin": None, "reduction": "none"},
    },
    with_ref=("euclidean",),
)
