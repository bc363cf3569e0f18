"""C++ kernel of `siamese_fast.ops.hardest_pairs`."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.native._call import DTYPE, METRIC, address, extension, operand, threads


def hardest_pairs(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    metric: str,
) -> tuple[Tensor, Tensor]:
    x, labels = x.contiguous(), operand("labels", labels, torch.int64, (x.shape[0],))
    if ref is not None and ref_labels is not None:
        ref = operand("ref", ref, x.dtype, (ref.shape[0], x.shape[1]))
        ref_labels = operand("ref_labels", ref_labels, torch.int64, (ref.shape[0],))
    if self_index is not None:
        self_index = operand("self_index", self_index, torch.int64, (x.shape[0],))
    positive, negative = torch.empty_like(labels), torch.empty_like(labels)
    extension.hardest_pairs(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        ref is None,
        x.shape[0],
        x.shape[0] if ref is None else ref.shape[0],
        x.shape[1],
        x.data_ptr(),
        address(ref),
        labels.data_ptr(),
        address(ref_labels),
        address(self_index),
        positive.data_ptr(),
        negative.data_ptr(),
    )
    return positive, negative


KERNELS = {"hardest_pairs": hardest_pairs}
