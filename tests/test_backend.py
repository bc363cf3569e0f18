"""Choosing a backend and an instruction set; an extension that is missing, and one that is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import siamese_fast
from siamese_fast import backend, distance

PACKAGE = Path(siamese_fast.__file__).parent
TRY = "import siamese_fast, torch; from siamese_fast import backend; "
# The finder of an editable install would find this tree's extension for a package that lies elsewhere.
ALONE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)]; "


def python(code: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path or ""), **environment}
    return subprocess.run(
        [sys.executable, "-c", code if path is None else ALONE + code],
        capture_output=True,
        text=True,
        env=variables,
        cwd="/",
        timeout=120,
    )


@pytest.fixture
def without_extension(tmp_path: Path) -> Path:
    """A copy of the package as it is where no extension was built."""
    shutil.copytree(
        PACKAGE, tmp_path / "siamese_fast", ignore=shutil.ignore_patterns("_native*.so", "__pycache__")
    )
    return tmp_path


OF_PRODUCTS = {"l1_mlp_similarity_matrix", "l1_mlp_similarity_matrix_backward"}


def servers() -> set[str]:
    """Who serves the operations that have a native kernel: all but those that are torch's matrix products."""
    return {server for name, server in backend.table().items() if name not in OF_PRODUCTS}


def test_every_operation_has_a_native_kernel() -> None:
    kernels = backend.table()
    assert len(kernels) >= 19
    assert servers() == {f"native ({backend.instruction_set()})"}
    assert {kernels[name] for name in OF_PRODUCTS} == {"reference"}


def test_use_serves_inside_the_block_only() -> None:
    """The reference sums a distance in another order, so that its bits tell who served."""
    x, y = torch.randn(64, 4099), torch.randn(64, 4099)
    native = distance(x, y, "manhattan")
    with backend.use("reference"):
        reference = distance(x, y, "manhattan")
        assert set(backend.table().values()) == {"reference"}
        with backend.use("native"):
            assert torch.equal(distance(x, y, "manhattan"), native)
            assert "reference" not in servers()
        assert torch.equal(distance(x, y, "manhattan"), reference)
    assert torch.equal(distance(x, y, "manhattan"), native)
    assert not torch.equal(native, reference)


def test_use_is_undone_by_an_error() -> None:
    with pytest.raises(ZeroDivisionError), backend.use("reference"):
        raise ZeroDivisionError
    assert "reference" not in servers()


def test_what_cannot_be_honoured_raises() -> None:
    with (
        pytest.raises(ValueError, match="backend must be one of 'native', 'triton', 'reference', got 'cuda'"),
        backend.use("cuda"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="instruction set 'neon' does not run here; accepted: scalar"),
        backend.use_instruction_set("neon"),
    ):
        pass


def test_instruction_sets() -> None:
    names = backend.instruction_sets()
    assert names[0] == "scalar"
    assert backend.instruction_set() == (os.environ.get("SIAMESE_FAST_ISA") or names[-1])
    before = backend.instruction_set()
    for name in names:
        with backend.use_instruction_set(name):
            assert backend.instruction_set() == name
            assert servers() == {f"native ({name})"}
    assert backend.instruction_set() == before
    with pytest.raises(ZeroDivisionError), backend.use_instruction_set("scalar"):
        raise ZeroDivisionError
    assert backend.instruction_set() == before


def test_the_environment_chooses_an_instruction_set() -> None:
    done = python(TRY + "print(backend.instruction_set())", SIAMESE_FAST_ISA="scalar")
    assert done.stdout.strip() == "scalar", done.stderr
    done = python(TRY + "print(backend.instruction_set())", SIAMESE_FAST_ISA="neon")
    assert done.returncode != 0
    assert "instruction set 'neon' does not run here" in done.stderr


def test_import_prints_nothing_and_loads_little() -> None:
    done = python(
        "import sys, siamese_fast;"
        "names = ('matplotlib', 'sklearn', 'skimage', 'PIL', 'typer', 'triton');"
        "print([m for m in names if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_a_missing_extension_is_a_mode_with_one_warning(without_extension: Path) -> None:
    code = TRY + (
        "print(siamese_fast.__file__);"
        "print(set(backend.table().values()), backend.instruction_set(), backend.instruction_sets());"
        "x = torch.randn(8, 3, requires_grad=True);"
        "siamese_fast.batch_hard_triplet_loss(x, torch.arange(8) % 2).backward();"
        "print(siamese_fast.nearest_support(x, x)[1][:, 0].tolist())"
    )
    done = python(code, without_extension)
    where, table, nearest = done.stdout.strip().splitlines()
    assert str(without_extension) in where
    assert table == "{'reference'} None ()"
    assert nearest == str(list(range(8)))
    assert done.stderr.count("UserWarning") == 1
    assert "without its C++ extension" in done.stderr
    done = python(TRY + "backend.use('native').__enter__()", without_extension)
    assert "backend 'native' is not available" in done.stderr


def test_a_broken_extension_is_an_error(without_extension: Path) -> None:
    suffix = next(path for path in PACKAGE.glob("_native*.so")).name
    (without_extension / "siamese_fast" / suffix).write_bytes(b"not a library")
    done = python(TRY, without_extension)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
