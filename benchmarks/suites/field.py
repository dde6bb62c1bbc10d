"""The field suite: what the default is worth on ten public sets of very different kinds, half of them not tuned on."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runner.field_judges import CHEAP, JUDGES, REAL, even, judge
from benchmarks.runner.field_sets import FIELD, TUNED, UNSEEN, build
from benchmarks.runner.quality import (
    fit_and_draw,
    fixed,
    machine,
    machine_words,
    minutes,
    over_seeds,
    plain,
    seeds_of,
    sets_budgets_seeds,
    small,
    some_methods,
)
from benchmarks.runner.suite import SHARED, Cell, missing
from veilset.core.errors import ConfigError
from veilset.core.rendering import plus_minus
from veilset.methods.catalogue import DEFAULT

COMMAND = "veilset bench field"
OPTIONS = ("methods", "data", "epsilon", "seeds", "network")
RIVALS = ("dp-moments", "dp-moments:pooled")
METHODS = tuple(dict.fromkeys((DEFAULT, *RIVALS, "taught-moments")))
EPSILONS = (1.0, 10.0)
DRAWN = 2000  # balanced images that judges learn from
BEYOND = 2.0  # pooled standard errors by which a method is behind
TEXT = f"""Delta 1e-5, add or remove one unit. Mean of recalls over classes in % on the public test part of each set, of
classifiers that learned from {DRAWN} balanced released images: logistic regression and a forest on pixels (averaged to
sides of at most 32), and logistic regression on histograms of oriented gradients; chance is 100 / K. "real": the same
learned from at most {REAL} real training images, the fewer the rarer a class. The way from chance to real is
(figure - chance) / (real - chance). The sets, how they are made and their licences: `runner/field_sets.py`. Defaults
may have been chosen on {", ".join(TUNED)}; {", ".join(UNSEEN)} were named before they had a figure, and nothing was
chosen on them. taught-moments is the default of the version before."""


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
    network: str | None = None,
) -> list[Cell]:
    """The cells of these methods, sets and budgets; ceilings first, then seed 0. `network`: cnn, to judge too."""
    if network not in (None, "cnn"):
        raise ConfigError(f"network = {network!r}: the field's only network is cnn")
    judges = list(JUDGES if network else CHEAP)
    names = some_methods(methods, METHODS)
    sets, budgets, which = sets_budgets_seeds(
        quick, data, epsilon, seeds, ("digits",) if quick else tuple(FIELD), EPSILONS
    )
    out = [Cell(f"real.{d}{'.cnn' * bool(network)}", "real", {"data": d, "judges": judges}) for d in sets]
    for s in which:
        for d, m, e in ((d, m, e) for d in sets for m in names for e in budgets):
            facts: dict[str, Any] = {"method": m, "data": d, "epsilon": plain(e), "seed": s}
            facts |= {"params": small(m) if quick else {}, "n": 300 if quick else DRAWN, "judges": judges}
            name = f"{m.replace(':', '-')}.{d}.eps{e:g}.seed{s}{'.cnn' * bool(network)}"
            out.append(Cell(name, "judged", facts))
    return out


def judged(
    method: str, data: str, epsilon: float | str, seed: int, params: dict[str, Any], n: int, judges: list[str]
) -> dict[str, Any]:
    """One fit and its images, judged; and the plan's estimate beside what it took."""
    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    with tempfile.TemporaryDirectory() as tmp:
        source = str(_built(data, Path(tmp)))
        name, _, recipe = method.partition(":")
        plan = make(name, recipe=recipe or None, **params).unpriced(load(source).info, Privacy(float(epsilon)))
        images, test, facts = fit_and_draw(method, source, float(epsilon), seed, params, n)
    ends = ((images.x == 0) | (images.x == 255)).double().mean().item()
    facts |= {"planned_seconds": plan.seconds, "planned_mb": plan.memory_mb, "saturated": ends}
    return {"figures": {j: judge(j, images, test, seed) for j in judges}} | facts


def real(data: str, judges: list[str]) -> dict[str, Any]:
    """What the judges learn from real images."""
    from veilset.audit.membership.records import inspect
    from veilset.core.types import Images
    from veilset.data.load import load

    with tempfile.TemporaryDirectory() as tmp:
        bundle = load(_built(data, Path(tmp)))
        train, test = even(inspect(bundle.train, 0), REAL, 0), bundle.test
    assert isinstance(test, Images)
    return {"figures": {j: judge(j, train, test, 0) for j in judges}, "classes": len(test.classes)}


def _built(data: str, folder: Path) -> Path:
    """Where the set lies: cells of one run make it once."""
    shared = Path(os.environ.get(SHARED, folder)) / data
    if not (shared / f"{data}.npz").exists():
        own = Path(tempfile.mkdtemp(dir=shared.parent))
        build(data, own)
        with contextlib.suppress(OSError):  # another cell was quicker
            own.rename(shared)
    return shared / f"{data}.npz"


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    figures = ", ".join(f"{k} {v:.1f}" for k, v in result["figures"].items())
    return figures + (f", fit {result['fit_seconds']:.0f} s" if "fit_seconds" in result else "")


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each set, budget and method, and what they come to together."""
    ceilings: dict[str, dict[str, float]] = {}
    for c, r in done:
        if c.kind == "real":
            ceilings.setdefault(c.params["data"], {}).update(r["figures"])
    asked, rows = [_key(c) for c in wanted if c.kind == "judged"], list[dict[str, Any]]()
    for key in sorted(set(asked), key=lambda k: ([*FIELD].index(k[0]), *k[1:])):
        own = [(c, r) for c, r in done if c.kind == "judged" and _key(c) == key]
        row: dict[str, Any] = dict(zip(("data", "epsilon", "method"), key, strict=True))
        row |= over_seeds(own, len({c.params["seed"] for c in wanted if c.kind == "judged" and _key(c) == key}))
        row["seeds"] = len({c.params["seed"] for c, _ in own})
        row |= {"chance": 100 / len(FIELD[key[0]].classes), "real": ceilings.get(key[0], {})}
        row["way"] = _way(row)
        row["planned"] = _planned([r for _, r in own])
        row["saturated"] = statistics.fmean(r["saturated"] for _, r in own) if own else None
        rows.append(row)
    facts = {"default": DEFAULT, "rows": rows, "behind": _behind(rows), "together": _together(rows)}
    return {"suite": "field", "command": COMMAND} | facts | machine(done)


def _key(cell: Cell) -> tuple[str, float, str]:
    return cell.params["data"], float(cell.params["epsilon"]), cell.params["method"]


def _way(row: dict[str, Any]) -> dict[str, float]:
    """The share of the way from chance to real, of each judge whose real images are above chance."""
    chance = row["chance"]
    return {
        j: (f["mean"] - chance) / (row["real"][j] - chance)
        for j, f in row["figures"].items()
        if row["real"].get(j, 0) > chance + 1
    }


def _planned(results: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """How many times the planned seconds and memory a fit took."""
    if not results:
        return None
    seconds = statistics.fmean(r["fit_processor_seconds"] / max(1.0, r["planned_seconds"]) for r in results)
    return {"seconds": seconds, "memory": max(r["peak_mb"] / max(1.0, r["planned_mb"]) for r in results)}


def _behind(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where the default is behind a rival: by how many pooled standard errors, or points where seeds are one."""
    at = {(r["data"], r["epsilon"], r["method"]): r for r in rows if r["seeds"]}
    out = []
    for (data, epsilon, method), theirs in at.items():
        own = at.get((data, epsilon, DEFAULT))
        if method not in RIVALS or own is None:
            continue
        for j in (j for j in own["figures"] if j in theirs["figures"]):
            a, b = own["figures"][j], theirs["figures"][j]
            error = None
            if a["sd"] is not None and b["sd"] is not None:
                error = math.sqrt(a["sd"] ** 2 / own["seeds"] + b["sd"] ** 2 / theirs["seeds"])
            gap = b["mean"] - a["mean"]
            line = {"data": data, "epsilon": epsilon, "rival": method, "judge": j, "points": gap}
            out.append(line | {"errors": gap / max(error, 0.1) if error is not None else None})
    return sorted(out, key=lambda x: -x["points"])


def _together(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each half, budget and method: mean share of the way, its worst set, and the mean rank among methods."""
    out = []
    for half, sets in (("tuned", TUNED), ("unseen", UNSEEN)):
        for epsilon in sorted({r["epsilon"] for r in rows}):
            own = [r for r in rows if r["data"] in sets and r["epsilon"] == epsilon and r["way"]]
            for method in dict.fromkeys(r["method"] for r in own):
                ways = {r["data"]: statistics.fmean(r["way"].values()) for r in own if r["method"] == method}
                worst = min(ways, key=lambda d: ways[d])
                line = {"half": half, "epsilon": epsilon, "method": method, "sets": len(ways)}
                line |= {"way": statistics.fmean(ways.values()), "worst": ways[worst], "worst_set": worst}
                out.append(line | {"rank": _rank(method, own)})
    return out


def _rank(method: str, rows: Sequence[dict[str, Any]]) -> float:
    """Mean rank over sets and judges, 1 the best."""
    ranks = [
        1.0 + sum(o["figures"][j]["mean"] > f["mean"] for o in rows if o["data"] == r["data"] and j in o["figures"])
        for r in rows
        if r["method"] == method
        for j, f in r["figures"].items()
    ]
    return statistics.fmean(ranks)


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    lines = [f"## field\n\n`{result['command']}` {machine_words(result)}. {TEXT}\n"]
    lines += ["| half | epsilon | method | way from chance to real | worst | mean rank | sets |", "|" + "---|" * 7]
    for t in result["together"]:
        row = [t["half"], f"{t['epsilon']:g}", t["method"], f"{t['way']:.0%}", f"{t['worst']:.0%} ({t['worst_set']})"]
        lines.append(f"| {' | '.join([*row, fixed(t['rank'], 2), str(t['sets'])])} |")
    judges = [j for j in JUDGES if any(j in r["figures"] for r in result["rows"])] or list(CHEAP)
    heads = ["set", "chance", "real", "epsilon", "method", *judges, "saturated pixels", "fit min", "seeds"]
    lines += ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in (r for r in result["rows"] if r["seeds"]):
        top = " / ".join(f"{r['real'][j]:.0f}" if j in r["real"] else "?" for j in judges)
        row = [r["data"], f"{r['chance']:.0f}", top, f"{r['epsilon']:g}", r["method"]]
        row += [*(plus_minus(r["figures"].get(j)) for j in judges), f"{r['saturated']:.0%}"]
        lines.append(f"| {' | '.join([*row, minutes(r, 'fit_minutes'), seeds_of(r)])} |")
    lines += ["", *_behind_words(result)]
    if result["missing"]:
        lines += ["", missing(result["missing"])]
    return "\n".join(lines) + "\n"


def _behind_words(result: dict[str, Any]) -> list[str]:
    """The floor of the default against its rivals, with every comparison that is beyond it."""
    several = [b for b in result["behind"] if b["errors"] is not None]
    beyond = [b for b in several if b["errors"] > BEYOND]
    lines = [
        f"{result['default']} against {' and '.join(RIVALS)}: {len(several)} comparisons with a spread, "
        f"{len(beyond)} behind by more than {BEYOND:g} pooled standard errors (floor: at most 3, none beyond 4)."
    ]
    for b in beyond:
        where = f"{b['data']}, epsilon {b['epsilon']:g}, {b['judge']}, {b['rival']}"
        lines.append(f"* {where}: {b['points']:.1f} points, {b['errors']:.1f} errors")
    return lines
