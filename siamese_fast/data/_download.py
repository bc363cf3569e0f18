"""Omniglot's archives from their official repository, checked before they are kept."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from siamese_fast.data._cache import written_whole
from siamese_fast.data._progress import progress_bar

FOLDER = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"

# As published by TensorFlow Datasets (url_checksums/omniglot.txt), which has none for all_runs.zip.
SHA256 = {
    "images_background": "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    "images_background_small1": "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    "images_background_small2": "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
    "images_evaluation": "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
}


def download(folder: Path, name: str, *, timeout: float = 30.0) -> Path:
    """Fetch `name`.zip into `folder` and return its path; a file with another SHA-256 than the known one is
    not kept.

    Raises:
        ValueError: no checksum is known for `name`, or the file has another one.
        ConnectionError: the file could not be fetched.
    """
    if name not in SHA256:
        raise ValueError(
            f"name must be one of {', '.join(SHA256)} (those have known checksums), got {name!r}"
        )
    url, path = f"{FOLDER}/{name}.zip", folder / f"{name}.zip"
    digest = hashlib.sha256()
    with written_whole(path) as partial:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer, partial.open("wb") as file:
                size = int(answer.headers.get("Content-Length") or 0)
                with progress_bar(f"downloading {name}.zip", size) as advance:
                    while block := answer.read(1 << 16):
                        file.write(block)
                        digest.update(block)
                        advance(len(block))
        except (urllib.error.URLError, TimeoutError) as error:
            raise ConnectionError(
                f"{url} could not be fetched ({error}); put {name}.zip into {folder} by hand"
            ) from error
        if digest.hexdigest() != SHA256[name]:
            raise ValueError(
                f"{url} has SHA-256 {digest.hexdigest()}, expected {SHA256[name]}; it was not kept"
            )
    return path
