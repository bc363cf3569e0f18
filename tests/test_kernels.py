"""Triton kernels without a GPU: the operations' suite under the interpreter, and compiled ahead of time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from siamese_fast import backend

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
    """The suite under the interpreter fails where a kernel is wrong: here a tie goes to the later tile."""
    code = (
        "import os; os.environ['TRITON_INTERPRET'] = '1'\n"
        "import sys, pathlib, importlib.util, pytest\n"
        "from siamese_fast.kernels import hardest_pairs as room\n"
        "text = pathlib.Path(room.__file__).read_text()\n"
        "fault = text.replace('better = value > best', 'better = value >= best')\n"
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


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100", "sm_120"])
@pytest.mark.parametrize("tier", ["sample", pytest.param("all", marks=pytest.mark.slow)])
def test_compiled_kernels_have_no_faults(tier: str, architecture: str) -> None:
    from siamese_fast.kernels import compilation

    if tier == "sample":
        found = compilation.jobs(architecture, (torch.bfloat16,), (128,), SAMPLE)
        found = found[:: max(1, len(found) // 3)][:3]
        found += compilation.representative(compilation.jobs(architecture, (torch.float32,), (1,), SAMPLE))[
            :3
        ]
    else:
        found = compilation.jobs(architecture)
    assert found
    faults = {job.label: compilation.compile_job(job, architecture).faults for job in found}
    assert not {label: fault for label, fault in faults.items() if fault}


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
    squeezed = compilation.compile_job(replace(job, options=(("maxnreg", 64), ("num_warps", 4))), "sm_90")
    assert squeezed.spills > 0 and any("stack" in fault for fault in squeezed.faults)
