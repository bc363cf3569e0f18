"""The benchmark: every operation against other libraries and the machine's limits, interleaved in a process.

    rows = select("batch-hard")
    result = run(rows, Settings(threads=1))

`work` holds the rows, `peers` and `forms` one adapter for each thing we compare with, `harness` the timing,
`gate` what keeps a wrong kernel from being timed. `siamese-fast bench` is this package on the command line,
`benchmarks/` under pytest-benchmark.
"""

from siamese_fast.benchmarking import report
from siamese_fast.benchmarking.comparison import Change, compare, load, save
from siamese_fast.benchmarking.contender import Contender
from siamese_fast.benchmarking.harness import Plan, Timing, measure
from siamese_fast.benchmarking.limits import Limit, measure_limits
from siamese_fast.benchmarking.suite import Settings, run
from siamese_fast.benchmarking.work import WORK, Work, select

__all__ = [
    "WORK",
    "Change",
    "Contender",
    "Limit",
    "Plan",
    "Settings",
    "Timing",
    "Work",
    "compare",
    "load",
    "measure",
    "measure_limits",
    "report",
    "run",
    "save",
    "select",
]
