"""FitOptions: how long and how to train, and the learning rate that follows from it.

    rate(t) = peak * min(1, (t + 1) / (warm-up + 1)) * (1 + cos(pi t / total)) / 2

for step t = 0, 1, ..., total - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class FitOptions:
    """How long and how to train. Exactly one of `steps`, `epochs` and `minutes` is given.

    Attributes:
        steps: gradient steps.
        epochs: of as many images as the training set has.
        minutes: wall time, turned into a number of steps by timing a few (which leave no trace); that number
            is kept in the checkpoint, so a resumed run still ends at the same step.
        learning_rate: peak of AdamW's; linear warm-up, then half a cosine down to 0.
        weight_decay: on matrices and convolutions only, not on biases, norms and the Koch weights.
        warmup_steps: of the learning rate, at most a tenth of all steps.
        ema: decay of the moving average of the weights, which become the result; None trains without.
        chunk_size: images encoded at a time within a step (`siamese_fast.training.chunked`): the batch is
            then limited by its embeddings, not by the encoder's activations. Same gradients, one forward pass
            more; batch normalisation sees chunks. None encodes the batch at once.
        distributed: train on all ranks of `torch.distributed`, each with a sampler of its own (seeded by its
            rank), and average gradients: losses of `siamese_fast.distributed` are over the batches of all
            ranks. Rank 0 writes the checkpoint, for all, and the logs.
        clip_norm: largest norm of the gradient; None does not clip.
        amp: dtype of automatic mixed precision in the encoder; None computes in full.
        channels_last: memory format of images and convolutions; the faster one on CPUs and tensor cores.
        seed: of augmentation and dropout (plus the rank); samplers have their own.
        log_every, validate_every, checkpoint_every: in steps; 0 validates only at the end.
        checkpoint: file written every so often, at the end and on Ctrl-C; None writes none. It and the two
            below may be given as strings.
        resume: continue from `checkpoint` if it exists.
        log_csv: file that gets a row for each logged step.
        tensorboard: folder for TensorBoard (extra `tensorboard`).
        progress: show a progress bar, on a terminal.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    ema: float | None = 0.99
    chunk_size: int | None = None
    distributed: bool = False
    clip_norm: float | None = None
    amp: Literal["bfloat16", "float16"] | None = None
    channels_last: bool = True
    seed: int = 0
    log_every: int = 20
    validate_every: int = 0
    checkpoint_every: int = 500
    checkpoint: Path | None = None
    resume: bool = False
    log_csv: Path | None = None
    tensorboard: Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        lengths = {"steps": self.steps, "epochs": self.epochs, "minutes": self.minutes}
        given = {name: value for name, value in lengths.items() if value is not None}
        if len(given) != 1 or next(iter(given.values())) <= 0:
            got = given or "none"
            raise ValueError(
                f"exactly one of steps, epochs and minutes must be given, and be above 0; got {got}"
            )
        if self.steps is not None and (isinstance(self.steps, bool) or not isinstance(self.steps, int)):
            raise TypeError(f"steps must be an int, got {self.steps!r}")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
        for name in ("checkpoint", "log_csv", "tensorboard"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        if self.amp not in (None, "bfloat16", "float16"):
            raise ValueError(f"amp must be None, 'bfloat16' or 'float16', got {self.amp!r}")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size must be None or at least 1, got {self.chunk_size}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema must be None or lie in [0, 1), got {self.ema}")


def learning_rate_at(step: int, total: int, options: FitOptions) -> float:
    """Linear warm-up times half a cosine, for step 0, 1, ..., total - 1."""
    warmup = min(options.warmup_steps, total // 10)
    return (
        options.learning_rate
        * min(1.0, (step + 1) / (warmup + 1))
        * 0.5
        * (1 + math.cos(math.pi * step / total))
    )
