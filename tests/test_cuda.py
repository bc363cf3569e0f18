"""The CUDA C++ kernels without a GPU: run on the CPU by a block emulator through the operations' suite,
faults planted to show that it sees them, and compiled by nvcc.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rooms import WORKLOADS, dtype_name
from torch import Tensor

import siamese_fast
from siamese_fast import backend
from siamese_fast.ops._define import layer
from siamese_fast.testing import CASES, Draw, Size, check

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "csrc" / "cuda"
ROOM = "siamese_fast.native.l1_similarity_cuda"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("l1_similarity", "l1_similarity_bce", "l1_similarity_bce_grad", "l1_similarity_matrix")
TILES = (
    (Size(130, 150, 128), "normal"),
    (Size(70, 129, 200), "relu"),
    (Size(33, 40, 520), "tight"),
    (Size(5, 300, 64), "integers"),
    (Size(35, 3, 1100), "normal"),
)

FLAGS = ("-std=c++17", "-O1", "-mf16c", "-ffp-contract=off", "-DSIAMESE_FAST_EMULATE")
FLAGS += (f"-I{SOURCES}", f"-I{ROOT / 'tests' / 'cuda'}")


def compile_for_the_emulator(*options: str | Path) -> None:
    if shutil.which("g++") is None or not SOURCES.exists():
        pytest.skip("there is no g++")
    done = subprocess.run(["g++", *FLAGS, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The module, its kernels compiled for the emulator."""
    library = tmp_path_factory.mktemp("emulated") / "_cuda.so"
    includes = subprocess.run(
        [sys.executable, "-m", "pybind11", "--includes"], capture_output=True, text=True, check=True
    ).stdout.split()
    sources = [SOURCES / name for name in ("module.cpp", "l1_similarity.cu", "l1_similarity_matrix.cu")]
    shared = ("-fPIC", "-shared", "-fvisibility=hidden", "-x", "c++")
    compile_for_the_emulator(*includes, *shared, *sources, "-o", library)
    spec = importlib.util.spec_from_file_location("siamese_fast._cuda", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serving(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operations on the CPU are served by the emulated module."""
    monkeypatch.setitem(sys.modules, "siamese_fast._cuda", emulated)
    monkeypatch.setattr(siamese_fast, "_cuda", emulated, raising=False)
    sys.modules.pop(ROOM, None)
    with layer(importlib.import_module(ROOM).KERNELS, "CPU"):
        yield
    sys.modules.pop(ROOM, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", NAMES)
def test_gap_rule(name: str, dtype: torch.dtype, serving: None) -> None:
    for number, (size, kind) in enumerate((*WORKLOADS, *TILES)):
        if (number + DTYPES.index(dtype)) % 3 == 0 and size.depth < 4096:
            for variant in CASES[name].variants:
                check(CASES[name], variant, size, Draw(dtype, kind))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", NAMES)
def test_gap_rule_everywhere(name: str, dtype: torch.dtype, serving: None) -> None:
    for size, kind in (*WORKLOADS, *TILES):
        for variant in CASES[name].variants:
            check(CASES[name], variant, size, Draw(dtype, kind))


def test_unaligned_rows(serving: None) -> None:
    """Rows that begin off the 16-byte grid are read element by element."""
    draw = Draw(torch.float32)
    flat = draw.rows(1, 4 * 40 + 1).flatten()
    q, weight = flat[1:].view(40, 4), draw.weight(4)
    found = siamese_fast.l1_similarity_matrix(q, q, weight, 0.5)
    pairs = siamese_fast.l1_similarity(q, q.roll(1, 0).contiguous(), weight, 0.5)
    expected = ((q[:, None] - q[None]).abs() * weight).sum(2) + 0.5
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pairs, expected[torch.arange(40), torch.arange(-1, 39)])


@pytest.mark.parametrize("operation", [siamese_fast.l1_similarity_matrix, siamese_fast.l1_similarity])
def test_gradients_of_nan_and_infinity_are_those_of_the_reference(
    operation: Callable[..., Tensor], serving: None
) -> None:
    """inf - inf too: its sign is 0."""
    q, s = torch.randn(40, 9), torch.randn(40, 9)
    q[3, 2], s[5, 1] = float("nan"), float("nan")
    q[7, 0] = s[7, 0] = s[9, 4] = float("inf")
    leaves = [value.requires_grad_() for value in (q, s, torch.ones(9))]
    found = torch.autograd.grad(operation(*leaves).sum(), leaves)
    with backend.use("reference"):
        expected = torch.autograd.grad(operation(*leaves).sum(), leaves)
    for got, want in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(got, want, equal_nan=True)
    assert torch.equal(found[2].isfinite(), expected[2].isfinite())


BARRIER = "__syncthreads();"
# What is replaced in the forward kernel, which time it occurs, and by what.
FAULTS = {
    "no barrier before the slices are read": (BARRIER, 0, ""),
    "no barrier before they are overwritten": (BARRIER, 1, ""),
    "the last column is never written": ("if (j < supports) out", 0, "if (j + 1 < supports) out"),
    "the last weight is left out": ("k + threadIdx.x < depth ?", 0, "k + threadIdx.x + 1 < depth ?"),
    "a barrier that some threads miss": (BARRIER, 0, f"if (threadIdx.x > 3) {BARRIER}"),
}


def outcome(text: str, folder: Path) -> int:
    """0 if the forward kernel of this text is right, 1 if it is wrong, 2 if its launch fails."""
    kernel, program = folder / "kernel.cpp", folder / "forward"
    kernel.write_text(text)
    compile_for_the_emulator(kernel, ROOT / "tests" / "cuda" / "forward.cpp", "-o", program)
    return subprocess.run([program], timeout=60).returncode


def test_the_forward_kernel_without_a_fault_is_right(tmp_path: Path) -> None:
    assert outcome((SOURCES / "l1_similarity_matrix.cu").read_text(), tmp_path) == 0


@pytest.mark.parametrize("fault", list(FAULTS))
def test_planted_faults_are_found(fault: str, tmp_path: Path) -> None:
    pattern, which, instead = FAULTS[fault]
    text = (SOURCES / "l1_similarity_matrix.cu").read_text()
    start, end = [match.span() for match in re.finditer(re.escape(pattern), text)][which]
    assert outcome(text[:start] + instead + text[end:], tmp_path) == (2 if "miss" in fault else 1)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize(
    "architecture", [*(pytest.param(a, marks=pytest.mark.slow) for a in (80, 100, 120)), 90]
)
def test_compiled_kernels_do_not_spill(architecture: int, tmp_path: Path) -> None:
    listing = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    if f"compute_{architecture}" not in listing.split():
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    for source in sorted(SOURCES.glob("*.cu")):
        command = ["nvcc", "-O3", "-std=c++17", "-Xptxas=-v", f"-arch=sm_{architecture}", "-c", source]
        done = subprocess.run(
            [*command, "-o", tmp_path / "out.o"], capture_output=True, text=True, check=True
        )
        found = re.findall(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr
        )
        assert len(found) >= 6
        assert set(found) == {("0", "0", "0")}, source
