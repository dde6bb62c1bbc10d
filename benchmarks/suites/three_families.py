"""The suite of Gandhi and Viradiya: CVAE, CGAN and diffusion at epsilon 5, 10, 40 and infinity, compared again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.runner.plot import Panel, Series, draw
from benchmarks.runner.quality import (
    SEEDS,
    fit_and_draw,
    fixed,
    judge,
    machine,
    machine_words,
    minutes,
    over_seeds,
    plain,
    seeds_of,
    small,
    some_epsilons,
    some_methods,
    some_seeds,
)
from benchmarks.runner.suite import Cell, missing
from benchmarks.suites.three_families_page import TEXT
from veilset.core.rendering import plus_minus

COMMAND = "veilset bench three-families --jobs 2"
OPTIONS = ("methods", "epsilon", "seeds")
METHODS = ("dp-cvae:gradients", "dp-cgan", "dp-diffusion", "dp-cvae")
EPSILONS = (10.0, float("inf"), 5.0, 40.0)  # in the order of worth
DATA, SIZES = "mnist", (1000, 10_000)
MEASURES = ("gen2real-cnn", "fd-gabor")
DRAWS = 3  # choices of real images
PAGE, PLOT = "three-families.md", "three-families.svg"
# 64-dimensional FID, as its authors' notebooks print it: epsilon -> value; "inf" is their run without DP.
PUBLISHED: dict[str, dict[Any, float]] = {
    "dp-cvae:gradients": {5.0: 62.55, 10.0: 62.63, 40.0: 62.51, "inf": 70.19},
    "dp-cgan": {5.0: 73.74, 10.0: 74.44, 40.0: 73.89, "inf": 77.82},
    "dp-diffusion": {"inf": 38.42},
}


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """The cells of these methods, budgets and seeds, seed 0 of all first, and one of real images."""
    names = some_methods(methods, METHODS)
    budgets = some_epsilons(epsilon, (10.0, float("inf")) if quick else EPSILONS)
    many = some_seeds(seeds, 1 if quick else SEEDS)
    data, sizes = ("digits", (100, 1000)) if quick else (DATA, SIZES)
    params = {m: small(m) if quick else {} for m in names}
    out = [Cell("real", "real", {"data": data, "sizes": [100] if quick else [1000, 5000]})]
    for s in many:
        for e in budgets:
            for m in names:
                facts = {"method": m, "data": data, "epsilon": plain(e), "seed": s, "params": params[m]}
                out.append(Cell(f"{m.replace(':', '-')}.eps{e:g}.seed{s}", "compare", facts | {"sizes": list(sizes)}))
    return out


# ---------------------------------------------------------------------- what a cell does


def compare(
    method: str, data: str, epsilon: float | str, seed: int, params: dict[str, Any], sizes: list[int]
) -> dict[str, Any]:
    """One fit; each measure of its first images, for each number of images. Labels are interleaved, so in balance."""
    images, test, facts = fit_and_draw(method, data, float(epsilon), seed, params, max(sizes))
    figures = {f"{k}@{n}": v for n in sizes for k, v in judge(images[:n], test, seed, MEASURES).items()}
    return {"figures": figures} | facts


def real(data: str, sizes: list[int]) -> dict[str, Any]:
    """fd-gabor of real test images, the same number a class, from the other test images: what perfect images score.

    Test splits are not in random order (MNIST's first half is cleaner than its second), so images are chosen by lot;
    the value is the mean over DRAWS choices.
    """
    import torch

    from veilset.core.types import Images
    from veilset.data.load import load

    test = load(data).test
    assert isinstance(test, Images)
    lot = torch.Generator().manual_seed(0)
    figures = dict.fromkeys((f"fd-gabor@{n}" for n in sizes), 0.0)
    for n in sizes * DRAWS:
        order = torch.randperm(len(test), generator=lot)
        chosen = torch.zeros(len(test), dtype=torch.bool)
        for k in range(len(test.classes)):
            chosen[order[test.y[order] == k][: n // len(test.classes)]] = True
        figures[f"fd-gabor@{n}"] += judge(test[chosen], test[~chosen], 0, ("fd-gabor",))["fd-gabor"] / DRAWS
    return {"figures": figures}


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    figures = ", ".join(f"{k} {v:.2f}" for k, v in result["figures"].items())
    return figures + (f", fit {result['fit_seconds'] / 60:.1f} min" if "fit_seconds" in result else "")


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each method and epsilon, and the scores of real images."""
    groups: dict[tuple[str, Any], tuple[list[Cell], list[tuple[Cell, dict[str, Any]]]]] = {}
    for c in wanted:
        if c.kind == "compare":
            groups.setdefault((c.params["method"], c.params["epsilon"]), ([], []))[0].append(c)
    for c, result in done:
        if c.kind == "compare":
            groups[c.params["method"], c.params["epsilon"]][1].append((c, result))
    rows = []
    for (method, epsilon), (asked, made) in sorted(groups.items(), key=lambda g: (_order(g[0][0]), float(g[0][1]))):
        row = {"method": method, "epsilon": epsilon} | over_seeds(made, len(asked))
        rows.append(row | {"published_fid_64": PUBLISHED.get(method, {}).get(epsilon)})
    real: dict[str, float] = next((r["figures"] for c, r in done if c.kind == "real"), {})
    sizes = next((list(c.params["sizes"]) for c in wanted if c.kind == "compare"), list(SIZES))
    return {"command": COMMAND, "rows": rows, "real": real, "sizes": sizes} | machine(done)


def _order(method: str) -> tuple[int, str]:
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md; the rest is on its own page."""
    lines = [
        f"## three-families\n\n`{result['command']}`: the comparison of Gandhi and Viradiya (CVAE, CGAN and diffusion "
        "under differential privacy) made again, with its number of images and with ten times as many. The plot, what "
        f"the columns mean and what the published numbers measured: [{PAGE}]({PAGE}).",
        "",
        _table(result),
    ]
    if result["missing"]:
        lines += ["", missing(result["missing"])]
    return "\n".join(lines) + "\n"


def pages(result: dict[str, Any]) -> dict[str, str]:
    """three-families.md and three-families.svg."""
    late = f"\n{missing(result['missing'])}\n" if result["missing"] else ""
    real = ", ".join(f"{v:.0f} for {int(k.partition('@')[2]):,} images" for k, v in result["real"].items())
    few, many = result["sizes"]
    facts = {
        "few": f"{few:,}",
        "many": f"{many:,}",
        "command": result["command"],
        "machine": machine_words(result),
        "table": _table(result),
        "price": _price(result),
        "published": _published(),
        "real": real or "not measured yet",
        "missing": late,
        "plot": PLOT,
    }
    return {PAGE: TEXT.format(**facts), PLOT: _plot(result)}


def _table(result: dict[str, Any]) -> str:
    few, many = result["sizes"]
    head = f"| method | epsilon | CNN, {few:,} | CNN, {many:,} | fd-gabor, {few:,} | fd-gabor, {many:,} "
    lines = [head + "| fit min | sample min | peak MB | epsilon spent | seeds |", "|---" * 11 + "|"]
    for r in result["rows"]:
        f = [plus_minus(r["figures"].get(f"{name}@{n}")) for name in MEASURES for n in (few, many)]
        spent = "no privacy" if r["epsilon"] == "inf" else fixed(r["epsilon_spent"], 4)
        lines.append(
            f"| {r['method']} | {float(r['epsilon']):g} | {' | '.join(f)} | {minutes(r, 'fit_minutes')} "
            f"| {minutes(r, 'sample_minutes')} | {fixed(r['peak_mb'], 0)} | {spent} | {seeds_of(r)} |"
        )
    return "\n".join(lines)


def _price(result: dict[str, Any]) -> str:
    """Of each method: accuracy at epsilon infinity less that at the least epsilon, and by what the distance grows."""
    many = result["sizes"][1]
    least = min((r["epsilon"] for r in result["rows"]), key=float, default=0)
    lines = [f"| method | points of accuracy from epsilon infinity to {least:g} | fd-gabor, times |", "|---|---|---|"]
    for method in dict.fromkeys(r["method"] for r in result["rows"]):
        of = {r["epsilon"]: r["figures"] for r in result["rows"] if r["method"] == method and r["figures"]}
        lost = times = "not measured yet"
        if least in of and "inf" in of:
            (a, b), (near, far) = ([of[e][f"{name}@{many}"] for e in ("inf", least)] for name in MEASURES)
            deviation = math.hypot(a["sd"] or 0.0, b["sd"] or 0.0)
            lost = f"{a['mean'] - b['mean']:.1f}" + (f" ± {deviation:.1f}" if deviation else "")
            times = f"{far['mean'] / near['mean']:.2f}"
        lines.append(f"| {method} | {lost} | {times} |")
    return "\n".join(lines)


def _published() -> str:
    lines = ["| model | epsilon 5 | epsilon 10 | epsilon 40 | without DP |", "|---|---|---|---|---|"]
    for method, values in PUBLISHED.items():
        cells = [f"{values[e]:.2f}" if e in values else "not found" for e in (5.0, 10.0, 40.0, "inf")]
        lines.append(f"| {method.removeprefix('dp-').partition(':')[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _plot(result: dict[str, Any]) -> str:
    """Accuracy and distance over epsilon, for both numbers of images."""
    rows, (few, many) = result["rows"], result["sizes"]
    budgets = sorted({float(r["epsilon"]) for r in rows})
    places, panels = ["∞" if b == float("inf") else f"{b:g}" for b in budgets], []
    for name, title in zip(
        MEASURES, ("Accuracy of the CNN, %", "fd-gabor, grey levels² (lower is better)"), strict=True
    ):
        series = []
        for method in dict.fromkeys(r["method"] for r in rows):
            for size in (many, few):
                mine = [(r, r["figures"].get(f"{name}@{size}")) for r in rows if r["method"] == method]
                points = [(budgets.index(float(r["epsilon"])), f["mean"], f["sd"]) for r, f in mine if f]
                series.append(Series(method, points, dashed=size == few))
        panels.append(Panel(title, series, "epsilon", places, log=name == "fd-gabor"))
    notes = [
        f"Filled marks: {many:,} synthetic images. Open, dashed: {few:,}. Bars: one standard deviation over seeds.",
        "More images score lower distances even if they are as good, so the two numbers of images are not compared.",
    ]
    return draw(panels, notes)
