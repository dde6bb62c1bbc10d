"""The suite of units: what it costs to protect a patient with all images, and not one image, at the same epsilon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.runner.quality import (
    SEEDS,
    fit_and_draw,
    fixed,
    judge,
    machine,
    machine_words,
    minutes,
    over_seeds,
    seeds_of,
    small,
    some_epsilons,
    some_methods,
    some_seeds,
)
from benchmarks.runner.suite import Cell, missing
from veilset.core.rendering import plus_minus

if TYPE_CHECKING:
    from veilset.privacy.private import PrivateImages

COMMAND = "veilset bench units --jobs 2"
OPTIONS = ("methods", "epsilon", "seeds")
METHODS = ("dp-moments", "dp-merf")
EPSILONS = (1.0, 10.0)
IMAGES = (1, 4, 16)  # of one patient
MEASURES = ("gen2real-logreg",)
PAGE = "units.md"
TEXT = """The training images of MNIST are shared out, at random within a digit, to patients with so many images each;
`max_images_per_unit` is that number, and the declared number of units is the number of patients. With 1 the guarantee
is for an image. epsilon and delta (1e-5, add or remove one unit) are the same in every row: what changes is whom they
protect. Accuracy in % of logistic regression, trained on 20,000 balanced synthetic images, on the public test split; a
seed reseeds patients, synthesizer and draws; mean and sample standard deviation over seeds. Nothing was chosen by these
figures, and methods derive their parameters from the declared number of units as always.

A patient's images share one bound, so the sums keep their noise while the number of units that they are sums of falls:
16 images per patient cost about what 16 times the noise would, or a sixteenth of the images. What an image-level
guarantee promises such a patient is in the last column: the epsilon at the same delta for all those images together
(removing 16 moves a Gaussian release 16 times as far). It is to be compared with the epsilon of the row."""


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """The cells of these methods, budgets and seeds; seed 0 of all first."""
    names = some_methods(methods, METHODS)
    budgets = some_epsilons(epsilon, (1.0,) if quick else EPSILONS)
    many = some_seeds(seeds, 1 if quick else SEEDS)
    data, n = ("digits", 300) if quick else ("mnist", 20_000)
    out = []
    for s in many:
        for m in names:
            for e in budgets:
                for k in IMAGES:
                    facts = {"method": m, "data": data, "epsilon": e, "seed": s, "images": k, "n": n}
                    params = small(m) if quick else {}
                    out.append(Cell(f"{m}.{data}.eps{e:g}.images{k}.seed{s}", "patients", facts | {"params": params}))
    return out


def patients(
    method: str, data: str, epsilon: float, seed: int, images: int, n: int, params: dict[str, Any]
) -> dict[str, Any]:
    """Fit on patients with so many images each, in research mode, and judge n images on the public test split."""
    train = shared_out(data, images, seed)
    drawn, test, facts = fit_and_draw(method, data, epsilon, seed, params, n, train)
    return {"figures": judge(drawn, test, seed, MEASURES), "units": train.info.units} | facts


def shared_out(data: str, images: int, seed: int) -> PrivateImages:
    """The training images of a built-in set, shared out at random within each class to patients with so many."""
    import numpy as np

    from veilset.data.load import load, opened, reader
    from veilset.privacy.private import Opened, PrivateImages

    plain = load(data).info
    info = replace(plain, units=plain.units // images, max_images_per_unit=images)
    if images > 1:
        info = replace(info, unit=f"one patient with {images} images")

    def open_them() -> Opened:
        found = opened(lambda: reader(data), plain, "train", data)
        rng, units, first = np.random.default_rng(seed), np.empty(len(found.labels), np.int64), 0
        for k in range(len(info.classes)):
            own = rng.permutation(np.flatnonzero(found.labels == k))
            units[own] = first + np.arange(len(own)) // images
            first += -(-len(own) // images)
        return Opened(found.records, found.labels, units)

    return PrivateImages(info, open_them)


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    return f"{result['units']} units, accuracy {result['figures'][MEASURES[0]]:.2f}, fit {result['fit_seconds']:.0f} s"


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each method, budget and number of images per patient."""
    keys = list(dict.fromkeys(_key(c) for c in wanted))
    rows: list[dict[str, Any]] = []
    for key in sorted(keys, key=lambda k: (METHODS.index(k[0]) if k[0] in METHODS else 9, *k)):
        own = [(c, r) for c, r in done if _key(c) == key]
        facts = dict(zip(("method", "epsilon", "images"), key, strict=True))
        row = facts | over_seeds(own, sum(_key(c) == key for c in wanted))
        row["units"] = own[0][1]["units"] if own else None
        row["loss"] = _loss(row, rows)
        row["epsilon_of_patient"] = group_epsilon(key[1], key[2])
        rows.append(row)
    return {"suite": "units", "command": COMMAND, **machine(done), "rows": rows}


def _key(cell: Cell) -> tuple[str, float, int]:
    p = cell.params
    return p["method"], p["epsilon"], p["images"]


def _loss(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> float | None:
    """Points below the row with one image per patient."""
    same = [r for r in (*rows, row) if (r["method"], r["epsilon"], r["images"]) == (row["method"], row["epsilon"], 1)]
    if not same or not row["figures"] or not same[0]["figures"]:
        return None
    best, own = (r["figures"][MEASURES[0]]["mean"] for r in (same[0], row))
    return float(best - own)


def group_epsilon(epsilon: float, images: int, delta: float = 1e-5) -> float:
    """What unsampled Gaussian releases with this epsilon for one image give to all images of a patient."""
    from veilset.privacy.accounting import gaussian_epsilon, gaussian_noise_multiplier

    return gaussian_epsilon(images / gaussian_noise_multiplier(epsilon, delta), delta)


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    text = f"`{COMMAND}` {machine_words(result)}: protecting a patient instead of an image, see [{PAGE}]({PAGE})."
    tail = [missing(result["missing"]), ""] if result["missing"] else []
    return "\n".join(["## units", "", text, "", *_table(result), "", *tail])


def pages(result: dict[str, Any]) -> dict[str, str]:
    """units.md: the table with its explanation."""
    head = f"# What a patient-level guarantee costs\n\nMade by `{COMMAND}`, {machine_words(result)}.\n\n{TEXT}\n"
    return {PAGE: "\n".join([head, *_table(result), ""])}


def _table(result: dict[str, Any]) -> list[str]:
    heads = (
        "method", "epsilon", "images per patient", "units", "accuracy", "points lost", "fit min", "seeds",
        "epsilon of a patient under the image-level row",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in result["rows"]:
        cells = (
            row["method"], f"{row['epsilon']:g}", row["images"], row["units"] or "",
            plus_minus(row["figures"].get(MEASURES[0])), fixed(row["loss"], 2), minutes(row, "fit_minutes"),
            seeds_of(row), fixed(row["epsilon_of_patient"], 1),
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
