"""Recommendations follow the committed figures, the declared facts, the minutes and the goal; the rows are current."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import veilset as vs
from benchmarks.runner import evidence as written
from veilset.cli.main import main
from veilset.core.errors import ConfigError
from veilset.methods.catalogue import BUILT_IN, DEFAULT
from veilset.recommend import recommend as module
from veilset.recommend.evidence import FILE, Row, evidence
from veilset.recommend.recommend import recommend

pytestmark = pytest.mark.usefixtures("remembered_prices")
ROOT = Path(__file__).parents[2]
MNIST, DIGITS = vs.load("mnist").info, vs.load("digits").info


def row(method: str, data: str, accuracy: float, epsilon: float = 1.0, sd: float = 0.1, distance: float = 100.0) -> Row:
    return Row(method, data, epsilon, 60_000, 10, 3, accuracy, sd, distance, 1.0, 1.0)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Evidence that a test may change: moments ahead at 1, features (slower) ahead at 10."""
    made = [
        row(m, d, a, e)
        for e, figures in ((1.0, {"dp-moments": 90.0, "dp-merf": 80.0}), (10.0, {"dp-moments": 91.0, "dp-merf": 95.0}))
        for m, a in figures.items()
        for d in ("mnist", "fashion-mnist")
    ]
    monkeypatch.setattr(module, "evidence", lambda: made)
    return made


def test_evidence_and_readme_are_those_of_the_committed_leaderboard() -> None:
    assert FILE.read_text() == written.text(), "out of date; run: python -m benchmarks.runner.evidence"
    assert written.README.read_text() == written.readme(), "out of date; run: python -m benchmarks.runner.evidence"
    assert len(written.ROW.findall(written.README.read_text())) == len(BUILT_IN), "a method is not in the table"


def test_the_default_method_has_the_best_mean_over_sets_and_budgets() -> None:
    accuracies: dict[str, list[float]] = {}
    for r in evidence():
        accuracies.setdefault(r.method, []).append(r.accuracy)
    whole = {m: sum(a) / len(a) for m, a in accuracies.items() if len(a) == 4}
    assert max(whole, key=lambda m: whole[m]) == DEFAULT


def test_the_nearest_budget_is_the_one_with_the_noise_of_these_facts(rows: list[Row]) -> None:
    assert recommend(MNIST, 1.0).like == pytest.approx((1.0, 1.0), rel=1e-3)
    assert recommend(MNIST, 10.0).like == pytest.approx((10.0, 10.0), rel=1e-3)
    assert recommend(MNIST, 10.0).method == "dp-merf"
    few = replace(MNIST, units=6000)  # a tenth of the units: at epsilon 10 about like 1 on all of them
    assert recommend(few, 10.0).like[0] == 1.0 and recommend(few, 10.0).method == "dp-moments"


def test_within_the_spread_the_quicker_method_is_taken(rows: list[Row]) -> None:
    rows[:] = [replace(r, sd=6.0) if r.epsilon == 10 else r for r in rows]
    advice = recommend(MNIST, 10.0)
    assert advice.method == "dp-moments" and "within the spread of the best (dp-merf)" in advice.reason


def test_one_seed_is_listed_but_not_compared(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    rows[:] = [replace(r, sd=None, seeds=1) if r.method == "dp-moments" else r for r in rows]
    advice = recommend(MNIST, 1.0)
    assert advice.method == "dp-merf" and "one seed" in advice.candidates[-1].why_not
    assert main(["recommend", "--data", "mnist"]) == 0
    line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("dp-moments"))
    assert " 1 " in line and line.endswith("shows no spread")


def test_pictures_are_ranked_by_distance(rows: list[Row]) -> None:
    rows[:] = [replace(r, distance=50.0) if r.method == "dp-merf" else r for r in rows]
    assert recommend(MNIST, 1.0, goal="pictures").method == "dp-merf"
    assert recommend(MNIST, 1.0).method == "dp-moments"


def test_a_method_whose_pictures_were_not_compared_is_listed_but_not_taken_for_pictures(
    rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    rows[:] = [replace(r, distance=None, distance_sd=None) if r.method == "dp-moments" else r for r in rows]
    advice = recommend(MNIST, 1.0, goal="pictures")
    assert advice.method == "dp-merf" and "was not measured" in advice.candidates[-1].why_not
    assert recommend(MNIST, 1.0).method == "dp-moments"
    assert main(["recommend", "--data", "mnist"]) == 0
    line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("dp-moments"))
    assert line.split()[:7] == ["dp-moments", "90.0", "±", "0.1", "90.0", "±", "0.1"] and "100.0" not in line


def test_one_seed_of_a_distance_is_not_compared_for_pictures(rows: list[Row]) -> None:
    rows[:] = [replace(r, distance=1.0, distance_sd=None) if r.method == "dp-merf" else r for r in rows]
    advice = recommend(MNIST, 1.0, goal="pictures")
    assert advice.method == "dp-moments" and advice.candidates[-1].why_not.startswith("distance measured with one seed")


def test_measured_pictures_put_the_default_first() -> None:
    for epsilon in (1.0, 10.0):
        assert recommend(MNIST, epsilon, goal="pictures").method == DEFAULT, "the next has twice its distance"


def test_a_method_whose_plan_leaves_parts_out_is_taken_with_a_caution(rows: list[Row]) -> None:
    rows += [row(DEFAULT, d, 99.0, e) for e in (1.0, 10.0) for d in ("mnist", "fashion-mnist")]
    said = "measured with the releases that this plan leaves out"
    whole, small = recommend(MNIST, 1.0), recommend(replace(MNIST, units=6000), 1.0)
    assert whole.method == small.method == DEFAULT
    assert said not in " ".join(whole.cautions) and said in " ".join(small.cautions)
    assert "detail" not in [r.name for r in small.plan.releases]


def test_methods_that_take_too_long_or_were_measured_on_one_set_only_are_named_and_not_taken(rows: list[Row]) -> None:
    rows.append(row("dp-feta", "mnist", 99.0))
    advice = recommend(MNIST, 1.0, minutes=0.5)
    reasons = {c.method: c.why_not for c in advice.candidates}
    assert advice.method == "dp-moments" and "min" in reasons["dp-merf"]
    assert reasons["dp-feta"] == "measured on mnist only"


def test_facts_that_the_evidence_does_not_reach_are_said() -> None:
    cautions = " ".join(recommend(DIGITS, 1.0).cautions)
    times = MNIST.units / DIGITS.units  # at the same epsilon and as many classes
    assert f"noise in a class mean is {times:.2g} times that" in cautions and "[1, 8, 8]" in cautions
    assert len(recommend(MNIST, 1.0).cautions) == 1  # that the sets are the ones that defaults were chosen on


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"epsilon": float("inf")}, "finite budget"),
        ({"epsilon": 1.0, "minutes": 0.0}, "minutes = 0: must be above 0"),
        ({"epsilon": 1.0, "minutes": float("nan")}, "must be above 0"),
        ({"epsilon": 1.0, "goal": "speed"}, "must be one of accuracy, pictures"),
        ({"epsilon": 1.0, "minutes": 1e-6}, "no measured method fits"),
    ],
)
def test_bad_questions_are_refused(words: dict[str, float], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        recommend(MNIST, **words)  # type: ignore[arg-type]


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--data", "digits", "--epsilon", "3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["command"] == f"veilset fit {facts['method']} --data digits --epsilon 3 --out runs/{facts['method']}"
    assert {c["method"] for c in facts["candidates"]} == {r.method for r in evidence()}
    assert main(["recommend"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("take ") and "run: veilset fit" in text and "FD fashion-mnist" in text


def test_without_a_name_plan_takes_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--data", "digits", "--epsilon", "1", "--json"]) == 0
    unnamed = capsys.readouterr().out
    assert main(["plan", DEFAULT, "--data", "digits", "--epsilon", "1", "--json"]) == 0
    assert unnamed == capsys.readouterr().out
    assert main(["plan", "--data", "digits", "--epsilon", "1", "--mc-samples", "3", "--json"]) == 0
    assert capsys.readouterr().out == unnamed, "an option of the default method, which changes no release"


@pytest.mark.long
def test_without_a_name_fit_takes_the_default(tmp_path: Path) -> None:
    plain = ("--selection", "false", "--out", str(tmp_path / "run"))
    assert main(["fit", "--data", "digits", "--epsilon", "5", *plain]) == 0
    assert vs.open_model(tmp_path / "run").name == DEFAULT
