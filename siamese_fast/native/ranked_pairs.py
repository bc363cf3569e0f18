"""C++ kernel of `siamese_fast.ops.ranked_pairs`."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.native._call import METRIC, extension
from siamese_fast.native.pair_loss import pair_operands


def ranked_pairs(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
    positives: int,
    negatives: int,
    easy: bool,
    beyond: bool,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    kept, (dtype, team, is_self, *rest) = pair_operands(x, labels, ref, ref_labels, self_index, ignore_label)
    positive, negative = (
        torch.full((x.shape[0], count), -1, dtype=torch.int64) for count in (positives, negatives)
    )
    extension.ranked_pairs(
        dtype,
        team,
        METRIC[metric],
        is_self,
        *rest,
        positives,
        negatives,
        easy,
        beyond,
        positive.data_ptr(),
        negative.data_ptr(),
    )
    del kept
    return positive, negative


KERNELS = {"ranked_pairs": ranked_pairs}
