"""The tables of Private Set Generation (Chen, Kerkouche and Fritz 2022): cells, ours beside the published figures."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.runner import published
from benchmarks.runner.suite import Cell
from benchmarks.suites import private_set_paper as suite
from benchmarks.suites import private_set_paper_published as paper
from veilset.core.errors import ConfigError
from veilset.evaluation.protocols import SIX

SVG = "{http://www.w3.org/2000/svg}"
CELLS = 3 * 2 * ((3 * 2 + 4) + (1 + 3) + 2 * 5 + 2)  # seeds, sets; ConvNet at 10 and 1, networks, paths


def result(cell: Cell) -> dict[str, Any]:
    value = 90.0 + cell.params["seed"]
    if cell.kind == "path":
        return path_result(cell, value)
    cost = {"fit_seconds": 60.0, "peak_mb": 300.0, "epsilon": 10.0, "config": {}, "threads": 1}
    return {"figures": {"accuracy": value}, "processor": "a", "versions": {}} | cost


def path_result(cell: Cell, value: float) -> dict[str, Any]:
    path = [{"questions": q, "epsilon": q / 20, "minutes": q / 100, "accuracy": value - 20 / (1 + q)} for q in (0, 200)]
    facts = {"figures": {"accuracy": value}, "path": path, "fit_seconds": 120.0, "peak_mb": 300.0, "epsilon": 10.0}
    return facts | {"config": {}, "threads": 1, "processor": "a", "versions": {}}


def test_cells_are_sizes_priors_and_six_networks() -> None:
    everything = suite.cells(False, seeds=3)
    assert len(everything) == len({c.name for c in everything}) == CELLS
    got = [c for c in everything if c.kind == "judged"]
    assert {c.params["method"] for c in got if c.params["params"].get("prior")} == {"private-set"}
    five = [c.params for c in got if c.params["network"] != SIX[0]]
    assert {(p["params"]["per_class"], p["network"]) for p in five} == {(10, net) for net in SIX[1:]}
    assert {p["epsilon"] for p in five} == {10.0} and not [p for p in five if "prior" in p["params"]]
    sizes: dict[Any, set[int]] = {}
    for p in (c.params for c in got if c.params["network"] == SIX[0]):
        row = p["method"], p["epsilon"], p["params"].get("prior", False)
        sizes.setdefault(row, set()).add(p["params"]["per_class"])
    document: dict[Any, set[int]] = {}
    for _, e, n, prior in paper.SIZE_TABLE:
        document.setdefault(("private-set", e, prior), set()).add(n)
    ours = {("dp-condense", 10.0, False): {1, 10, 20, 50}, ("dp-condense", 1.0, False): {10, 20, 50}}
    assert sizes == document | ours, "a row for each published figure, and no other of that method"
    other = suite.cells(False, epsilon=["3"])
    assert {(c.params["params"]["per_class"], c.params["network"]) for c in other} == {(20, SIX[0])}


def test_the_document_says_the_same_in_both_of_our_tables() -> None:
    columns = [(d, e) for d, e, n, prior in paper.SIZE_TABLE if n == suite.COMPARED and not prior]
    got = published.table(suite.PAPER, columns)
    assert got["private-set"] == [paper.SIZE_TABLE[d, e, 20, False] for d, e in columns]
    assert len(columns) == 4 and len(got) == 7, "with the generators, of which it has six"


def test_cells_come_in_the_order_of_worth() -> None:
    got = [c.name.removesuffix(".eps10.seed0") for c in suite.cells(False) if c.name.endswith(".eps10.seed0")]
    assert [name.removesuffix(".mnist") for name in got if name.endswith(".mnist")][:9] == [
        "private-set.n10.convnet",
        "private-set.prior.n10.convnet",
        "dp-condense.n10.convnet",
        "private-set.n20.convnet",
        "private-set.prior.n20.convnet",
        "dp-condense.n20.convnet",
        "private-set.n1.convnet",
        "private-set.prior.n1.convnet",
        "dp-condense.n50.convnet",
    ]
    paths = [i for i, name in enumerate(got) if ".path." in name]
    assert [got[i] for i in paths] == [
        "private-set.path.mnist",
        "private-set.prior.path.mnist",
        "private-set.path.fashion-mnist",
        "private-set.prior.path.fashion-mnist",
    ]
    networks = [i for i, name in enumerate(got) if ".path." not in name and ".convnet." not in name]
    assert max(i for i, name in enumerate(got) if ".convnet." in name) < min(paths) and max(paths) < min(networks)
    assert got[-1] == "dp-condense.n10.resnet18.fashion-mnist", "the longest comes last"
    for without in (suite.cells(False, ["dp-condense"]), suite.cells(False, epsilon=["1"])):
        assert without and not [c for c in without if c.kind == "path"]


def test_later_seeds_make_the_sets_that_are_compared_with_floors() -> None:
    later = [c for c in suite.cells(False) if c.params["seed"] > 0]
    sets, seeds = 2, 2
    assert len(later) == len(suite.EPSILONS) * sets * seeds
    assert {(c.params["method"], c.params["network"]) for c in later} == {("dp-condense", SIX[0])}
    assert all(c.params["params"] == {"per_class": 20} for c in later)
    assert len(suite.cells(False, seeds=1)) == CELLS / 3 == len(suite.cells(False)) - len(later)


@pytest.mark.parametrize(
    "wrong", [{"methods": ["private-sets"]}, {"data": ["cifar"]}, {"epsilon": ["0"]}, {"seeds": 0}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        suite.cells(False, **wrong)


def test_a_verdict_is_for_good_when_all_seeds_are_there() -> None:
    row: dict[str, Any] = {"figures": {"accuracy": {"mean": 95.6}}, "seeds": 3}
    assert suite._verdict(row, 95.6, 98) == "95.6 passed, 98 missed"
    assert suite._verdict(row | {"seeds": 2}, 95.7, 95) == "95.7 missed, 95 reached so far"


@pytest.mark.parametrize("done", [0, CELLS])
def test_tables(done: int) -> None:
    wanted = suite.cells(False, seeds=3)
    got = suite.summary([(c, result(c)) for c in wanted[:done]], wanted)
    got["missing"] = [c.name for c in wanted[done:]]
    json.dumps(got, allow_nan=False)
    text = suite.render(got)
    ours = "91.00 ± 1.00" if done else ""
    assert f"| mnist | 10 | private-set | 20 | convnet | {ours} | 95.6 |" in text
    assert f"| fashion-mnist | 10 | private-set with prior | 1 | convnet | {ours} | 63.0 |" in text
    assert f"| mnist | 10 | dp-condense | 20 | convnet | {ours} |  |" in text, "no published figure is of our method"
    assert f"| dp-condense | {' | '.join([ours] * 4)} |" in text
    bars = "90, 96: not run | 95.6, 98: not run | 74, 82: not run | 78, 86: not run"
    if done:
        bars = "90 passed, 96 missed | 95.6 missed, 98 missed | 74 passed, 82 reached | 78 passed, 86 reached"
    assert f"| required and goal of dp-condense | {bars} |" in text
    assert "| published: private-set | 80.9 | 95.6 | 70.2 | 77.7 |" in text
    assert "| published: gs-wgan |  | 84.9 |  | 63.1 |" in text, "not published at epsilon 1"
    assert f"| mnist | dp-condense, 10 per class | {' | '.join([ours] * len(SIX))} |" in text
    assert "| fashion-mnist | published: private-set, 20 per class | 77.7 | 68.0 | 59.1 | 76.8 | 70.8 | 62.2 |" in text
    assert (f"Missing {CELLS} results" in text) == (done == 0)
    assert ("| fashion-mnist | with | 200 | 10.000 | 2.00 | 90.90 ± 1.00 | 3 of 3 |" in text) == (done == CELLS)
    assert "![Accuracy against spent epsilon and against minutes](private-set-paper.svg)" in text
    tree = ElementTree.fromstring(suite.pages(got)["private-set-paper.svg"])
    marks = [len(g.findall(f"{SVG}circle")) for g in tree.iter(f"{SVG}g")]
    assert marks == [2 * 2 if done else 0] * 4, "two sets, each over epsilon and over minutes; two paths of two points"


@pytest.mark.long
def test_a_network_is_trained_on_the_set(plug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = suite.fit_and_draw
    monkeypatch.setattr(suite, "fit_and_draw", lambda m, d, e, s, p, n: asked.append(n) or real(m, d, e, s, {}, n))
    got = suite.judged(plug, "digits", "inf", 0, {"per_class": 4}, "mlp128")
    assert asked == [40] and got["figures"]["accuracy"] > 60
    other = suite.judged(plug, "digits", "inf", 0, {"per_class": 4}, "lenet")
    assert other["figures"]["accuracy"] != got["figures"]["accuracy"], "another network"
