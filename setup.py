"""The native extension; everything else about the package is in pyproject.toml.

SIAMESE_FAST_EXTENSION=0 builds none, so that plain torch serves; 1 makes a failed build an error
everywhere, which it is on Linux x86-64 anyway; elsewhere it is a warning. SIAMESE_FAST_SANITIZE names
sanitizers to build with, such as address,undefined. SIAMESE_FAST_CUDA=0 builds no CUDA kernels, 1 does or
fails, auto (the default) does where nvcc and a GPU are; SIAMESE_FAST_CUDA_ARCHS names architectures, such
as "90;100".
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
WANTED = os.environ.get("SIAMESE_FAST_EXTENSION", "auto")
CUDA = os.environ.get("SIAMESE_FAST_CUDA", "auto")
CUDA_ARCHS = os.environ.get("SIAMESE_FAST_CUDA_ARCHS", "80;90;100;120").split(";")
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


def wants_cuda() -> bool:
    return CUDA == "1" or (
        CUDA == "auto" and Path("/dev/nvidiactl").exists() and shutil.which("nvcc") is not None
    )


def cuda_extension() -> Pybind11Extension:
    """The CUDA kernels: no header and no library of torch, the CUDA runtime inside, no driver needed to
    import it.
    """
    if shutil.which("nvcc") is None:
        raise SystemExit("SIAMESE_FAST_CUDA is 1, and there is no nvcc on the path")
    return Pybind11Extension(
        "siamese_fast._cuda",
        ["csrc/cuda/module.cpp"],
        depends=files("csrc/cuda/*"),
        include_dirs=["csrc/cuda"],
        cxx_std=17,
        libraries=["cudart_static", "rt", "dl", "pthread"],
    )


def nvcc_says(*options: str) -> str:
    done = subprocess.run(["nvcc", *options], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout + done.stderr


class BuildExtension(build_ext):
    """Builds anew when the flags changed, which setuptools does not notice; .cu files go to nvcc."""

    def run(self) -> None:
        if (self.inplace or self.editable_mode) and not SANITIZERS and WANTED != "0":
            # For tests, and as long in the compiler as any instruction set: not in what users install.
            self.extensions[0].extra_compile_args.append("-DSIAMESE_FAST_EMULATION")
        super().run()

    def compile_cuda(self, ext: Pybind11Extension) -> None:
        known = nvcc_says("--list-gpu-arch").split()
        archs = [arch for arch in CUDA_ARCHS if f"compute_{arch}" in known]
        if not archs:
            raise SystemExit(f"nvcc knows none of SIAMESE_FAST_CUDA_ARCHS: {';'.join(CUDA_ARCHS)}")
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
        # nvcc may be a wrapper script: it knows itself where its libraries are.
        sources = files("csrc/cuda/*.cu")
        libraries = re.search(r"LIBRARIES=(.*)", nvcc_says("--dryrun", sources[0]))
        ext.library_dirs += re.findall(r'"-L([^"]+)"', libraries[1] if libraries else "")
        for source in sources:
            target = Path(self.build_temp) / f"{Path(source).stem}.cuda.o"
            target.parent.mkdir(parents=True, exist_ok=True)
            flags = ["-O3", "-std=c++17", "-Xcompiler=-fPIC,-fvisibility=hidden", "-cudart=static", *targets]
            self.spawn(["nvcc", *flags, "-c", source, "-o", str(target)])
            ext.extra_objects.append(str(target))

    def build_extension(self, ext: Pybind11Extension) -> None:
        if ext.name.endswith("_cuda"):
            self.compile_cuda(ext)
        stamp = Path(self.build_temp) / "flags.txt"
        text = " ".join([*self.compiler.executables["compiler_so"], *ext.extra_compile_args]) + "\n"
        if not stamp.exists() or stamp.read_text() != text:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text)
        ext.depends.append(str(stamp))
        super().build_extension(ext)


if WANTED not in ("auto", "0", "1"):
    raise SystemExit(f"SIAMESE_FAST_EXTENSION must be auto, 0 or 1, got {WANTED!r}")
if CUDA not in ("auto", "0", "1"):
    raise SystemExit(f"SIAMESE_FAST_CUDA must be auto, 0 or 1, got {CUDA!r}")

ParallelCompile("NPY_NUM_BUILD_JOBS").install()
setup(
    ext_modules=([] if WANTED == "0" else [extension()]) + ([cuda_extension()] if wants_cuda() else []),
    cmdclass={"build_ext": BuildExtension},
)
