"""The suite of all methods: accuracy, distance, minutes and memory of each, on each set, at each budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.runner import ceiling, published
from benchmarks.runner.ceiling import teacher
from benchmarks.runner.quality import (
    SEEDS,
    cell,
    fixed,
    machine,
    machine_words,
    minutes,
    over_seeds,
    quality,
    seeds_of,
    sets_budgets_seeds,
    small,
    some_methods,
)
from benchmarks.runner.suite import Cell, missing
from benchmarks.suites import spine
from veilset.core.rendering import plus_minus
from veilset.methods.catalogue import TEACHERS
from veilset.methods.catalogue import methods as catalogue

__all__ = ["ELSEWHERE", "OPTIONS", "cells", "quality", "render", "summary", "teacher", "words"]
PROTOCOL = """Delta 1e-5; unit: one image, add or remove. CNN: accuracy in % on the public test split of a
three-convolution network trained on 60,000 balanced synthetic images, 10 epochs, last epoch, no selection; a seed
reseeds synthesizer and classifier; mean and sample standard deviation over seeds. fd-gabor is a Frechet distance on
fixed Gabor features of 60,000 images: it is not FID and compares with no FID. Minutes are processor
minutes, all threads together (in cells made before they were recorded, minutes of the clock on one core beside another
busy one); memory is the peak of the process until the images were drawn (empty where a cell of an earlier suite, which
did not record it, was not made again). MNIST and Fashion-MNIST are development sets: hyper-parameters were chosen on a
validation part of their training splits, and the claim covers a run, not that search.
Cells of `veilset bench headline` of the same name count: they are made of the same images, and have these figures, too.
What is required is passed if the mean over all seeds reaches it and the fit took at most 30 minutes. Published figures
were made by other protocols: they stand beside ours for orientation and are not compared with them."""
COMMAND = "veilset bench leaderboard --jobs 2"
OPTIONS = ("methods", "data", "epsilon", "seeds")
ELSEWHERE = ("spine", "headline")  # their cells of the same name are not made again
SETS = ("mnist", "fashion-mnist")
EPSILONS = (1.0, 10.0)
LONGEST_FIT = 30.0  # minutes
# What limits a method that misses its floor, where an experiment says so; printed while it is missed.
LIMITS = {("dp-feta", "fashion-mnist"): "../logs/search-diffusion.md"}
# Least accuracy at epsilon 1 and 10. The order of the methods is the order in which cells are made.
FLOORS: dict[tuple[str, str], tuple[float, float]] = {
    ("dp-feta", "mnist"): (90, 95),
    ("dp-diffusion", "mnist"): (80, 93),
    ("dp-gan", "mnist"): (78, 88),
    ("dp-cvae", "mnist"): (78, 86),
    ("vae-gm", "mnist"): (75, 85),
    ("dp-cgan", "mnist"): (60, 75),
    ("dp-feta", "fashion-mnist"): (74, 81),
    ("taught-moments", "mnist"): (93, 95.5),
    ("taught-moments", "fashion-mnist"): (78, 79),
    **{key: limits[0] for key, limits in spine.FLOOR_AIM.items()},
}


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """The cells of these methods (None: the catalogue), sets, budgets and seeds, the most wanted first.

    First seed 0 of all, then seed 1, ...; within a seed the teachers (asked for by the name of one of them, or by
    None) come first, then the cells with a floor in the order of FLOORS.
    """
    asked = None if methods is None else list(methods)
    taught = asked is None or bool(set(asked) & set(TEACHERS))
    drawn = None if asked is None else [name for name in asked if name not in TEACHERS]
    names = [] if taught and drawn == [] else some_methods(drawn, catalogue())
    sets, budgets, which = sets_budgets_seeds(quick, data, epsilon, seeds, SETS, EPSILONS)
    wanted = [(m, d, e, s) for s in which for d in sets for m in names for e in budgets]
    wanted.sort(key=lambda w: (w[3], _rank(w[0], w[1], w[2])))
    params = {m: small(m) if quick else {} for m in names}
    drawing = [cell(m, d, e, s, params[m], n=300 if quick else 60_000) for m, d, e, s in wanted]
    teaching = ceiling.cells(sets, budgets, which) if taught else []
    return sorted([*teaching, *drawing], key=lambda c: int(c.params["seed"]))  # the order within a seed stays


def _rank(method: str, data: str, epsilon: float) -> int:
    """Place of a row in the order of worth."""
    has_floor = (method, data) in FLOORS and epsilon in EPSILONS
    return list(FLOORS).index((method, data)) if has_floor else len(FLOORS)


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    figures = ", ".join(f"{k} {v:.2f}" for k, v in result["figures"].items())
    draw = f"sample {result['sample_seconds'] / 60:.1f} min, " if "sample_seconds" in result else ""
    return f"{figures}, fit {result['fit_seconds'] / 60:.1f} min, {draw}peak {result['peak_mb']:.0f} MB"


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each method, set and epsilon, and one for each teacher."""
    ceilings = ceiling.rows(done, wanted)
    everything, done = done, [(c, r) for c, r in done if c.kind != ceiling.KIND]
    wanted = [c for c in wanted if c.kind != ceiling.KIND]
    groups: dict[tuple[str, str, Any], tuple[list[Cell], list[tuple[Cell, dict[str, Any]]]]] = {}
    for c in wanted:
        groups.setdefault((c.params["method"], c.params["data"], c.params["epsilon"]), ([], []))[0].append(c)
    for c, result in done:
        groups[c.params["method"], c.params["data"], c.params["epsilon"]][1].append((c, result))
    rows = []
    for (method, data, epsilon), (asked, made) in groups.items():
        row = {"method": method, "data": data, "epsilon": epsilon} | over_seeds(made, len(asked))
        floor = _floor(method, data, epsilon)
        row |= {"floor": floor, "verdict": _verdict(floor, row), "ceiling": ceiling.beside(ceilings, data, epsilon)}
        rows.append(row | {"published": published.beside(method, data, float(epsilon))})
    rows.sort(key=_place)
    return {"command": COMMAND, "rows": rows, "ceilings": ceilings} | machine(everything)


def _floor(method: str, data: str, epsilon: Any) -> float | None:
    limits = FLOORS.get((method, data))
    return limits[EPSILONS.index(epsilon)] if limits and epsilon in EPSILONS else None


def _verdict(floor: float | None, row: dict[str, Any]) -> str | None:
    """Passed or missed, so far or for good; None where there is no floor or no cell."""
    if floor is None or not row["seeds"]:
        return None
    if row["fit_minutes"] > LONGEST_FIT:
        return f"missed: fit took over {LONGEST_FIT:g} minutes"
    verdict = "passed" if row["figures"]["gen2real-cnn"]["mean"] >= floor else "missed"
    return verdict if row["seeds"] >= SEEDS else f"{verdict} so far"


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    """Order in the table: by set and budget, then the most accurate first, then what is missing by its worth."""
    known = row["data"] in SETS
    figure = row["figures"].get("gen2real-cnn")
    best = -figure["mean"] if figure else _rank(row["method"], row["data"], float(row["epsilon"]))
    return (SETS.index(row["data"]) if known else len(SETS), row["data"], float(row["epsilon"]), not figure, best)


def render(result: dict[str, Any]) -> str:
    """The suite as Markdown."""
    lines = [
        f"## leaderboard\n\n`{result['command']}` {machine_words(result)}.\n{PROTOCOL}\n",
        "| set | epsilon | method | CNN | ceiling | required | published accuracy (other protocols) | fd-gabor "
        "| fit min | sample min | peak MB | epsilon spent | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        f = r["figures"]
        floor = "" if r["floor"] is None else f"{r['floor']:g}: {r['verdict'] or 'not run'}"
        lines.append(
            f"| {r['data']} | {float(r['epsilon']):g} | {r['method']} | {plus_minus(f.get('gen2real-cnn'))} "
            f"| {plus_minus(r['ceiling'])} | {floor} "
            f"| {published.words(r['published'], r['method'])} | {plus_minus(f.get('fd-gabor'))} "
            f"| {minutes(r, 'fit_minutes')} | {minutes(r, 'sample_minutes')} | {fixed(r['peak_mb'], 0)} "
            f"| {fixed(r['epsilon_spent'], 4)} | {seeds_of(r)} |"
        )
    for r in result["rows"]:
        page, missed = LIMITS.get((r["method"], r["data"])), (r["verdict"] or "").startswith("missed")
        if page and missed:
            lines += ["", f"What limits {r['method']} on {r['data']}, epsilon {r['epsilon']:g}: [{page}]({page})."]
    lines += ceiling.render(result["ceilings"])
    named = {p["paper"] for r in result["rows"] for p in r["published"]}
    papers = [name for name in published.PAPERS if name in named]
    if papers:
        lines += ["", "The published figures, and FID where it was given with them:\n", published.legend(papers)]
    if result["missing"]:
        lines += ["", missing(result["missing"])]
    return "\n".join(lines) + "\n"
