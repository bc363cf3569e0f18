"""The demonstration: both methods trained on printed letters, tested on unseen alphabets and real digits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from siamese_fast import data
from siamese_fast.evaluation import OneShotResult, digits_one_shot, one_shot_episodes
from siamese_fast.models import DefaultMethod, Model, train_default
from siamese_fast.training import History

METHODS: tuple[DefaultMethod, ...] = ("softmax", "triplets")
TITLES = {"softmax": "pairs (Koch head)", "triplets": "triplets (batch-hard)"}


@dataclass(frozen=True)
class DemoResult:
    """One trained method: the network, how training went, and one-shot accuracies.

    `letters` are 20-way episodes within the held-out alphabets, `digits` 10-way on handwritten digits; both
    hold the accuracy of the nearest raw pixels on the same episodes.
    """

    method: DefaultMethod
    model: Model
    history: History
    letters: OneShotResult
    digits: OneShotResult

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON types."""
        times = {name: self.history.last(name) for name in ("seconds", "cpu_seconds")}
        return {
            "method": self.method,
            **times,
            "held_out_alphabets": asdict(self.letters),
            "handwritten_digits": asdict(self.digits),
        }


def train_and_test(method: DefaultMethod, *, seed: int = 0, progress: bool = True) -> DemoResult:
    """Train one method and measure it; with seed 0 the network becomes the default one.

    Example:
        >>> train_and_test("softmax").digits.accuracy
    """
    model, history = train_default(method, seed=seed, progress=progress)
    letters = one_shot_episodes(model.network, data.glyphs("test"), n_way=20, n_episodes=200)
    return DemoResult(method, model, history, letters, digits_one_shot(model.network))
