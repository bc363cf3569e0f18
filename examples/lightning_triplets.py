"""A Siamese network in Lightning: printed letters to learn from, handwritten digits to recognise from one
example each.

    pip install 'siamese-fast[data,lightning]'
    python examples/lightning_triplets.py --epochs 8

The loss is the one line of siamese_fast that a LightningModule of your own needs; batches hold `k` examples
of each of `p` classes. The progress bar shows the loss, and the accuracy on the digits after every epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from siamese_fast import BatchHardTripletLoss, data
from siamese_fast.data import Augmentation, ImageSet, PKSampler
from siamese_fast.evaluation import digits_one_shot
from siamese_fast.network import ConvEncoder

Batch = tuple[Tensor, Tensor]


class TripletModule(LightningModule):
    """An encoder trained with the hardest positive and negative of every anchor in the batch."""

    def __init__(self, encoder: nn.Module, *, lr: float = 2e-3, supports: int = 20) -> None:
        super().__init__()
        self.encoder, self.lr, self.supports = encoder, lr, supports
        self.loss = BatchHardTripletLoss(margin=None)

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        loss: Tensor = self.loss(self.encoder(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        found = digits_one_shot(self.encoder, supports=self.supports, pixels=False)
        self.log("digits", found.accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Batches(IterableDataset[Batch]):
    """Endless batches of `p` classes with `k` examples each, distorted anew each time."""

    def __init__(self, images: ImageSet, p: int, k: int, seed: int = 0) -> None:
        self.images, self.sampler = images, PKSampler(images.labels, p, k, seed)
        self.augment, self.generator = Augmentation(elastic=0.05), torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Batch]:
        for chosen in self.sampler:
            yield self.augment(self.images.tensor(chosen), self.generator), self.images.labels[chosen]


def train(batches: Batches, epochs: int, steps: int, **options: object) -> TripletModule:
    """Train a small convolutional encoder; `options` are those of Lightning's `Trainer`."""
    module = TripletModule(ConvEncoder(channels=(32, 64, 64, 64)))
    options = {"enable_checkpointing": False, "logger": False, **options}
    trainer = Trainer(max_epochs=epochs, limit_train_batches=steps, **options)
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description="Batch-hard triplets in Lightning, on printed letters.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50, help="batches of an epoch")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    seed_everything(given.seed)
    module = train(Batches(data.glyphs(), p=32, k=4, seed=given.seed), given.epochs, given.steps)
    accuracy = digits_one_shot(module.encoder, pixels=False).accuracy
    print(f"handwritten digits from one example each: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
