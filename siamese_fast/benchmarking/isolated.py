"""Peak memory and time of a call in a fresh process: nobody's leftovers count, and a failure is its own.

    python -m siamese_fast.benchmarking.isolated TASK      TASK is a JSON object, see `spend`

The process makes the inputs, calls once, lets the kernel forget its peak (Linux), calls again and prints
{"bytes": peak minus what was resident before, "seconds": median}. Code that loads at the first call is loaded
by a small size first; a compiled contender compiles at its own size and its later calls count. A cap in bytes
limits the process (RLIMIT_DATA), so that a contender that wants more fails alone.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from siamese_fast.benchmarking.contender import Call, Contender, stage_call
from siamese_fast.benchmarking.rows import named
from siamese_fast.benchmarking.work import Work

_SMALL = {"N": 64, "Q": 16, "S": 64, "B": 64, "C": 8}
_TIMEOUT = 300.0
_SAMPLES, _ENOUGH = 5, 1.0
_MEMORY_WORDS = ("memory", "alloc")


@dataclass(frozen=True)
class Spent:
    """Bytes that one call needs beyond its inputs, and the median seconds of a few calls."""

    bytes: int
    seconds: float


class NotSpent(RuntimeError):
    """A process that did not finish; `cause` says what stopped it, the message its last words."""

    def __init__(self, cause: Literal["memory", "time", "error"], words: str) -> None:
        super().__init__(words)
        self.cause = cause


def peak_bytes(work: Work, contender: Contender, threads: int, cap: int | None = None) -> int:
    """Bytes that one call of a row's contender needs beyond its inputs.

    Raises:
        NotSpent: the process did not finish.
    """
    return spend(row_task(work, contender, threads), cap, _TIMEOUT).bytes


def row_task(work: Work, contender: Contender, threads: int) -> dict[str, Any]:
    """A contender of a row of `rows`, at the row's size or another."""
    task = {"kind": "row", "row": work.name, "contender": contender.name}
    return {**task, "size": dict(work.size), "threads": threads}


def spend(task: Mapping[str, Any], cap: int | None, timeout: float) -> Spent:
    """Run a task in a process of its own.

    Args:
        task: from `row_task`, or from `steps.step_task`.
        cap: bytes of data that the process may hold.
        timeout: seconds for the whole process.

    Raises:
        NotSpent: the process did not finish.
    """
    command = [sys.executable, "-W", "ignore", "-m", "siamese_fast.benchmarking.isolated"]
    command.append(json.dumps({**task, "cap": cap}))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotSpent("time", f"took more than {timeout:.0f} seconds") from error
    if done.returncode == 0:
        return Spent(**json.loads(done.stdout.splitlines()[-1]))
    lines = done.stderr.strip().splitlines()
    words = lines[-1] if lines else f"exit status {done.returncode}"
    starved = done.returncode < 0 or any(word in words.casefold() for word in _MEMORY_WORDS)
    raise NotSpent("memory" if starved else "error", words)


def measure(call: Call) -> Spent:
    """Peak memory of a first call and the median time of calls, of one alone where it is slow."""
    gc.collect()
    seconds: list[float] = []

    def timed() -> None:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)

    peak = _peak_of(timed)
    while len(seconds) < _SAMPLES and sum(seconds) < _ENOUGH:
        timed()
    return Spent(peak, statistics.median(seconds))


def _row_call(task: Mapping[str, Any]) -> Call:
    work = replace(named(task["row"]), size=task["size"])
    contender = next(one for one in work.contenders if one.name == task["contender"])
    if contender.compiled:
        call = stage_call(contender, work.inputs(), work.leaves, work.stage)
        call()
        return call
    small = {name: min(count, _SMALL.get(name, count)) for name, count in work.size.items()}
    stage_call(contender, replace(work, size=small).inputs(), work.leaves, work.stage)()
    return stage_call(contender, work.inputs(), work.leaves, work.stage)


def _peak_of(call: Callable[[], object]) -> int:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
            reset.write("5")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        earlier = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return unit * int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - earlier)


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def _main(text: str) -> None:
    from siamese_fast.benchmarking import steps
    from siamese_fast.benchmarking.machine import limit_threads

    task = json.loads(text)
    if task["cap"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (task["cap"], task["cap"]))
    limit_threads(task["threads"])
    call = _row_call(task) if task["kind"] == "row" else steps.step_call(task)
    spent = measure(call)
    print(json.dumps({"bytes": spent.bytes, "seconds": spent.seconds}))


if __name__ == "__main__":
    _main(sys.argv[1])
