"""The tables of source document 003: cells, ours beside the published figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from veilset.bench import source_003
from veilset.bench.suite import Cell
from veilset.core.errors import ConfigError
from veilset.evaluation.protocols import SIX

CELLS = 3 * (2 * 4 * 2 * 3 + 2 * 2 * 2 * 5)


def result(cell: Cell) -> dict[str, Any]:
    value = 90.0 + cell.params["seed"]
    cost = {"fit_seconds": 60.0, "peak_mb": 300.0, "epsilon": 10.0, "config": {}, "threads": 1}
    return {"figures": {"accuracy": value}, "processor": "a", "versions": {}} | cost


def test_cells_are_sizes_priors_and_six_networks() -> None:
    got = source_003.cells(False)
    assert len(got) == len({c.name for c in got}) == CELLS
    assert {c.params["method"] for c in got if c.params["params"].get("prior")} == {"private-set"}
    six = {(c.params["params"]["per_class"], c.params["network"]) for c in got}
    assert six == {(1, SIX[0]), (50, SIX[0])} | {(n, net) for n in (10, 20) for net in SIX}
    with pytest.raises(ConfigError):
        source_003.cells(False, ["private-sets"])


@pytest.mark.parametrize("done", [0, CELLS])
def test_tables(done: int) -> None:
    wanted = source_003.cells(False)
    got = source_003.summary([(c, result(c)) for c in wanted[:done]], wanted)
    got["missing"] = [c.name for c in wanted[done:]]
    json.dumps(got, allow_nan=False)
    text = source_003.render(got)
    ours = "91.00 ± 1.00" if done else ""
    assert f"| mnist | 10 | private-set | 20 | convnet | {ours} | 95.6 |" in text
    assert f"| fashion-mnist | 10 | private-set with prior | 1 | convnet | {ours} | 63.0 |" in text
    assert f"| mnist | 10 | dp-condense | 20 | convnet | {ours} |  |" in text, "no published figure is of our method"
    assert f"| mnist | dp-condense, 20 a class | {' | '.join([ours] * len(SIX))} |" in text
    assert "| fashion-mnist | published: private-set, 20 a class | 77.7 | 68.0 | 59.1 | 76.8 | 70.8 | 62.2 |" in text
    assert (f"Missing {CELLS} cells" in text) == (done == 0)


def test_a_network_is_trained_on_the_set(plug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = source_003.fit_and_draw
    monkeypatch.setattr(source_003, "fit_and_draw", lambda m, d, e, s, p, n: asked.append(n) or real(m, d, e, s, {}, n))
    got = source_003.judged(plug, "digits", "inf", 0, {"per_class": 4}, "mlp128")
    assert asked == [40] and got["figures"]["accuracy"] > 60
