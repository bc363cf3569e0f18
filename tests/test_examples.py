"""The examples run and learn."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from siamese_fast import data
from siamese_fast.data import ImageSet

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_digits() -> ImageSet:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    digits = data.digits(size=36)
    return ImageSet(digits.images[:600], digits.labels[:600], digits.classes)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_lightning_trains_with_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """On the digits themselves, which is fast: the bar shows a loss and an accuracy that training raised."""
    pytest.importorskip("lightning", reason="comes with siamese-fast[lightning]")
    lightning_triplets = example("lightning_triplets")
    batches = lightning_triplets.Batches(small_digits(), p=8, k=4)
    accuracies = []
    for epochs in (1, 4):
        torch.manual_seed(0)
        options = {"accelerator": "cpu", "devices": 1, "enable_model_summary": False}
        module = lightning_triplets.train(batches, epochs, 10, **options)
        accuracies.append(module.trainer.callback_metrics["digits"])
    shown = capsys.readouterr().out
    assert "10/10" in shown and re.search(r"\bloss[:=]", shown) and re.search(r"\bdigits[:=]", shown)
    assert accuracies[1] > accuracies[0] + 0.1, accuracies
