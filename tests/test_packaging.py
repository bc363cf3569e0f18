"""The package as a whole: metadata, pins, imports, the fallback without the extension, the README."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import siamese_fast

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def python(code: str) -> str:
    """Run code in a new interpreter; returns what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(name: str) -> ModuleType:
    """A module of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


class TestMetadata:
    def test_the_version_has_one_source(self) -> None:
        assert PROJECT["dynamic"] == ["version"]
        assert f"## [{siamese_fast.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
        assert f"version: {siamese_fast.__version__}" in (ROOT / "CITATION.cff").read_text()

    def test_every_dependency_is_pinned_exactly(self) -> None:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins), pins
        pinned = {canonical(pin.split("==")[0]) for pin in pins}
        assert not {name for name in pinned if name.startswith(("nvidia", "cuda"))}
        extras = PROJECT["optional-dependencies"]
        installed = [
            *PROJECT["dependencies"],
            *(one for name in extras if name != "tensorboard" for one in extras[name]),
        ]
        needed = {canonical(re.split(r"[<>=\[]", one)[0]) for one in installed} - {"siamese-fast"}
        assert needed <= pinned, needed - pinned

    def test_the_extension_needs_no_torch(self) -> None:
        code = "import runpy, sys; sys.argv = ['setup.py', '--name']; runpy.run_path('setup.py')"
        assert python(f"{code}; print('torch' in sys.modules)").split() == ["siamese-fast", "False"]


class TestImport:
    def test_every_public_name_is_there(self) -> None:
        assert siamese_fast.__all__ == sorted(siamese_fast.__all__)
        for name in siamese_fast.__all__:
            assert getattr(siamese_fast, name) is not None
            assert name in dir(siamese_fast)
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = siamese_fast.nothing  # type: ignore[attr-defined]

    def test_importing_loads_nothing_heavy_and_prints_nothing(self) -> None:
        heavy = (
            "matplotlib",
            "sklearn",
            "skimage",
            "PIL",
            "pytorch_metric_learning",
            "rich",
            "siamese_fast.network",
        )
        code = f"import sys, siamese_fast; print([name for name in {heavy} if name in sys.modules])"
        assert python(code) == "[]\n"

    def test_without_the_extension_the_reference_serves_after_one_warning(self) -> None:
        code = """
import importlib.util, warnings
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.endswith("_native") else find(name, *rest)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import siamese_fast
import torch
x = torch.randn(8, 4, requires_grad=True)
siamese_fast.batch_hard_triplet_loss(x, torch.arange(8) // 2).backward()
mine = [str(w.message) for w in caught if "siamese_fast" in str(w.message)]
print(len(mine), set(siamese_fast.backend.table().values()), bool(x.grad.isfinite().all()))
"""
        assert python(code) == "1 {'reference'} True\n"


class TestReadme:
    @pytest.mark.parametrize("number", range(2))
    def test_its_code_runs(self, number: int) -> None:
        exec(compile(BLOCKS[number], "README.md", "exec"), {})

    @pytest.mark.slow
    def test_its_training_code_runs(self) -> None:
        assert len(BLOCKS) == 4
        exec(compile(BLOCKS[2].replace("seed=0", "seed=0, steps=2"), "README.md", "exec"), {})

    def test_its_code_for_several_ranks_runs(self) -> None:
        launch = "RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost', MASTER_PORT='0'"
        code = f"import os; os.environ.update({launch})\n{BLOCKS[3]}\nprint(len(answers))"
        assert python(code) == "5\n"

    def test_its_tables_are_those_of_the_results(self) -> None:
        readme = script("readme")
        for page in readme.PAGES:
            assert readme.filled(page.read_text()) == page.read_text(), page.name

    def test_tables_are_made_from_results(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        readme = script("readme")
        entry: dict[str, Any] = {
            "runs": [{}],
            "device": {"processor": "A", "instruction_set": "avx2", "libraries": {"torch": "2.13.0"}},
            "mean": {"digits_accuracy": 0.8123, "letters_accuracy": 0.75, "cpu_minutes": 2.04},
            "standard_error": {"digits_accuracy": 0.0042, "letters_accuracy": None},
        }
        path = tmp_path / "quality.json"
        path.write_text(json.dumps({"recipes": {"glyphs-softmax": entry}}))
        monkeypatch.setattr(readme, "QUALITY", path)
        text = readme.filled("a\n<!-- table: glyphs -->\nold\n<!-- end -->\nb")
        assert "| pairs: Koch head, in-batch softmax | 81.2 ± 0.4 % | 75.0 % | 2.0 |\n<!-- end -->\nb" in text
        assert "old" not in text

    def test_a_table_says_what_was_not_measured_and_where_the_rest_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        readme = script("readme")

        def entry(processor: str, **mean: float) -> dict[str, Any]:
            device = {"processor": processor, "instruction_set": "avx2", "libraries": {"torch": "2.13.0"}}
            errors = dict.fromkeys(mean)
            return {
                "runs": [{}],
                "device": device,
                "mean": {**mean, "cpu_minutes": 1},
                "standard_error": errors,
            }

        path = tmp_path / "quality.json"
        monkeypatch.setattr(readme, "QUALITY", path)
        one = {"omniglot-bce": entry("A", runs_error=0.2), "omniglot-softmax": entry("A", runs_error=0.1)}
        path.write_text(json.dumps({"recipes": one}))
        assert readme.machine() == ["Measured on one core of A (avx2), torch 2.13.0."]
        assert readme.omniglot()[-1].endswith("| 20.0 % | - | 1.0 |")
        path.write_text(json.dumps({"recipes": {**one, "omniglot-bce": entry("B", runs_error=0.2)}}))
        (line,) = readme.machine()
        assert line.startswith(
            "Measured on one core: omniglot-bce on B (avx2), torch 2.13.0; omniglot-softmax on A"
        )


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
