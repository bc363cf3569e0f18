"""fit: the training loop of both methods, in one sentence a step.

    batch = next(sampler)                   # indices of P x K images, or of balanced pairs with targets
    embeddings = encoder(augment(images))
    loss(embeddings, labels)                # or loss(h1, h2, target)

Then backward, clip the gradient, AdamW at a cosine learning rate, and the moving average of the weights.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from siamese_fast.data import ImageSet
from siamese_fast.distributed.modules import AcrossRanks
from siamese_fast.distributed.world import World
from siamese_fast.network import SiameseNetwork
from siamese_fast.training.chunked import encode_in_chunks
from siamese_fast.training.history import History, Log
from siamese_fast.training.interrupt import interruptible
from siamese_fast.training.options import FitOptions, learning_rate_at
from siamese_fast.training.progress import training_bar
from siamese_fast.training.ranks import Ranks
from siamese_fast.training.state import Sampler, TrainingState, resume, write_checkpoint

Augment = Callable[[Tensor, torch.Generator], Tensor]
Validate = Callable[[SiameseNetwork], Mapping[str, float]]
Batch = Tensor | tuple[Tensor, Tensor, Tensor]

_EXCHANGES = ("steps", "epochs", "minutes", "resume", "checkpoint_every", "amp")
_UPDATE = ("learning_rate", "weight_decay", "warmup_steps", "clip_norm", "ema")
_UNTIMED_STEPS, _TIMED_STEPS = 3, 10


def fit(
    network: SiameseNetwork,
    loss: nn.Module,
    images: ImageSet,
    sampler: Sampler,
    options: FitOptions,
    *,
    augment: Augment | None = None,
    validate: Validate | None = None,
) -> History:
    """Train `network` in place, on its device; afterwards it holds the averaged weights, in evaluation mode.

    Args:
        network: its encoder takes what `augment` returns (or `images.tensor(...)`).
        loss: `loss(embeddings [N, D], labels [N])` if the sampler gives index tensors `[N]`;
            `loss(h1, h2, target)` if it gives `(index_a, index_b, target)`. Its own parameters train too.
        images: the training set.
        sampler: endless, with `state_dict` and `load_state_dict` (`PKSampler`, `PairSampler`).
        options: length, optimizer, checkpoint, log.
        augment: `augment(images, generator) -> images`.
        validate: called with the averaged network in evaluation mode; what it returns is logged.

    Returns:
        The history, for the learning curve.

    Raises:
        FloatingPointError: the loss is not finite.
        KeyboardInterrupt: Ctrl-C, after the current step is finished and the checkpoint written.
        ValueError: the checkpoint to resume belongs to a run of another length, or of other ranks; options
            that differ between ranks; a loss over all ranks without `distributed`.

    Example:
        >>> sampler = PKSampler(letters.labels, p=32, k=4)
        >>> history = fit(network, BatchHardTripletLoss(None), letters, sampler, FitOptions(steps=500))
    """
    trainer = _Trainer(network, loss, images, sampler, options, augment)
    state, ranks = trainer.state, trainer.ranks
    if options.minutes is None:
        state.total = _total_steps(options, images, sampler, ranks)
    checkpoint = options.checkpoint
    if options.resume and checkpoint is not None and ranks.any(ranks.rank == 0 and checkpoint.exists()):
        asked = state.total
        resume(state, checkpoint, ranks)
        if asked not in (0, state.total):
            raise ValueError(
                f"checkpoint {checkpoint} is of a run of {state.total} steps, options ask for {asked}"
            )
    elif options.minutes is not None:
        state.total = trainer.steps_in(options.minutes)
    first = ranks.rank == 0
    log = Log(state.history, options.log_csv if first else None, options.tensorboard if first else None)
    try:
        _run(trainer, log, validate)
    finally:
        log.close()
    if state.averaged is not network:
        network.load_state_dict(state.averaged.state_dict())
    ranks.synchronise(network)  # running statistics are each rank's own
    network.eval()
    return state.history


def _run(trainer: _Trainer, log: Log, validate: Validate | None) -> None:
    state, options, ranks = trainer.state, trainer.options, trainer.ranks
    with (
        training_bar(state, shown=options.progress and ranks.rank == 0) as show,
        interruptible() as interrupted,
    ):
        while state.step < state.total:
            rate = trainer.train_step()
            last = state.step == state.total
            validating = validate is not None and (last or _due(state.step, options.validate_every))
            if last or validating or _due(state.step, options.log_every):
                measured = _validated(validate, state) if validate is not None and validating else {}
                log.add(_row(state, rate, measured))
                show(state.history.rows[-1])
            stop = ranks.any(interrupted.is_set()) and not last
            if options.checkpoint is not None and (
                last or stop or _due(state.step, options.checkpoint_every)
            ):
                write_checkpoint(state, options.checkpoint, ranks)
            if stop:
                raise KeyboardInterrupt


class _Trainer:
    """One step of training, and what it needs."""

    def __init__(
        self,
        network: SiameseNetwork,
        loss: nn.Module,
        images: ImageSet,
        sampler: Sampler,
        options: FitOptions,
        augment: Augment | None,
    ) -> None:
        self.options, self.images, self.augment = options, images, augment
        self.ranks = Ranks(alone=not options.distributed)
        self.ranks.agreed(lambda: _check_ranks(loss, options), lambda _: ((), _settings(options)))
        self.device = next(network.parameters()).device
        self.format = torch.channels_last if options.channels_last else torch.contiguous_format
        # mypy: the stub of Module.to knows no memory_format alone.
        network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.network, self.loss = network, loss.to(self.device)
        self.ranks.synchronise(network, loss)
        self.parameters = list(dict.fromkeys([*network.parameters(), *loss.parameters()]))
        scaler = torch.amp.GradScaler(self.device.type, enabled=options.amp == "float16")
        self.state = TrainingState(
            network,
            loss,
            _optimizer(self.parameters, options),
            sampler,
            seed=options.seed + self.ranks.rank,
            ema=options.ema,
            scaler=scaler,
        )

    def train_step(self) -> float:
        """Change the weights once; returns the learning rate used."""
        state, options = self.state, self.options
        rate = learning_rate_at(state.step, state.total, options)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        loss = self._loss_of(next(state.sampler))
        value = self.ranks.mean(float(loss.detach()))
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} at step {state.step}: lower learning_rate or set clip_norm"
            )
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        self.ranks.average_gradients(self.parameters)
        if options.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, options.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.advance(value)
        return rate

    def _loss_of(self, batch: Batch) -> Tensor:
        if isinstance(batch, Tensor):
            labels = self.images.labels[batch].to(self.device)
            return cast(Tensor, self.loss(self._embed(batch), labels))
        first, second, target = batch
        # One pass for both branches: the same weights, and the same batch statistics.
        h1, h2 = self._embed(torch.cat([first, second])).split([len(first), len(second)])
        return cast(Tensor, self.loss(h1, h2, target.to(self.device)))

    def _embed(self, indices: Tensor) -> Tensor:
        batch = self.images.tensor(indices)
        if self.augment is not None:
            batch = self.augment(batch, self.state.generator)
        batch = batch.to(self.device)
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=self.format)
        return encode_in_chunks(self._encode, batch, self.options.chunk_size, self.network).float()

    def _encode(self, batch: Tensor) -> Tensor:
        dtype = torch.float16 if self.options.amp == "float16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.options.amp is not None):
            return self.network.embed(batch)

    def steps_in(self, minutes: float) -> int:
        """How many steps fit in so many minutes, by timing a few and putting everything back as it was."""
        before = copy.deepcopy(self.state.state_dict())
        self.state.total = _UNTIMED_STEPS + _TIMED_STEPS
        for _ in range(_UNTIMED_STEPS):
            self.train_step()
        start = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            self.train_step()
        seconds = (time.perf_counter() - start) / _TIMED_STEPS
        self.state.load_state_dict(before)
        return int(self.ranks.shared(lambda: max(1, round(60 * minutes / seconds))))


def _check_ranks(loss: nn.Module, options: FitOptions) -> None:
    across = [part for part in loss.modules() if isinstance(part, AcrossRanks)]
    if not options.distributed and any(World(part.group).size > 1 for part in across):
        raise ValueError(
            "loss is over the embeddings of all ranks, and options train on this rank alone: set "
            "distributed=True, or use the loss of that name in siamese_fast"
        )


def _settings(options: FitOptions) -> dict[str, Any]:
    """What must be the same on every rank: the exchanges of a run, and what is done with the gradient."""
    return {"checkpoint is given": options.checkpoint is not None} | {
        name: getattr(options, name) for name in _EXCHANGES + _UPDATE
    }


def _optimizer(parameters: list[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)


def _total_steps(options: FitOptions, images: ImageSet, sampler: Sampler, ranks: Ranks) -> int:
    if options.steps is not None:
        return options.steps
    epochs = options.epochs
    assert epochs is not None
    before = sampler.state_dict()
    batch = next(sampler)
    sampler.load_state_dict(before)
    used = len(batch) if isinstance(batch, Tensor) else len(batch[0]) + len(batch[1])
    return int(ranks.shared(lambda: max(1, round(epochs * len(images) / (used * ranks.size)))))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _validated(validate: Validate, state: TrainingState) -> Mapping[str, float]:
    network = state.averaged
    network.eval()
    with torch.no_grad():
        return validate(network)


def _row(state: TrainingState, rate: float, measured: Mapping[str, float]) -> dict[str, float]:
    seconds, cpu_seconds = state.clock.elapsed()
    row: dict[str, Any] = {"step": state.step, "loss": state.mean_loss(), "learning_rate": rate}
    return {**row, "seconds": seconds, "cpu_seconds": cpu_seconds, **measured}
