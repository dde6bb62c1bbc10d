"""The suite of the evaluation: its arithmetic cell compares what it says, and its tables follow from its cells."""

from __future__ import annotations

import pytest

from benchmarks.runner.suite import SUITES, Cell
from benchmarks.suites import evaluating
from veilset.evaluation import entries


def test_the_arithmetic_cell_finds_no_difference_and_would_find_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    found = evaluating.arithmetic(images=120, width=16)["relative_error"]
    assert len(found) == 8 and max(found.values()) < evaluating.TOLERANCE
    monkeypatch.setattr("veilset.evaluation.neighbours.K_DENSITY", 4)  # density alone is divided by it
    monkeypatch.setattr("veilset.evaluation.distances.squared_mmd", lambda a, b: 1.0)
    wrong = evaluating.arithmetic(images=120, width=16)["relative_error"]
    assert wrong["density"] > 0.1 and wrong["kernel"] > 0.1 and wrong["recall"] < 1e-12


def test_cells_and_tables() -> None:
    assert SUITES["evaluate"] == evaluating.__name__
    cells = evaluating.cells(False)
    assert {c.kind for c in cells} == {"arithmetic", "timed", "steps", "peers"} and len(evaluating.cells(True)) == 4
    assert set(evaluating.METRICS) < set(entries())
    error = {"relative_error": {"frechet": 2e-9, "kernel": 1e-12}}
    run = {
        "cpu_seconds": {"fd-lite0": 60.0, "gen2real-cnn": 9.5},
        "total_cpu": 69.5,
        "total": 401.0,
        "values": {"fd-lite0": 3.21, "gen2real-cnn": 96.4},
        "images": [10_000, 10_000],
        "load": {"before": 8.0, "after": 9.0},
        "threads": 1,
    }
    steps = {"ms": {"convnet": 300.0}, "load": 9.0}
    frechet = {"ours": 2.5, "theirs": 5.0, "ratio": 0.5, "values": [0.25, 0.25]}
    beside = {"load": 2.0, "rounds": 3, "versions": {"torch": "2"}, "Frechet distance": frechet}
    done = [
        (cells[0], error),
        (Cell("timed.real", "timed", {"source": "real"}), run),
        (Cell("steps", "steps", {}), steps),
        (Cell("peers", "peers", {}), beside),
    ]
    summary = evaluating.summary(done, cells)
    page = evaluating.pages(summary)[evaluating.PAGE]
    for text in (
        "| 3000x1280 | 2e-09 | 1e-12 |",
        "70 s of processor time",
        "| fd-lite0 | 3.21 | 60.0 |",
        "| minutes | 10 |",
        "| Frechet distance | 2.50 | 5.00 | 0.50 | 0.25, 0.25 |",
    ):
        assert text in page, text
    assert "2.0e-09" in evaluating.render(summary) and "10,000 real images" in evaluating.render(summary)
    assert evaluating.words(error) == "largest relative error 2.0e-09"
    assert evaluating.words(run) == "70 s of processor time" and "300" in evaluating.words(steps)
    assert evaluating.words(beside) == "0.5 of the peers' time"
