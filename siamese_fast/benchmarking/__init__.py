"""The benchmark: every operation against other libraries and the machine's limits, interleaved in a process.

    rows = select("batch-hard")
    result = run(rows, Settings(threads=1))

`rows` holds the rows, `peers` and `forms` one adapter for each thing we compare with, `harness` the timing,
`limits` the machine's own, `gate` what keeps a wrong kernel from being timed. `siamese-fast bench` is this
package on the command line, `benchmarks/` under pytest-benchmark.
"""

from siamese_fast.benchmarking import report
from siamese_fast.benchmarking.comparison import Change, compare, load, save
from siamese_fast.benchmarking.contender import Contender
from siamese_fast.benchmarking.harness import Plan, Timing, measure
from siamese_fast.benchmarking.limits import Limit, Limits
from siamese_fast.benchmarking.rows import WORK, select
from siamese_fast.benchmarking.suite import Settings, run
from siamese_fast.benchmarking.work import Aims, Cost, Work

__all__ = [
    "WORK",
    "Aims",
    "Change",
    "Contender",
    "Cost",
    "Limit",
    "Limits",
    "Plan",
    "Settings",
    "Timing",
    "Work",
    "compare",
    "load",
    "measure",
    "report",
    "run",
    "save",
    "select",
]
