"""Bounds from both sides and the risk sheet: numbers that hold; audits damaged, of another claim, or faulty."""

from __future__ import annotations

import json
import math
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from veilset.core.errors import ConfigError, DataError, ModeError, RunError
from veilset.core.io import sha256_file
from veilset.core.types import Images, PublicInfo
from veilset.methods import catalogue
from veilset.methods.base import Synthesizer
from veilset.privacy.accounting import gaussian_epsilon, gaussian_noise_multiplier
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy
from veilset.report import nearest
from veilset.report.charts import Series, bounds, quality
from veilset.report.claims import SLACK, read_audit, risk
from veilset.report.evidence import UNCOVERED, percent, up
from veilset.report.page import write_comparison, write_report

torch.set_num_threads(1)
loading = import_module("veilset.data.load")  # its package has a function of the same name
CHECK = {"claim": 1.0, "delta": 1e-5, "lower_bound": 0.62, "confidence": 0.95, "ok": True, "threat_model": "sees sums"}


class Mean(Synthesizer):
    """One Gaussian release."""

    name = "mean"

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return Plan((Release(name="mean", bound=4.0),))

    def _fit(self, gate: Any, info: PublicInfo, plan: Plan) -> dict[str, torch.Tensor]:
        mean = gate.sum("mean", lambda x, y: x, by_class=True)
        return {"mean": (mean / info.units * len(info.classes)).float()}

    def _sample(self, state: dict[str, torch.Tensor], info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return state["mean"][labels]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.BUILT_IN, "mean", catalogue.Entry(__name__, "Mean", ""))


def records(name: str = "ward", units: int = 90) -> PrivateImages:
    x = np.random.default_rng(0).integers(0, 256, (90, 1, 6, 6), dtype=np.uint8)
    info = PublicInfo(name=name, classes=("a", "b", "c"), shape=(1, 6, 6), units=units)
    return from_arrays(info, x, np.arange(90, dtype=np.uint8) % 3)


def run(folder: Path, epsilon: float = 1.0, seed: int | None = None, **which: Any) -> Path:
    Mean().fit(records(**which), Privacy(epsilon), seed=seed).save(folder)
    (folder / "private").mkdir()
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("claims") / "run")


def keep(folder: Path, value: float, **changed: Any) -> Path:
    row = {"name": "gen2real-cnn", "value": value, "spread": 0.5, "unit": "%", "better": "higher"}
    row |= {"reads_private": False, "seeds": 3, "detail": {"protocol": "p"}} | changed
    (folder / "private" / "metrics.json").write_text(json.dumps(named(folder, {"metrics": [row]})))
    return folder


def named(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Figures that say which release they are of."""
    return facts | {"files_sha256": sha256_file(folder / "SHA256SUMS")}


# ---------------------------------------------------------------------- the risk sheet


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 10.0])
def test_odds_grow_no_further_than_said(epsilon: float) -> None:
    """The exact privacy loss of a Gaussian release with this claim is N(mu^2 / 2, mu^2)."""
    delta = 1e-5
    mu = 1 / gaussian_noise_multiplier(epsilon, delta)
    sheet = risk(epsilon, delta, 1000)
    assert sheet.factor == pytest.approx(SLACK * math.exp(epsilon))
    assert norm.sf((math.log(sheet.factor) - mu**2 / 2) / mu) <= sheet.chance == pytest.approx(11 * delta)
    for before, after in sheet.beliefs:
        odds = before / (1 - before) * sheet.factor
        assert before < after == pytest.approx(odds / (1 + odds))
    assert sheet.outright == pytest.approx(0.01) and sheet.none is (epsilon >= 10)
    assert sheet.groups[0] == (2, 2 * epsilon)


def test_huge_epsilon_is_called_no_limit(tmp_path: Path) -> None:
    assert risk(1e4, 1e-5, 10).beliefs[0][1] == pytest.approx(1.0)
    html = write_report(run(tmp_path / "run", 1000.0)).read_text("utf-8")
    assert "near certainty" in html and "hardly limited at all" in html and "without a limit" in html


def test_the_sheet_says_the_numbers_of_this_claim(release: Path) -> None:
    html = write_report(release).read_text("utf-8")
    sheet = risk(1.0, 1e-5, 90)
    assert f"<b>{up(sheet.factor, 3)}-fold</b>" in html and "1 in 9,091" in html
    for _, after in sheet.beliefs:
        assert f"<b>{percent(after)}</b>" in html
    assert "A person with several images in the set is a group" in html


# ---------------------------------------------------------------------- bounds


def test_both_accountants_and_the_attack_stand_in_one_picture(release: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(named(release, CHECK)))
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "a.json").read_text("utf-8")
    label = re.search(r'aria-label="(Bounds on epsilon[^"]*)"', html)
    assert label
    renyi = json.loads((release / "receipt.json").read_text())["epsilon_rdp"]
    assert f"at most {up(verify(release).epsilon or 0)};" in label[1]
    assert f"Rényi accounting: at most {up(renyi)};" in label[1]
    assert "audit: at least 0.62, 95 % confidence" in label[1]
    assert "A small lower bound is no evidence of privacy" in html


def test_the_largest_of_several_bounds_is_less_sure_than_each(release: Path, tmp_path: Path) -> None:
    checks = [CHECK | {"name": n, "lower_bound": b} for n, b in (("a", 0.4), ("b", 0.7), ("c", 0.6))]
    other = CHECK | {"name": "d", "lower_bound": 0.9, "claim": 4.0}  # of another claim: neither shown nor counted
    (tmp_path / "a.json").write_text(json.dumps(named(release, CHECK | {"checks": [*checks, other]})))
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "a.json").read_text("utf-8")
    assert "audit: at least 0.70, 85 % confidence" in html
    assert "85 % confidence, as the largest of 3 of 95 % each; b;" in html


def test_a_picture_keeps_its_order() -> None:
    svg = str(bounds([("claim", 1.0), ("check", 1.25)], ("attack <b>", 0.5)))
    assert "attack &lt;b&gt;" in svg and "<b>" not in svg
    left, wide = map(float, re.search(r'class="gain" x="([\d.]+)" y="\d+" width="([\d.]+)"', svg).groups())  # type: ignore[union-attr]
    stops = [float(x) for x in re.findall(r'stop" d="M([\d.]+)', svg)]
    assert stops == pytest.approx([left + wide, left + wide * 1.5, left], abs=0.2)
    assert 'class="gain"' not in str(bounds([("claim", 1.0)], ("attack", 2.0)))  # nothing lies between


def test_no_audit_is_told_and_is_no_evidence(release: Path, tmp_path: Path) -> None:
    html = write_report(release, tmp_path / "p.html").read_text("utf-8")
    assert "No audit was made" in html and "at least 0" not in html


DAMAGED = {
    "cut": '{"claim": 1.0, "lower',
    "a list": "[1]",
    "no bound": json.dumps({k: v for k, v in CHECK.items() if k != "lower_bound"}),
    "words": json.dumps(CHECK | {"lower_bound": "much"}),
    "negative": json.dumps(CHECK | {"lower_bound": -1}),
    "infinite": json.dumps(CHECK).replace("0.62", "Infinity"),
    "confidence": json.dumps(CHECK | {"confidence": 95}),
    "ok": json.dumps(CHECK | {"ok": "yes"}),
    "checks": json.dumps(CHECK | {"checks": 3}),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_audit_is_no_audit(release: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "a.json").write_text(DAMAGED[what])
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "a.json").read_text("utf-8")
    assert "There is an audit, but it cannot be shown: a.json" in html and "audit: at least" not in html
    assert str(tmp_path) not in html


def test_an_audit_file_that_is_named_and_absent_is_told(release: Path, tmp_path: Path) -> None:
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "none.json").read_text("utf-8")
    assert "cannot be shown: none.json" in html


def test_the_bound_of_another_claim_stays_out_of_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CHECK | {"claim": 4.0, "lower_bound": 3.1}))
    assert read_audit(path, 1.0, 1e-5, tmp_path, {}).best is None
    path.write_text(json.dumps(CHECK | {"delta": 1e-3}))
    assert read_audit(path, 1.0, 1e-5, tmp_path, {}).best is None
    checks = [CHECK | {"lower_bound": b, "claim": c} for b, c in ((0.2, 1.0), (0.5, 1.0002), (3.0, 4.0), (None, 1.0))]
    path.write_text(json.dumps(CHECK | {"checks": checks}))
    found = read_audit(path, 1.0, 1e-5, tmp_path, {})
    assert found.best is not None and found.best.lower_bound == 0.5 and found.ok is True


@pytest.mark.parametrize(("ok", "words"), [(False, "The audit showed a fault"), (None, "It says nothing")])
def test_faults_and_empty_audits_cannot_be_misread(release: Path, tmp_path: Path, ok: bool | None, words: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(named(release, CHECK | {"ok": ok, "verdict": "<b>words</b>"})))
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "a.json").read_text("utf-8")
    assert words in html and "no evidence of privacy" not in html and "&lt;b&gt;words" in html


def test_audits_are_found_with_a_run_or_beside_it(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    (tmp_path / "run-audit.json").write_text(json.dumps(named(folder, CHECK | {"lower_bound": 0.11})))
    assert "at least 0.11" in write_report(folder).read_text("utf-8")
    (folder / "private" / "audit.json").write_text(json.dumps(named(folder, CHECK)))
    assert "at least 0.62" in write_report(folder).read_text("utf-8")
    assert verify(folder).ok


@pytest.mark.parametrize("facts", [{}, {"files_sha256": "0" * 64}, {"files_sha256": None}])
def test_an_audit_of_another_release_is_not_shown(release: Path, tmp_path: Path, facts: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CHECK | facts))
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "a.json").read_text("utf-8")
    assert "a.json does not name the list of files of this release" in html and "at least 0.62" not in html


def test_an_audit_that_no_receipt_covers_says_so(release: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(named(release, CHECK)))
    html = write_report(release, tmp_path / "p.html", audit=tmp_path / "a.json").read_text("utf-8")
    assert f"The audit, {UNCOVERED}" in html
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "audit.json").write_text(json.dumps(CHECK))
    model = Mean().fit(records(), Privacy(1.0))
    model.write(tmp_path / "r")  # the receipt covers the file
    html = write_report(tmp_path / "r").read_text("utf-8")
    assert "at least 0.62" in html and UNCOVERED not in html


# ---------------------------------------------------------------------- several runs


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [keep(run(tmp_path / f"e{e:g}", e), 60 + 9 * e) for e in (0.5, 1.0, 2.0)]
    keep(run(tmp_path / "free", math.inf, 3), 99.0)
    html = write_comparison([*runs, tmp_path / "free"], tmp_path / "p.html").read_text("utf-8")
    for folder in runs:
        assert f"<bdi>{folder.name}</bdi>" in html and f">{up(verify(folder).epsilon or 0)}</td>" in html
    assert "<b>78.00</b> ± 0.50" in html and "no noise" in html and "gen2real-cnn over epsilon, 4 runs" in html
    assert "Not releases (research mode, or no noise), not to be handed on: free" in html
    # Gaussians compose: the squares of their signals add up.
    mu = math.sqrt(sum(gaussian_noise_multiplier(e, 1e-5) ** -2 for e in (0.5, 1.0, 2.0)))
    joint = float(re.search(r"epsilon ([\d.]+) at delta 1e-5 \(Rényi", html)[1])  # type: ignore[index]
    assert gaussian_epsilon(mu, 1e-5) < joint < 1.15 * gaussian_epsilon(mu, 1e-5)
    assert str(tmp_path) not in html and "data:image" not in html


def test_different_sets_may_be_compared_but_are_labelled(tmp_path: Path) -> None:
    a, b = keep(run(tmp_path / "a"), 70.0), keep(run(tmp_path / "b", name="other"), 80.0, detail={"protocol": "q"})
    html = write_comparison([a, b], tmp_path / "p.html").read_text("utf-8")
    assert "These runs are of different sets (other, ward)" in html
    assert "mean on ward" in html and "mean on other" in html and "Whoever holds all of them" not in html
    assert "measured in different ways (protocol p; protocol q)" in html
    c = keep(run(tmp_path / "c", units=80), 70.0)  # the same name, declared otherwise
    assert "different sets (ward)" in write_comparison([a, c], tmp_path / "p.html").read_text("utf-8")


def test_what_does_not_verify_shows_nothing_else(tmp_path: Path) -> None:
    a, b = keep(run(tmp_path / "a"), 70.0), keep(run(tmp_path / "b"), 81.25)
    (b / "model.safetensors").write_bytes(b"x")
    html = write_comparison([a, b], tmp_path / "p.html").read_text("utf-8")
    assert "NOT VERIFIED" in html and "81.25" not in html and "nothing of them is shown: b." in html


def test_a_release_gives_no_exact_private_figure_to_a_comparison(tmp_path: Path) -> None:
    a, b = (
        keep(run(tmp_path / "a"), 71.25, reads_private=True),
        keep(run(tmp_path / "b", 1.0, 4), 61.25, reads_private=True),
    )
    html = write_comparison([a, b], tmp_path / "p.html").read_text("utf-8")
    assert "71.25" not in html and "61.25" in html and "this page itself must not be handed on" in html
    assert "Not shown for releases" in html


def test_figures_of_a_comparison_stand_under_who_measured_them(tmp_path: Path) -> None:
    a, b = keep(run(tmp_path / "a"), 71.25), run(tmp_path / "b")
    (b / "private" / "metrics.json").write_text((a / "private" / "metrics.json").read_text())  # of another release
    html = write_comparison([a, b], tmp_path / "p.html").read_text("utf-8")
    assert html.count("<b>71.25</b>") == 1 and html.index(f"Figures: {UNCOVERED}") < html.index("<b>71.25</b>")
    assert "b: private/metrics.json does not name the list of files of this release" in html
    assert "Figures that the receipts cover" not in html


def test_equal_names_are_told_apart_and_faults_named(tmp_path: Path) -> None:
    a, b = run(tmp_path / "x" / "run"), run(tmp_path / "y" / "run")
    html = write_comparison([a, b], tmp_path / "p.html").read_text("utf-8")
    assert "x/run" in html and "y/run" in html and "None of these runs was measured" in html
    (b / "private" / "metrics.json").write_text('{"metrics": [{"name": 3}]}')
    with pytest.raises(ConfigError, match="y/run: private/metrics.json: not scores"):
        write_comparison([a, b], tmp_path / "p.html")
    (b / "private" / "metrics.json").write_text("{")
    with pytest.raises(ConfigError, match="y/run: private/metrics.json: not valid JSON"):
        write_comparison([a, b], tmp_path / "p.html")
    for wrong, words in (([a], "at least two"), ([a, a], "named twice")):
        with pytest.raises(ConfigError, match=words):
            write_comparison(wrong, tmp_path / "q.html")
    with pytest.raises(RunError, match="inside the folder"):
        write_comparison([a, b], b / "p.html")
    with pytest.raises(RunError, match="no such folder"):
        write_comparison([a, tmp_path / "none"], tmp_path / "q.html")


@pytest.mark.parametrize("values", [(5.0,), (5.0, 5.0), (0.0, 0.0), (1e6, 1e-6), (-3.0, 4.0)])
def test_the_picture_of_quality_survives_any_numbers(values: tuple[float, ...]) -> None:
    points = [(10.0**i, v, 0.0) for i, v in enumerate(values)]
    svg = str(quality("m <b>", "%", [Series("s", points)]))
    assert "nan" not in svg and "inf" not in svg and "<b>" not in svg
    inside = [float(v) for v in re.findall(r'tone0" d="M[\d.]+ ([\d.-]+)', svg)]
    assert len(inside) == len(values) and all(0 < v < 300 for v in inside)


# ---------------------------------------------------------------------- nearest training images


class _Set:
    def __init__(self, train: PrivateImages):
        self.train, self.info = train, train.info


def test_a_copy_is_found_and_stays_in_the_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load", lambda source: _Set(records()))
    folder = run(tmp_path / "run", 2.0, seed=1)
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (90, 1, 6, 6), dtype=np.uint8))
    copied = Images(torch.cat([x[4:5], 255 - x[7:8]]), torch.tensor([1, 1]), ("a", "b", "c"))
    found = nearest.panel("ward", records().info, copied)
    (name, pairs), *rest = found.rows
    assert name == "b" and not rest and pairs[0].distance == 0 and pairs[0].sample == pairs[0].near
    assert pairs[1].ratio > 0.5 and found.close >= 1 and found.total == 2
    page = write_report(folder, nearest="ward")
    assert page == folder / "private" / "report.html" and page.stat().st_mode & 0o777 == 0o600
    assert "raw private record" in page.read_text("utf-8") and verify(folder).ok
    assert "raw private record" not in write_report(folder).read_text("utf-8")


def test_an_exact_copy_wins_over_an_image_that_differs_in_one_pixel() -> None:
    draws = np.random.default_rng(0).integers(200, 256, (40, 1, 28, 28), dtype=np.uint8)  # bright: large products
    near = draws.copy()
    near[:, 0, 3, 5] -= 1
    own = torch.from_numpy(np.concatenate([near, draws]))
    least, index = nearest._distances(torch.from_numpy(draws), own).min(1)
    assert (least == 0).all() and (index == torch.arange(40, 80)).all()


def test_raw_records_are_never_shown_for_a_release(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(source: str) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr(loading, "load", never)
    with pytest.raises(ModeError, match="research runs only"):
        write_report(release, nearest="ward")
    research = run(tmp_path / "research", 2.0, seed=1)
    with pytest.raises(ConfigError, match="leave it out"):
        write_report(research, tmp_path / "p.html", nearest="ward")
    shutil.rmtree(research / "private")
    with pytest.raises(ModeError, match="private/ part"):
        write_report(research, nearest="ward")
    (research / "private").mkdir()
    monkeypatch.setattr(loading, "load", lambda source: _Set(records("other")))
    with pytest.raises(DataError, match="not those of the run"):
        write_report(research, nearest="other")
    assert not (research / "private" / "report.html").exists()
