"""The suite of DP-GAN-DPAC: its cells, its table beside the published one, and what it says of claims and speeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner.suite import SHARED, SUITES, Cell, suite_name
from benchmarks.suites import dual_purpose_classifier as suite
from benchmarks.suites import dual_purpose_speed
from benchmarks.suites.dual_purpose_published import ABLATIONS, PUBLISHED
from veilset.core.config import fields
from veilset.methods.catalogue import method_class, methods


def result(cell: Cell, value: float) -> dict[str, Any]:
    cost = {"fit_seconds": 60.0, "sample_seconds": 6.0, "peak_mb": 500.0, "epsilon": 9.99, "config": {}}
    return {"figures": dict.fromkeys(suite.COLUMNS, value), "versions": {}, "processor": "p"} | cost


def test_the_old_name_finds_it_and_what_is_required_comes_first() -> None:
    with pytest.warns(match="dual-purpose-classifier"):
        assert suite_name("source-002") in SUITES
    cells = suite.cells(False)
    assert len(cells) == len({c.name for c in cells})
    first = cells[:12]
    assert {(c.params["method"], c.params["data"], c.params["seed"]) for c in first} == {
        (m, d, s) for m in suite.OURS for d in suite.SETS for s in range(3)
    }
    assert all(c.params["epsilon"] == 10 and not c.params["variant"] for c in first)
    later = [c for c in cells[12:] if c.kind == "judged"]
    assert {c.params["seed"] for c in later} == {0} and {c.params["epsilon"] for c in later} == {1.0, 10.0}
    assert {c.params["method"] for c in later} <= set(methods()), "those of the catalogue alone"


def test_every_ablation_is_a_parameter_and_stands_in_the_published_table() -> None:
    for name, (method, params) in suite.VARIANTS.items():
        assert set(params) <= {f.name for f in fields(method_class(method).Config)}
        assert name in ABLATIONS or "start" in name or "in turn" in name
    assert set(ABLATIONS) - {"baseline", "full"} <= set(suite.VARIANTS)
    assert ABLATIONS["full"] == PUBLISHED["fashion-mnist", "dp-gan-dpac"]


def test_the_page_has_floors_the_difference_and_the_price_of_the_published_figures() -> None:
    cells = suite.cells(False, methods=suite.OURS, epsilon=[10.0], seeds=2)
    value = {"dp-gan-dpac": 90.0, "gs-wgan": 80.0}
    done = [(c, result(c, value[c.params["method"]] + c.params["seed"])) for c in cells]
    told = {"preset": "gs-wgan", "printed": 10, "epsilon": 346.7, "check": None, "guarantee": False, "why": "rows"}
    done.append((Cell("claim.gs-wgan", "recomputed", {"claim": "gs-wgan"}), {"claim": told}))
    timed = {"critic": "mlp", "weights": 5, "seconds": {"pass": 1e-4, "loop": 1e-3}, "times": 10.0, "peak_mb": 900.0}
    done.append((Cell("speed.mlp", "speed", {"critic": "mlp"}), timed))
    summary = suite.summary(done, [c for c, _ in done]) | {"missing": ["x"]}
    json.dumps(summary, allow_nan=False)
    page = suite.pages(summary)[suite.PAGE]
    assert "dp-gan-dpac, mnist, g2r CNN: 90.5 (floor 70, aim 88): aim reached." in page
    assert "dp-gan-dpac, mnist, r2g CNN: 90.5 (floor 95, aim 99): floor missed." in page
    assert "dp-gan-dpac less gs-wgan, fashion-mnist: g2r MLP +10.0 (more than the spread)" in page
    assert "| gs-wgan | 10 | 346.7 | infinite | no | rows |" in page
    assert "| mlp | 5 | 0.100 | 1.000 | 10.0 | 8, 20 | 900 |" in page
    assert "| mnist | dp-gan-dpac |  | 88 | 100 | 100 | 9.71 | 54.06 |" in page and "Missing 1" in page
    assert "| fashion-mnist | 10 | dp-gan-dpac, without g2r | 90.00" in page
    assert suite.PAGE in suite.render(summary)


def test_a_difference_within_the_spread_is_called_so() -> None:
    rows: list[dict[str, Any]] = [
        {"figures": {"g2r-cnn": {"mean": m, "sd": sd}}} for m, sd in ((80.0, 1.0), (79.0, 0.5))
    ]
    assert suite._difference(rows, "g2r-cnn") == "g2r CNN +1.0 (within the spread)"
    rows[0]["figures"]["g2r-cnn"]["sd"] = None
    assert suite._difference(rows, "g2r-cnn") == "g2r CNN +1.0 (spread not known)"


@pytest.mark.long
def test_cells_of_one_run_share_the_classifiers_of_real_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SHARED, str(tmp_path))
    made = suite._real("digits", "cnn", "test")
    assert len(list(tmp_path.iterdir())) == 1
    again = suite._real("digits", "cnn", "test")
    for name, v in made.state_dict().items():
        assert (again.state_dict()[name] == v).all()


@pytest.mark.long
def test_both_ways_train_the_same_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SHARDS", 32), ("STEPS", 1), ("ROUNDS", 1), ("LOOPED", 2)):
        monkeypatch.setattr(dual_purpose_speed, name, value)
    found = dual_purpose_speed.speed("mlp")
    assert found["times"] > 1 and found["weights"] == (64 * 64 + 64) * 2 + 64 * 11 + 11
