"""The suite of continual release: cells, verdicts, table and figure; one small stream of each kind."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from benchmarks.runner.suite import Cell
from benchmarks.suites import continual
from veilset.core.errors import ConfigError
from veilset.core.types import Images

SVG = "{http://www.w3.org/2000/svg}"
LAST = {"dp-condense": 94.0, "dp-merf": 85.0, "dp-sgd": 20.0}


def result(cell: Cell) -> dict[str, Any]:
    seed, end = cell.params["seed"], LAST[cell.params["method"]]
    figures = {f"task-{n}": end + (5 - n) + seed for n in range(1, 6)}
    cost = {"fit_seconds": 60.0, "peak_mb": 300.0, "epsilon": 10.0, "config": {}, "threads": 1}
    return {"figures": figures, "versions": {"torch": "2"}, "processor": "one"} | cost


def summary(done: list[Cell]) -> dict[str, Any]:
    wanted = continual.cells(False)
    got = continual.summary([(c, result(c)) for c in done], wanted)
    got["missing"] = [c.name for c in wanted if c not in done]
    json.dumps(got, allow_nan=False)
    return got


def test_cells_are_the_streams_that_were_asked_for() -> None:
    got = continual.cells(False)
    keys = {(c.params["method"], c.params["data"], c.params["epsilon"], c.params["seed"]) for c in got}
    sets = ("mnist", "fashion-mnist")
    assert keys == {(m, d, e, s) for m in continual.METHODS for d in sets for e in (1.0, 10.0) for s in (0, 1, 2)}
    assert len(got) == len({c.name for c in got}) == 36 and {c.params["network"] for c in got} == {"cnn"}
    assert {c.kind for c in got if c.params["method"] == "dp-sgd"} == {"one_network"}
    sizes = {c.params["method"]: c.params["per_class"] for c in got if c.kind == "sets"}
    assert sizes == {"dp-condense": 50, "dp-merf": 6000}
    few = continual.cells(False, ["private-set:prior", "dp-sgd"], ["mnist"], ["1"], 1, "cnn")
    assert [c.name for c in few] == ["private-set-prior.mnist.eps1.cnn.seed0", "dp-sgd.mnist.eps1.cnn.seed0"]
    assert [c.name for c in continual.cells(False, ["dp-sgd"], ["mnist"], ["1"], 1)] == ["dp-sgd.mnist.eps1.cnn.seed0"]


@pytest.mark.parametrize(
    "wrong", [{"methods": ["dp-sdg"]}, {"data": ["cifar"]}, {"epsilon": ["inf"]}, {"network": "logreg"}, {"seeds": 0}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        continual.cells(False, **wrong)


def test_verdicts_compare_the_last_task_with_both_baselines_and_the_aim() -> None:
    got = summary(continual.cells(False))
    said = {(r["data"], r["epsilon"]): r["verdict"] for r in got["rows"] if r["method"] == "dp-condense"}
    assert said["mnist", 10.0] == "above 2 of 2 baselines; goal 93 reached"
    assert said["fashion-mnist", 1.0] == "above 2 of 2 baselines"
    assert {r["verdict"] for r in got["rows"] if r["method"] != "dp-condense"} == {""}
    few = summary([c for c in continual.cells(False, seeds=1) if c.params["method"] == "dp-condense"])
    row = next(r for r in few["rows"] if (r["data"], r["epsilon"], r["method"]) == ("mnist", 10.0, "dp-condense"))
    assert row["verdict"] == "no baseline yet; goal 93 reached so far" and few["rows"][0]["data"] == "mnist"


@pytest.mark.parametrize("done", [0, 1, 36])
def test_table_and_figure(done: int) -> None:
    got = summary(continual.cells(False)[:done])
    section, svg = continual.render(got), continual.pages(got)["continual.svg"]
    tree = ElementTree.fromstring(svg)
    marks = len(tree.findall(f".//{SVG}circle"))
    assert marks == {0: 0, 1: 5 + 1, 36: 4 * 3 * 5 + 3}[done], "five tasks a curve, and the legend"
    assert (f"Missing {36 - done} results" in section) == (done < 36)
    if done == 36:
        assert "| mnist | 10 | cnn | dp-condense | 99.00 ± 1.00 | 98.00 ± 1.00 |" in section


def test_labels_count_the_classes_in_the_order_in_which_they_came() -> None:
    y = torch.tensor([0, 1, 2, 5, 6])
    images = Images(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), y, tuple("abcdefg"))
    got = continual.of_classes(images, ("f", "b"))
    assert got.y.tolist() == [1, 0] and got.x.flatten().tolist() == [1, 3] and got.classes == ("f", "b")
    assert continual.tasks_of("abcdefghij")[0] == ("f", "g")


@pytest.mark.long
def test_a_stream_of_sets_is_judged_after_each_task(plug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continual, "ORDER", ((5, 6), (1, 2)))
    got = continual.sets(plug, "digits", 10.0, 0, "mlp", {}, 8)
    assert list(got["figures"]) == ["task-1", "task-2"] and got["figures"]["task-1"] > 80, "two classes by their means"
    assert got["epsilon"] == pytest.approx(10) and got["composition"].startswith("parallel") and got["peak_mb"] > 50
    assert continual.words(got).startswith("accuracy after each task ")


@pytest.mark.long
def test_dp_sgd_learns_the_new_task_and_forgets_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continual, "ORDER", ((5, 6), (1, 2)))
    got = continual.one_network("dp-sgd", "digits", 100.0, 0, "mlp", {})
    first, second = got["figures"].values()
    assert first > 80 and second < 70, "after the second task the first one is lost"
    assert 95 < got["epsilon"] <= 100, "two tasks on different classes cost one of them"
