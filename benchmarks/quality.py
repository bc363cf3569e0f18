"""Accuracy of the recipes over seeds, on one thread: writes results/quality.json, which the README cites.

Results are written after every run, and runs that the file holds already are not repeated unless --fresh.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from siamese_fast import data
from siamese_fast.cli.info import collect
from siamese_fast.data._cache import written_whole
from siamese_fast.evaluation import (
    digits_one_shot,
    jitters,
    omniglot_runs_error,
    one_shot_episodes,
    pixel_classifier,
    right_angles,
)
from siamese_fast.network import SiameseNetwork
from siamese_fast.recipes import RECIPES, train_recipe

RESULTS = Path(__file__).parent / "results" / "quality.json"
ARCHIVE = "images_background_small1"
_VIEWS = "mean over four quarter turns of the best match among 16 x 16 jitters"
_DEVICE = (
    "processor",
    "instruction_set",
    "cores",
    "threads",
    "platform",
    "python",
    "siamese_fast",
    "libraries",
)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"recipes": {}}
    if RESULTS.exists() and not options.fresh:
        found = json.loads(RESULTS.read_text())
    facts = collect()
    device = {name: facts[name] for name in _DEVICE}
    for name in options.recipes:
        if name.startswith("omniglot") and options.omniglot is None:
            print(
                f"{name}: left out, --omniglot or SIAMESE_FAST_OMNIGLOT must name the folder", file=sys.stderr
            )
            continue
        entry = found["recipes"].setdefault(name, {"runs": []})
        if entry.get("recipe") != describe(name):
            entry.update(recipe=describe(name), device=device, runs=[])
        for seed in range(options.seeds):
            if seed not in [run["seed"] for run in entry["runs"]]:
                entry["runs"].append(measure(name, seed, options.omniglot))
                entry.update(summary(entry["runs"]))
                write(found)
                print(f"{name}, seed {seed}: {shown(entry['runs'][-1])}", flush=True)
    found["raw_pixels"] = {**found.get("raw_pixels", {}), **raw_pixels(options.omniglot)}
    write(found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "recipes", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}; all by default"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--omniglot", type=Path, default=os.environ.get("SIAMESE_FAST_OMNIGLOT"))
    parser.add_argument("--fresh", action="store_true", help="forget the results there are")
    options = parser.parse_args()
    unknown = set(options.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}")
    return options


def measure(name: str, seed: int, root: Path | None) -> dict[str, Any]:
    """Train one network from one seed and measure it."""
    recipe = RECIPES[name]
    if recipe.data == "glyphs":
        network, history = train_recipe(name, seed)
        scores = of_glyphs(network)
    else:
        assert root is not None
        images = data.omniglot(root, ARCHIVE, recipe.augment.size, drawn=recipe.drawn)
        network, history = train_recipe(name, seed, images=images)
        scores = of_runs(network, data.omniglot_runs(root, recipe.augment.size, drawn=recipe.drawn))
    times = {"cpu_minutes": history.last("cpu_seconds") / 60, "minutes": history.last("seconds") / 60}
    return {"seed": seed, **scores, **times, "steps": history.last("step")}


def of_glyphs(model: Any, pixels: bool = False) -> dict[str, float]:
    letters = one_shot_episodes(model, data.glyphs("test"), n_way=20, pixels=pixels)
    return {
        "digits_accuracy": digits_one_shot(model, pixels=pixels).accuracy,
        "letters_accuracy": letters.accuracy,
    }


def of_runs(network: SiameseNetwork, runs: list[data.OneShotRun]) -> dict[str, float]:
    views = {"views": right_angles(), "jitters": jitters()}
    return {
        "runs_error": omniglot_runs_error(network, runs, pixels=False).error,
        "runs_error_views": omniglot_runs_error(network, runs, pixels=False, **views).error,
    }


def raw_pixels(root: Path | None) -> dict[str, float]:
    """What needs no training: the nearest support image by Euclidean distance."""
    found = of_glyphs(pixel_classifier())
    if root is not None:
        for name, drawn in (("runs_error", None), ("runs_error_cut", 20)):
            runs = data.omniglot_runs(root, drawn=drawn)
            found[name] = omniglot_runs_error(pixel_classifier(), runs, pixels=False).error
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error over the seeds, of every number."""
    names = [name for name in runs[0] if name != "seed"]
    columns = {name: [run[name] for run in runs] for name in names}
    error = {name: statistics.stdev(c) / len(c) ** 0.5 if len(c) > 1 else None for name, c in columns.items()}
    return {"mean": {name: statistics.fmean(c) for name, c in columns.items()}, "standard_error": error}


def describe(name: str) -> dict[str, Any]:
    """What decides a recipe's numbers: where it differs from the file's, the runs there are out of date."""
    recipe = json.loads(json.dumps(dataclasses.asdict(RECIPES[name]), default=str))
    return {**recipe, "views": _VIEWS} if RECIPES[name].data == "omniglot" else recipe


def shown(run: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in run.items() if name != "seed")


def write(found: dict[str, Any]) -> None:
    with written_whole(RESULTS) as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
