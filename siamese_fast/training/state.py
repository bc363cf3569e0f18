"""All that decides the next step of a training run, in one place: what a checkpoint holds is what is here.

Weights, their moving average, the loss's own parameters, the optimizer, the random generators, the sampler,
the step count and the history. A run that is stopped and resumed from its checkpoint continues to the same
bits (same machine, threads and step count).
"""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from siamese_fast.data._cache import written_whole
from siamese_fast.network import SiameseNetwork
from siamese_fast.training.history import History
from siamese_fast.training.ranks import Ranks

_FORMAT = 2
_OF_ONE_RANK = ("sampler", "generator", "torch_generator", "cuda_generators")


class Sampler(Protocol):
    """What training asks of a sampler: batches of indices without end, and a state to resume from."""

    def __next__(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class TrainingState:
    """The parts of a run and their `state_dict`.

    Args:
        network: trained in place.
        loss: its own parameters, if any, are trained too.
        optimizer: of the network's parameters (and the loss's own, if any).
        sampler: gives the batches.
        seed: of the augmentation's generator and of torch's own.
        ema: decay of the moving average of the weights; None for none.
        scaler: of the gradients, for float16.
    """

    def __init__(
        self,
        network: SiameseNetwork,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        sampler: Sampler,
        *,
        seed: int,
        ema: float | None,
        scaler: torch.amp.GradScaler,
    ) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.sampler = sampler
        self.scaler = scaler
        self.history = History()
        self.step = 0
        self.total = 0
        self.clock = Clock()
        self._losses: list[float] = []
        self._average: torch.optim.swa_utils.AveragedModel | None = None
        if ema is not None:
            swa = torch.optim.swa_utils
            self._average = swa.AveragedModel(
                network, multi_avg_fn=swa.get_ema_multi_avg_fn(ema), use_buffers=True
            )

    def advance(self, loss: float) -> None:
        """Count a step that changed the weights, and its loss."""
        self.step += 1
        self._losses.append(loss)
        if self._average is not None:
            self._average.update_parameters(self.network)

    def mean_loss(self) -> float:
        """The mean loss of the steps since the last call."""
        mean = sum(self._losses) / max(1, len(self._losses))
        self._losses.clear()
        return mean

    @property
    def averaged(self) -> SiameseNetwork:
        """The network with averaged weights; the trained one itself where none are kept."""
        return self.network if self._average is None else cast(SiameseNetwork, self._average.module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "step": self.step,
            "total": self.total,
            "clock": self.clock.elapsed(),
            "network": self.network.state_dict(),
            "loss": self.loss.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sampler": self.sampler.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            "history": self.history.rows,
            "losses": self._losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.total = state["step"], state["total"]
        self.clock.restart(state["clock"])
        self.network.load_state_dict(state["network"])
        self.loss.load_state_dict(state["loss"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(state["sampler"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        if state["cuda_generators"]:
            torch.cuda.set_rng_state_all(state["cuda_generators"])
        self.history.rows[:] = state["history"]
        self._losses[:] = state["losses"]


class Clock:
    """Wall and CPU seconds of a run, carried over interruptions."""

    def __init__(self) -> None:
        self.restart((0.0, 0.0))

    def restart(self, elapsed: tuple[float, float]) -> None:
        self._wall = time.perf_counter() - elapsed[0]
        self._cpu = time.process_time() - elapsed[1]

    def elapsed(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def write_checkpoint(state: TrainingState, path: Path, ranks: Ranks) -> None:
    """Write the whole state, or leave the file that is there untouched: an interrupted write destroys
    nothing. Rank 0 writes, with what differs between ranks of every rank.
    """
    content = state.state_dict()
    if ranks.size > 1:
        content["ranks"] = ranks.gather_states({name: content[name] for name in _OF_ONE_RANK})

    def write() -> None:
        if ranks.rank == 0:
            with written_whole(path) as partial:
                torch.save(content, partial)

    ranks.attempt(write)


def resume(state: TrainingState, path: Path, ranks: Ranks) -> None:
    """Continue from a checkpoint that as many ranks wrote; ValueError otherwise, on every rank."""

    def read() -> dict[str, Any]:
        content = read_checkpoint(path)
        each = content.get("ranks", [{}])
        if len(each) != ranks.size:
            raise ValueError(f"checkpoint {path} is of {len(each)} ranks, this run has {ranks.size}")
        return {**content, **each[ranks.rank]}

    state.load_state_dict(ranks.attempt(read))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors, numbers, strings and containers of them; no code is run.

    `["network"]` is the trained network's `state_dict`, `["average"]` that of the averaged one (its
    names start with `module.`).

    Raises:
        ValueError: the file was not written by `fit`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"checkpoint must be one written by fit; {path} is damaged or another file"
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"checkpoint must be one written by fit, format {_FORMAT}; got {path}")
    return state
