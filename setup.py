"""The native extension; everything else about the package is in pyproject.toml.

SIAMESE_FAST_EXTENSION=0 builds none, so that plain torch serves; 1 makes a failed build an error everywhere,
which it is on Linux x86-64 anyway; elsewhere it is a warning. SIAMESE_FAST_SANITIZE names sanitizers to build
with, such as address,undefined.
"""

import os
import platform
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
WANTED = os.environ.get("SIAMESE_FAST_EXTENSION", "auto")
SANITIZERS = os.environ.get("SIAMESE_FAST_SANITIZE", "")


def files(*patterns: str) -> list[str]:
    """Paths relative to this file, as setuptools wants them."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern))


def flags() -> tuple[list[str], list[str]]:
    """Of compiler and linker: never -march=native (vector code is chosen at run time), never -ffast-math.

    No contraction by the compiler either: it would fuse a vector body and its scalar tail differently, and
    a row's result would depend on where the row stands. Kernels write their multiply-adds out.
    """
    common = ["-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
    if not SANITIZERS:
        return ["-O3", *common], ["-fopenmp"]
    sanitize = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"]
    # AddressSanitizer sees the same faults; without these, compiling takes a third of the time.
    fewer = ["-fno-sanitize=null,alignment,object-size,pointer-overflow,vptr", "-Wno-maybe-uninitialized"]
    return ["-O1", "-g1", "-fno-omit-frame-pointer", *common, *sanitize, *fewer], ["-fopenmp", *sanitize]


def extension() -> Pybind11Extension:
    compile_flags, link_flags = flags()
    must_build = WANTED == "1" or (sys.platform == "linux" and platform.machine() == "x86_64")
    return Pybind11Extension(  # adds -fvisibility=hidden
        "siamese_fast._native",
        files("csrc/*.cpp", "csrc/cpu/*.cpp"),
        depends=files("csrc/**/*.h", "csrc/**/*.inl"),
        include_dirs=["csrc"],
        cxx_std=17,
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
        optional=not must_build,
    )


class BuildExtension(build_ext):
    """Builds anew when the flags changed, which setuptools by itself does not notice."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        stamp = Path(self.build_temp) / "flags.txt"
        text = " ".join([*self.compiler.executables["compiler_so"], *ext.extra_compile_args]) + "\n"
        if not stamp.exists() or stamp.read_text() != text:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text)
        ext.depends.append(str(stamp))
        super().build_extension(ext)


if WANTED not in ("auto", "0", "1"):
    raise SystemExit(f"SIAMESE_FAST_EXTENSION must be auto, 0 or 1, got {WANTED!r}")

ParallelCompile("NPY_NUM_BUILD_JOBS").install()
setup(
    ext_modules=[] if WANTED == "0" else [extension()],
    cmdclass={"build_ext": BuildExtension},
)
