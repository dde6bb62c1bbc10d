"""The comparison of Gandhi and Viradiya: cells, table, page and plot."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.runner.plot import HEIGHT, LEFT, RIGHT, WIDTH, Panel, Series, draw
from benchmarks.runner.suite import Cell, run_suite
from benchmarks.suites import three_families as suite
from veilset.core.errors import ConfigError

SVG = "{http://www.w3.org/2000/svg}"


def cells() -> list[Cell]:
    return suite.cells(False)


def result(cell: Cell) -> dict[str, Any]:
    if cell.kind == "real":
        return {
            "figures": {"fd-gabor@1000": 812.3, "fd-gabor@5000": 201.4},
            "versions": {"torch": "2"},
            "processor": "a",
        }
    seed = cell.params["seed"]
    plus = 6.0 if cell.params["epsilon"] == "inf" and cell.params["method"] == "dp-cgan" else 0.0
    figures = {f"{m}@{n}": 50.0 + seed + plus + n / 1000 for m in suite.MEASURES for n in cell.params["sizes"]}
    cost = {"fit_seconds": 60.0, "sample_seconds": 6.0, "peak_mb": 300.0 + seed, "epsilon": None, "config": {}}
    return {"figures": figures, "versions": {"torch": "2"}, "processor": "one"} | cost


def summary(done: list[Cell]) -> dict[str, Any]:
    got = suite.summary([(c, result(c)) for c in done], cells())
    got["missing"] = [c.name for c in cells() if c not in done]
    json.dumps(got, allow_nan=False)
    return got


def test_cells_are_those_of_the_document() -> None:
    got = [c for c in cells() if c.kind == "compare"]
    assert {(c.params["method"], c.params["epsilon"], c.params["seed"]) for c in got} == {
        (m, e, s) for m in suite.METHODS for e in (5.0, 10.0, 40.0, "inf") for s in (0, 1, 2)
    }
    assert len(got) == 48 and all(c.params["sizes"] == [1000, 10_000] and c.params["data"] == "mnist" for c in got)
    seeds = [c.params["seed"] for c in got]
    assert seeds == sorted(seeds)
    few = suite.cells(False, ["dp-merf"], ["inf"], 1)
    assert [c.name for c in few] == ["real", "dp-merf.epsinf.seed0"]
    for wrong in ({"methods": ["cvae?"]}, {"epsilon": ["-1"]}, {"seeds": 0}):
        with pytest.raises(ConfigError):
            suite.cells(False, **wrong)


def test_page_and_plot() -> None:
    got = summary(cells())
    pages = suite.pages(got)
    page, svg = pages["three-families.md"], pages["three-families.svg"]
    assert "| dp-cvae | 5 | 52.00 ± 1.00 | 61.00 ± 1.00 | 52.00 ± 1.00 | 61.00 ± 1.00 | 1.00 | 0.10 | 302 |" in page
    assert "| dp-diffusion | inf |" in page and "no privacy | 3 of 3 |" in page
    assert "812 for 1,000 images, 201 for 5,000 images" in page and "| cvae | 62.55 | 62.63 | 62.51 | 70.19 |" in page
    assert "| diffusion | not found | not found | not found | 38.42 |" in page and "{" not in page
    assert "| dp-cvae | 0.0 ± 1.4 | 1.00 |" in page and "| dp-cgan | 6.0 ± 1.4 | 0.91 |" in page, "the price of privacy"
    tree = ElementTree.fromstring(svg)
    assert len(tree.findall(f".//{SVG}circle")) == 2 * 2 * 16 + 4, "two panels, two sizes, sixteen rows; the legend"
    section = suite.render(got)
    assert (
        "[three-families.md](three-families.md)" in section
        and "| dp-cgan | 40 |" in section
        and "Missing" not in section
    )


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_page_of_few_cells(done: int) -> None:
    got = summary(cells()[:done])
    pages = suite.pages(got)
    ElementTree.fromstring(pages["three-families.svg"])
    assert f"Missing {49 - done} results" in pages[
        "three-families.md"
    ] and f"Missing {49 - done} results" in suite.render(got)
    assert ("no result is there yet" in pages["three-families.md"]) == (done == 0)


def test_real_images_are_close_to_real_images() -> None:
    got = suite.real("digits", [100, 200])["figures"]
    assert set(got) == {"fd-gabor@100", "fd-gabor@200"} and all(v > 0 for v in got.values())
    assert got == suite.real("digits", [100, 200])["figures"]


def test_one_fit_is_judged_by_few_and_by_many_images(plug: str) -> None:
    got = suite.compare(plug, "digits", "inf", 0, {}, [20, 100])
    assert set(got["figures"]) == {f"{m}@{n}" for m in suite.MEASURES for n in (20, 100)}
    assert got["epsilon"] is None and got["peak_mb"] > 50 and got["fit_seconds"] > 0
    assert suite.words(got).startswith("gen2real-cnn@20 ")


def test_dry_writes_page_and_plot(tmp_path: Path) -> None:
    told: list[str] = []
    got = run_suite("three-families", tmp_path, dry=True, tell=told.append)
    assert len(got["missing"]) == 49 and told[0].startswith("Missing 49 results, the most wanted first: real, ")
    assert (tmp_path / "three-families.svg").exists() and "| dp-cvae | 5 |" in (
        tmp_path / "three-families.md"
    ).read_text()


def test_the_plot_escapes_and_takes_odd_values() -> None:
    series = [Series("<a&b>", [(0, 5.0, None), (1, 5.0, 9.0)]), Series("c", [], dashed=True)]
    for log, places in itertools.product((False, True), (["1", "∞"], None)):
        tree = ElementTree.fromstring(draw([Panel("t<", series, "x", places, log)], ["note"]))
        assert "<a&b>" in [t.text for t in tree.iter(f"{SVG}text")]
    zero = [Series("a", [(0, 0.0, 0.0)])]
    for log, places in itertools.product((False, True), (["1"], None)):
        ElementTree.fromstring(draw([Panel("t", zero, "x", places, log)], []))


def test_numbers_stand_where_they_are_and_panels_in_rows() -> None:
    panel = Panel("t", [Series("a", [(0.0, 1.0, None), (2.5, 2.0, 0.5), (10.0, 3.0, None)])], "x")
    tree = ElementTree.fromstring(draw([panel] * 3, [], columns=2))
    places = [g.get("transform") for g in tree.iter(f"{SVG}g")]
    assert places == ["translate(0 0)", f"translate({WIDTH} 0)", f"translate(0 {HEIGHT})"]
    assert (tree.get("width"), tree.get("height")) == (str(2 * WIDTH), str(2 * HEIGHT + 28))
    xs = [float(c.get("cx", "")) for c in tree.findall(f"./{SVG}g[1]/{SVG}circle")]
    assert xs == [LEFT, pytest.approx(LEFT + (xs[2] - LEFT) / 4, abs=0.1), WIDTH - RIGHT]
    assert [t.text for t in tree.findall(f"./{SVG}g[1]/{SVG}text")][-7:] == ["0", "2", "4", "6", "8", "10", "x"]
