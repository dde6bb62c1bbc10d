"""`veilset continual plan | fit | show` and `verify` of a stream, for people and for machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def planned(veilset: Run, *more: object) -> Any:
    return veilset("continual", "plan", "tiny", "--data", "digits", "--epsilon", "1", *more)


def test_plan_fit_show_verify(veilset: Run, tmp_path: Path) -> None:
    out = tmp_path / "s"
    made = planned(
        veilset, "--classes", "5,6", "--classes", "1, 2", "--per-class", "4", "--spread", "0.2", "--out", out, "--json"
    )
    assert made.status == 0 and made.json["epsilon"] == pytest.approx(1) and made.json["stream"]["mode"] == "release"
    assert [t["classes"] for t in made.json["tasks"]] == [["5", "6"], ["1", "2"]]
    one = veilset("continual", "fit", out, "--data", "digits", "--json")
    assert (
        one.status == 0
        and one.json["receipt"]["stream"]["task"] == 1
        and one.json["receipt"]["config"]["spread"] == 0.2
    )
    assert len((out / "task-1" / "labels.csv").read_text().splitlines()) == 9
    two = veilset("continual", "fit", out, "--data", "digits")
    assert two.status == 0 and "task 2 of 2; all of them: epsilon 1 at delta 1e-05" in two.out
    shown = veilset("continual", "show", out)
    assert shown.status == 0 and shown.out.count("released") == 2 and "parallel composition" in shown.out
    checked = veilset("verify", out, "--json")
    assert checked.status == 0 and checked.json["release"] and checked.json["epsilon"] == pytest.approx(1)
    account = tmp_path / "account"
    veilset("account", "create", account, "--data", "digits", "--epsilon", "3")
    charged = veilset("account", "charge", account, "--run", out, "--json").json["charges"]
    assert [c["purpose"] for c in charged] == ["stream s"]
    veilset("account", "charge", account, "--run", out).refused("already")
    veilset("account", "charge", account, "--run", out / "task-1").refused("charge the stream's folder")
    (out / "task-2" / "receipt.json").unlink()
    assert veilset("verify", out).status == 1


def test_a_plan_alone_writes_nothing(veilset: Run, tmp_path: Path) -> None:
    done = planned(veilset, "--classes", "5,6", "--classes", "6", "--units", "300,100")
    assert done.status == 0 and "6 in tasks 1, 2" in done.out and " 300 " in done.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--classes", "5,x"], ["class 'x' is not declared"]),
        (["--classes", ""], ["one or more distinct"]),
        ([], ["--classes"]),
        (["--classes", "5", "--classes", "6", "--units", "10"], ["units = '10'", "2 whole numbers"]),
        (["--classes", "5", "--units", "ten"], ["units = 'ten'"]),
        (["--classes", "5", "--per-class", "0"], ["per_class = 0"]),
        (["--classes", "5", "--sprad", "1"], ["sprad", "spread"]),
        (["--classes", "5", "--seed", "1"], ["give --out STREAM"]),
    ],
)
def test_a_wrong_plan_is_one_line(veilset: Run, more: list[str], words: list[str]) -> None:
    planned(veilset, *more).refused(*words)


def test_wrong_words_are_one_line(veilset: Run, tmp_path: Path) -> None:
    veilset("continual", "show", tmp_path).refused("no stream here")
    planned(veilset, "--classes", "5", "--out", tmp_path / "s")
    veilset("continual", "fit", tmp_path / "s", "--data", "digits", "--task", "2").refused("tasks 1 to 1")
    veilset("continual", "fit", tmp_path / "s", "--data", "digits", "--speed", "2").refused("--speed")
    assert "--classes A,B" in veilset("continual", "plan", "--help").out
