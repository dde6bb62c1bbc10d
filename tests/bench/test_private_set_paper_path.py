"""The convergence figure of the paper: what a path keeps, what it says was spent, and the picture."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import veilset as vs
from benchmarks.runner import recorded, suite
from benchmarks.runner.recorded import Recorded, counts, epsilon_after
from benchmarks.runner.suite import Cell, run_suite
from benchmarks.suites import private_set_paper
from veilset.methods.condensation import private_set
from veilset.privacy.accounting import gaussian_epsilon

pytestmark = pytest.mark.usefixtures("remembered_prices")
TINY = {"per_class": 2, "width": 4, "networks": 2, "stages": 2, "epochs": 1, "replay": 1}
TEN = vs.Privacy(10.0)


@pytest.mark.parametrize(
    "params",
    [
        {},
        *(
            pytest.param(p, marks=pytest.mark.long)
            for p in ({"prior": True}, {"start": "noise", "replay": 0, "augment": True})
        ),
    ],
)
def test_a_recorded_fit_is_an_ordinary_one(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_set, "TAUGHT", 20)  # steps in which a prior learns its start
    data, params = vs.load("digits").train, TINY | params
    got, plain = Recorded(3, **params).fit(data, TEN, seed=3), vs.make("private-set", **params).fit(data, TEN, seed=3)
    assert got._ledger == plain._ledger and got.receipt_ == plain.receipt_
    assert [p.questions for p in got.path] == [0, 1, 4]
    assert torch.equal(got.after(got.path[-1]).sample(20, seed=5).x, plain.sample(20, seed=5).x)
    first, between, last = (got.after(p).sample(20, seed=5).x for p in got.path)
    assert not torch.equal(first, between) and not torch.equal(between, last)
    assert torch.equal(got.sample(20, seed=5).x, last), "to look at a point changes nothing"


def test_a_point_is_the_set_after_its_questions() -> None:
    """Without noise and without a falling rate, a run of one question ends where a longer one passes."""
    data, params = vs.load("digits").train, TINY | {"lr_decay": False}
    long = Recorded(3, **params).fit(data, vs.Privacy(math.inf), seed=0)
    short = vs.make("private-set", **params | {"networks": 1, "stages": 1}).fit(data, vs.Privacy(math.inf), seed=0)
    assert torch.equal(long.after(long.path[1]).sample(20, seed=0).x, short.sample(20, seed=0).x)


@pytest.mark.parametrize(
    "params", [{}, *(pytest.param(p, marks=pytest.mark.long) for p in ({"start": "noise"}, {"batch_size": 200}))]
)
def test_epsilon_grows_from_that_of_the_start_to_that_of_the_plan(params: dict[str, Any]) -> None:
    plan = vs.make("private-set", **TINY | params).plan(vs.load("digits").info, TEN)
    spent = [epsilon_after(plan, n) for n in (0, 1, 4)]
    assert spent == sorted(set(spent)) and spent[-1] == plan.claim().epsilon
    start = [r.steps / r.noise_multiplier**2 for r in plan.releases if r.name != "match"]
    assert spent[0] == (pytest.approx(gaussian_epsilon(math.sqrt(sum(start)), 1e-5)) if start else 0)


def test_counts_are_spaced_as_squares_and_distinct() -> None:
    assert counts(200, 8) == [0, 4, 16, 37, 65, 102, 147, 200]
    assert counts(2, 8) == [0, 1, 2] and counts(1, 2) == [0, 1]


def test_the_time_of_copies_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 1 whenever it is read: once for the model, then before and after each copy."""
    clock = itertools.count()
    monkeypatch.setattr(recorded, "time", SimpleNamespace(process_time=lambda: next(clock)))
    got = Recorded(3, **TINY, start="noise").fit(vs.load("digits").train, TEN, seed=0)
    assert [p.seconds for p in got.path] == [1, 2, 3]


@pytest.mark.long
def test_the_suite_runs_paths_and_writes_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(module: str, cell: Cell, threads: int, shared: str) -> dict[str, Any]:
        quick = {"params": cell.params["params"] | TINY, "network": "logreg"}
        facts = {"kind": cell.kind, "cell": dict(cell.params), "threads": threads, "versions": {}, "processor": "a"}
        return facts | getattr(private_set_paper, cell.kind)(**{**cell.params, **quick})

    monkeypatch.setattr(suite, "_in_process", here)
    monkeypatch.setattr(private_set, "TAUGHT", 20)
    told: list[str] = []
    got = run_suite("private-set-paper", tmp_path, quick=True, only="path", tell=told.append)
    assert [line.split(":")[0] for line in told[:2]] == [
        f"private-set{p}.path.digits.eps10.seed0" for p in ("", ".prior")
    ]
    for row in got["paths"]:
        spent, minutes, accuracy = ([p[k]["mean"] for p in row["path"]] for k in ("epsilon", "minutes", "accuracy"))
        assert row["seeds"] == 1 and len(row["path"]) == 3 and spent[-1] == pytest.approx(row["epsilon_spent"])
        assert spent == sorted(spent) and minutes == sorted(minutes) and all(0 <= a <= 100 for a in accuracy)
    assert got["paths"][0]["path"][0]["epsilon"]["mean"] == got["paths"][1]["path"][0]["epsilon"]["mean"] > 0
    assert got["paths"][0]["path"][0]["accuracy"]["mean"] > 40, "images of dp-moments teach something"
    assert (tmp_path / "private-set-paper.svg").read_text().count("<circle") == 2 * 2 * 3 + 2
    assert "| digits | with | 4 | 10.000 |" in (tmp_path / "README.md").read_text()
