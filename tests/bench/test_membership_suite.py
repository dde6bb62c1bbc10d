"""The suite of membership attacks: its cells, the published mistake, table and picture."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.runner.suite import SUITES, Cell
from benchmarks.suites import membership
from veilset.core.errors import ConfigError

FIGURES = {"auc": 0.6, "low": 0.55, "high": 0.65, "advantage": 0.2}
RATES = [
    {"fpr": 0.001, "tpr": None, "low": None, "high": None, "why": "too few"},
    {"fpr": 0.01, "tpr": 0.05, "low": 0.03, "high": 0.08, "why": ""},
]


def result(cell: Cell) -> dict[str, Any]:
    """What a finished cell says."""
    facts: dict[str, Any] = {"versions": {"torch": "2"}, "processor": "one", "cell": cell.params}
    run = FIGURES | {"rates": RATES}
    if cell.kind == "mistake":
        rows = [{"trained": t, "outsiders": o, "run": run} for t in ("on a", "on b") for o in ("generated", "real")]
        return facts | {"rows": rows}
    private = cell.params["epsilon"] != "inf"
    curves = dict.fromkeys(("run", "never_trained", "leaky"), [[0.001, 0.002], [1.0, 1.0]])
    attack = {"run": run, "never_trained": run, "leaky": run, "curves": curves}
    return facts | {
        "ok": True, "verdict": "fine", "candidates": 3000, "near_duplicates": 2, "headline": "calibrated-logistic",
        "repeats": {"auc": [], "mean": None, "sd": None}, "seconds": 90.0,
        "claim": {"epsilon": 1.0 if private else None, "tpr": [0.002, 0.02] if private else None},
        "attacks": [attack | {"name": name} for name in ("lira", "calibrated-logistic")],
    }  # fmt: skip


def test_cells_are_every_method_and_budget() -> None:
    got = membership.cells(False)
    assert SUITES["membership"] == membership.__name__ and got[0].kind == "mistake"
    assert {(c.params["method"], c.params["epsilon"]) for c in got[1:]} == {
        (m, e) for m in membership.METHODS for e in (1.0, 10.0, "inf")
    }
    assert all(c.params["members"] >= 2995 for c in got[1:]), "enough outsiders for 0.1 %"
    few = membership.cells(True, ["dp-merf"], ["inf"], 2)
    assert [c.name for c in few] == ["mistake", "dp-merf.epsinf.seed0", "dp-merf.epsinf.seed1"]
    for wrong in ({"methods": ["merf?"]}, {"epsilon": ["0"]}, {"seeds": 0}):
        with pytest.raises(ConfigError):
            membership.cells(False, **wrong)


def test_table_and_picture_hold_what_was_measured() -> None:
    cells = membership.cells(False)
    got = membership.summary([(c, result(c)) for c in cells], cells) | {"missing": []}
    json.dumps(got, allow_nan=False)
    text = membership.render(got)
    assert text.count("| 0.600 [0.550, 0.650] | too few outsiders | 5.00 % [3.00, 8.00] |") == 9
    assert text.count("| anything |") == 3 and text.count("| 2 % |") == 6 and "| on b | real images |" in text
    svg = membership.pages(got)["membership.svg"]
    ElementTree.fromstring(svg)
    assert svg.count("never trained") == 1 and all(m in svg for m in membership.METHODS)


def test_an_unfinished_suite_says_what_is_missing() -> None:
    got = membership.summary([], membership.cells(False)) | {"missing": ["mistake"]}
    assert "Missing 1 results" in membership.render(got) and membership.pages(got) == {}


def test_the_published_attack_finds_members_that_were_never_trained_on() -> None:
    settings = {"method": "dp-moments", "params": {"mc_samples": 0, "n_components": 1}, "data": "digits"}
    rows = membership.mistake(**settings, epsilon=10.0, seed=0, members=400, images=400)["rows"]
    found = {(r["trained"], r["outsiders"]): r["run"] for r in rows}
    assert found["on the members", "generated"]["auc"] > 0.95
    assert found["on other records", "generated"]["auc"] > 0.95, "it cannot have learned a member"
    real = found["on other records", "real"]
    assert real["low"] < 0.55 and real["auc"] < 0.6


def test_a_cell_attacks_and_keeps_few_curves() -> None:
    params = {"mc_samples": 0, "n_components": 1}
    got = membership.attacked("dp-moments", "inf", 0, params, data="digits", members=300, images=300, shadows=4)
    json.dumps(got, allow_nan=False)
    assert {a["name"] for a in got["attacks"] if "curves" in a} == set(membership.KEPT)
    assert got["seconds"] > 0 and got["outsiders_from"] == "other records, by lot"
    assert membership.words(got) == got["verdict"]
