"""The convergence figure of the Private Set Generation paper: accuracy against spent budget and minutes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.runner.plot import Panel, Series, draw
from benchmarks.runner.quality import fixed, judge, over_seeds, seeds_of, small, spread
from benchmarks.runner.suite import Cell
from veilset.core.rendering import plus_minus

METHOD, EPSILON, PER_CLASS = "private-set", 10.0, 10
NETWORK = "lenet"  # the ConvNet takes minutes a point
POINTS = 8
PLOT = "private-set-paper.svg"
TEXT = f"""Convergence of `{METHOD}` at epsilon {EPSILON:g}, {PER_CLASS} images per class: one run, whose images were
copied before its first question, after some, and after the last (the released set). Each copy trains a LeNet by the
document's protocol, since the ConvNet takes minutes a point. Epsilon is that of what was asked until then, by the
accountant, and counts the sums of `dp-moments`, from which the first images are drawn; a prior learns to draw them
before the first question. Minutes are of the processor, without the copies and what is done with them. A point is not
the end of a shorter run, whose noise and rate would be others."""


def cells(quick: bool, data: Iterable[str], seed: int) -> list[Cell]:
    """The runs of a seed: each set without and with the prior."""
    out = []
    for d in data:
        for prior in (False, True):
            size = small(METHOD) | {"per_class": 2} if quick else {"per_class": PER_CLASS}
            facts = {"method": METHOD, "data": d, "epsilon": EPSILON, "seed": seed}
            facts |= {"params": size | ({"prior": True} if prior else {})}
            facts |= {"network": "mlp128", "points": 3} if quick else {"network": NETWORK, "points": POINTS}
            tag = f"{METHOD}{'.prior' if prior else ''}.path"
            out.append(Cell(f"{tag}.{d}.eps{EPSILON:g}.seed{seed}", "path", facts))
    return out


def path(
    method: str, data: str, epsilon: float, seed: int, params: dict[str, Any], network: str, points: int
) -> dict[str, Any]:
    """One fit in research mode; afterwards a network is trained on every copy of its images by its own protocol."""
    from benchmarks.runner.recorded import Recorded, epsilon_after
    from veilset.core.facts import peak_mb
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.privacy.spec import Privacy

    bundle = load(data)
    test, metric = bundle.test, f"gen2real-{network}"
    assert isinstance(test, Images)
    model = Recorded(points, **params).fit(bundle.train, Privacy(epsilon), seed=seed)
    peak, many = peak_mb(), params["per_class"] * len(bundle.info.classes)
    way = []
    for p in model.path:
        cost = {"epsilon": epsilon_after(model.priced, p.questions), "minutes": p.seconds / 60}
        accuracy = judge(model.after(p).sample(many, seed=seed), test, seed, [metric], None)[metric]
        way.append({"questions": p.questions} | cost | {"accuracy": accuracy})
    assert model.receipt_ is not None
    facts = {k: model.receipt_.facts[k] for k in ("epsilon", "config")}
    figures = {"accuracy": way[-1]["accuracy"]}
    return {"path": way, "figures": figures, "fit_seconds": model.path[-1].seconds, "peak_mb": peak} | facts


# ---------------------------------------------------------------------- what the cells say


def rows(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each set, budget and prior, with the points of its path: mean and deviation over seeds."""
    asked, out = [_key(c) for c in wanted if c.kind == "path"], []
    for key in dict.fromkeys(asked):
        own = [(c, r) for c, r in done if c.kind == "path" and _key(c) == key]
        row = dict(zip(("data", "epsilon", "prior"), key, strict=True)) | over_seeds(own, asked.count(key))
        places = zip(*(r["path"] for _, r in own), strict=False)  # if settings differ, so may the number of points
        row["path"] = [{k: spread([p[k] for p in seeds]) for k in seeds[0]} for seeds in places]
        out.append(row)
    return out


def _key(cell: Cell) -> tuple[str, float, bool]:
    p = cell.params
    return p["data"], p["epsilon"], p["params"].get("prior", False)


def section(paths: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of README.md."""
    heads = ["set", "prior", "questions", "epsilon spent", "minutes", "accuracy", "seeds"]
    lines = ["", TEXT, "", f"![Accuracy against spent epsilon and against minutes]({PLOT})", ""]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in paths:
        for p in r["path"]:
            at = [fixed(p[k]["mean"], digits) for k, digits in (("questions", 0), ("epsilon", 3), ("minutes", 2))]
            row = [r["data"], "with" if r["prior"] else "without", *at, plus_minus(p["accuracy"]), seeds_of(r)]
            lines.append(f"| {' | '.join(row)} |")
    return lines


def picture(paths: Sequence[dict[str, Any]]) -> str:
    """A row of two panels for each set: accuracy against epsilon spent, and against minutes."""
    panels = []
    for data, epsilon in dict.fromkeys((r["data"], r["epsilon"]) for r in paths):
        for x, x_title in (("epsilon", "epsilon spent"), ("minutes", "processor minutes")):
            series = []
            for r in [r for r in paths if (r["data"], r["epsilon"]) == (data, epsilon)]:
                points = [(p[x]["mean"], p["accuracy"]["mean"], p["accuracy"]["sd"]) for p in r["path"]]
                series.append(Series("with prior" if r["prior"] else "without prior", points, dashed=r["prior"]))
            panels.append(Panel(f"{data}, epsilon {epsilon:g}: accuracy, %", series, x_title))
    note = (
        "Of networks trained on the images as they stood. Dashed: with prior. Bars: one standard deviation over seeds."
    )
    return draw(panels, [note], columns=2)
