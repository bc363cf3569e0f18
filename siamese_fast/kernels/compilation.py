"""The kernels compiled ahead of time, without a GPU, for the architectures named: what they need, and
what must hold.

    python -m siamese_fast.kernels.compilation --output benchmarks/results/gpu_compile.json

The launches are those that the operations make: each Case runs forward and backward with launches recorded
instead of run. Held: no stack, no spills (no LDL or STL instruction), shared memory within the
architecture's limit, and tensor-core instructions wherever a kernel has a product tile.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from siamese_fast import backend
from siamese_fast.kernels._launch import Launch, interpreting, recording
from siamese_fast.ops._define import layer
from siamese_fast.testing import CASES, Case, Draw, Options, Size, outputs_of, prepare

SHARED_MEMORY = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "sm_120": 99 << 10}
ARCHITECTURES = tuple(SHARED_MEMORY)
DTYPES = {torch.float32: "fp32", torch.float64: "fp64", torch.float16: "fp16", torch.bfloat16: "bf16"}
OPTIONS = ("num_warps", "num_stages", "maxnreg")
POINTERS = {**DTYPES, torch.int64: "i64", torch.int32: "i32", torch.uint8: "u8"}
TENSOR_CORES = re.compile(r"\b(HMMA|HGMMA|UTC[A-Z]*MMA)\b")
SPILLS = re.compile(r"\b(LDL|STL)\b")


@dataclass(frozen=True)
class Job:
    """One specialisation: a kernel, the types of its arguments and its constants."""

    kernel: Any = field(compare=False)
    name: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    divisible: tuple[int, ...]
    options: tuple[tuple[str, int], ...]

    @property
    def label(self) -> str:
        types = sorted({kind.lstrip("*") for _, kind in self.signature if kind[0] == "*" and kind[1] != "i"})
        constants = ", ".join(f"{name}={value}" for name, value in self.constants)
        return f"{self.name}[{'/'.join(types)}; {constants}]"

    @property
    def wants_tensor_cores(self) -> bool:
        constants = dict(self.constants)
        always = "BK" in constants and bool(constants.keys() & {"BH", "FORMULA"})
        return constants.get("TENSOR", always) is True


@dataclass(frozen=True)
class Compiled:
    label: str
    architecture: str
    registers: int
    stack: int
    shared: int
    spills: int
    tensor_cores: bool
    faults: tuple[str, ...]


def jobs(
    architecture: str,
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
    depths: tuple[int, ...] = (128, 512),
    cases: tuple[str, ...] = tuple(CASES),
) -> list[Job]:
    """The specialisations that running the cases would compile, each once."""
    if interpreting:
        raise RuntimeError("nothing is compiled under TRITON_INTERPRET=1")
    found: dict[Job, None] = {}
    kernels = {name: backend.triton_kernel(name) for name in backend.triton_operations()}
    for depth in depths:
        for dtype in dtypes:
            for launches in _launches(architecture, kernels, dtype, depth, cases):
                found.update((_job(one), None) for one in launches)
    return list(found)


def _launches(
    architecture: str, kernels: dict[str, Any], dtype: torch.dtype, depth: int, cases: tuple[str, ...]
) -> Iterator[list[Launch]]:
    for name in cases:
        for options in CASES[name].variants.values():
            with recording(architecture) as launches, layer(kernels, "CPU"):
                _run(CASES[name], options, dtype, depth)
            yield launches


def _run(case: Case, options: Options, dtype: torch.dtype, depth: int) -> None:
    """Forward and backward, of one row if the depth is 1; outputs hold nothing, since no kernel runs."""
    inputs = prepare(case, Size(512, 384, depth) if depth > 1 else Size(1, 1, 1), Draw(dtype))
    output = outputs_of(case, inputs, options)[0]
    if output.requires_grad:
        output.sum().backward()


def _job(one: Launch) -> Job:
    names = one.kernel.arg_names
    signature, divisible, ones = [], [], {}
    for position, (name, value) in enumerate(zip(names, one.arguments, strict=False)):
        if isinstance(value, Tensor):
            signature.append((name, f"*{POINTERS[value.dtype]}"))
            divisible.append(position)
        elif value == 1:  # Triton makes it a constant
            ones[name] = 1
        else:
            signature.append((name, "i32" if -(2**31) <= value < 2**31 else "i64"))
            if value % 16 == 0:
                divisible.append(position)
    constants = ones | {name: value for name, value in one.constants.items() if name not in OPTIONS}
    options = {name: value for name, value in one.constants.items() if name in OPTIONS}
    return Job(
        one.kernel,
        one.kernel.__name__.lstrip("_"),
        tuple(signature),
        tuple(sorted(constants.items(), key=lambda item: item[0])),
        tuple(divisible),
        tuple(sorted(options.items())),
    )


def representative(found: list[Job]) -> list[Job]:
    """One job of each kernel, dtype and kind of tile: what the table shows; the metric changes little."""
    kept: dict[tuple[Any, ...], Job] = {}
    for job in found:
        constants = dict(job.constants)
        pointers = tuple(kind for _, kind in job.signature if kind[0] == "*")
        kept.setdefault((job.name, pointers, constants.get("TENSOR"), constants.get("WHOLE")), job)
    return list(kept.values())


def compile_job(job: Job, architecture: str) -> Compiled:
    """Compile one specialisation and read its machine code."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = job.kernel.arg_names
    source = ASTSource(
        fn=job.kernel,
        signature={**dict(job.signature), **{name: "constexpr" for name, _ in job.constants}},
        constexprs={(names.index(name),): value for name, value in job.constants},
        attrs={(position,): [["tt.divisibility", 16]] for position in job.divisible},
    )
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    binary = triton.compile(source, target=target, options=dict(job.options))
    usage, code = _inspect(binary.asm["cubin"])
    stack, registers = int(usage["STACK"]), int(usage["REG"])
    spills, tensor = len(SPILLS.findall(code)), bool(TENSOR_CORES.search(code))
    faults = []
    if stack or spills:
        faults.append(f"{stack} bytes of stack, {spills} local accesses")
    if binary.metadata.shared > SHARED_MEMORY[architecture]:
        faults.append(
            f"{binary.metadata.shared} bytes of shared memory, at most {SHARED_MEMORY[architecture]}"
        )
    if job.wants_tensor_cores and not tensor:
        faults.append("no tensor-core instruction")
    return Compiled(
        job.label, architecture, registers, stack, binary.metadata.shared, spills, tensor, tuple(faults)
    )


def _inspect(cubin: bytes) -> tuple[dict[str, str], str]:
    """Resources and disassembly, by the tool that comes with triton."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)

        def dump(option: str) -> str:
            return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout

        return dict(re.findall(r"(\w+):(\d+)", dump("-res-usage"))), dump("-sass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES, help="default: all")
    parser.add_argument("--all", action="store_true", help="every metric, option and depth, not one of each")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    found = []
    for architecture in arguments.architecture or ARCHITECTURES:
        chosen = jobs(architecture) if arguments.all else representative(jobs(architecture, depths=(128,)))
        for job in chosen:
            one = compile_job(job, architecture)
            found.append(one)
            print(
                f"{architecture:7} {one.registers:4} registers {one.shared:7} shared  {one.label}", flush=True
            )
            for fault in one.faults:
                print(f"        FAULT: {fault}", flush=True)
    if arguments.output:
        rows = [{name: value for name, value in vars(one).items() if name != "faults"} for one in found]
        document = {"triton": triton.__version__, "note": "compiled, not run on a GPU", "kernels": rows}
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    if any(one.faults for one in found):
        raise SystemExit("some kernels have faults")


if __name__ == "__main__":
    main()
