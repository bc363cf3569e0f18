"""A fitted classifier on disk: a folder of safetensors files and one `classifier.json` that names them.

Every file but the JSON is named by the digest of its content and written first; replacing the JSON is the
commit. So a reader sees the old classifier or the new one, never a mixture, and an interrupted save leaves
the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from siamese_fast.prediction.gallery import Comparison
from siamese_fast.prediction.inputs import Encoder, head_of

if TYPE_CHECKING:
    from siamese_fast.prediction.classifier import OneShotClassifier

FORMAT = 1
INDEX = "classifier.json"
SETTINGS = ("metric", "reduce", "threshold", "unknown_label", "temperature", "batch_size", "approximate")


def save(classifier: OneShotClassifier, folder: Path, *, weights: bool) -> None:
    """Write `classifier` to `folder`, replacing what an earlier `save` put there."""
    index = described(classifier)
    support = {"embeddings": classifier.support_, "class_index": classifier._gallery.class_index}
    commit(classifier, folder, index, [write_tensors(folder, "support", support)], weights=weights)


def described(classifier: OneShotClassifier) -> dict[str, Any]:
    """The index without the files it will name."""
    values = classifier.classes_.tolist()
    settings = {name: _plain(name, getattr(classifier, name)) for name in SETTINGS}
    for value in values:
        _plain("classes_", value)
    classes = {"dtype": classifier.classes_.dtype.str, "values": values}
    return {"format": FORMAT, "settings": settings, "classes": classes}


def commit(
    classifier: OneShotClassifier,
    folder: Path,
    index: dict[str, Any],
    support: list[dict[str, str]],
    *,
    weights: bool,
) -> None:
    """Name the written `support` files in the index, replace the old one, and remove what it named alone."""
    index["support"] = support
    for role, module in _modules(classifier.encoder, classifier.head).items():
        index[role] = {"type": type(module).__name__}
        if isinstance(module, nn.Module):
            index[role]["fingerprint"] = _fingerprint(module)
            if weights:
                index[role]["weights"] = write_tensors(folder, role, module.state_dict())
    _replace(folder / INDEX, json.dumps(index, indent=1, allow_nan=False).encode())
    named = {entry["file"] for entry in _entries(index)}
    for path in folder.glob("*-*.safetensors"):
        if path.name not in named:
            path.unlink()


def load(
    kind: type[OneShotClassifier], folder: Path, encoder: Encoder | None, head: nn.Module | None
) -> OneShotClassifier:
    """Read a classifier that `save` wrote, in one process or in many."""
    index = read_index(folder)
    classifier = rebuilt(kind, folder, index, encoder, head)
    parts = [_read_tensors(folder, entry) for entry in index["support"]]
    embeddings, class_index = (
        torch.cat([part[name] for part in parts]) for name in ("embeddings", "class_index")
    )
    if all("position" in part for part in parts):
        order = torch.cat([part["position"] for part in parts]).argsort()
        embeddings, class_index = embeddings[order], class_index[order]
    comparison = Comparison(classifier.metric, head_of(encoder, head))
    device = device_of(encoder, head)
    classifier._remember(embeddings.to(device), class_index.numpy(), classes_in(index), comparison)
    return classifier


def read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    if index.get("format") != FORMAT:
        raise ValueError(
            f"{folder / INDEX} has format {index.get('format')!r}; this version reads format {FORMAT}"
        )
    return index


def rebuilt(
    kind: type[OneShotClassifier],
    folder: Path,
    index: dict[str, Any],
    encoder: Encoder | None,
    head: nn.Module | None,
    **more: Any,
) -> OneShotClassifier:
    """The classifier with its settings and weights, without its support set."""
    given = _modules(encoder, head)
    for role in ("encoder", "head"):
        if (role in index) != (role in given):
            need = f"needs {role}= ({index[role]['type']})" if role in index else f"takes no {role}="
            raise ValueError(
                f"the classifier in {folder} {need}: give load what the classifier was built with"
            )
    for role, module in given.items():
        _restore(folder, role, module, index[role])
    return kind(encoder, head, **index["settings"], **more)


def classes_in(index: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(index["classes"]["values"], dtype=index["classes"]["dtype"])


def device_of(encoder: Encoder | None, head: nn.Module | None) -> torch.device:
    """Where the weights are, the CPU where there are none."""
    modules = [m for m in _modules(encoder, head).values() if isinstance(m, nn.Module)]
    return next((t.device for m in modules for t in m.parameters()), torch.device("cpu"))


def _modules(encoder: Encoder | None, head: nn.Module | None) -> dict[str, Any]:
    return {role: module for role, module in (("encoder", encoder), ("head", head)) if module is not None}


def _restore(folder: Path, role: str, module: Any, saved: dict[str, Any]) -> None:
    if not isinstance(module, nn.Module):
        return
    if "weights" in saved:
        module.load_state_dict(_read_tensors(folder, saved["weights"]))
    elif saved.get("fingerprint") != _fingerprint(module):
        warnings.warn(
            f"the {role} given to load has other weights than the one the support set was embedded with: "
            "predictions will differ",
            stacklevel=4,
        )


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_tensors(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write one file; returns the entry that names it in the index."""
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save(
        {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    )
    digest = hashlib.sha256(data).hexdigest()
    name = f"{stem}-{digest[:16]}.safetensors"
    _replace(folder / name, data)
    return {"file": name, "sha256": digest}


def _read_tensors(folder: Path, entry: dict[str, str]) -> dict[str, Tensor]:
    data = (folder / Path(entry["file"]).name).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise damaged(folder, entry)
    return safetensors.torch.load(data)


def damaged(folder: Path, entry: dict[str, str]) -> ValueError:
    return ValueError(f"{folder / entry['file']} is damaged: its content differs from what was saved")


def _replace(path: Path, data: bytes) -> None:
    """Write to a temporary neighbour, flush it to disk, then take the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    weights = [index[role]["weights"] for role in ("encoder", "head") if "weights" in index.get(role, {})]
    return [*index["support"], *weights]


def _plain(name: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{name} holds {value!r}: only strings, numbers and bools can be saved")
    return value
