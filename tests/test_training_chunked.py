"""Encoding in chunks: the gradient of the plain step, random numbers replayed, less memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import build, images, weights
from torch import Tensor, nn

from siamese_fast.losses import BatchHardTripletLoss
from siamese_fast.network import DistanceHead, SiameseNetwork
from siamese_fast.training import FitOptions, fit
from siamese_fast.training.chunked import encode_in_chunks


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    module.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def encoder(*extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), *extra, nn.Linear(16, 5)).double()


@pytest.mark.parametrize("size", [1, 4, 7, 20, 99])
@pytest.mark.parametrize(
    "loss", [BatchHardTripletLoss(None), lambda h, labels: h.square().logsumexp(0).sum()]
)
def test_gradients_are_those_of_the_plain_step(loss: Any, size: int) -> None:
    module, batch, labels = encoder(), torch.randn(20, 3, 4).double(), torch.arange(20) % 4
    plain = gradients(module, loss(module(batch), labels))
    chunked = gradients(module, loss(encode_in_chunks(module, batch, size, module), labels))
    assert len(plain) == 4
    for got, expected in zip(chunked, plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("extra", [nn.Dropout(0.5), nn.BatchNorm1d(16)], ids=["dropout", "batch norm"])
def test_random_numbers_are_replayed_and_statistics_counted_once(extra: nn.Module) -> None:
    """The plain step over the same chunks is the reference, to the last bit of every buffer."""
    batch, labels = torch.randn(20, 3, 4).double(), torch.arange(20) % 4
    found = []
    for chunked in (False, True):
        module = encoder(extra)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.reset_running_stats()
        torch.manual_seed(1)
        h = (
            encode_in_chunks(module, batch, 6, module)
            if chunked
            else torch.cat([module(chunk) for chunk in batch.split(6)])
        )
        grads = gradients(module, BatchHardTripletLoss(None)(h, labels))
        found.append([*grads, *(buffer.clone() for buffer in module.buffers()), torch.rand(3)])
    for plain, got in zip(*found, strict=True):
        torch.testing.assert_close(got, plain, rtol=1e-12, atol=1e-14)


def test_fit_in_chunks_is_fit(tmp_path: Path) -> None:
    """Same weights to rounding for an encoder that looks at one image at a time; resumed to the bit.

    No bias at the end: distances do not see it, and the optimizer would blow up rounding of gradient 0.
    """

    def run(steps: int = 6, **options: Any) -> Tensor:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 24), nn.Tanh(), nn.Linear(24, 8, bias=False))
        network = SiameseNetwork(layers, DistanceHead())
        fit(network, BatchHardTripletLoss(None), images(), build("triplets")[2], _options(steps, **options))
        return weights(network)

    torch.testing.assert_close(run(chunk_size=5), run(), rtol=1e-4, atol=1e-5)
    again = {"chunk_size": 7, "checkpoint": tmp_path / "run.pt", "resume": True}
    whole = run(chunk_size=7)
    with pytest.raises(FloatingPointError):
        _broken_at(4, again)
    assert torch.equal(run(**again), whole)


def test_pairs_are_encoded_in_chunks_too() -> None:
    network, loss, sampler = build("pairs")
    sizes: list[int] = []
    network.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    fit(network, loss, images(), sampler, _options(1, chunk_size=10))
    assert sizes[:4] == [10, 10, 10, 2] and sorted(sizes[4:]) == [2, 10, 10, 10]


def test_chunk_size_is_checked() -> None:
    with pytest.raises(ValueError, match="chunk_size must be None or at least 1, got 0"):
        FitOptions(steps=1, chunk_size=0)


MEASURE = """
import json, sys, torch
from torch import nn
from siamese_fast import BatchHardTripletLoss
from siamese_fast.training.chunked import encode_in_chunks
torch.set_num_threads(1)
layers = [nn.Linear(64, 512), nn.Tanh()]
for _ in range(5):
    layers += [nn.Linear(512, 512), nn.Tanh()]
encoder = nn.Sequential(*layers, nn.Linear(512, 16))
batch, labels = torch.randn(4096, 64), torch.arange(4096) // 4
size = None if sys.argv[1] == "None" else int(sys.argv[1])
encode_in_chunks(encoder, batch[:64], 32, encoder).sum().backward()

def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
BatchHardTripletLoss(None)(encode_in_chunks(encoder, batch, size, encoder), labels).backward()
print(json.dumps((kilobytes("VmHWM") - before) * 1024))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_one_chunk() -> None:
    """Activations of the whole batch: at least 6 layers x 4096 x 512 x 4 bytes = 50 MB."""

    def peak(size: int | None) -> int:
        command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return int(json.loads(done.stdout))

    whole, chunked = peak(None), peak(128)
    assert whole > 50e6 and chunked < whole / 3, (whole, chunked)


def _options(steps: int, **options: Any) -> FitOptions:
    return FitOptions(steps=steps, progress=False, warmup_steps=2, ema=0.8, checkpoint_every=2, **options)


def _broken_at(step: int, options: dict[str, Any]) -> None:
    """A run of 6 steps whose loss is not finite at one of them."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 24), nn.Tanh(), nn.Linear(24, 8, bias=False))
    calls = iter(range(100))

    def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch * torch.nan if next(calls) == step else batch

    loss = BatchHardTripletLoss(None)
    network = SiameseNetwork(layers, DistanceHead())
    fit(network, loss, images(), build("triplets")[2], _options(6, **options), augment=augment)
