"""What becomes of a result of the benchmark: files, comparison, tables, plots, the command."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from siamese_fast.benchmarking import WORK, compare, load, report, save, select
from siamese_fast.benchmarking.comparison import differences
from siamese_fast.benchmarking.suite import SCHEMA
from siamese_fast.cli import main


def timed(name: str, column: str, median: float, **more: Any) -> dict[str, Any]:
    figures = {"median": median, "low": median, "high": median, "samples": 5, "calls": 1}
    return {"name": name, "column": column, "status": "timed", **figures, **more}


@pytest.fixture
def result() -> dict[str, Any]:
    """A row measured on a machine without noise."""
    return {
        "schema": SCHEMA,
        "machine": {"processor": "one", "threads": 1, "instruction_set": "avx2", "device": "cpu"},
        "versions": {"torch": "2.13"},
        "limits": {"product": {"rate": 1e11, "unit": "flop/s", "probe": "sgemm"}},
        "rows": [
            {
                "name": "tiny",
                "operation": "add",
                "stage": "forward + backward",
                "size": {"N": 8},
                "gate": "passed",
                "entries": [
                    timed("siamese_fast", "ours", 1e-3, peak_bytes=10**6),
                    timed("slower", "published", 3e-3, peak_bytes=10**7, disagreement=1e-7),
                    timed("form", "constructed", 2e-3, disagreement=0.5),
                    {"name": "absent", "column": "published", "status": "missing", "reason": "not there"},
                ],
                "cost": {"unit": "flop", "counted": "N", "limit": "product", "rate": 5e10, "share": 0.5},
                "ratios": {"slower": 3.0, "form": 2.0},
                "best": {
                    "published": {"name": "slower", "ratio": 3.0},
                    "constructed": {"name": "form", "ratio": 2.0},
                },
                "targets": [
                    {"against": "slower", "ratio": 2.0, "reached": 3.0, "met": True},
                    {"against": "absent", "ratio": 2.0, "reached": None, "met": False},
                ],
            }
        ],
    }


def entry(row: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in row["entries"] if found["name"] == name)


def test_result_survives_a_file(result: dict[str, Any], tmp_path: Path) -> None:
    save(result, tmp_path / "folder" / "result.json")
    assert load(tmp_path / "folder" / "result.json") == result


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"rows": []}'])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is not"):
        load(path)


def slowed(result: dict[str, Any], factor: float) -> dict[str, Any]:
    other = copy.deepcopy(result)
    ours = entry(other["rows"][0], "siamese_fast")
    for name in ("median", "low", "high"):
        ours[name] = result["rows"][0]["entries"][0][name] * factor
    return other


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "slower"), (0.8, "faster"), (1.03, "same")])
def test_compare_flags_what_is_beyond_the_noise(result: dict[str, Any], factor: float, verdict: str) -> None:
    (change,) = compare(result, slowed(result, factor))
    assert change.verdict == verdict
    assert change.ratio == pytest.approx(factor)
    assert change.elsewhere == pytest.approx(1)


def test_compare_takes_the_spread_for_noise(result: dict[str, Any]) -> None:
    noisy = copy.deepcopy(result)
    ours = entry(noisy["rows"][0], "siamese_fast")
    ours["low"], ours["high"] = 0.7 * ours["median"], 1.1 * ours["median"]
    assert compare(noisy, slowed(result, 1.2))[0].verdict == "same"


def test_compare_names_rows_that_came_or_went(result: dict[str, Any]) -> None:
    empty = {**result, "rows": []}
    assert compare(result, empty)[0].verdict == "gone"
    assert compare(empty, result)[0].verdict == "new"


def test_compare_says_when_machines_differ(result: dict[str, Any]) -> None:
    other = copy.deepcopy(result)
    other["machine"]["threads"] = 7
    other["limits"]["product"]["rate"] *= 3
    assert differences(result, result) == []
    assert len(differences(result, other)) == 2


def test_command_compares_and_fails_on_a_regression(
    result: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(result, tmp_path / "a.json")
    save(slowed(result, 1.5), tmp_path / "b.json")
    arguments = ["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["changes"][0]["verdict"] == "slower"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--compare", arguments[2], arguments[2]])
    assert not ended.value.code
    assert "same" in capsys.readouterr().out


def test_command_lists_rows_and_names_them_in_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--list", "--only", "koch", "--json"])
    assert {row["name"] for row in json.loads(capsys.readouterr().out)["rows"]} == {
        work.name for work in select("koch")
    }
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--only", "nothing of the kind"])
    assert ended.value.code == 2
    assert WORK[0].name in capsys.readouterr().err


def test_report_names_everything(result: dict[str, Any]) -> None:
    screen = io.StringIO()
    report.show(result, Console(width=200, file=screen))
    for words in (
        "one, avx2, 1 thread, torch 2.13",
        "missing: not there",
        "answers differ by 5.0e-01",
        "50 % (50.0 GFLOP/s)",
        "2x slower",
        "MISSED",
    ):
        assert words in screen.getvalue()
    assert report.markdown(result)[2].startswith("| tiny, forward + backward |")


def test_plots_are_written(result: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from siamese_fast.benchmarking.charts import draw

    growing = copy.deepcopy(result)
    growing["rows"].append(copy.deepcopy(growing["rows"][0]))
    growing["rows"][1]["size"] = {"N": 64}
    for found in (result, growing):
        (path,) = draw(found, tmp_path)
        assert path.name == "add.png"
        assert path.stat().st_size > 1000
