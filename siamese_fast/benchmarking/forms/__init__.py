"""Forms that we constructed: what a skilled torch user could write, kept in this folder for review.

They are nobody's product, so their ratios stand in a column of their own.
"""

from __future__ import annotations

import torch

from siamese_fast.benchmarking.contender import Call, Contender, Inputs


def compiled(form: Contender) -> Contender:
    """The same form under torch.compile, one graph for the row's size."""

    def build(given: Inputs) -> Call:
        call: Call = torch.compile(form.build(given), fullgraph=True, dynamic=False)
        return call

    return Contender(
        f"torch.compile({form.name})",
        form.column,
        build,
        whole=form.whole,
        compiled=True,
        needs=form.needs,
        answer=form.answer,
    )
