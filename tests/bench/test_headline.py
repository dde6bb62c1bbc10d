"""The headline suite: three networks per cell, floors on the default method only, and rows that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner import loss as losses
from benchmarks.runner.glyphs import make as real
from benchmarks.runner.suite import Cell, run_suite
from benchmarks.suites import headline, leaderboard
from veilset.audit.membership.records import inspect
from veilset.core.errors import ConfigError
from veilset.core.types import Images
from veilset.data.load import load
from veilset.methods.catalogue import DEFAULT
from veilset.methods.moments import selection


def done(accuracy: float, seeds: int, method: str = DEFAULT, minutes: float = 1.0) -> list[tuple[Cell, dict[str, Any]]]:
    cells = headline.cells(False, [method], ["fashion-mnist"], ["10"], seeds)
    figures = {"mean": accuracy, "gen2real-cnn": accuracy, "gen2real-convnet32": accuracy, "gen2real-resnet8": accuracy}
    result = {"figures": figures, "fit_seconds": 60 * minutes, "sample_seconds": 0.0, "epsilon": 9.99, "config": {}}
    return [(c, result | {"processor": "one", "versions": {"torch": "2"}}) for c in cells]


def verdict(cells: list[tuple[Cell, dict[str, Any]]]) -> Any:
    (row,) = headline.summary(cells, [c for c, _ in cells])["rows"]
    return row["verdict"]


def test_the_default_method_stands_against_floors() -> None:
    assert verdict(done(85.0, 3)) == "passed" and verdict(done(84.9, 3)) == "missed"
    assert verdict(done(86.0, 2)) == "passed so far"
    assert verdict(done(86.0, 3, minutes=46)) == "missed (over 45 min)"
    assert verdict(done(99.0, 3, method="dp-merf")) is None


def test_on_the_unseen_set_the_floor_is_the_baseline_and_a_deviation() -> None:
    def cells(method: str, *figures: float) -> list[tuple[Cell, dict[str, Any]]]:
        wanted = headline.cells(False, [method], [headline.UNSEEN], ["10"], len(figures))
        made = [r for f in figures for _, r in done(f, 1, method)]
        return list(zip(wanted, made, strict=True))

    for ours, said in (((92.5, 93.5, 94.5), "passed"), ((90.5, 91.5, 92.5), "missed")):
        both = cells(headline.BASELINE, 90.0, 91.0, 92.0) + cells(DEFAULT, *ours)
        rows = {r["method"]: r for r in headline.summary(both, [c for c, _ in both])["rows"]}
        assert rows[DEFAULT]["floor"] == 92.0 and rows[DEFAULT]["verdict"] == said
        assert rows[headline.BASELINE]["verdict"] is None
    alone = cells(DEFAULT, 93.0)
    assert headline.summary(alone, [c for c, _ in alone])["rows"][0]["verdict"] is None


def test_the_floor_of_the_distance_is_half_of_the_baselines() -> None:
    def cells(method: str, distance: float) -> list[tuple[Cell, dict[str, Any]]]:
        made = done(85.0, 3, method)
        return [(c, r | {"figures": r["figures"] | {headline.DISTANCE: distance}}) for c, r in made]

    for ours, said in ((20.0, "passed"), (20.1, "missed")):
        both = cells(headline.BASELINE, 40.0) + cells(DEFAULT, ours)
        rows = {r["method"]: r for r in headline.summary(both, [c for c, _ in both])["rows"]}
        assert (rows[DEFAULT]["distance_floor"], rows[DEFAULT]["distance_verdict"]) == (20.0, said)
        assert rows[headline.BASELINE]["distance_verdict"] is None


@pytest.mark.long
def test_a_first_cell_shows_its_images_and_counts_copies() -> None:
    """Copies are counted among released images; the test images beside them are no members."""
    options = {"method": "dp-moments", "data": "digits", "epsilon": 10.0, "params": {"mc_samples": 0}, "n": 300}
    made = headline.judged(**options, seed=0, pictures=["coverage-gabor"])
    later = headline.judged(**options, seed=1, pictures=["coverage-gabor"])
    assert made["copies"]["near"] == 0 and made["copies"]["of"] >= 300 and not {"copies", "sheet"} & set(later)
    assert 0 < made["copies"]["right"] < made["copies"]["guesses"] and made["copies"]["disproved"] < 10
    cell = Cell("c", "judged", options | {"seed": 0, "pictures": []})
    result = headline.summary([(cell, made | {"processor": "one", "versions": {}})], [cell])
    (page,) = headline.pages(result).values()
    assert result["rows"][0]["copies"] == made["copies"] and page.count("<image") == 1 and made["sheet"] in page


def test_copies_are_found() -> None:
    """A release that is the training set itself."""
    data = load("digits")
    assert isinstance(data.test, Images)
    stolen = inspect(data.train, 0)
    found = headline._copies(stolen, data.test, "digits")["copies"]
    assert found["near"] == found["of"] == len(stolen) and found["near_of_test"] < len(data.test) / 10
    assert found["right"] > 0.9 * found["guesses"] and found["disproved"] > 1


@pytest.mark.long
def test_the_unseen_set_is_drawn_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell names the set, not a path; other suites do not know it."""
    monkeypatch.setattr(headline.glyphs, "make", lambda folder: real(folder, 300, 50))
    got = headline.judged("dp-moments", headline.UNSEEN, 10.0, 0, {"mc_samples": 0}, 300, [])
    assert got["figures"]["mean"] > 10
    assert {c.params["data"] for c in headline.cells(False)} == set(headline.SETS)
    with pytest.raises(ConfigError, match="greek"):
        leaderboard.cells(False, data=[headline.UNSEEN])


def test_seed_0_comes_first_and_a_cell_has_60000_images() -> None:
    cells = headline.cells(False)
    assert [c.params["seed"] for c in cells] == sorted(c.params["seed"] for c in cells)
    assert {c.params["n"] for c in cells} == {60_000} and DEFAULT in {c.params["method"] for c in cells}


@pytest.mark.long
def test_one_cell_on_digits(tmp_path: Path) -> None:
    told: list[str] = []
    how: dict[str, Any] = {"quick": True, "jobs": 64, "options": {"methods": ["dp-moments"], "seeds": 2}}  # one thread
    run_suite("headline", tmp_path, **how, tell=told.append)
    (row,) = [r for r in json.loads((tmp_path / "headline.json").read_text())["rows"] if r["accuracy"]]
    assert (row["data"], row["epsilon"], row["method"]) == ("digits", 10.0, "dp-moments") and row["minutes"] > 0
    each = [row["figures"][f"gen2real-{net}"]["mean"] for net in headline.THREE]
    assert abs(row["accuracy"]["mean"] - sum(each) / 3) < 1e-9 and len(set(each)) == 3
    text = (tmp_path / "README.md").read_text()
    assert "## headline" in text and f"{row['accuracy']['mean']:.2f}" in text


@pytest.mark.long
def test_the_loss_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Private images spoilt as the default's are: true labels, then the classifier's, which are not all right."""
    monkeypatch.setattr(selection, "IMAGES", 200)  # the networks that choose would learn for minutes
    made = {
        c.params["step"]: (c, headline.loss(**c.params)) for c in losses.cells("digits", 10.0, 0, 300, {"steps": 20})
    }
    figures = {step: result["figures"] for step, (_, result) in made.items()}
    assert all(0 < f["mean"] <= 100 for f in figures.values()) and figures["real"]["mean"] > 60
    assert 20 < figures["taught"]["labels"] < 100 and 20 < figures["taught"]["teacher"] < 100
    assert made["taught"][1]["epsilon"] <= 10 and made["taught"][1]["config"]["steps"] == 20
    cells = [(c, r | {"processor": "one", "versions": {}}) for c, r in made.values()]
    result = headline.summary(cells, [c for c, _ in cells]) | {"missing": []}
    assert [r["step"] for r in result["loss"]] == ["real", "reduced", "taught"] and not result["rows"]
    page = headline.render(result)
    assert page.count("| by the default's classifier |") == 1 and f"{figures['taught']['teacher']:.2f} %" in page
    assert all(headline.words(r) for _, r in cells)


def test_the_loss_is_looked_for_where_a_floor_was_missed() -> None:
    assert sum(c.kind == "loss" for c in headline.cells(False)) == 3
    assert not any(c.kind == "loss" for c in headline.cells(False, [DEFAULT]))
    assert not any(c.kind == "loss" for c in headline.cells(False, epsilon=["1"]))
