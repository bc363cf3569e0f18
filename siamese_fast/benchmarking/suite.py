"""Runs rows of the benchmark: gate, answers, interleaved timing, peak memory. Results are JSON types.

Every contender of a row appears in the result with a status:

    timed      as it says
    missing    a library that it needs is not installed
    left out   it needs more memory than the machine has free
    failed     it raised
    refused    ours, where its Case fails: a wrong kernel is never timed, and the row has no ratios
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from siamese_fast.benchmarking import figures, gate, harness, ours
from siamese_fast.benchmarking.contender import Call, Contender, disagreement, stage_call
from siamese_fast.benchmarking.isolated import peak_bytes
from siamese_fast.benchmarking.limits import Limit, Limits
from siamese_fast.benchmarking.machine import describe, limit_threads, memory_bytes, version_of
from siamese_fast.benchmarking.work import Work

SCHEMA = 1
_FREE = 0.8
"""Share of the free memory that a contender may take."""

Gate = Callable[[str, str, torch.dtype], str | None]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How rows are measured.

    Attributes:
        threads: for every contender.
        plan: how long a row is timed.
        memory: whether to measure peak memory. peers: whether others than ours take part.
        gate: what keeps ours from being timed.
    """

    threads: int = 1
    plan: harness.Plan = field(default_factory=harness.Plan)
    memory: bool = True
    peers: bool = True
    gate: Gate = gate.failure


def run(
    rows: Sequence[Work],
    settings: Settings | None = None,
    progress: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> dict[str, Any]:
    """Measure rows.

    Args:
        rows: from `select`.
        settings: threads, how long, memory.
        progress: called with what is being done, rows done and rows in all.

    Returns:
        Where it comes from, the machine's limits, and rows with contenders, ratios, share of the limit.

    Example:
        >>> result = run(select("batch-hard"), Settings(threads=1))
        >>> report.show(result, Console())
    """
    settings = settings or Settings()
    before = torch.get_num_threads()
    limit_threads(settings.threads)
    try:
        progress("limits of the machine", 0, len(rows))
        result = describe(settings.threads)
        limits = Limits()
        limits.of("product")
        measured = []
        for number, work in enumerate(rows):

            def tell(text: str, done: int = number, name: str = work.name) -> None:
                progress(f"{name}: {text}", done, len(rows))

            measured.append(run_row(work, settings, limits, tell))
    finally:
        limit_threads(before)
    return {"schema": SCHEMA, **result, "limits": limits.to_dict(), "rows": measured}


def run_row(
    work: Work, settings: Settings, limits: Limits, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """One row; see the module for the states of its entries. With several threads, ours on one takes part."""
    torch.compiler.reset()
    work = _taking_part(work, settings)
    tell("gate")
    refusal = next((why for case in work.gate if (why := settings.gate(*case, work.dtype)) is not None), None)
    entries, calls = _prepare(work, settings, refusal, tell)
    limit_threads(settings.threads)
    tell("limits of the machine")
    _limits_of(work, limits)
    tell("timing")
    for name, timing in harness.measure(calls, settings.plan).items():
        entries[name].update(timing.to_dict(), status="timed")
    calls.clear()
    gc.collect()
    measured = _limits_of(work, limits)
    if settings.memory and work.memory and refusal is None:
        _add_memory(work, settings, entries, tell)
    return {
        "name": work.name,
        "operation": work.operation,
        "stage": work.stage,
        "size": dict(work.size),
        "gate": "passed" if refusal is None else f"failed: {refusal}",
        "entries": list(entries.values()),
        "main": work.main,
        **figures.of_row(work, entries, measured, settings.threads),
    }


def _limits_of(work: Work, limits: Limits) -> dict[str, Limit | None]:
    """What the row is held against; asked for before and after its timing, as the best occasion counts."""
    return {name: limits.of(name, amount) for name, amount in work.cost.against.items()}


def _taking_part(work: Work, settings: Settings) -> Work:
    """The row with the contenders, and the aims, that the settings leave."""
    contenders, aims = work.contenders, work.aims
    if not settings.peers:
        contenders = tuple(one for one in contenders if one.column in ("ours", "baseline"))
        names = {one.name for one in contenders}
        aims = replace(aims, ratios={name: ratio for name, ratio in aims.ratios.items() if name in names})
    if settings.threads > 1:
        contenders = (*contenders, ours.one_thread(work.contenders[0], work.leaves, work.stage))
    return replace(work, contenders=contenders, aims=aims)


def _prepare(
    work: Work, settings: Settings, refusal: str | None, tell: Callable[[str], None]
) -> tuple[dict[str, Entry], dict[str, Call]]:
    """Builds every contender, calls it once and compares its answer with ours."""
    inputs = work.inputs()
    entries: dict[str, Entry] = {}
    calls: dict[str, Call] = {}
    expected: tuple[Tensor, ...] | None = None
    for contender in work.contenders:
        entry: Entry = {"name": contender.name, "column": contender.column}
        entries[contender.name] = entry
        if why := _obstacle(work, contender, refusal):
            entry["status"], entry["reason"] = why
            continue
        tell(contender.name)
        try:
            call = stage_call(contender, inputs, work.leaves, work.stage)
            limit_threads(settings.threads)
            found = contender.answers(call(), inputs)
        except Exception as error:
            entry["status"], entry["reason"] = "failed", f"{type(error).__name__}: {_first_line(error)}"
            continue
        if contender.column == "ours":
            expected = tuple(value.clone() for value in found)
        elif expected is not None:
            entry["disagreement"] = disagreement(found, expected)
        calls[contender.name] = call
    return entries, calls


def _obstacle(work: Work, contender: Contender, refusal: str | None) -> tuple[str, str] | None:
    if contender.column == "ours" and refusal is not None:
        return "refused", refusal
    missing = [library for library in contender.libraries if version_of(library) is None]
    if missing:
        return "missing", f"{', '.join(missing)} is not installed"
    free = memory_bytes()
    if contender.needs is not None and free is not None and contender.needs(work.size) > _FREE * free:
        return (
            "left out",
            f"needs about {contender.needs(work.size) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
        )
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def _add_memory(
    work: Work, settings: Settings, entries: dict[str, Entry], tell: Callable[[str], None]
) -> None:
    free = memory_bytes()
    for contender in work.contenders:
        entry = entries[contender.name]
        if entry["status"] != "timed" or contender.column == "baseline":
            continue
        tell(f"memory of {contender.name}")
        try:
            entry["peak_bytes"] = peak_bytes(
                work, contender, settings.threads, int(_FREE * free) if free else None
            )
        except RuntimeError as error:
            entry["peak_reason"] = str(error)
