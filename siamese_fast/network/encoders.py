"""Encoders: images `[N, C, H, W]` to embeddings `[N, D]`.

Any `nn.Module` that returns `[N, D]` is an encoder; the two here are small, train in minutes on a CPU, and
know how to describe themselves (`config()`), so that a saved network can be built again without its source
code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Blocks of 3x3 convolution, 2x2 max pooling, batch normalisation and ReLU, then flatten (Conv-4 by
    default).

    Pooling stands before the normalisation, which then works on a quarter of the values. The last block does
    not pool unless `pool_last`: position still carries meaning there (28x28 input and four blocks leave 3x3
    of it).

    Args:
        in_channels: channels of the images.
        image_size: side of the (square) images; it fixes the size of the embedding.
        channels: output channels of each block.
        pool_last: pool in the last block too.
        embedding_dim: size of a dense layer after the flattening; None leaves it out.
        dropout: probability of dropping a value of the flattened features while training.

    Shapes:
        `[N, in_channels, image_size, image_size]` float to `[N, out_features]`.

    Raises:
        ValueError: no block, or so many poolings that nothing of the image is left.

    Source: Koch, Zemel, Salakhutdinov (2015) for the arrangement, Vinyals et al. (2016) for Conv-4.

    Example:
        >>> encoder = ConvEncoder(channels=(32, 64, 64, 64))
        >>> encoder(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 576])
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        channels: Sequence[int] = (64, 64, 64, 64),
        *,
        pool_last: bool = False,
        embedding_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels must name at least one block, got none")
        side = image_size // 2 ** (len(channels) - (not pool_last))
        if side < 1:
            raise ValueError(f"image_size={image_size} is too small for {len(channels)} blocks that halve it")
        self._config: dict[str, Any] = {
            "in_channels": in_channels,
            "image_size": image_size,
            "channels": list(channels),
            "pool_last": pool_last,
            "embedding_dim": embedding_dim,
            "dropout": dropout,
        }
        blocks: list[nn.Module] = []
        for index, width in enumerate(channels):
            blocks.append(nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
            if pool_last or index + 1 < len(channels):
                blocks.append(nn.MaxPool2d(2))
            blocks += [nn.BatchNorm2d(width), nn.ReLU()]
            in_channels = width
        blocks.append(nn.Flatten())
        if dropout > 0:
            blocks.append(nn.Dropout(dropout))
        self.out_features = channels[-1] * side * side
        if embedding_dim is not None:
            blocks.append(nn.Linear(self.out_features, embedding_dim))
            self.out_features = embedding_dim
        self.layers = nn.Sequential(*blocks)

    def config(self) -> dict[str, Any]:
        """The arguments that build this encoder again (JSON types only)."""
        return dict(self._config)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.layers(images))


class MLPEncoder(nn.Module):
    """Dense layers with ReLU between them; inputs of more than two dimensions are flattened first.

    Args:
        in_features: values of one input (C * H * W for images).
        hidden: sizes of the hidden layers.
        embedding_dim: size of the embedding.

    Shapes:
        `[N, ...]` float with `in_features` values a row, to `[N, embedding_dim]`.

    Example:
        >>> encoder = MLPEncoder(784, hidden=(256,), embedding_dim=64)
        >>> encoder(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 64])
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (256,), embedding_dim: int = 128) -> None:
        super().__init__()
        self._config: dict[str, Any] = {
            "in_features": in_features,
            "hidden": list(hidden),
            "embedding_dim": embedding_dim,
        }
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            in_features = width
        layers.append(nn.Linear(in_features, embedding_dim))
        self.out_features = embedding_dim
        self.layers = nn.Sequential(*layers)

    def config(self) -> dict[str, Any]:
        """The arguments that build this encoder again (JSON types only)."""
        return dict(self._config)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.layers(inputs))
