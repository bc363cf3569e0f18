"""SiameseNetwork: the same encoder reads both images, a head compares the two embeddings.

    logit(a, b) = head(encoder(a), encoder(b)),  p(same class) = sigmoid(logit)

The head's logits are probabilities' logits after training with cross-entropy on pairs, or once calibrated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from siamese_fast.network.calibration import fit_platt, threshold_at
from siamese_fast.network.encoders import ConvEncoder, MLPEncoder
from siamese_fast.network.heads import DistanceHead, Head, KochHead

_PARTS: dict[str, type[nn.Module]] = {
    part.__name__: part for part in (ConvEncoder, MLPEncoder, KochHead, DistanceHead)
}


class SiameseNetwork(nn.Module):
    """One shared encoder and a head.

    Args:
        encoder: any `nn.Module` from images `[N, ...]` to embeddings `[N, D]` (torchvision, timm, your own),
            unchanged.
        head: `KochHead(D)`, or `DistanceHead(metric)`, which has no parameters.

    Attributes:
        threshold: buffer, the probability from which `same` says yes (0.5 until `calibrate` sets it).
        false_accept_rate: buffer, the rate the threshold was chosen for (NaN until then).

    Source: Bromley et al. (1993) for the two branches; Koch et al. (2015) for one-shot recognition.

    Example:
        >>> network = SiameseNetwork(ConvEncoder(), KochHead(576))
        >>> network.compare(torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28)).shape
        torch.Size([3])
    """

    threshold: Tensor
    false_accept_rate: Tensor

    def __init__(self, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.register_buffer("threshold", torch.tensor(0.5))
        self.register_buffer("false_accept_rate", torch.tensor(float("nan")))

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings `[N, D]`, differentiable, in the current training mode."""
        embeddings = self.encoder(images)
        if not isinstance(embeddings, Tensor) or embeddings.ndim != 2:
            got = list(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise ValueError(f"encoder must return embeddings [N, D], got {got}")
        return embeddings

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits `[B]` of the pairs `(a[i], b[i])`, differentiable."""
        return self.head.pairs(self.embed(a), self.embed(b))

    def encode(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Embeddings `[N, D]` for prediction: evaluation mode, no gradient, `batch_size` images at a time."""
        device = next((p.device for p in self.parameters()), images.device)
        with _evaluating(self), torch.no_grad():
            return torch.cat([self.embed(batch.to(device)) for batch in images.split(batch_size)])

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """The probability `[B]` that `a[i]` and `b[i]` show the same class.

        Equal odds are assumed beforehand: half of all pairs the same. Meaningful after training with
        cross-entropy on pairs, or after `calibrate`.

        Args:
            a, b: float images `[B, ...]`, as the encoder takes them.

        Raises:
            ValueError: the two shapes differ.
        """
        if a.shape != b.shape:
            raise ValueError(f"a and b must have the same shape, got {list(a.shape)} and {list(b.shape)}")
        with torch.no_grad():
            return self.head.pairs(self.encode(a), self.encode(b)).sigmoid()

    def same(self, a: Tensor, b: Tensor) -> Tensor:
        """Bool `[B]`: `compare(a, b) >= threshold`, the yes or no at the false-accept rate chosen in
        `calibrate`.
        """
        return self.compare(a, b) >= self.threshold

    def calibrate(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        false_accept_rate: float = 0.01,
        max_images: int = 2000,
        seed: int = 0,
    ) -> None:
        """Fit scale and bias of the logit, so that its sigmoid is a probability, and choose the threshold.

        All pairs among (at most `max_images` of) the images are used. Training images will do, unseen classes
        are better: a network is surer of classes it was trained on. The order of scores does not change.

        Args:
            images, labels: float `[N, ...]` and integer `[N]`.
            false_accept_rate: share of different-class pairs that may reach the threshold.
            max_images: larger sets are thinned, whole classes at a time, so that same-class pairs remain.
            seed: of that choice.

        Raises:
            ValueError: there are no same-class or no different-class pairs, or the scores do not separate
                them.

        Source: Platt (1999).
        """
        chosen = whole_classes(labels, max_images, seed)
        h = self.encode(images[chosen])
        with torch.no_grad():
            scores = self.head.matrix(h, h).cpu()
        kept = labels[chosen].cpu()
        pairs = torch.triu_indices(len(kept), len(kept), offset=1)
        target = kept[pairs[0]] == kept[pairs[1]]
        pair_scores = scores[pairs[0], pairs[1]]
        scale, bias = fit_platt(pair_scores, target)
        threshold = threshold_at((pair_scores[~target] * scale + bias).sigmoid(), false_accept_rate)
        self.head.rescale(scale, bias)
        self.threshold.fill_(threshold)
        self.false_accept_rate.fill_(false_accept_rate)

    def save(self, path: str | Path) -> None:
        """Write weights (safetensors) and, in its header, how to build the encoder and head again (JSON). No
        pickle.
        """
        described = {"encoder": _describe(self.encoder), "head": _describe(self.head)}
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(state, path, metadata={"siamese_fast": json.dumps(described)})

    @classmethod
    def load(
        cls, path: str | Path, *, encoder: nn.Module | None = None, head: Head | None = None
    ) -> SiameseNetwork:
        """Read what `save` wrote. An encoder or head that is not from this package must be given, as it was
        built.

        Raises:
            ValueError: the file is not one of ours, or names a part that this package does not have and none
            is given.
        """
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if "siamese_fast" not in metadata:
            raise ValueError(f"path must be a network saved by SiameseNetwork.save, got {path}")
        described = json.loads(metadata["siamese_fast"])
        network = cls(
            encoder if encoder is not None else _build("encoder", described["encoder"]),
            head if head is not None else _build("head", described["head"]),  # type: ignore[arg-type]
        )
        network.load_state_dict(state)
        return network.eval()


def _describe(part: nn.Module) -> dict[str, Any]:
    name = type(part).__name__
    if _PARTS.get(name) is type(part):
        return {"type": name, "arguments": part.config()}  # type: ignore[operator]
    return {"type": f"{type(part).__module__}.{type(part).__qualname__}"}


def _build(role: str, described: dict[str, Any]) -> nn.Module:
    if described["type"] not in _PARTS:
        raise ValueError(f"{role} was a {described['type']}: build one and pass it as {role}=")
    return _PARTS[described["type"]](**described["arguments"])


def whole_classes(labels: Tensor, limit: int, seed: int) -> Tensor:
    """Indices of at most about `limit` images: all, or all images of randomly chosen classes."""
    if len(labels) <= limit:
        return torch.arange(len(labels))
    classes, index, counts = labels.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    enough = int((counts.cpu()[order].cumsum(0) <= limit).sum())
    wanted = torch.zeros(len(classes), dtype=torch.bool)
    wanted[order[: max(2, enough)]] = True
    return torch.where(wanted[index.cpu()])[0]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every submodule gets its own mode back afterwards."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
