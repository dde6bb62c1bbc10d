"""The suite of continual release: accuracy on all classes seen so far, after each of five tasks of two classes.

The streams are SplitMNIST and SplitFashionMNIST in the class order of the code of Chen, Kerkouche and Fritz 2022 (arXiv
2211.04446). Small sets are released task by task and trained on together; DP-SGD trains one network through all tasks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runner.plot import Panel, Series, draw
from benchmarks.runner.quality import (
    SEEDS,
    fixed,
    machine,
    machine_words,
    minutes,
    over_seeds,
    seeds_of,
    sets_budgets_seeds,
    small,
    some_methods,
)
from benchmarks.runner.suite import Cell, missing
from veilset.core.errors import ConfigError, suggest
from veilset.core.rendering import plus_minus

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images

COMMAND = "veilset bench continual --jobs 2"
OPTIONS = ("methods", "data", "epsilon", "seeds", "network")
ORDER = ((5, 6), (1, 2), (0, 8), (9, 3), (4, 7))  # numbers of the classes, a pair a task
SETS = ("mnist", "fashion-mnist")
EPSILONS = (10.0, 1.0)  # of each task, in the order of worth
DPSGD = "dp-sgd"  # one network through all tasks: no method of the catalogue, and nothing but a classifier
METHODS = ("dp-condense", "dp-merf", DPSGD)
BASELINES = ("dp-merf", DPSGD)
PER_CLASS = {"dp-merf": 6000}  # images a class that a generator releases; of small sets, FEW
FEW = 50
NETWORK = "cnn"  # the ConvNet would take an hour for each stream
AIMS = {"mnist": 93.0, "fashion-mnist": 75.0}  # after the last task, at epsilon 10 a task
# DP-SGD: the source's epochs, batch and bound. Its rate of 0.01 hardly moves a network; see `one_network`.
EPOCHS, BATCH, CLIP, RATE = 5, 256, 0.1, 0.5
PLOT = "continual.svg"
TEXT = """Five tasks of two classes each, in the order 5 6, 1 2, 0 8, 9 3, 4 7. Each task has the budget epsilon at
delta 1e-5 (add or remove one image); a record is in one task, so all five together have it too: parallel composition
over a partition that was made by the label where the set is opened (docs/continual.md). After each task the figure is
the accuracy in % on the public test images of the classes seen so far, at chance one in 2, 4, 6, 8, 10. Small sets
(50 images per class) and DP-MERF's samples (6,000 a class) of all tasks so far train a new network, last epoch, by the
protocol of Chen, Kerkouche and Fritz 2022 (1,000 epochs, at most 2,000 steps); sets of earlier tasks stay as they were
released. DP-SGD trains one network through all tasks, 5 epochs of a task's images in Poisson batches of 256, noise
calibrated anew for each task; it answers among the classes seen so far, and forgets. Mean and sample standard
deviation over seeds, which reseed everything."""


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
    network: str | None = None,
) -> list[Cell]:
    """The cells of these methods (names, NAME:RECIPE, or dp-sgd), sets and budgets a task; seed 0 of all first."""
    from veilset.methods.catalogue import methods as catalogue

    asked = list(METHODS if methods is None else methods)
    some_methods([m for m in asked if m != DPSGD] or None, catalogue())
    sets, budgets, which = sets_budgets_seeds(quick, data, epsilon, seeds, SETS, EPSILONS)
    if float("inf") in budgets:
        raise ConfigError("epsilon = inf: a stream has a finite budget; leave it out")
    net = some_network(network, "mlp" if quick else NETWORK)
    out = []
    for s in which:
        for e in budgets:
            for d in sets:
                for m in asked:
                    facts: dict[str, Any] = {
                        "method": m,
                        "data": d,
                        "epsilon": e,
                        "seed": s,
                        "network": net,
                        "params": {},
                    }
                    if m != DPSGD:
                        many = PER_CLASS.get(m.partition(":")[0], FEW)
                        facts |= {"params": small(m) if quick else {}, "per_class": min(many, 20) if quick else many}
                    name = f"{m.replace(':', '-')}.{d}.eps{e:g}.{net}.seed{s}"
                    out.append(Cell(name, "one_network" if m == DPSGD else "sets", facts))
    return out


def some_network(name: str | None, default: str) -> str:
    """A classifier of the evaluation. Raises ConfigError for another name, and for logistic regression."""
    from veilset.evaluation.protocols import CLASSIFIERS

    known = [n for n, protocol in CLASSIFIERS.items() if protocol]
    name = default if name is None else name
    if name not in known:
        raise ConfigError(f"network = {name!r}: unknown.{suggest(name, known)} Known: {', '.join(known)}")
    return name


# ---------------------------------------------------------------------- what a cell does


def sets(
    method: str, data: str, epsilon: float, seed: int, network: str, params: dict[str, Any], per_class: int
) -> dict[str, Any]:
    """One stream in research mode: after each task a new network is trained on all that was released so far."""
    from veilset.continual.plan import Task, plan
    from veilset.continual.stream import TaskStream
    from veilset.core.facts import peak_mb
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.evaluation.protocols import PSG
    from veilset.evaluation.training import probabilities, train

    bundle = load(data)
    test = bundle.test
    assert isinstance(test, Images)
    name, _, recipe = method.partition(":")
    tasks = [
        Task(classes=names, method=name, epsilon=epsilon, params=params, recipe=recipe or None)
        for names in tasks_of(bundle.info.classes)
    ]
    priced = plan(bundle.info, tasks, per_class=per_class, format="npz")
    figures: dict[str, float] = {}
    cpu, peak, seen = 0.0, 0.0, tuple[str, ...]()
    with tempfile.TemporaryDirectory() as tmp:
        stream = TaskStream.create(priced, Path(tmp) / "stream", seed=seed)
        for number, task in enumerate(tasks, 1):
            begun = time.process_time()
            receipt = stream.fit(bundle.train)
            cpu += time.process_time() - begun
            peak = peak or peak_mb()  # of the first task, before any evaluation
            seen = (*seen, *task.classes)
            net = train(network, of_classes(stream.images(), seen), seed, PSG)
            figures[f"task-{number}"] = right(probabilities(net, (real := of_classes(test, seen)).x, len(seen)), real.y)
        facts = {"epsilon": stream.facts["epsilon"], "composition": stream.facts["composition"]}
    return {"figures": figures, "config": receipt.facts["config"], "fit_seconds": cpu, "peak_mb": peak} | facts


def one_network(
    method: str, data: str, epsilon: float, seed: int, network: str, params: dict[str, Any]
) -> dict[str, Any]:
    """DP-SGD on the stream: one network with an output a class, trained on each task's images by clipped gradients.

    The loss of a task is over the outputs of the classes seen so far. The published rate of 0.01 with the bound 0.1
    moves the weights by at most 0.23 in a task, which would make a weak baseline.
    """
    import torch
    from torch.nn import functional as F

    from veilset.continual.plan import total
    from veilset.core.facts import peak_mb
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.evaluation.training import probabilities, seeded
    from veilset.learning.dp_sgd import descend
    from veilset.networks.architectures import make_network
    from veilset.privacy.accounting import claim

    bundle = load(data)
    test = bundle.test
    assert isinstance(test, Images)
    figures: dict[str, float] = {}
    cpu, seen, spent = 0.0, tuple[str, ...](), []
    with seeded(seed):
        net = make_network(network, bundle.info.shape, len(bundle.info.classes)).eval()  # no dropout: noise is enough
        sgd = torch.optim.SGD(net.parameters(), RATE)
        for number, names in enumerate(tasks_of(bundle.info.classes), 1):
            begun, before = time.process_time(), len(seen)
            seen = (*seen, *names)

            def loss(model: Any, x: torch.Tensor, y: torch.Tensor, first: int = before, last: int = len(seen)) -> Any:
                return F.cross_entropy(model(2 * x[None] - 1)[:, :last], (first + y)[None])

            gate, release = _gate(bundle, names, epsilon, seed, number)
            for _ in gate.loop(release.name, {"net": net, "sgd": sgd}):
                descend(sgd, net, gate.grad(release.name, loss, net))
            spent.append(gate.close().spent())
            cpu += time.process_time() - begun
            real = of_classes(test, seen)
            figures[f"task-{number}"] = right(probabilities(net, real.x, len(seen))[:, : len(seen)], real.y)
    whole = total(bundle.info, list(zip(tasks_of(bundle.info.classes), spent, strict=True)), one_class=True)
    config = {"epochs": EPOCHS, "batch": BATCH, "clip": CLIP, "rate": RATE}
    facts = {"epsilon": claim(whole, 1e-5).epsilon, "config": config}
    return {"figures": figures, "fit_seconds": cpu, "peak_mb": peak_mb()} | facts


def _gate(bundle: Any, names: tuple[str, ...], epsilon: float, seed: int, number: int) -> tuple[Any, Any]:
    """The gate of one task of DP-SGD, and its release."""
    from veilset.continual.plan import Task
    from veilset.continual.stream import SEEDS as APART
    from veilset.learning.dp_sgd import dp_sgd
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.private import restricted
    from veilset.privacy.spec import Privacy

    info = Task(classes=names, method=DPSGD, epsilon=epsilon).info(bundle.info)
    batch = min(BATCH, max(1, info.units // 10))
    plan = Plan((dp_sgd("gradient", info, batch=batch, steps=EPOCHS * info.units // batch, bound=CLIP),))
    priced = plan.price(Privacy(epsilon), info)
    return Gate(restricted(bundle.train, info, True), priced, seed=APART * seed + number), priced["gradient"]


def tasks_of(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """The names of the classes of each task."""
    return [tuple(classes[k] for k in pair) for pair in ORDER]


def of_classes(images: Images, names: Sequence[str]) -> Images:
    """The images of these classes, with labels that count them in this order."""
    import dataclasses

    import torch

    place = torch.tensor([names.index(c) if c in names else -1 for c in images.classes])
    labels = place[images.y]
    return dataclasses.replace(images, x=images.x[labels >= 0], y=labels[labels >= 0], classes=tuple(names))


def right(said: torch.Tensor, true: torch.Tensor) -> float:
    """Accuracy in %."""
    from veilset.evaluation.utility import accuracy

    return accuracy(said.argmax(1), true)


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    figures = ", ".join(f"{v:.1f}" for v in result["figures"].values())
    return f"accuracy after each task {figures}; epsilon {result['epsilon']:.4f}, {result['fit_seconds'] / 60:.1f} min"


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each set, budget, network and method."""
    keys = sorted({_key(c) for c in wanted}, key=lambda k: (*_order(k[0]), *k[1:3], _place(k[3])))
    rows: list[dict[str, Any]] = []
    for key in keys:
        own = [(c, r) for c, r in done if _key(c) == key]
        row = dict(zip(("data", "epsilon", "network", "method"), key, strict=True))
        rows.append(row | over_seeds(own, sum(_key(c) == key for c in wanted)))
    for row in rows:
        row["verdict"] = _verdict(row, rows)
    return {"suite": "continual", "command": COMMAND, "rows": rows} | machine(done)


def _key(cell: Cell) -> tuple[str, float, str, str]:
    p = cell.params
    return p["data"], p["epsilon"], p["network"], p["method"]


def _order(data: str) -> tuple[int, str]:
    return (SETS.index(data) if data in SETS else len(SETS), data)


def _place(method: str) -> tuple[int, str]:
    return (METHODS.index(method) if method in METHODS else -1, method)


def _last(row: dict[str, Any]) -> float | None:
    figure = row["figures"].get(f"task-{len(ORDER)}")
    return None if figure is None else float(figure["mean"])


def _verdict(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """A small set beside the two baselines of its set, budget and network, and the aim at epsilon 10 a task."""
    own, same = _last(row), ("data", "epsilon", "network")
    if own is None or row["method"] in BASELINES:
        return ""
    others = [_last(r) for r in rows if r["method"] in BASELINES and all(r[k] == row[k] for k in same)]
    known = [v for v in others if v is not None]
    above = f"above {sum(own > v for v in known)} of {len(known)} baselines" if known else "no baseline yet"
    aim = AIMS.get(row["data"]) if row["epsilon"] == EPSILONS[0] else None
    reached = f"; goal {aim:g} {'reached' if own >= aim else 'missed'}" if aim is not None else ""
    return above + reached + (" so far" if row["seeds"] < SEEDS else "")


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    heads = ["set", "epsilon a task", "network", "method", *(f"after {n}" for n in range(1, len(ORDER) + 1))]
    heads += ["verdict", "epsilon of all tasks", "fit min, all tasks", "peak MB", "seeds"]
    lines = [f"## continual\n\n`{result['command']}` {machine_words(result)}. {TEXT}\n\n![Curves]({PLOT})\n"]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in result["rows"]:
        curve = [plus_minus(r["figures"].get(f"task-{n}")) for n in range(1, len(ORDER) + 1)]
        row = [r["data"], f"{r['epsilon']:g}", r["network"], r["method"], *curve, r["verdict"]]
        row += [fixed(r["epsilon_spent"], 4), minutes(r, "fit_minutes"), fixed(r["peak_mb"], 0), seeds_of(r)]
        lines.append(f"| {' | '.join(row)} |")
    if result["missing"]:
        lines += ["", missing(result["missing"])]
    return "\n".join(lines) + "\n"


def pages(result: dict[str, Any]) -> dict[str, str]:
    """continual.svg: a panel for each set and budget that has a figure, accuracy after each task."""
    panels = []
    for data, epsilon in dict.fromkeys((r["data"], r["epsilon"]) for r in result["rows"]):
        series = []
        for r in result["rows"]:
            if (r["data"], r["epsilon"]) == (data, epsilon) and r["figures"]:
                named = [r["figures"][f"task-{n}"] for n in range(1, len(ORDER) + 1)]
                label = r["method"] if r["network"] == NETWORK else f"{r['method']}, {r['network']}"
                points = [(i, f["mean"], f["sd"]) for i, f in enumerate(named)]
                series.append(Series(label, points, dashed=r["method"] in BASELINES))
        if series:
            places = [str(2 * n) for n in range(1, len(ORDER) + 1)]
            panels.append(Panel(f"{data}, epsilon {epsilon:g} a task: accuracy, %", series, "classes seen", places))
    notes = ["Accuracy on the test images of all classes seen so far. Dashed: baselines. Bars: one standard deviation."]
    return {PLOT: draw(panels, notes, columns=2)}
