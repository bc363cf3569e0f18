"""What training watches of a batch's triplets, on the device and without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

Statistics = dict[str, Tensor]


def triplet_statistics(x: Tensor, losses: Tensor, d_ap: Tensor, d_an: Tensor, valid: Tensor) -> Statistics:
    """Of the valid triplets, detached scalars:

    - `triplets`: their number;
    - `active`: the fraction with a loss above 0 (1 for a soft margin, which has no bound);
    - `d_ap`, `d_an`: the mean distances of positives and of negatives;
    - `spread`: mean |x - mean x|^2 / mean |x|^2 over the rows `x` [N, D]: 0 where all embeddings are one
      point, the collapse of training, 1 where their mean is the origin.
    """
    number = valid.sum()
    some = number.clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(valid, values.detach(), 0.0).sum() / some

    return {
        "triplets": number,
        "active": mean((losses > 0).to(losses.dtype)),
        "d_ap": mean(d_ap),
        "d_an": mean(d_an),
        "spread": spread(x),
    }


def spread(x: Tensor) -> Tensor:
    rows = x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    size = rows.square().sum()
    centred = (rows - rows.mean(0, keepdim=True)).square().sum()
    return torch.where(size > 0, centred / torch.where(size > 0, size, 1.0), 0.0)
