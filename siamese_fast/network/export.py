"""Networks for other runtimes: `torch.export` programs and ONNX files of the encoder and of the whole
comparison.

The fused operations exist only here, so while exporting the head is written in plain torch (see `heads.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from siamese_fast._extras import require
from siamese_fast.network.siamese import SiameseNetwork


class _Probability(nn.Module):
    """`forward(a, b)` is `SiameseNetwork.compare` without the mode switching, which no graph can hold."""

    def __init__(self, network: SiameseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return cast(Tensor, self.network(a, b)).sigmoid()


def export_program(network: SiameseNetwork, example: Tensor) -> torch.export.ExportedProgram:
    """The comparison `(a, b) -> probability [B]` as a `torch.export` program with a free batch size.

    Args:
        network: is set to evaluation mode.
        example: images `[N >= 2, ...]` of the shape and dtype the encoder takes; the values do not matter.

    Example:
        >>> program = export_program(network, torch.zeros(2, 1, 28, 28))
        >>> probability = program.module()(a, b)
    """
    batch = torch.export.Dim("batch")
    shapes = ({0: batch}, {0: batch})
    # Two tensors: given one twice, export takes a and b to be the same.
    return torch.export.export(
        _Probability(network).eval(), (example, example.clone()), dynamic_shapes=shapes
    )


def export_onnx(network: SiameseNetwork, folder: str | Path, example: Tensor) -> tuple[Path, Path]:
    """Write `encoder.onnx` (images to embeddings) and `compare.onnx` (a, b to probability), batch size free.

    Args:
        network: is set to evaluation mode.
        folder: created if missing.
        example: as for `export_program`.

    Returns:
        The two paths.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="export")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    encoder, compare = target / "encoder.onnx", target / "compare.onnx"
    _write_onnx(network.encoder, (example,), encoder, ["images"], "embeddings")
    _write_onnx(_Probability(network), (example, example.clone()), compare, ["a", "b"], "probability")
    return encoder, compare


def _write_onnx(
    module: nn.Module, inputs: tuple[Tensor, ...], path: Path, input_names: list[str], output_name: str
) -> None:
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        module.eval(),
        inputs,
        path,
        input_names=input_names,
        output_names=[output_name],
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        dynamo=True,
        verbose=False,
    )
