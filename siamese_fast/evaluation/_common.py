"""What the evaluations share: a model as a classifier, an image set as embeddings, a result as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import torch
from torch import Tensor, nn

from siamese_fast.data.imageset import ImageSet
from siamese_fast.prediction import OneShotClassifier
from siamese_fast.prediction.inputs import Encoder, embed, embedder, head_of

Model = OneShotClassifier | Encoder
_IMAGES = 1024


class Result:
    """Base of the result dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


def as_classifier(model: Model) -> OneShotClassifier:
    """An unfitted classifier with the model's settings."""
    return (
        OneShotClassifier(**model.get_params())
        if isinstance(model, OneShotClassifier)
        else OneShotClassifier(model)
    )


def pixel_classifier() -> OneShotClassifier:
    """The baseline: the nearest support image by Euclidean distance of raw pixels."""
    return OneShotClassifier(nn.Flatten())


class Embedded:
    """The images of a set, embedded once, and the classifier that compares embeddings as the model would."""

    def __init__(self, model: Model, images: ImageSet) -> None:
        self.classifier = as_classifier(model)
        encoder, batch_size = embedder(self.classifier.encoder), self.classifier.batch_size
        blocks = torch.split(torch.arange(len(images)), _IMAGES)
        self.vectors: Tensor = torch.cat(
            [embed(images.tensor(block), encoder, batch_size=batch_size) for block in blocks]
        )
        self.labels = images.labels
        self.on_embeddings = OneShotClassifier(**self._settings())

    def _settings(self) -> dict[str, Any]:
        given = self.classifier.get_params()
        return {**given, "encoder": None, "head": head_of(given["encoder"], given["head"])}

    @classmethod
    def pixels(cls, images: ImageSet) -> Self:
        return cls(pixel_classifier(), images)
