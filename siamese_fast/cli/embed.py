"""`siamese-fast embed`: images to vectors, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from siamese_fast.cli._common import Json, ModelOption, blaming, emit, get_model
from siamese_fast.data.folders import image_files

_BLOCK = 1024


def embed(
    images: Annotated[
        Path, typer.Argument(help="A folder of images (subfolders too), or one image.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")] = Path(
        "embeddings.npz"
    ),
    model: ModelOption = "softmax",
    as_json: Json = False,
) -> None:
    """Write the embeddings of images to a NumPy file.

    It holds the arrays embeddings (N x D, float32), files (N, paths inside the folder) and labels (N, the
    folder that each image lies in).

    [bold]Example:[/] siamese-fast embed my_images -o vectors.npz
    """
    files, names = find_images(images, "IMAGES")
    named = get_model(model)
    with blaming("IMAGES"):
        blocks = [files[start : start + _BLOCK] for start in range(0, len(files), _BLOCK)]
        vectors = np.concatenate(
            [
                named.model.network.encode(named.model.inputs.read(block)).float().cpu().numpy()
                for block in blocks
            ]
        )
    with blaming("--output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as file:
            labels = [Path(name).parent.name for name in names]
            np.savez_compressed(file, embeddings=vectors, files=np.array(names), labels=np.array(labels))
    result = {
        "output": str(output),
        "model": named.name,
        "images": len(files),
        "dimensions": vectors.shape[1],
    }
    emit(
        result,
        as_json,
        lambda console: console.print(f"{len(files)} embeddings of {vectors.shape[1]} numbers: {output}"),
    )


def find_images(path: Path, option: str) -> tuple[list[Path], list[str]]:
    """The image files of a folder (or the one given), and their names inside it."""
    if path.is_file():
        return [path], [path.name]
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is neither a folder nor an image", param_hint=option)
    files = image_files(path)
    if not files:
        raise typer.BadParameter(f"{path} holds no image", param_hint=option)
    return files, [file.relative_to(path).as_posix() for file in files]
