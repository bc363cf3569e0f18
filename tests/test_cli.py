"""The command line: every subcommand on small models and images, its JSON, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import siamese_fast
from siamese_fast import demo as demonstration
from siamese_fast import models, recipes
from siamese_fast.cli import main
from siamese_fast.models import Inputs, Model, load_model, save_model
from siamese_fast.network import ConvEncoder, DistanceHead, KochHead, SiameseNetwork
from siamese_fast.training import History

PIL = pytest.importorskip("PIL.Image")
Run = Callable[..., tuple[int, str, str]]
NAMES = ("circle", "cross", "square")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line; returns exit status, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


@pytest.fixture
def answer(run: Run) -> Callable[..., dict[str, Any]]:
    """Call the command line with --json; returns the parsed object."""

    def call(*arguments: object) -> dict[str, Any]:
        status, out, err = run(*arguments, "--json")
        assert status == 0, err
        parsed = json.loads(out)
        assert isinstance(parsed, dict)
        return parsed

    return call


@pytest.fixture(autouse=True)
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small untrained networks in place of the default ones, so that nothing is trained or drawn."""
    monkeypatch.setenv("SIAMESE_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIAMESE_FAST_OMNIGLOT", raising=False)
    for method in ("softmax", "triplets"):
        save_model(models.default_folder(method), tiny_model(method))


def tiny_model(method: str = "softmax") -> Model:
    torch.manual_seed(0)
    encoder = ConvEncoder(channels=(8, 8))
    head = KochHead(encoder.out_features) if method == "softmax" else DistanceHead("euclidean")
    return Model(SiameseNetwork(encoder, head).eval(), Inputs(28, 20), {"method": method})


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A folder of three class folders with four noisy drawings each."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    inked = {
        "circle": np.abs(np.hypot(x, y) - 0.7) < 0.15,
        "cross": (np.abs(x) < 0.12) | (np.abs(y) < 0.12),
        "square": np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.7) < 0.12,
    }
    for name, ink in inked.items():
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(4):
            paper = np.where(ink, 20, 235) + generator.integers(-15, 16, ink.shape)
            PIL.fromarray(paper.astype(np.uint8)).save(tmp_path / "shapes" / name / f"{number}.png")
    return tmp_path / "shapes"


class TestModels:
    @pytest.mark.parametrize("method", ["softmax", "triplets"])
    def test_a_saved_model_is_the_same_model(self, tmp_path: Path, shapes: Path, method: str) -> None:
        model = tiny_model(method)
        save_model(tmp_path / "model", model, History([{"step": 1.0, "loss": 0.5}]))
        loaded = load_model(tmp_path / "model")
        images = loaded.inputs.read(sorted(shapes.rglob("*.png")))
        assert torch.equal(loaded.network.encode(images), model.network.encode(images))
        assert (loaded.inputs, loaded.about) == (model.inputs, model.about)

    @pytest.mark.parametrize("method", ["softmax", "triplets"])
    def test_unknown_means_below_the_threshold_of_same(self, shapes: Path, method: str) -> None:
        model = tiny_model(method)
        examples = model.inputs.load(shapes)
        model.network.head.rescale(0.3, 0.7)
        first, rest = examples.tensor([0]), examples.tensor()
        same = model.network.compare(first.expand_as(rest), rest)
        model.network.threshold.fill_(float(same.sort().values[5:7].mean()))
        classifier = model.classifier(unknown_label="unknown").fit(first, ["circle"])
        accepted = (classifier.predict(rest) != "unknown").tolist()
        assert accepted == model.network.same(first.expand_as(rest), rest).tolist()

    def test_probabilities_follow_the_calibrated_logits(self, shapes: Path) -> None:
        model = tiny_model("triplets")
        model.network.head.rescale(2.5, -1.0)
        examples = model.inputs.load(shapes)
        support, query = examples.tensor([0, 4, 8]), examples.tensor([1, 5, 9])
        got = model.classifier().fit(support, NAMES).predict_proba(query)
        h = model.network
        with torch.no_grad():
            wanted = h.head.matrix(h.encode(query), h.encode(support)).softmax(1)
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)


class TestCommands:
    def test_info(self, run: Run, answer: Callable[..., dict[str, Any]]) -> None:
        found = answer("info")
        assert found["siamese_fast"] == siamese_fast.__version__
        assert "hardest_pairs" in found["kernels"]
        assert found["kernels_on_cuda"].keys() == found["kernels"].keys()
        assert "hardest_pairs" in run("info")[1]

    def test_compare(self, run: Run, answer: Callable[..., dict[str, Any]], shapes: Path) -> None:
        a, b = shapes / "circle" / "0.png", shapes / "cross" / "0.png"
        found = answer("compare", a, b, "--threshold", 0)
        assert found["answer"] == "same"
        assert 0 <= found["probability"] <= 1
        assert run("compare", a, b)[1].startswith(("same", "different"))

    def test_embed(self, answer: Callable[..., dict[str, Any]], shapes: Path, tmp_path: Path) -> None:
        found = answer("embed", shapes, "-o", tmp_path / "vectors.npz")
        stored = np.load(found["output"])
        assert stored["embeddings"].shape == (12, found["dimensions"])
        assert stored["labels"].tolist() == [name for name in NAMES for _ in range(4)]
        assert stored["files"][0] == "circle/0.png"

    @pytest.mark.parametrize("model", ["softmax", "triplets"])
    def test_predict(
        self, answer: Callable[..., dict[str, Any]], shapes: Path, tmp_path: Path, model: str
    ) -> None:
        pytest.importorskip("matplotlib")
        drawn = tmp_path / "answers.png"
        found = answer(
            "predict", "--support", shapes, "--query", shapes, "--model", model, "--picture", drawn
        )
        assert found["classes"] == list(NAMES)
        assert found["accuracy"] == 1.0
        assert len(found["predictions"]) == 12
        assert found["predictions"][0]["ranking"][0]["class"] == "circle"
        assert drawn.stat().st_size > 1000

    def test_predict_without_right_answers(self, run: Run, shapes: Path, tmp_path: Path) -> None:
        query = tmp_path / "query.png"
        query.write_bytes((shapes / "cross" / "1.png").read_bytes())
        status, out, _ = run("predict", "--support", shapes, "--query", query, "--reduce", "prototype")
        assert status == 0
        assert "query.png" in out
        assert "accuracy" not in out

    @pytest.mark.parametrize("measure", ["one-shot", "verification", "retrieval"])
    def test_evaluate(
        self, run: Run, answer: Callable[..., dict[str, Any]], shapes: Path, measure: str
    ) -> None:
        pytest.importorskip("pytorch_metric_learning")
        arguments = ("evaluate", "--on", shapes, "--measure", measure, "--episodes", 3)
        if measure == "one-shot":
            PIL.open(shapes / "circle" / "0.png").save(shapes / "circle" / "4.png")
            arguments = (*arguments, "--shot", 1, "--way", 2)
        status, out, err = run(*arguments)
        if measure == "one-shot":
            assert (status, out) == (2, "")  # five queries of each class are not there
            assert "--on" in err
            return
        found = answer(*arguments)["results"][str(shapes)]
        assert ("auc" if measure == "verification" else "map_at_r") in found
        assert status == 0
        assert out

    @pytest.mark.parametrize("method", ["triplets", "softmax", "bce", "pairs"])
    def test_train_and_resume(
        self, answer: Callable[..., dict[str, Any]], run: Run, shapes: Path, tmp_path: Path, method: str
    ) -> None:
        folder = tmp_path / "run"
        arguments = ("train", "--data", shapes, "--method", method, "--steps", 3, "--output", folder)
        found = answer(*arguments, "--drawn", 20)
        assert found["step"] == 3
        model = load_model(folder)
        assert model.inputs == Inputs(28, 20)
        assert (folder / "history.csv").read_text().startswith("step")
        weights = [value.clone() for value in model.network.state_dict().values()]
        answer(*arguments, "--drawn", 20, "--resume")
        again = load_model(folder).network.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
        status, _, err = run(*arguments, "--resume")
        assert (status, "drawn=20" in err) == (2, True)

    def test_train_in_colour_from_a_csv(
        self, answer: Callable[..., dict[str, Any]], shapes: Path, tmp_path: Path
    ) -> None:
        lines = [f"{file},{file.parent.name}" for file in sorted(shapes.rglob("*.png"))]
        (tmp_path / "images.csv").write_text("\n".join(["path,label", *lines]))
        found = answer(
            "train",
            "--data",
            tmp_path / "images.csv",
            "--color",
            "--size",
            16,
            "--steps",
            2,
            "-o",
            tmp_path / "run",
        )
        assert found["classes"] == 3
        assert load_model(tmp_path / "run").inputs == Inputs(16, None, True)

    def test_demo(
        self, answer: Callable[..., dict[str, Any]], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("sklearn")
        shown = []
        monkeypatch.setattr("siamese_fast.cli.demo.train_and_test", untrained)
        monkeypatch.setattr(
            "siamese_fast.cli.demo.draw_demo", lambda results, path: shown.append(results) or path
        )
        found = answer("demo", "--output", tmp_path / "demo")
        assert [result["method"] for result in found["results"]] == ["softmax", "triplets"]
        assert load_model(found["models"]["triplets"]).about["method"] == "triplets"
        out = run("demo", "--output", tmp_path / "demo")[1]
        assert "handwritten digits" in out
        assert "raw pixels" in out
        assert len(shown) == 2


def untrained(method: str, *, seed: int = 0, progress: bool = True) -> demonstration.DemoResult:
    history = History([{"step": 1.0, "loss": 1.0, "seconds": 2.0, "cpu_seconds": 2.0, "accuracy": 0.5}])
    from siamese_fast.evaluation import OneShotResult

    result = OneShotResult(0.5, 0.01, 0.4, 10, 1, 200)
    assert method in ("softmax", "triplets")
    return demonstration.DemoResult(method, tiny_model(method), history, result, result)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["train", "--method", "magic"], "--method"),
            (["train", "--data", "nowhere"], "--data"),
            (["train", "--data", "omniglot"], "--omniglot"),
            (["train", "--steps", "2", "--minutes", "1"], "--steps"),
            (["train", "--steps", "many"], "--steps"),
            (["train", "--wrong"], "--wrong"),
            (["evaluate", "--on", "nowhere"], "--on"),
            (["evaluate", "--measure", "luck"], "--measure"),
            (["evaluate", "--on", "omniglot"], "--omniglot"),
            (["compare", "a.png", "b.png"], "a.png"),
            (["compare", "--model", "nowhere", __file__, __file__], "--model"),
            (["compare", __file__, __file__], "test_cli.py"),
            (["predict", "--support", "nowhere", "--query", "nowhere"], "--support"),
            (["embed", "nowhere"], "nowhere"),
            (["fly"], "fly"),
        ],
    )
    def test_one_line_that_names_the_option(self, run: Run, arguments: list[str], named: str) -> None:
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert named in err
        assert err.count("\n") == 1

    def test_a_run_is_not_overwritten(self, run: Run, shapes: Path, tmp_path: Path) -> None:
        save_model(tmp_path / "run", tiny_model())
        status, _, err = run("train", "--data", shapes, "--output", tmp_path / "run")
        assert status == 2
        assert "--resume" in err

    def test_help_teaches(self, run: Run) -> None:
        for command in ("demo", "train", "evaluate", "embed", "predict", "compare", "info", "bench"):
            status, out, _ = run(command, "--help")
            assert status == 0
            assert "--json" in out
        assert "siamese-fast train --data" in " ".join(run("train", "--help")[1].split())

    def test_version(self, run: Run) -> None:
        assert run("--version")[:2] == (0, f"{siamese_fast.__version__}\n")


def test_the_default_network_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMESE_FAST_CACHE", str(tmp_path / "empty"))
    trained = []

    def train(recipe: recipes.Recipe, seed: int, **_: Any) -> recipes.Trained:
        trained.append(recipe.method)
        return recipes.Trained(tiny_model(recipe.method).network, History([{"step": 1.0, "seconds": 1.0}]))

    monkeypatch.setattr(models, "train_recipe", train)
    monkeypatch.setattr(models, "one_shot_validation", lambda recipe: None)
    first, second = models.default_model("triplets"), models.default_model("triplets")
    assert trained == ["triplets"]
    assert second.about == first.about
    assert second.inputs.drawn == 20
