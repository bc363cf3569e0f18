"""fit: both methods learn, a stopped run resumes to the same bits, Ctrl-C leaves a checkpoint; recipes."""

from __future__ import annotations

import csv
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from siamese_fast.data import Augmentation, ImageSet, PairSampler, PKSampler
from siamese_fast.losses import BatchHardTripletLoss, KochAllPairsLoss, KochPairLoss, KochSoftmaxLoss
from siamese_fast.network import ConvEncoder, DistanceHead, KochHead, SiameseNetwork
from siamese_fast.recipes import RECIPES, train_recipe
from siamese_fast.training import FitOptions, History, fit, read_checkpoint
from siamese_fast.training.options import learning_rate_at

SIDE = 12
QUIET: dict[str, Any] = {"progress": False, "warmup_steps": 5, "ema": 0.8}


def images(seed: int = 0, classes: int = 12, each: int = 8) -> ImageSet:
    """Noisy copies of random 12x12 patterns: other seeds are other classes."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, SIDE, SIDE, generator=generator)
    labels = torch.arange(classes).repeat_interleave(each)
    noisy = 0.5 * patterns[labels] + 0.5 * torch.rand(len(labels), SIDE, SIDE, generator=generator)
    return ImageSet((noisy * 255).byte(), labels, tuple(f"class {i}" for i in range(classes)))


def build(method: str, seed: int = 0) -> tuple[SiameseNetwork, nn.Module, Any]:
    """A small network with its loss and sampler."""
    torch.manual_seed(seed)
    encoder = ConvEncoder(image_size=SIDE, channels=(8, 8))
    koch = method != "triplets"
    network = SiameseNetwork(encoder, KochHead(encoder.out_features) if koch else DistanceHead())
    losses = {"pairs": KochPairLoss, "bce": KochAllPairsLoss, "softmax": KochSoftmaxLoss}
    loss = losses[method](network.head) if koch else BatchHardTripletLoss(None)
    labels = images().labels
    return (
        network,
        loss,
        PairSampler(labels, 16, seed) if method == "pairs" else PKSampler(labels, 6, 4, seed),
    )


def one_shot(network: SiameseNetwork, test: ImageSet) -> float:
    """Accuracy of the first example of each class as support and all others as queries."""
    h = network.encode(test.tensor())
    support = torch.tensor([int((test.labels == c).nonzero()[0]) for c in range(test.num_classes)])
    answer = network.head.matrix(h, h[support]).argmax(1)
    return float((answer == test.labels).float().mean())


def weights(network: nn.Module) -> Tensor:
    values = torch.cat([value.flatten().double() for value in network.state_dict().values()])
    return values.nan_to_num(-1.0)  # the false-accept rate before calibration


class Proxies(nn.Module):
    """Softmax over the similarities to one trained proxy a class."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.proxies = nn.Parameter(torch.randn(12, depth, generator=generator))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(embeddings @ self.proxies.T, labels)


METHODS = ("triplets", "softmax", "bce", "pairs")


@pytest.mark.parametrize("method", METHODS)
def test_both_methods_learn(method: str) -> None:
    network, loss, sampler = build(method)
    before = {name: value.clone() for name, value in network.named_parameters()}
    history = fit(network, loss, images(), sampler, FitOptions(steps=60, log_every=10, **QUIET))
    steps, losses = history.curve("loss")
    assert steps == [10, 20, 30, 40, 50, 60] and losses[-1] < losses[0]
    assert one_shot(network, images(seed=1)) > 0.6  # chance: 0.08
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())
    assert not network.training


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_the_first_layer_and_the_head(method: str) -> None:
    network, loss, sampler = build(method)
    batch = next(sampler)
    h = network.embed(images().tensor(batch if isinstance(batch, Tensor) else torch.cat(batch[:2])))
    if isinstance(batch, Tensor):
        loss(h, images().labels[batch]).backward()
    else:
        loss(*h.chunk(2), batch[2]).backward()
    for name, parameter in network.named_parameters():
        if (method, name) != ("softmax", "head.bias"):  # which a softmax cancels
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


class TestResume:
    @pytest.mark.parametrize("method", METHODS)
    def test_to_the_same_bits(self, method: str, tmp_path: Path) -> None:
        augment = Augmentation(size=SIDE, blur=0.3, blur_sizes=(5, 8))

        def run(path: Path, stop_after: int | None = None) -> tuple[SiameseNetwork, History | None]:
            network, loss, sampler = build(method)
            network.encoder.layers.append(nn.Dropout(0.2))  # type: ignore[union-attr, operator]
            options = FitOptions(
                steps=12,
                checkpoint=path,
                resume=True,
                checkpoint_every=5,
                log_every=4,
                clip_norm=1.0,
                **QUIET,
            )
            interrupt = _after(stop_after, augment) if stop_after else augment
            try:
                return network, fit(network, loss, images(), sampler, options, augment=interrupt)
            except KeyboardInterrupt:
                return network, None

        whole, history = run(tmp_path / "whole.pt")
        _, stopped = run(tmp_path / "parts.pt", stop_after=7)
        assert stopped is None and read_checkpoint(tmp_path / "parts.pt")["step"] == 7
        resumed, continued = run(tmp_path / "parts.pt")
        assert torch.equal(weights(whole), weights(resumed))
        assert history is not None and continued is not None
        for name in ("step", "loss", "learning_rate"):
            assert history.curve(name) == continued.curve(name)

    def test_the_parameters_of_a_loss(self, tmp_path: Path) -> None:
        """They go on from the checkpoint, and timing steps for `minutes` leaves no trace on them."""

        def run(name: str, stop_after: int | None = None, **length: Any) -> Proxies:
            network, _, sampler = build("triplets")
            loss = Proxies(network.embed(images().tensor(torch.arange(1))).shape[1])
            options = FitOptions(checkpoint=tmp_path / name, resume=True, **length, **QUIET)
            augment = Augmentation(size=SIDE, blur=0.0)
            try:
                fit(
                    network,
                    loss,
                    images(),
                    sampler,
                    options,
                    augment=_after(stop_after, augment) if stop_after else augment,
                )
            except KeyboardInterrupt:
                assert stop_after
            return loss

        whole = run("whole.pt", steps=12)
        stopped = run("parts.pt", stop_after=7, steps=12)
        assert not torch.equal(stopped.proxies, Proxies(stopped.proxies.shape[1]).proxies)
        assert torch.equal(run("parts.pt", steps=12).proxies, whole.proxies)
        timed = run("timed.pt", minutes=0.002)
        steps = read_checkpoint(tmp_path / "timed.pt")["total"]
        assert torch.equal(run("again.pt", steps=steps).proxies, timed.proxies)

    def test_a_finished_run_is_read_back(self, tmp_path: Path) -> None:
        options = FitOptions(steps=3, checkpoint=tmp_path / "run.pt", resume=True, **QUIET)
        first, second = build("softmax"), build("softmax", seed=5)
        fit(first[0], first[1], images(), first[2], options)
        fit(second[0], second[1], images(), second[2], options)
        assert torch.equal(weights(first[0]), weights(second[0]))

    def test_another_length_is_refused(self, tmp_path: Path) -> None:
        network, loss, sampler = build("softmax")
        options = FitOptions(steps=3, checkpoint=tmp_path / "run.pt", resume=True, **QUIET)
        fit(network, loss, images(), sampler, options)
        with pytest.raises(ValueError, match="run of 3 steps, options ask for 4"):
            fit(network, loss, images(), sampler, replace(options, steps=4))

    def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="written by fit"):
            read_checkpoint(tmp_path / "other.pt")
        for content in (b"x", b""):
            (tmp_path / "other.pt").write_bytes(content)
            with pytest.raises(ValueError, match="is damaged or another file"):
                read_checkpoint(tmp_path / "other.pt")


class TestInterrupt:
    def test_second_ctrl_c_does_not_wait(self) -> None:
        network, loss, sampler = build("softmax")

        def twice(batch: Tensor, generator: torch.Generator) -> Tensor:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(network, loss, images(), sampler, FitOptions(steps=5, **QUIET), augment=twice)
        assert signal.getsignal(signal.SIGINT) is before

    def test_other_threads_train_too(self) -> None:
        network, loss, sampler = build("softmax")
        histories: list[History] = []
        options = FitOptions(steps=2, **QUIET)
        thread = threading.Thread(
            target=lambda: histories.append(fit(network, loss, images(), sampler, options))
        )
        thread.start()
        thread.join()
        assert histories[0].last("step") == 2


class TestLength:
    def test_epochs_count_images(self) -> None:
        network, loss, sampler = build("softmax")
        history = fit(network, loss, images(), sampler, FitOptions(epochs=2, **QUIET))
        assert history.last("step") == 2 * 96 / 24

    def test_minutes_become_steps_and_leave_no_trace(self, tmp_path: Path) -> None:
        network, loss, sampler = build("softmax")
        options = FitOptions(minutes=0.01, checkpoint=tmp_path / "run.pt", **QUIET)
        steps = int(fit(network, loss, images(), sampler, options).last("step"))
        assert read_checkpoint(tmp_path / "run.pt")["total"] == steps
        again, loss, sampler = build("softmax")
        fit(again, loss, images(), sampler, FitOptions(steps=steps, **QUIET))
        assert torch.equal(weights(network), weights(again))

    @pytest.mark.parametrize("lengths", [{}, {"steps": 1, "epochs": 1}, {"steps": 0}, {"minutes": -1.0}])
    def test_exactly_one_length(self, lengths: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="exactly one of steps, epochs and minutes"):
            FitOptions(**lengths)

    @pytest.mark.parametrize("wrong", [{"steps": 1.5}, {"learning_rate": -1.0}, {"clip_norm": 0.0}])
    def test_what_can_not_train_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            FitOptions(**{"steps": 1, **wrong})

    def test_paths_may_be_strings(self) -> None:
        assert FitOptions(steps=1, log_csv=cast(Path, "a/b.csv")).log_csv == Path("a/b.csv")

    def test_learning_rate_rises_and_falls(self) -> None:
        options = FitOptions(steps=100, learning_rate=1.0, warmup_steps=50)
        rates = [learning_rate_at(step, 100, options) for step in range(100)]
        assert 0 < rates[0] < 0.2 and max(rates) > 0.95 and 0 < rates[-1] < 1e-3
        assert rates.index(max(rates)) == 10


class TestLogging:
    def test_validation_csv_and_curve(self, tmp_path: Path) -> None:
        network, loss, sampler = build("triplets")
        test = images(seed=1)
        options = FitOptions(steps=10, log_every=5, validate_every=4, log_csv=tmp_path / "log.csv", **QUIET)
        history = fit(
            network, loss, images(), sampler, options, validate=lambda net: {"accuracy": one_shot(net, test)}
        )
        assert history.curve("step")[0] == [4, 5, 8, 10]
        steps, accuracy = history.curve("accuracy")
        assert steps == [4, 8, 10] and accuracy[-1] == one_shot(network, test)
        with (tmp_path / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["4", "5", "8", "10"] and rows[1]["accuracy"] == ""
        with pytest.raises(KeyError, match="'precision'"):
            history.last("precision")

    def test_tensorboard(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        network, loss, sampler = build("softmax")
        fit(network, loss, images(), sampler, FitOptions(steps=3, tensorboard=tmp_path / "tb", **QUIET))
        assert list((tmp_path / "tb").glob("events*"))

    def test_a_loss_that_is_not_finite_stops(self) -> None:
        network, loss, sampler = build("softmax")

        def broken(batch: Tensor, generator: torch.Generator) -> Tensor:
            return batch * torch.nan

        with pytest.raises(FloatingPointError, match="at step 0"):
            fit(network, loss, images(), sampler, FitOptions(steps=3, **QUIET), augment=broken)


def test_mixed_precision_learns_too() -> None:
    network, loss, sampler = build("softmax")
    fit(network, loss, images(), sampler, FitOptions(steps=60, amp="bfloat16", clip_norm=1.0, **QUIET))
    assert one_shot(network, images(seed=1)) > 0.6


def test_same_seed_same_bits() -> None:
    def run(seed: int) -> Tensor:
        network, loss, sampler = build("triplets", seed=0)
        augment = Augmentation(size=SIDE)
        fit(network, loss, images(), sampler, FitOptions(steps=4, seed=seed, **QUIET), augment=augment)
        return weights(network)

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_run(name: str) -> None:
    recipe = RECIPES[name]
    recipe = replace(
        recipe,
        channels=(4, 4),
        augment=replace(recipe.augment, size=SIDE, blur_sizes=(5, 8)),
        options=replace(recipe.options, steps=3, progress=False),
    )
    trained = train_recipe(recipe, seed=1, images=images())
    assert trained.history.last("step") == 3
    a, b = images().tensor([0, 1]), images().tensor([2, 30])
    assert ((trained.network.compare(a, b) > 0) & (trained.network.compare(a, b) < 1)).all()
    again = train_recipe(recipe, seed=1, images=images())
    assert torch.equal(weights(trained.network), weights(again.network))


def _after(steps: int, augment: Augmentation) -> Any:
    """An augmentation during whose call number `steps` somebody presses Ctrl-C."""
    calls = iter(range(1, 1000))

    def interrupted(batch: Tensor, generator: torch.Generator) -> Tensor:
        if next(calls) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return augment(batch, generator)

    return interrupted
