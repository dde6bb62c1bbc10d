"""The leaderboard: every method joins, the most wanted cell comes first, floors and published figures stand beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner import published
from benchmarks.runner.suite import Cell, Table, run_suite
from benchmarks.suites import leaderboard
from veilset.cli.main import main
from veilset.methods.catalogue import TEACHERS, methods

ROOT = Path(__file__).parents[2]


def result(accuracy: float, fit: float = 120.0, **facts: Any) -> dict[str, Any]:
    figures = {"gen2real-cnn": accuracy, "gen2real-logreg": 80.0, "fd-gabor": 2000.0}
    cost = {"fit_seconds": fit, "sample_seconds": 6.0, "peak_mb": 500.0, "epsilon": 0.99999}
    return {"figures": figures, "config": {}, "versions": {"torch": "2"}, "processor": "one"} | cost | facts


def some(method: str, accuracies: list[float], data: str = "mnist", epsilon: float = 1.0, **facts: Any) -> list[Any]:
    """(cell, result) for seeds 0, 1, ..."""
    from benchmarks.runner.quality import cell

    return [(cell(method, data, epsilon, s), result(a, **facts)) for s, a in enumerate(accuracies)]


def rows(done: list[Any], more: list[Cell] | None = None) -> dict[str, dict[str, Any]]:
    summary = leaderboard.summary(done, [c for c, _ in done] + (more or []))
    json.dumps(summary, allow_nan=False)
    return {r["method"]: r for r in summary["rows"]}


def test_every_method_joins_and_seed_0_comes_first() -> None:
    cells = leaderboard.cells(False)
    seeds = [c.params["seed"] for c in cells]
    assert seeds == sorted(seeds)
    taught, cells = ([c for c in cells if (c.kind == "teacher") == want] for want in (True, False))
    assert {c.params["method"] for c in taught} == set(TEACHERS) and len(taught) == len(TEACHERS) * 2 * 2 * 3
    wanted = [*methods()]
    assert {c.params["method"] for c in cells} == set(wanted) and len(cells) == len(wanted) * 2 * 2 * 3
    first = [(c.params["method"], c.params["data"]) for c in cells if c.params["seed"] == 0]
    floors = [key in leaderboard.FLOORS for key in first]
    assert floors == sorted(floors, reverse=True), "cells with a floor come before the others"
    assert all(c.params["n"] == 60_000 and c.params["params"] == {} for c in cells)


def test_a_missed_floor_names_the_page_that_says_why() -> None:
    for accuracy, said in ((80.9, True), (81.1, False)):
        done = some("dp-feta", [accuracy] * 3, "fashion-mnist", 10.0)
        text = leaderboard.render(leaderboard.summary(done, [c for c, _ in done]) | {"missing": []})
        assert ("What limits dp-feta on fashion-mnist, epsilon 10: [../logs/search-diffusion.md]" in text) == said


def test_choices() -> None:
    cells = leaderboard.cells(False, ["dp-merf", "dp-merf"], ["digits"], ["1", "inf", "1.0"], 2)
    assert [c.name for c in cells] == [
        f"dp-merf.digits.eps{e}.seed{s}" for s in (0, 1) for e in ("1", "inf")
    ]  # fmt: skip
    assert cells[1].params["epsilon"] == "inf"
    cells = leaderboard.cells(False, ["dp-scatter"], ["digits"], ["1"], 1)
    assert [(c.name, c.kind) for c in cells] == [("dp-scatter.digits.eps1.seed0", "teacher")]


def test_the_ceiling_stands_beside_the_figures_of_its_set_and_budget() -> None:
    taught = [
        (c, {"figures": {"real2real": 97.0 + c.params["seed"]}, "config": {}, "fit_seconds": 60.0, "peak_mb": 900.0})
        for c in leaderboard.cells(False, ["dp-scatter"], ["mnist"], ["1"], 3)
    ]
    done = taught + some("dp-feta", [91.0]) + some("dp-feta", [95.0], epsilon=10.0)
    summary = leaderboard.summary(done, [c for c, _ in done])
    beside = {(r["data"], r["epsilon"]): r["ceiling"] for r in summary["rows"]}
    assert beside == {("mnist", 1.0): {"mean": 98.0, "sd": 1.0}, ("mnist", 10.0): None}
    assert {r["method"] for r in summary["rows"]} == {"dp-feta"}
    text = leaderboard.render(summary | {"missing": []})
    assert "| mnist | 1 | dp-feta | 91.00 | 98.00 ± 1.00 |" in text
    assert "| mnist | 1 | dp-scatter | 98.00 ± 1.00 | 1.00 | 900 |" in text


@pytest.mark.long
def test_a_teacher_runs_on_digits(tmp_path: Path) -> None:
    told: list[str] = []
    how: dict[str, Any] = {"quick": True, "jobs": 64, "options": {"methods": ["dp-scatter"], "epsilon": ["inf"]}}
    summary = run_suite("leaderboard", tmp_path, **how, tell=told.append)
    (row,) = summary["ceilings"]
    assert row["data"] == "digits" and row["figures"]["real2real"]["mean"] > 85 and summary["missing"] == []
    assert told[0].startswith("dp-scatter.digits.epsinf.seed0: real2real ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "dp-mref"], "methods = 'dp-mref': unknown. Did you mean 'dp-merf'"),
        (["--methods", ","], "methods: name at least one"),
        (["--data", "mnist,minst"], "data = 'minst': unknown. Did you mean 'mnist'"),
        (["--epsilon", "1,ten"], "epsilon = 'ten': must be numbers above 0"),
        (["--epsilon", "0"], "epsilon = '0'"),
        (["--epsilon", "nan"], "epsilon = 'nan'"),
        (["--seeds", "0"], "seeds = 0: must be at least 1"),
        (["--seeds", "many"], "invalid int value: 'many'"),
        (["--jobs", "0"], "jobs = 0: must be at least 1"),
    ],
)
def test_bad_input(options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "leaderboard", *options, "--out", str(tmp_path / "b")]) == 2
    out, err = capsys.readouterr()
    assert words in err and len(err.splitlines()) == 1 and out == "" and not (tmp_path / "b").exists()


def test_cells_of_the_first_suite_are_not_made_again() -> None:
    table = Table("leaderboard", ROOT / "benchmarks" / "results", False, {"methods": ["dp-merf", "dp-moments"]})
    assert all(table.result(c) for c in table.chosen)
    other = Table("leaderboard", ROOT / "benchmarks" / "results", True, {"methods": ["dp-moments"]})
    assert not any(other.result(c) for c in other.chosen)


def test_floors() -> None:
    got = rows(
        some("dp-feta", [91.0, 90.0, 89.0])
        + some("dp-gan", [77.0, 77.5, 78.0])
        + some("dp-cvae", [80.0])
        + some("dp-cgan", [99.0, 99.0, 99.0], fit=1801.0)
        + some("au-gm", [50.0])
    )
    verdicts = {m: (r["floor"], r["verdict"]) for m, r in got.items()}
    assert verdicts == {
        "dp-feta": (90, "passed"),
        "dp-gan": (78, "missed"),
        "dp-cvae": (78, "passed so far"),
        "dp-cgan": (60, "missed: fit took over 30 minutes"),
        "au-gm": (None, None),
    }
    assert list(got) == ["dp-cgan", "dp-feta", "dp-cvae", "dp-gan", "au-gm"], "the most accurate first"
    assert rows(some("dp-feta", [80.0], "mnist", 5.0))["dp-feta"]["floor"] is None


def test_a_row_over_seeds() -> None:
    row = rows(some("dp-feta", [91.0, 90.0, 89.0]))["dp-feta"]
    assert row["figures"]["gen2real-cnn"] == {"mean": 90.0, "sd": 1.0} and row["seeds"] == row["wanted"] == 3
    assert [row[k] for k in ("fit_minutes", "sample_minutes", "peak_mb")] == pytest.approx([2.0, 0.1, 500.0])
    assert not row["mixed"]
    done = some("dp-feta", [91.0], threads=2)
    text = leaderboard.render(leaderboard.summary(done, [done[0][0]]) | {"missing": []})
    assert "| 2.00 (2 threads) | 0.10 (2 threads) | 500 |" in text
    one, two = some("dp-feta", [91.0, 90.0])
    two[1]["config"] = {"steps": 5}
    assert rows([one, two])["dp-feta"]["mixed"]
    for config, older in (({"steps": 800}, False), ({"steps": 801}, True), ({"gone": 1}, True)):
        done = some("dp-merf", [90.0], config=config)
        assert rows(done)["dp-merf"]["older"] == older
        text = leaderboard.render(leaderboard.summary(done, [done[0][0]]) | {"missing": []})
        assert ("1 of 1, older settings" in text) == older
    old = result(90.0)
    del old["peak_mb"], old["sample_seconds"]
    row = rows([(one[0], old | {"epsilon": None})])["dp-feta"]
    assert row["peak_mb"] is row["sample_minutes"] is row["epsilon_spent"] is row["figures"]["fd-gabor"]["sd"] is None


def test_the_table_says_what_is_missing_and_what_was_published(tmp_path: Path) -> None:
    done = some("dp-feta", [91.0, 90.0]) + some("dp-cvae", [70.0, 71.0, 72.0])
    wanted = [c for c, _ in done] + [Cell("x", "quality", done[0][0].params | {"method": "dp-cgan", "epsilon": "inf"})]
    summary = leaderboard.summary(done, wanted) | {"missing": ["x"]}
    text = leaderboard.render(summary)
    feta = next(line for line in text.splitlines() if "| dp-feta |" in line)
    assert "90.50 ± 0.71" in feta and "90: passed so far" in feta and "95.6, FID 13.7 (DPImageBench)" in feta
    assert "2 of 2" in feta and "1.0000" in feta and "500" in feta
    assert "* DPImageBench: classifier: mean of a WRN" in text
    assert "Missing 1 results, the most wanted first: x." in text
    assert "| mnist | inf | dp-cgan |" in text and "see three-families.md" in text
    assert "(no result is there yet)" in leaderboard.render(leaderboard.summary([], wanted) | {"missing": []})


def test_published_figures_say_where_they_were_read() -> None:
    for (_, data, paper), by_epsilon in published.FIGURES.items():
        assert data in leaderboard.SETS and paper in published.PAPERS
        assert all(e in (1, 10) and 0 < accuracy <= 100 for e, (accuracy, _) in by_epsilon.items())
    assert {p.read_in for p in published.PAPERS.values()} <= {"text", "code", "bench", "slides"}
    assert published.beside("dp-feta", "mnist", 5.0) == []


@pytest.mark.long
def test_a_plug_in_runs_on_digits(plug: str, tmp_path: Path) -> None:
    told: list[str] = []
    how: dict[str, Any] = {"quick": True, "jobs": 64, "options": {"methods": [plug], "epsilon": ["inf"]}}  # one thread
    summary = run_suite("leaderboard", tmp_path, **how, tell=told.append)
    (row,) = summary["rows"]
    assert row["method"] == plug and row["epsilon"] == "inf" and row["seeds"] == 1 and row["epsilon_spent"] is None
    assert row["figures"]["gen2real-cnn"]["mean"] > 50 and row["peak_mb"] > 50 and summary["missing"] == []
    assert told[0].startswith("plug.digits.epsinf.seed0: gen2real-cnn ")
    assert "| digits | inf | plug |" in (tmp_path / "README.md").read_text()


def test_dry_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "leaderboard", "--dry", "--json", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert len(summary["missing"]) == len(leaderboard.cells(False)) and summary["rows"][0]["data"] == "mnist"
    assert err.startswith("Missing ") and summary["missing"][0] in err
