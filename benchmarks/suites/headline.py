"""The headline suite: what networks of three kinds learn from a large released set, and how its pictures compare."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runner import glyphs, sample_grids
from benchmarks.runner import loss as losses
from benchmarks.runner.loss import loss as loss  # a kind of cell
from benchmarks.runner.quality import (
    MEASURES,
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
    sets_budgets_seeds,
    small,
    some_methods,
)
from benchmarks.runner.suite import Cell, missing
from veilset.audit.verdict import CONFIDENCE
from veilset.core.rendering import plus_minus
from veilset.evaluation.protocols import THREE
from veilset.methods.catalogue import DEFAULT

if TYPE_CHECKING:
    from veilset.core.types import Images

COMMAND = "veilset bench headline --jobs 2"
OPTIONS = ("methods", "data", "epsilon", "seeds")
BASELINE = "dp-moments"
METHODS = (DEFAULT, BASELINE, "dp-feta", f"{DEFAULT}:plain")
JUDGED = (DEFAULT, BASELINE)  # these with every seed; what stands beside them with one
UNSEEN = glyphs.NAME  # nothing was tuned on it; it was named before it had a figure
SETS = ("fashion-mnist", "mnist", UNSEEN)
EPSILONS = (10.0, 1.0)
DISTANCE = "fd-lite0"
PICTURES = (DISTANCE, "precision-lite0", "recall-lite0", "coverage-lite0")
HALF = 0.5  # of the baseline's distance: the floor of the default's
SHEETS = "headline.svg"
LONGEST = 45.0  # minutes, fit and sampling
LOSS = "fashion-mnist", 10.0  # where a floor was missed
FLOORS = {  # (floor, aim) of the mean of the three networks
    ("mnist", 1.0): (95, 97.5),
    ("mnist", 10.0): (97.5, 98.5),
    ("fashion-mnist", 1.0): (80.5, 85),
    ("fashion-mnist", 10.0): (85, 88.5),
}
TEXT = f"""Delta 1e-5; unit: one image, add or remove; hard labels; 60,000 balanced images per cell. Accuracy in % on
the public test split of networks trained from scratch, last epoch, no selection: the CNN (10 epochs), a ConvNet of 32
channels and a residual network of 16, 32 and 64 (5 epochs each); "mean" is the mean of the three. FD-lite0, precision
and recall: features of a public network, 10,000 test images. Mean and sample standard deviation over seeds, which
reseed everything. Minutes are of one core, fit and sampling; a floor counts within {LONGEST:g}. MNIST and
Fashion-MNIST are development sets: hyper-parameters were chosen on a validation part of their training splits. Nothing
was chosen on {UNSEEN} (ten Greek capitals in fourteen fonts, `runner/glyphs.py`), which was named before it had a
figure; its floor is the mean of {BASELINE} and the larger standard deviation of the two. The distance of the default
has half of {BASELINE}'s for a floor; `:plain` is its recipe without detail and without a choice, and has one seed, as
dp-feta. Coverage: share of the neighbourhoods of real images that hold a released one. Copies, of seed 0: how many of
10,000 released images nearly equal a training image (closer than a tenth of their own contrast), with those of as many
test images behind the stroke, and the epsilon that the attack by nearest images disproves (`veilset audit`;
{CONFIDENCE:.0%}). Sheets of seed 0: [{SHEETS}]({SHEETS})."""


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """The cells of these methods, sets and budgets; seed 0 of all first, and nothing else of methods not in JUDGED.

    Those that tell where the loss sits go with no method, so they come where none is named.
    """
    names = some_methods(methods, METHODS)
    sets, budgets, which = sets_budgets_seeds(quick, data, epsilon, seeds, SETS, EPSILONS)
    out = []
    for s in which:
        for m, e, d in ((m, e, d) for m in names for e in budgets for d in sets if s == 0 or m in JUDGED):
            facts: dict[str, Any] = {
                "method": m,
                "data": d,
                "epsilon": plain(e),
                "seed": s,
                "params": small(m) if quick else {},
            }
            facts |= {"n": 300 if quick else 60_000, "pictures": [] if quick else list(PICTURES)}
            out.append(Cell(f"{m.replace(':', '-')}.{d}.eps{e:g}.seed{s}", "judged", facts))
        if s == 0 and methods is None and LOSS[0] in sets and LOSS[1] in budgets:
            out += losses.cells(*LOSS, s)
    return out


def judged(
    method: str, data: str, epsilon: float | str, seed: int, params: dict[str, Any], n: int, pictures: list[str]
) -> dict[str, Any]:
    """One fit; its images train the three networks, each by its own protocol, and are compared as pictures.

    It has the figures of the leaderboard, too, whose cell of the same name need not be made then.
    """
    with _source(data) as source:
        images, test, facts = fit_and_draw(method, source, float(epsilon), seed, params, n)
        figures = judge(images, test, seed, [f"gen2real-{net}" for net in THREE], None)
        mean = statistics.fmean(figures.values())
        figures |= judge(images, test, seed, [m for m in MEASURES if m not in figures])
        if pictures:
            few = images[: len(test)]  # labels are interleaved, so the first are in balance
            figures |= judge(few, test, 0, pictures)
            if seed == 0:
                facts |= {"sheet": sample_grids.sample_grid(few)} | _copies(few, test, source)
    return {"figures": {"mean": mean} | figures} | facts


def _copies(released: Images, test: Images, source: str) -> dict[str, Any]:
    """Copies of training images, and what an attacker learns who has the images and others that were in no run."""
    from veilset.audit.bounds import one_run_epsilon
    from veilset.audit.membership.records import inspect
    from veilset.audit.nearest import guess
    from veilset.data.load import load
    from veilset.data.overlap import overlap

    members = inspect(load(source).train, 0)
    ours, usual = overlap(members, released), overlap(members, test)
    right, guesses, slots = guess(members, test, "test split", released, drop_duplicates=True)
    bound = one_run_epsilon(1e-5, guesses, right, slots, 1 - CONFIDENCE)
    counts = {"near": ours.near + ours.exact, "near_of_test": usual.near + usual.exact, "of": ours.of}
    return {"copies": counts | {"guesses": guesses, "right": right, "disproved": bound}}


@contextlib.contextmanager
def _source(data: str) -> Iterator[str]:
    """What `veilset.load` reads: a built-in name, or the path of the unseen set, which is drawn into a folder."""
    if data != UNSEEN:
        yield data
        return
    with tempfile.TemporaryDirectory() as tmp:
        yield str(glyphs.make(Path(tmp)))


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    f = result["figures"]
    each = ", ".join(f"{f[f'gen2real-{net}']:.1f}" for net in THREE)
    fit = f", fit {result['fit_seconds'] / 60:.1f} min" if "fit_seconds" in result else ""
    return f"mean {f['mean']:.2f} % ({each}){fit}"


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each set, budget and method."""
    asked, rows = [_key(c) for c in wanted if c.kind == "judged"], list[dict[str, Any]]()
    for key in sorted(set(asked), key=lambda k: (k[0] not in SETS, *k)):
        own = [(c, r) for c, r in done if c.kind == "judged" and _key(c) == key]
        row: dict[str, Any] = dict(zip(("data", "epsilon", "method"), key, strict=True))
        row |= over_seeds(own, asked.count(key))
        mean = row["figures"].get("mean")
        row["accuracy"] = mean and {"mean": mean["mean"], "spread": mean["sd"]}
        row["minutes"] = row["fit_minutes"] + row["sample_minutes"] if own else None
        row["copies"] = next((r["copies"] for _, r in own if "copies" in r), None)
        rows.append(row)
    for row in rows:
        row["floor"], row["aim"] = _bar(row, rows)
        row["verdict"] = _verdict(row)
        row["distance_floor"], row["distance_verdict"] = _distance(row, rows)
    first = [(c, r) for c, r in done if "sheet" in r]
    shown = [{"row": _row(c), "column": c.params["method"], "png": r["sheet"]} for c, r in first]
    facts = {"default": DEFAULT, "rows": rows, "loss": losses.rows(done, wanted), "sheets": shown}
    return {"suite": "headline", "command": COMMAND} | facts | machine(done)


def _row(cell: Cell) -> str:
    return f"{cell.params['data']}, epsilon {float(cell.params['epsilon']):g}"


def _key(cell: Cell) -> tuple[str, float, str]:
    return cell.params["data"], float(cell.params["epsilon"]), cell.params["method"]


def _bar(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[float | None, float | None]:
    """(floor, aim) of the default method; None for the others."""
    if row["method"] != DEFAULT:
        return None, None
    if row["data"] != UNSEEN:
        return FLOORS.get((row["data"], row["epsilon"]), (None, None))
    same = _same(row, rows, BASELINE)
    if not (same and same["accuracy"] and row["accuracy"]):
        return None, None
    base = same["accuracy"]
    return base["mean"] + max(base["spread"] or 0.0, row["accuracy"]["spread"] or 0.0), None


def _distance(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[float | None, str | None]:
    """Half of the baseline's Frechet distance, and whether the default's is below; None for the others."""
    base, own = _same(row, rows, BASELINE), row["figures"].get(DISTANCE)
    if row["method"] != DEFAULT or base is None or own is None or DISTANCE not in base["figures"]:
        return None, None
    floor = HALF * base["figures"][DISTANCE]["mean"]
    many = min(row["seeds"], base["seeds"]) >= SEEDS
    return floor, ("passed" if own["mean"] <= floor else "missed") + ("" if many else " so far")


def _same(row: dict[str, Any], rows: Sequence[dict[str, Any]], method: str) -> dict[str, Any] | None:
    """The row of another method on the same set and budget."""
    at = (row["data"], row["epsilon"], method)
    return next((r for r in rows if (r["data"], r["epsilon"], r["method"]) == at), None)


def _verdict(row: dict[str, Any]) -> str | None:
    if row["floor"] is None or row["accuracy"] is None:
        return None
    late = row["minutes"] > LONGEST
    held = "missed" if late or row["accuracy"]["mean"] < row["floor"] else "passed"
    return held + (f" (over {LONGEST:g} min)" if late else "") + ("" if row["seeds"] >= SEEDS else " so far")


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    heads = ["set", "epsilon", "method", "mean", "required", *THREE, "FD-lite0", "precision", "recall", "coverage"]
    heads += ["copies", "minutes", "epsilon spent", "seeds"]
    lines = [f"## headline\n\n`{result['command']}` {machine_words(result)}. {TEXT}\n"]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in result["rows"]:
        figures = [plus_minus(r["figures"].get(f"gen2real-{net}")) for net in THREE]
        figures += [plus_minus(r["figures"].get(name)) for name in PICTURES]
        bar = "" if r["floor"] is None else f"{r['floor']:.4g}: {r['verdict'] or 'not run'}"
        bar += "" if r["aim"] is None else f"; goal {r['aim']:g}"
        bar += "" if r["distance_floor"] is None else f"; FD {r['distance_floor']:.4g}: {r['distance_verdict']}"
        row = [r["data"], f"{r['epsilon']:g}", r["method"], plus_minus(r["figures"].get("mean")), bar, *figures]
        row.append(_copy_words(r["copies"]))
        lines.append(f"| {' | '.join([*row, minutes(r, 'minutes'), fixed(r['epsilon_spent'], 4), seeds_of(r)])} |")
    lines += losses.render(result["loss"], result["rows"])
    if result["missing"]:
        lines += ["", missing(result["missing"])]
    return "\n".join(lines) + "\n"


def _copy_words(copies: dict[str, Any] | None) -> str:
    return "" if copies is None else f"{copies['near']} / {copies['near_of_test']}, above {copies['disproved']:.2g}"


def pages(result: dict[str, Any]) -> dict[str, str]:
    """headline.svg: grids of released images, a row for each set and budget, a column for each method."""
    found = {(s["row"], s["column"]): s["png"] for s in result["sheets"]}
    if not found:
        return {}
    rows, columns = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    return {SHEETS: sample_grids.side_by_side(found, rows, columns)}
