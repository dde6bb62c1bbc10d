"""The suite of DP-GAN-DPAC (Chen, Liu, Ma, Nepal and Xu 2023): its tables and ablations, at a true epsilon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.runner.quality import (
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
from benchmarks.runner.suite import Cell, Made, missing, once
from benchmarks.suites.dual_purpose_page import TEXT
from benchmarks.suites.dual_purpose_published import ABLATIONS, CELEBA, PUBLISHED, Row
from benchmarks.suites.dual_purpose_speed import speed as speed  # a kind of cell
from benchmarks.suites.dual_purpose_speed import table as speeds
from veilset.core.rendering import plus_minus
from veilset.evaluation.protocols import BRIEF
from veilset.methods.catalogue import methods as catalogue

COMMAND = "veilset bench dual-purpose-classifier"
OPTIONS = ("methods", "data", "epsilon", "seeds")
PAGE = "dual-purpose-classifier.md"
SETS, EPSILONS = ("mnist", "fashion-mnist"), (10.0, 1.0)  # in the order of worth
OURS = ("dp-gan-dpac", "gs-wgan")
OTHERS = ("pate-gan", "g-pate", "datalens", "dp-merf", "dp-cgan")  # of the document; those in the catalogue are run
CLAIMS = ("gs-wgan", "dp-gan-dpac", "pate-gan", "g-pate", "datalens", "dp-cgan")
IMAGES = 20_000
NETWORKS = ("mlp", "cnn")
TURN = {"mechanism": "round-robin"}  # the last ablation is private only so, and needs a full row beside it
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "start alone": ("gs-wgan", {"generator_lr": 0.0, "steps": 1, "shards": 1, "warm_steps": 0}),
    "without g2r": ("dp-gan-dpac", {"g2r": False}),
    "without r2g": ("dp-gan-dpac", {"r2g": False}),
    "not sequential": ("dp-gan-dpac", {"sequential": False}),
    "full, in turn": ("dp-gan-dpac", TURN),
    "not re-initialised": ("dp-gan-dpac", TURN | {"fresh": False}),
    "without start": ("dp-gan-dpac", {"start_share": 0.0}),
    "baseline without start": ("gs-wgan", {"start_share": 0.0}),
}
ABLATED = "fashion-mnist", 10.0
FLOORS = {  # (floor, aim) of dp-gan-dpac at epsilon 10
    ("mnist", "g2r-cnn"): (70, 88), ("fashion-mnist", "g2r-cnn"): (60, 74),
    ("mnist", "r2g-cnn"): (95, 99), ("fashion-mnist", "r2g-cnn"): (85, 97),
}  # fmt: skip
COLUMNS = {
    "g2r-mlp": "g2r MLP", "g2r-cnn": "g2r CNN", "r2g-mlp": "r2g MLP", "r2g-cnn": "r2g CNN",
    "r2g-mlp-of-test": "r2g MLP of test", "r2g-cnn-of-test": "r2g CNN of test",
    "is-domain": "IS", "fd-gabor": "fd-gabor",
}  # fmt: skip


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """Our two first, at epsilon 10; the ablations; the claims; then the other methods and budgets.

    Unless a number of seeds is named, all but the first have one.
    """
    known = [m for m in (*OURS, *OTHERS) if m in catalogue()]
    names = some_methods(methods, known)
    sets, budgets, which = sets_budgets_seeds(quick, data, epsilon, seeds, SETS, EPSILONS)
    make = partial(_cell, quick)
    first = [make(s, e, d, m) for s in which for e in budgets[:1] for d in sets for m in names if m in OURS]
    chosen = [(v, m, p) for v, (m, p) in VARIANTS.items() if m in names]
    asked = ABLATED if not quick else (sets[0], budgets[0])
    if asked[0] in sets and asked[1] in budgets:
        first += [make(0, asked[1], asked[0], m, v, p) for v, m, p in chosen[: 1 if quick else None]]
    if methods is None and not quick:
        first += [Cell(f"claim.{name}", "recomputed", {"claim": name}) for name in CLAIMS]
        first += [Cell(f"speed.{c}", "speed", {"critic": c}, alone=True) for c in ("mlp", "conv")]
    rest = [make(s, e, d, m) for s in which for e in budgets for d in sets for m in names if seeds or s == 0]
    return list({c.name: c for c in (*first, *rest)}.values())


def _cell(
    quick: bool,
    seed: int,
    epsilon: float,
    data: str,
    method: str,
    variant: str = "",
    params: Mapping[str, Any] | None = None,
) -> Cell:
    tag = f".{variant.replace(', ', '-').replace(' ', '-')}" if variant else ""
    facts: dict[str, Any] = {"method": method, "data": data, "epsilon": plain(epsilon), "seed": seed}
    facts |= {"variant": variant, "n": 500 if quick else IMAGES}
    facts["params"] = (small(method) if quick else {}) | dict(params or {})
    return Cell(f"{method.replace(':', '-')}{tag}.{data}.eps{epsilon:g}.seed{seed}", "judged", facts)


# ---------------------------------------------------------------------- what a cell does


def judged(
    method: str, data: str, epsilon: float | str, seed: int, variant: str, params: dict[str, Any], n: int
) -> dict[str, Any]:
    """One fit and n images of it: accuracies both ways, by classifiers of the images and of real ones."""
    from veilset.evaluation.training import predict

    images, test, facts = fit_and_draw(method, data, float(epsilon), seed, params, n)
    both = judge(images, test, seed, [f"gen2real-{c}" for c in NETWORKS], BRIEF)
    figures = {f"g2r-{c}": both[f"gen2real-{c}"] for c in NETWORKS}
    for part, end in (("train", ""), ("test", "-of-test")):
        for c in NETWORKS:
            right = predict(_real(data, c, part), images.x) == images.y
            figures[f"r2g-{c}{end}"] = 100 * float(right.double().mean())
    return {"figures": figures | judge(images, test, seed, ("is-domain", "fd-gabor"))} | facts


def _real(data: str, network: str, part: str) -> Any:
    """A classifier of real images of the training or the test split; the cells of one run make it once."""
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.evaluation.inspected import inspected
    from veilset.evaluation.training import train
    from veilset.networks.architectures import make_network

    bundle = load(data)
    channels, height, width = bundle.info.shape

    def make() -> Made:
        real = bundle.test if part == "test" else inspected(bundle.train, "r2g of the suite")
        assert isinstance(real, Images)
        return {k: v.contiguous() for k, v in train(network, real, 0, BRIEF).state_dict().items()}, {}

    weights, _ = once({"real": data, "network": network, "part": part}, make)
    net = make_network(network, (channels, height, width), len(bundle.info.classes))
    net.load_state_dict(weights)
    return net.eval()


def recomputed(claim: str) -> dict[str, Any]:
    """The epsilon of a published run, as `veilset claim` prints it."""
    from veilset.published.recompute import claim as found

    return {"claim": found(claim).to_json()}


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    if "claim" in result:
        return f"printed {result['claim']['printed']}, follows {result['claim']['epsilon']}"
    if "times" in result:
        return f"{result['times']:.1f} times as fast"
    figures = ", ".join(f"{k} {v:.1f}" for k, v in result["figures"].items())
    return f"{figures}, fit {result['fit_seconds'] / 60:.1f} min"


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each set, budget, method and variant; the claims; the speeds."""
    keys = list(dict.fromkeys(_key(c) for c in wanted if c.kind == "judged"))
    rows: list[dict[str, Any]] = []
    for key in sorted(keys, key=_order):
        own = [(c, r) for c, r in done if c.kind == "judged" and _key(c) == key]
        row: dict[str, Any] = dict(zip(("data", "epsilon", "method", "variant"), key, strict=True))
        row |= over_seeds(own, sum(c.kind == "judged" and _key(c) == key for c in wanted))
        rows.append(row)
    facts = {
        "rows": rows,
        "claims": [r["claim"] for c, r in done if c.kind == "recomputed"],
        "speeds": [{k: r[k] for k in r if k not in ("versions", "cell")} for c, r in done if c.kind == "speed"],
    }
    return {"suite": "dual-purpose-classifier", "command": COMMAND} | facts | machine(done)


def _key(cell: Cell) -> tuple[str, float, str, str]:
    p = cell.params
    return p["data"], float(p["epsilon"]), p["method"], p["variant"]


def _order(key: tuple[str, float, str, str]) -> tuple[Any, ...]:
    data, epsilon, method, variant = key
    late = list(VARIANTS).index(variant) if variant in VARIANTS else -1
    known = (*OURS, *OTHERS)
    return data not in SETS, data != SETS[0], -epsilon, late, known.index(method) if method in known else 9, method


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md; the rest is on its own page."""
    lines = [
        f"## dual-purpose-classifier\n\n`{result['command']}`: the tables of DP-GAN-DPAC made again at a true epsilon. "
        f"What the columns mean, its ablations, and what the published numbers were bought with: [{PAGE}]({PAGE}).",
        "",
        *_table([r for r in result["rows"] if not r["variant"]]),
    ]
    return "\n".join([*lines, *(["", missing(result["missing"])] if result["missing"] else [])]) + "\n"


def pages(result: dict[str, Any]) -> dict[str, str]:
    """dual-purpose-classifier.md."""
    whole = [r for r in result["rows"] if not r["variant"]]
    data, epsilon = ABLATED
    parts = [r for r in result["rows"] if (r["data"], r["epsilon"]) == ABLATED and r["method"] in OURS]
    facts = {
        "command": result["command"],
        "machine": machine_words(result),
        "images": f"{IMAGES:,}",
        "ours": "\n".join(_table(whole)),
        "published": "\n".join(_published(PUBLISHED)),
        "ablations": "\n".join(_table(parts)),
        "ablated": f"{data}, epsilon {epsilon:g}",
        "published_ablations": "\n".join(_published({(data, k): v for k, v in ABLATIONS.items()})),
        "celeba": CELEBA,
        "verdicts": "\n".join(_verdicts(whole)),
        "claims": "\n".join(_claims(result["claims"])),
        "speeds": "\n".join(speeds(result["speeds"])),
        "missing": f"\n{missing(result['missing'])}\n" if result["missing"] else "",
    }
    return {PAGE: TEXT.format(**facts)}


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["set", "epsilon", "method", *COLUMNS.values(), "epsilon spent", "fit min", "peak MB", "seeds"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for r in rows:
        name = r["method"] + (f", {r['variant']}" if r["variant"] else "")
        line = [r["data"], f"{r['epsilon']:g}", name, *(plus_minus(r["figures"].get(k)) for k in COLUMNS)]
        line += [fixed(r["epsilon_spent"], 4), minutes(r, "fit_minutes"), fixed(r["peak_mb"], 0), seeds_of(r)]
        lines.append(f"| {' | '.join(line)} |")
    return lines


def _published(table: dict[tuple[str, str], Row]) -> list[str]:
    lines = ["| set | row | g2r MLP | g2r CNN | r2g MLP | r2g CNN | IS | FID |", "|" + "---|" * 8]
    for (data, name), (*accuracies, score, distance) in table.items():
        values = [*(fixed(v, 0) for v in accuracies), fixed(score, 2), fixed(distance, 2)]
        lines.append(f"| {data} | {name} | {' | '.join(values)} |")
    return lines


def _verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What became of floors and aims, and of the difference between our two."""
    of = {(r["data"], r["method"]): r for r in rows if r["epsilon"] == EPSILONS[0] and r["figures"]}
    out = []
    for (data, name), (floor, aim) in FLOORS.items():
        if row := of.get((data, OURS[0])):
            mean = row["figures"][name]["mean"]
            what = "aim reached" if mean >= aim else "floor reached" if mean >= floor else "floor missed"
            out.append(f"* {OURS[0]}, {data}, {COLUMNS[name]}: {mean:.1f} (floor {floor}, aim {aim}): {what}.")
    for data in SETS:
        both = [of.get((data, m)) for m in OURS]
        if all(both):
            differ = [_difference(both, k) for k in list(COLUMNS)[:4]]  # type: ignore[arg-type]
            out.append(f"* {OURS[0]} less {OURS[1]}, {data}: {'; '.join(differ)}.")
    return out


def _difference(both: Sequence[dict[str, Any]], name: str) -> str:
    a, b = (r["figures"][name] for r in both)
    apart, spread = a["mean"] - b["mean"], (a["sd"] or 0.0) + (b["sd"] or 0.0)
    known = a["sd"] is not None and b["sd"] is not None
    what = ("more than the spread" if abs(apart) > spread else "within the spread") if known else "spread not known"
    return f"{COLUMNS[name]} {apart:+.1f} ({what})"


def _claims(claims: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| run | printed | follows | check | a guarantee | why |", "|" + "---|" * 6]
    for c in claims:
        found = ["infinite" if c[k] is None else f"{c[k]:.4g}" for k in ("printed", "epsilon", "check")]
        lines.append(f"| {c['preset']} | {' | '.join(found)} | {'yes' if c['guarantee'] else 'no'} | {c['why']} |")
    return lines
