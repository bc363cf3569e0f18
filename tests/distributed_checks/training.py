"""fit on several ranks: the weights of one process on the whole batch, one checkpoint, one decision."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import siamese_fast
from distributed_checks.common import raises
from siamese_fast import distributed
from siamese_fast.data import Augmentation, ImageSet, PKSampler
from siamese_fast.distributed import BatchHardTripletLoss
from siamese_fast.distributed.world import World
from siamese_fast.losses import KochSoftmaxLoss
from siamese_fast.network import DistanceHead, KochHead, MLPEncoder, SiameseNetwork
from siamese_fast.training import FitOptions, fit, read_checkpoint

SIDE = 6
QUIET: dict[str, Any] = {"progress": False, "warmup_steps": 2, "ema": 0.8, "distributed": True}


def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(6)
    pixels = torch.randint(256, (60, SIDE, SIDE), generator=generator).byte()
    return ImageSet(pixels, labels, tuple(f"class {i}" for i in range(10)))


class Dealt:
    """Batches of 24; rank r of W takes every W-th image: all together are the batch of one process."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.step = rank, size, 0

    def __next__(self) -> Tensor:
        order = torch.randperm(60, generator=torch.Generator().manual_seed(self.step))[:24]
        self.step += 1
        return order[self.rank :: self.size]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.step = state["step"]


def network(seed: int = 0, dropout: float = 0.0) -> SiameseNetwork:
    torch.manual_seed(seed)
    layers = [nn.Linear(SIDE * SIDE, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 8, bias=False)]
    return SiameseNetwork(nn.Sequential(nn.Flatten(), *layers), DistanceHead())


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def same_everywhere(world: World, value: Tensor) -> bool:
    gathered = world.gather(value)
    return bool((gathered == gathered[0]).all())


def check_fit_is_fit_in_one_process(world: World) -> None:
    for chunk_size in (None, 5):
        options = FitOptions(steps=5, chunk_size=chunk_size, clip_norm=0.5, **QUIET)
        together = network(seed=world.rank)  # rank 0's weights count
        history = fit(together, BatchHardTripletLoss(None), images(), Dealt(world.rank, world.size), options)
        alone = network(seed=0)
        expected = fit(
            alone,
            siamese_fast.BatchHardTripletLoss(None),
            images(),
            Dealt(0, 1),
            replace(options, distributed=False, chunk_size=None),
        )
        assert same_everywhere(world, weights(together))
        torch.testing.assert_close(weights(together), weights(alone), rtol=1e-4, atol=1e-5)
        assert abs(history.last("loss") - expected.last("loss")) < 1e-5


def check_every_loss_of_the_family_trains(world: World) -> None:
    names = ("NTXentLoss", "SupConLoss", "ContrastiveLoss", "MultiSimilarityLoss", "CircleLoss")
    options = FitOptions(steps=3, chunk_size=5, **QUIET)
    alone_options = replace(options, distributed=False, chunk_size=None)
    for name in (*names, "BatchAllTripletLoss"):
        strategy = {"strategy": "ring"} if name in names else {}
        together, alone = network(), network()
        history = fit(
            together,
            getattr(distributed, name)(**strategy),
            images(),
            Dealt(world.rank, world.size),
            options,
        )
        expected = fit(alone, getattr(siamese_fast, name)(), images(), Dealt(0, 1), alone_options)
        assert same_everywhere(world, weights(together))
        # Adam's first steps take the sign of a gradient: one near 0 may go either way.
        torch.testing.assert_close(weights(together), weights(alone), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(history.last("loss"), expected.last("loss"), rtol=1e-4, atol=1e-5)


def check_losses_of_one_rank_are_averaged(world: World) -> None:
    """A loss that knows of no ranks, with a head that trains and normalisation whose statistics differ."""
    torch.manual_seed(world.rank)
    encoder = nn.Sequential(MLPEncoder(SIDE * SIDE, (16,), 8), nn.BatchNorm1d(8))
    trained = SiameseNetwork(encoder, KochHead(8))
    sampler = PKSampler(images().labels, 4, 3, generator=world.rank)
    fit(trained, KochSoftmaxLoss(trained.head), images(), sampler, FitOptions(epochs=2, **QUIET))
    for value in trained.state_dict().values():
        assert same_everywhere(world, value.double().nan_to_num(-1.0))


def run(
    world: World, path: Path, augment: Callable[[Tensor, torch.Generator], Tensor], **options: Any
) -> SiameseNetwork:
    trained = network(dropout=0.2)
    sampler = PKSampler(images().labels, 4, 3, generator=world.rank)
    chosen = FitOptions(steps=9, checkpoint=path, resume=True, checkpoint_every=4, **QUIET)
    chosen = replace(chosen, **options)
    loss = BatchHardTripletLoss(None) if chosen.distributed else siamese_fast.BatchHardTripletLoss(None)
    fit(trained, loss, images(), sampler, chosen, augment=augment)
    return trained


def check_an_interrupted_run_resumes_to_the_same_bits(world: World) -> None:
    """Ctrl-C reaches one rank; all stop after the same step, and go on with their own random numbers."""
    folder = Path(world.shared(tempfile.mkdtemp))
    augment = Augmentation(size=SIDE, blur=0.0)
    whole = run(world, folder / "whole.pt", augment)
    calls = iter(range(100))

    def interrupted(batch: Tensor, generator: torch.Generator) -> Tensor:
        if next(calls) == 5 and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return augment(batch, generator)

    raises(KeyboardInterrupt, "", lambda: run(world, folder / "parts.pt", interrupted))  # type: ignore[arg-type]
    assert read_checkpoint(folder / "parts.pt")["step"] == 6
    steps = []

    def counted(batch: Tensor, generator: torch.Generator) -> Tensor:
        steps.append(len(batch))
        return augment(batch, generator)

    resumed = run(world, folder / "parts.pt", counted)
    assert len(steps) == 3  # of 9: it went on from step 6
    assert torch.equal(weights(resumed), weights(whole)) and same_everywhere(world, weights(whole))
    states = [state["torch_generator"] for state in read_checkpoint(folder / "parts.pt")["ranks"]]
    assert len(states) == world.size and not torch.equal(states[0], states[1])
    alone = {"distributed": False}
    raises(
        ValueError,
        f"of {world.size} ranks, this run has 1",
        lambda: run(world, folder / "parts.pt", augment, **alone),
    )
    dist.barrier()
    assert sorted(path.name for path in folder.iterdir()) == ["parts.pt", "whole.pt"]


def check_options_that_differ_are_an_error_on_every_rank(world: World) -> None:
    folder, odd = Path(world.shared(tempfile.mkdtemp)), world.rank == world.size - 1
    differing: dict[str, Any] = {"steps": 9 + odd, "resume": odd, "checkpoint_every": 4 + odd}
    differing |= {"checkpoint": None if odd else folder / "run.pt", "amp": "bfloat16" if odd else None}
    differing |= {"clip_norm": 1.0 + odd}
    for name, value in differing.items():
        call = partial(run, world, folder / "run.pt", _unchanged, **{name: value})
        raises(ValueError, f"{name}.* must be the same on every rank", call)
    lengths = {"steps": None, "epochs": 1.0} if odd else {}
    raises(
        ValueError, "steps must be the same", partial(run, world, folder / "run.pt", _unchanged, **lengths)
    )


def check_a_loss_over_all_ranks_needs_distributed(world: World) -> None:
    def alone(loss: nn.Module) -> None:
        options = FitOptions(steps=1, **{**QUIET, "distributed": False})
        fit(network(), loss, images(), PKSampler(images().labels, 4, 3), options)

    for loss in (BatchHardTripletLoss(None), distributed.SupConLoss()):
        raises(ValueError, "set distributed=True", partial(alone, loss))


def _unchanged(batch: Tensor, generator: torch.Generator) -> Tensor:
    return batch


def check_a_failing_rank_is_an_error_on_every_rank(world: World) -> None:
    folder = Path(world.shared(tempfile.mkdtemp))

    def broken(batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch * torch.nan if world.rank == 0 else batch

    raises(FloatingPointError, "at step 0", lambda: run(world, folder / "run.pt", broken))
    (folder / "file").touch()
    raises(Exception, "", lambda: run(world, folder / "file" / "run.pt", Augmentation(size=SIDE)))
