"""The suite of membership attacks: a few methods on a small part of MNIST, and the published mistake made again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runner.quality import machine, machine_words, plain, some_epsilons, some_methods, some_seeds
from benchmarks.runner.suite import Cell, missing

if TYPE_CHECKING:
    from veilset.core.types import Images
    from veilset.methods.base import Synthesizer

COMMAND = "veilset bench membership --jobs 2"
OPTIONS = ("methods", "epsilon", "seeds")
# Short settings, so that seven fits a cell take minutes; the attack is measured here, not the images.
METHODS: dict[str, dict[str, Any]] = {
    "dp-moments": {"mc_samples": 0},
    "dp-cvae": {"steps": 300},
    "dp-merf": {"frequencies": 300, "steps": 300},
}
EPSILONS = (float("inf"), 1.0, 10.0)
DATA, MEMBERS, SHADOWS, IMAGES = "mnist", 3000, 4, 5000
MISTAKEN = ("dp-cvae", 10.0)  # a method of the document at one of its budgets
KEPT = ("calibrated-logistic", "lira", "shadow-logistic", "nearest")  # attacks whose curves are kept
PLOT = "membership.svg"


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """One cell of the mistake, then one for each method, budget and seed."""
    data, members = ("digits", 350) if quick else (DATA, MEMBERS)
    size = {"data": data, "members": members, "images": 500 if quick else IMAGES}
    method, budget = MISTAKEN
    settings = {"method": method, "epsilon": budget, "seed": 0, "params": METHODS[method]}
    out = [Cell("mistake", "mistake", settings | size)]
    for s in some_seeds(seeds, 1):
        for e in some_epsilons(epsilon, EPSILONS[:2] if quick else EPSILONS):
            for m in some_methods(methods, METHODS):
                facts = {"method": m, "epsilon": plain(e), "seed": s, "params": METHODS.get(m, {})}
                out.append(Cell(f"{m}.eps{e:g}.seed{s}", "attacked", facts | size | {"shadows": SHADOWS}))
    return out


# ---------------------------------------------------------------------- what a cell does


def attacked(
    method: str, epsilon: float | str, seed: int, params: dict[str, Any], data: str, members: int, images: int,
    shadows: int,
) -> dict[str, Any]:  # fmt: skip
    """Fit on some records of a built-in training split, and attack with others of them as outsiders, all by lot."""
    import time

    from veilset.audit.membership.attack import against
    from veilset.audit.membership.records import make_pool

    ours, others = parts(data, members, 2, seed)
    pool = make_pool(ours, others, "other records, by lot", targets=members, seed=seed, drop_duplicates=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as tmp:
        model = fitted(method, params, epsilon, ours, data, seed, Path(tmp))
        result = against(model, Path(tmp), pool, shadows=shadows, images=images, seed=seed).to_json()
    for attack in result["attacks"]:
        if attack["name"] not in KEPT:
            del attack["curves"]
    return result | {"seconds": time.perf_counter() - start}


def mistake(
    method: str, epsilon: float | str, seed: int, params: dict[str, Any], data: str, members: int, images: int
) -> dict[str, Any]:
    """The published attack on two models, one of which never saw a member, with generated and with real non-members.

    The attack is a logistic regression that is told who is a member among half of the candidates and is asked about
    the other half.
    """
    import numpy as np
    import torch

    from veilset.audit.membership.attacks import by_labels
    from veilset.audit.membership.features import Candidates, image_features
    from veilset.audit.membership.figures import figures
    from veilset.audit.membership.models import model_features

    ours, outsiders, strangers = parts(data, members, 3, seed)
    inside = np.arange(2 * members) < members
    learn = np.random.default_rng(seed).permutation(2 * members) < members
    rows = []
    for trained, records in (("on the members", ours), ("on other records", strangers)):
        with tempfile.TemporaryDirectory() as tmp:
            model = fitted(method, params, epsilon, records, data, seed, Path(tmp))
            made = model.sample(members, seed=seed + 1)
            for kind, others in (("generated", made), ("real", outsiders)):
                asked = replace(ours, x=torch.cat([ours.x, others.x]), y=torch.cat([ours.y, others.y]))
                them = Candidates.of(asked)
                found = image_features(model.sample(images, seed=seed), them) | model_features(model, Path(tmp), them)
                score = by_labels(np.stack([v.numpy() for v in found.values()], axis=1), inside, learn)
                told = figures(score[inside[~learn]], score[~inside[~learn]])
                rows.append({"trained": trained, "outsiders": kind, "run": asdict(told)})
    return {"rows": rows}


def parts(data: str, size: int, count: int, seed: int) -> list[Images]:
    """Disjoint parts of a built-in training split, chosen by lot."""
    import torch

    from veilset.audit.membership.records import inspect
    from veilset.data.load import load

    everyone = inspect(load(data).train, 0)
    order = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(1000 + seed))
    return [everyone[order[i * size : (i + 1) * size]] for i in range(count)]


def fitted(
    method: str, params: dict[str, Any], epsilon: float | str, records: Images, data: str, seed: int, folder: Path
) -> Synthesizer:
    """A method fitted on some records, in research mode."""
    from veilset.audit.membership.records import private_images
    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    info = replace(load(data).info, units=len(records))
    return make(method, **params).fit(
        private_images(records, info), Privacy(float(epsilon)), seed=seed, folder=folder
    )  # fmt: skip


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    if "rows" in result:
        return ", ".join(f"{r['trained']}, {r['outsiders']}: AUC {r['run']['auc']:.3f}" for r in result["rows"])
    return str(result["verdict"])


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each finished attack, and the rows of the mistake."""
    rows = []
    for cell, result in done:
        if cell.kind != "attacked":
            continue
        headline = next(a for a in result["attacks"] if a["name"] == result["headline"])
        facts = {k: cell.params[k] for k in ("method", "epsilon", "seed", "params")}
        rows.append(
            facts
            | {k: result[k] for k in ("ok", "verdict", "candidates", "near_duplicates", "claim", "seconds")}
            | {"mark": result.get("mark", "")}
            | {k: headline[k] for k in ("run", "never_trained", "leaky", "curves")}
            | {"lira": next(a for a in result["attacks"] if a["name"] == "lira")["run"]}
        )
    order = [*METHODS, *(r["method"] for r in rows)]
    rows.sort(key=lambda r: (order.index(r["method"]), r["method"], -float(r["epsilon"]), r["seed"]))
    wrong = [(c.params, r["rows"]) for c, r in done if c.kind == "mistake"]
    mistaken = {"cell": wrong[0][0], "rows": wrong[0][1]} if wrong else None
    return {"command": COMMAND, "rows": rows, "mistake": mistaken} | machine(done)


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    first = result["rows"][0]["candidates"] if result["rows"] else MEMBERS
    lines = [
        f"## membership\n\n`{result['command']}` {machine_words(result)}: membership attacks on fits to {first:,} "
        "images of a training split, with as many others as outsiders, all by lot. What the columns mean, and why such "
        "figures were published wrongly: [docs/membership.md](../../docs/membership.md).",
        "",
        *_attacks(result["rows"]),
        "",
        *_mistake(result["mistake"]),
    ]
    return "\n".join([*lines, "", missing(result["missing"])] if result["missing"] else lines) + "\n"


def _attacks(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| method | epsilon | AUC, 95 % interval | TPR at 0.1 % | TPR at 1 % | the claim allows at 1 % | LiRA AUC "
        "| never trained | leaky | minutes |",
        "|---" * 10 + "|",
    ]
    for r in rows:
        allowed = "anything" if r["claim"]["tpr"] is None else f"{100 * r['claim']['tpr'][1]:.3g} %"
        settings = ", ".join(f"{k} {v}" for k, v in r["params"].items())
        lines.append(
            f"| {r['method']}{f' ({settings})' if settings else ''} | {float(r['epsilon']):g} | {_area(r['run'])} "
            f"| {' | '.join(_rate(x) for x in r['run']['rates'])} | {allowed} | {r['lira']['auc']:.3f} "
            f"| {_area(r['never_trained'])} | {r['leaky']['auc']:.3f} | {r['seconds'] / 60:.1f}{r['mark']} |"
        )
    return lines


def _mistake(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    c = found["cell"]
    lines = [
        f"The published mistake, with {c['method']} at epsilon {float(c['epsilon']):g}: a logistic regression that is "
        "told half of the memberships.",
        "",
        "| model trained | its non-members are | AUC, 95 % interval |",
        "|---|---|---|",
    ]
    return lines + [f"| {r['trained']} | {r['outsiders']} images | {_area(r['run'])} |" for r in found["rows"]]


def _area(f: dict[str, Any]) -> str:
    return f"{f['auc']:.3f} [{f['low']:.3f}, {f['high']:.3f}]"


def _rate(r: dict[str, Any]) -> str:
    if r["tpr"] is None:
        return "too few outsiders"
    return f"{100 * r['tpr']:.2f} % [{100 * r['low']:.2f}, {100 * r['high']:.2f}]"


def pages(result: dict[str, Any]) -> dict[str, str]:
    """membership.svg: one panel per method, the headline attack of its first seed at every budget, controls dashed."""
    from veilset.audit.membership.picture import Curve, Panel, draw

    panels = []
    for method in dict.fromkeys(r["method"] for r in result["rows"]):
        mine = [r for r in result["rows"] if r["method"] == method and r["seed"] == 0]
        curves = [Curve(_budget(r), r["curves"]["run"]) for r in mine]
        for r in mine[:1]:
            curves.append(Curve(f"control: never trained, {_budget(r)}", r["curves"]["never_trained"], dashed=True))
            curves.append(Curve(f"control: leaky release, {_budget(r)}", r["curves"]["leaky"], dashed=True))
        panels.append(Panel(method, curves))
    notes = ["Attack: calibrated logistic regression, fixed in advance.", "Dotted: guessing."]
    return {PLOT: draw(panels, notes)} if panels else {}


def _budget(r: dict[str, Any]) -> str:
    return "no privacy" if r["epsilon"] == "inf" else f"epsilon {float(r['epsilon']):g}"
