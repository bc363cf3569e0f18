"""What benchmarks/gpu.sh runs: is a GPU there, are the operations right on it, how fast are they.

    gpu.py present                        exits 3 without a GPU, and says so
    gpu.py architecture                   prints its number, such as 90
    gpu.py check [--small] [--output F]   every Case on the GPU by the gap rule
    gpu.py time [--output F]              CUDA events, L2 flushed, random data, limits in the same run

Without a GPU `check` and `time` take `--dry-run`: the same code at tiny sizes on the CPU, kernels interpreted
(TRITON_INTERPRET=1). It tries this code; its times mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamese_fast import backend
from siamese_fast.testing import CASES, Case, Draw, Inputs, Options, Size, check

SIZES = (
    (Size(0, 5, 3), "normal"),
    (Size(5, 0, 3), "normal"),
    (Size(33, 31, 31), "tight"),
    (Size(65, 17, 127), "integers"),
    (Size(130, 67, 128), "normal"),
    (Size(40, 41, 255), "relu"),
    (Size(300, 280, 64), "integers"),
    (Size(700, 530, 300), "normal"),
)
SMALL = ((Size(65, 70, 40), "normal"),)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def moved(value: Any, device: str) -> Any:
    if isinstance(value, tuple):
        return tuple(moved(one, device) for one in value)
    return value.to(device) if isinstance(value, Tensor) else value


def on_device(case: Case, device: str) -> Case:
    """The case with its arguments sent to `device` and its results fetched; what it mined is mined there
    too.
    """

    def function(**arguments: Any) -> Any:
        return moved(
            case.function(**{name: moved(value, device) for name, value in arguments.items()}), "cpu"
        )

    def chosen(outputs: Any, inputs: Inputs, options: Options) -> Inputs:
        sent = {name: moved(value.detach(), device) for name, value in inputs.items()}
        return {name: moved(value, "cpu") for name, value in case.chosen(outputs, sent, options).items()}

    return dataclasses.replace(case, function=function, chosen=chosen)


def check_all(device: str, small: bool) -> dict[str, Any]:
    failures, done = [], 0
    for name, case in CASES.items():
        for variant in list(case.variants)[: 2 if small else None]:
            for number, (size, kind) in enumerate(SMALL if small else SIZES):
                dtype = DTYPES[number % len(DTYPES)] if not small else torch.float32
                try:
                    check(on_device(case, device), variant, size, Draw(dtype, kind))
                except Exception as error:  # every failure is reported, not the first alone
                    where = f"{name}[{variant}] {tuple(size)} {dtype} {kind}"
                    failures.append({"where": where, "error": f"{type(error).__name__}: {error}"[:500]})
                    print("FAILED", where, flush=True)
                    if len(failures) <= 3:
                        traceback.print_exc()
                done += 1
    print(f"{done - len(failures)} of {done} checks passed")
    return {"checks": done, "failures": failures, "kernels": backend.table("cuda")}


def machine() -> dict[str, Any]:
    there = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if there else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def write(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **document}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("present", "architecture", "check", "time"))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument(
        "--small", action="store_true", help="one small size of each case, for compute-sanitizer"
    )
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, kernels interpreted")
    arguments = parser.parse_args()
    if arguments.dry_run and arguments.action in ("check", "time"):
        with backend.use("triton"):
            return run(arguments.action, "cpu", True, arguments.output)
    if not torch.cuda.is_available():
        print("there is no CUDA device here (or torch has none): nothing was run", file=sys.stderr)
        return 3
    if arguments.action == "present":
        print(machine())
        return 0
    if arguments.action == "architecture":
        print("{}{}".format(*torch.cuda.get_device_capability()))
        return 0
    return run(arguments.action, "cuda", arguments.small, arguments.output)


def run(action: str, device: str, small: bool, output: Path | None) -> int:
    if action == "check":
        found = check_all(device, small)
    else:
        from gpu_work import time_all

        found = time_all(device, device != "cuda")
    write(output, found)
    return 1 if found.get("failures") else 0


if __name__ == "__main__":
    sys.exit(main())
