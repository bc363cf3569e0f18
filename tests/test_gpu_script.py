"""benchmarks/gpu.py without a GPU: what it runs there, tried at tiny sizes with the kernels interpreted."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks/ is not here"),
]


def dry_run(action: str, folder: Path) -> Any:
    """What it writes; torch.compile compiles nothing."""
    output = folder / f"{action}.json"
    variables = {"TRITON_INTERPRET": "1", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, action, "--dry-run", "--output", output],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(output.read_text())


def test_every_row_runs(tmp_path: Path) -> None:
    found = dry_run("time", tmp_path)
    assert all(rate > 0 for rate in found["limits"].values()) and len(found["limits"]) == 4
    assert len(found["works"]) >= 13
    for row in found["works"]:
        for who in ("siamese_fast", "torch", "torch.compile"):
            if who in row["results"]:
                assert row["results"][who].get("seconds", 0) > 0, (row["name"], who, row["results"][who])


@pytest.mark.slow
def test_every_check_runs(tmp_path: Path) -> None:
    found = dry_run("check", tmp_path)
    assert found["failures"] == [] and found["checks"] > 40


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, SCRIPT, "present"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and "no CUDA device" in done.stderr
    refused = subprocess.run(
        [sys.executable, SCRIPT, "time", "--dry-run"],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
    )
    assert refused.returncode != 0 and "TRITON_INTERPRET=1" in refused.stderr
