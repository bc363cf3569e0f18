"""Peak memory of one call, measured in a fresh process so that nobody's leftovers count.

    python -m siamese_fast.benchmarking.memory ROW CONTENDER THREADS [CAP]

The process makes the inputs, lets the kernel forget its peak (Linux), calls once and prints {"bytes": peak
minus what was resident before}. Code that loads at the first call is loaded by a small row of the same
operation first; a compiled contender compiles at its own size and its second call counts. CAP bytes limit
the process, so that a contender that wants more fails alone.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from siamese_fast.benchmarking.contender import Contender, stage_call
from siamese_fast.benchmarking.work import WORK, Work

_SMALL = {"N": 64, "Q": 16, "S": 64, "B": 64, "C": 8}
_TIMEOUT = 300


def peak_bytes(work: Work, contender: Contender, threads: int, cap: int | None = None) -> int:
    """Bytes that one call needs beyond its inputs.

    Raises:
        RuntimeError: with the last line of the process's error, for one that did not finish.
    """
    command = [sys.executable, "-W", "ignore", "-m", "siamese_fast.benchmarking.memory"]
    command += [work.name, contender.name, str(threads), *([str(cap)] if cap else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took more than {_TIMEOUT} seconds") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def _measure(work: Work, contender: Contender) -> int:
    warm = (
        work
        if contender.compiled
        else replace(
            work, size={name: min(count, _SMALL.get(name, count)) for name, count in work.size.items()}
        )
    )
    call = stage_call(contender, warm.inputs(), work.leaves, work.stage)
    call()
    if warm is not work:
        call = stage_call(contender, work.inputs(), work.leaves, work.stage)
    gc.collect()
    return _peak_of(call)


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


def _main(row: str, name: str, threads: str, cap: str | None = None) -> None:
    from siamese_fast.benchmarking.machine import limit_threads

    if cap is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(cap), int(cap)))
    limit_threads(int(threads))
    work = next(work for work in WORK if work.name == row)
    contender = next(contender for contender in work.contenders if contender.name == name)
    print(json.dumps({"bytes": _measure(work, contender)}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
