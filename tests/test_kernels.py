"""Triton kernels without a GPU: the operations' suite under the interpreter, and compiled ahead of time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from siamese_fast import backend, distance

TESTS = Path(__file__).parent

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def interpreted(*options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *options,
        TESTS / "interpreted.py",
    ]
    variables = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=3000)


@pytest.mark.parametrize("tier", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_operations_under_the_interpreter(tier: str) -> None:
    done = interpreted("-m", tier)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout


def test_a_planted_fault_is_found() -> None:
    """The suite under the interpreter fails where a kernel is wrong: here a tie goes to the later strip."""
    code = (
        "import os; os.environ['TRITON_INTERPRET'] = '1'\n"
        "import sys, pathlib, importlib.util, pytest\n"
        "from siamese_fast.kernels import hardest_pairs as room\n"
        "text = pathlib.Path(room.__file__).read_text()\n"
        "right, wrong = 'min(tl.where(found, index, NOTHING), 0)', 'max(tl.where(found, index, -1), 0)'\n"
        "fault = text.replace(right, wrong)\n"
        "assert fault != text\n"
        "path = pathlib.Path(sys.argv[1]) / 'hardest_pairs.py'; path.write_text(fault)\n"
        "spec = importlib.util.spec_from_file_location(room.__name__, path)\n"
        "module = importlib.util.module_from_spec(spec); sys.modules[room.__name__] = module\n"
        "spec.loader.exec_module(module)\n"
        f"where = {str(TESTS / 'interpreted.py')!r}\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'ties and sqeuclidean', where]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=600
        )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert "test_ties_across_tiles_and_strips" in done.stdout


def test_kernels_that_cannot_be_had_say_why() -> None:
    if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("they can be had here")
    with (
        pytest.raises(RuntimeError, match="there is no CUDA device, and kernels run on the CPU"),
        backend.use("triton"),
    ):
        pass


def test_tensors_on_the_cpu_are_refused_where_the_kernels_serve_a_gpu() -> None:
    x = torch.ones(2, 3)
    with mock.patch("torch.cuda.is_available", return_value=True), backend.use("triton"):
        assert backend.table("cuda")["distance"] == "triton"
        with pytest.raises(RuntimeError, match="'triton' cannot serve distance on the CPU"):
            distance(x, x)
    assert distance(x, x).tolist() == [0, 0]


def test_a_triton_that_is_too_old_is_told_and_left_out() -> None:
    code = (
        "import triton; triton.__version__ = '3.2.0'\n"
        "import torch, warnings; from siamese_fast import backend\n"
        "try: backend.use('triton').__enter__()\n"
        "except RuntimeError as error: print(error)\n"
        "kernel = backend._on_cuda()['distance']\n"
        "print(kernel(torch.zeros(1, 2), torch.ones(1, 2), 'manhattan').tolist())"
    )
    variables = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=variables
    )
    assert "not available: the kernels need triton 3.6 or newer, this is 3.2.0" in done.stdout
    assert done.stdout.endswith("[2.0]\n")
    assert "plain torch serves distance on CUDA devices" in done.stderr


def test_importing_the_package_imports_no_triton() -> None:
    code = (
        "import sys, siamese_fast as sf; print('triton' in sys.modules, sf.backend.table('cuda')['distance'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "triton"], done.stderr


def test_an_architecture_older_than_any_in_the_table_gets_the_oldest_shape() -> None:
    from siamese_fast.kernels import _launch

    x = torch.empty(1, 100, dtype=torch.bfloat16)
    with _launch.recording("sm_75"):
        oldest = _launch.config("product", x)
    with _launch.recording("sm_80"):
        assert _launch.config("product", x) == oldest
    with _launch.recording("sm_90"):
        assert _launch.config("product", x) != oldest
        assert _launch.config("product", x)["BK"] == 128
        assert _launch.config("product", x[:, :20])["BK"] == 32


SAMPLE = ("hardest_pairs", "batch_hard_triplet_loss", "nearest_support", "l1_similarity_bce_grad")


def faults_of(found: list[Any], architecture: str) -> dict[str, tuple[str, ...]]:
    from siamese_fast.kernels import compilation

    assert found
    faults = {job.label: compilation.compile_job(job, architecture).faults for job in found}
    return {label: fault for label, fault in faults.items() if fault}


def test_a_sample_of_compiled_kernels_has_no_faults() -> None:
    """Also of sizes of one, which Triton turns into constants."""
    from siamese_fast.kernels import compilation

    found = compilation.jobs("sm_90", (torch.bfloat16,), (128,), SAMPLE)
    of_one_row = compilation.representative(compilation.jobs("sm_90", (torch.float32,), (1,), SAMPLE))
    assert not faults_of(found[:: len(found) // 3][:3] + of_one_row[:3], "sm_90")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100", "sm_120"])
def test_compiled_kernels_have_no_faults(architecture: str) -> None:
    from siamese_fast.kernels import compilation

    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    assert not faults_of(compilation.jobs(architecture, dtypes, (20, 128, 512)), architecture)


def test_faults_of_a_compiled_kernel_are_seen() -> None:
    """A kernel that holds more than its registers spills, and one without a product has no tensor-core
    instruction.
    """
    from siamese_fast.kernels import compilation

    job = next(
        job
        for job in compilation.jobs("sm_90", (torch.bfloat16,), (128,), ("hardest_pairs",))
        if job.wants_tensor_cores
    )
    squeezed = compilation.compile_job(replace(job, options=(("maxnreg", 96), ("num_warps", 8))), "sm_90")
    assert squeezed.spills > 0 and any("stack" in fault for fault in squeezed.faults)
