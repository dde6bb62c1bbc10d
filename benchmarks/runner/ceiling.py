"""The ceiling of a table: how well a teacher, which draws no images, classifies real ones at the same budget.

For suites that judge released images: put `cells` among theirs, offer `teacher` as a kind, and show `rows` beside.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.runner.quality import fixed, minutes, over_seeds, plain, seeds_of
from benchmarks.runner.suite import Cell
from veilset.core.rendering import plus_minus
from veilset.methods.catalogue import TEACHERS

KIND, MEASURE = "teacher", "real2real"
Done = Sequence[tuple[Cell, dict[str, Any]]]


def cells(data: Iterable[str], epsilons: Iterable[float], seeds: Iterable[int]) -> list[Cell]:
    """A cell for each teacher, set, budget and seed."""
    asked = [(t, d, e, s) for s in seeds for d in data for t in TEACHERS for e in epsilons]
    return [_cell(*one) for one in asked]


def _cell(method: str, data: str, epsilon: float, seed: int) -> Cell:
    facts: dict[str, Any] = {"method": method, "data": data, "epsilon": plain(epsilon), "seed": seed, "params": {}}
    return Cell(f"{method}.{data}.eps{epsilon:g}.seed{seed}", KIND, facts)


def teacher(method: str, data: str, epsilon: float | str, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """Fit in research mode on the training split, and classify the public test split: accuracy in %."""
    from veilset.core.facts import peak_mb
    from veilset.data.load import load
    from veilset.methods.catalogue import make_teacher
    from veilset.privacy.spec import Privacy

    bundle = load(data)
    test = bundle.public_test()
    start = time.perf_counter()
    model = make_teacher(method, **params).fit(bundle.train, Privacy(float(epsilon)), seed=seed)
    fitted, peak = time.perf_counter(), peak_mb()
    right = model.predict(test.x) == test.y
    assert model.receipt_ is not None
    receipt = model.receipt_.facts
    cost = {"fit_seconds": fitted - start, "peak_mb": peak}
    figures = {MEASURE: 100 * float(right.float().mean())}
    return {"figures": figures, "epsilon": receipt["epsilon"], "config": receipt["config"]} | cost


def rows(done: Done, wanted: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each teacher, set and budget among the cells of kind "teacher"."""
    keys = list(dict.fromkeys(_key(c) for c in wanted if c.kind == KIND))
    out = []
    for key in keys:
        made = [(c, r) for c, r in done if c.kind == KIND and _key(c) == key]
        many = sum(c.kind == KIND and _key(c) == key for c in wanted)
        out.append(dict(zip(("method", "data", "epsilon"), key, strict=True)) | over_seeds(made, many))
    return out


def beside(rows: Iterable[dict[str, Any]], data: str, epsilon: Any) -> dict[str, Any] | None:
    """Mean and standard deviation of the best teacher on this set at this budget; None if none was measured."""
    found = [r["figures"][MEASURE] for r in rows if (r["data"], r["epsilon"]) == (data, epsilon) and r["seeds"]]
    return max(found, key=lambda f: f["mean"], default=None)


def render(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The teachers' own table, as lines of Markdown; none without teachers."""
    if not rows:
        return []
    lines = [
        "",
        "Ceiling: accuracy (%) on the same test images of a classifier that learned from the private images themselves",
        "at the same budget, and releases none.\n",
        "| set | epsilon | teacher | accuracy | fit min | peak MB | epsilon spent | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['data']} | {float(r['epsilon']):g} | {r['method']} | {plus_minus(r['figures'].get(MEASURE))} "
            f"| {minutes(r, 'fit_minutes')} | {fixed(r['peak_mb'], 0)} | {fixed(r['epsilon_spent'], 4)} "
            f"| {seeds_of(r)} |"
        )
    return lines


def _key(cell: Cell) -> tuple[str, str, Any]:
    return cell.params["method"], cell.params["data"], cell.params["epsilon"]
