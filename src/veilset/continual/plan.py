"""All tasks of a stream, priced before any record is read, and what they cost together.

Every task is fitted on the records of its classes of one private set; the gate's side makes that choice by the label.
Under "add or remove one unit", a unit whose images are of one class is met by the tasks on that class and by no other:
tasks on different classes compose in parallel, those that share a class one after another. Where a unit may have images
in several classes, all tasks compose one after another. The methods, parameters and noise of all tasks are fixed here,
so the claim is that of one plan, however much later a task is run, and whether it is run at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, suggest
from veilset.core.rendering import as_html
from veilset.privacy.accounting import Claim, Spent, claim, together
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    from veilset.core.types import PublicInfo
    from veilset.methods.base import Synthesizer
    from veilset.privacy.plan import Plan

FORMATS = ("folder", "npz", "parquet")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One release of a stream.

    Attributes:
        classes: names of the set's classes that it is fitted on.
        method: a name in `veilset.methods()`.
        epsilon: of this task alone; finite.
        params, recipe: of the method.
        units: declared number of units of these classes; default the set's, times the task's share of the classes.
    """

    classes: tuple[str, ...]
    method: str
    epsilon: float
    params: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    units: int | None = None

    def info(self, whole: PublicInfo) -> PublicInfo:
        """The declared facts of the task's part of the set: nothing in them is counted."""
        share = max(1, round(whole.units * len(self.classes) / len(whole.classes)))
        return replace(whole, classes=self.classes, units=share if self.units is None else self.units)

    def check(self, whole: PublicInfo, number: int) -> None:
        """Refuse classes that the set does not declare.

        Raises:
            ConfigError: naming the task and the class.
        """
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"task {number}: classes = {list(self.classes)}: must be one or more distinct names")
        for name in self.classes:
            if name not in whole.classes:
                known = ", ".join(whole.classes)
                raise ConfigError(
                    f"task {number}: class {name!r} is not declared.{suggest(name, whole.classes)} Classes: {known}"
                )
        if not math.isfinite(self.epsilon):
            raise ConfigError(f"task {number}: epsilon = {self.epsilon:g}: the budget of a task must be finite")


@dataclass(frozen=True)
class StreamPlan:
    """All tasks with their prices; holds nothing private.

    Attributes:
        info: declared facts of the whole set.
        tasks: in their order.
        models: the method of each task, with its parameters; not fitted.
        plans: the priced plan of each task.
        delta, allow_large_delta: of every task, and of all together.
        one_class: a unit's images are all of one class.
        per_class: images per class that a task releases.
        format: how they are written.
    """

    info: PublicInfo
    tasks: tuple[Task, ...]
    models: tuple[Synthesizer, ...]
    plans: tuple[Plan, ...]
    delta: float
    allow_large_delta: bool
    one_class: bool
    per_class: int
    format: str

    def spent(self) -> list[Spent]:
        """The accountant's lines of all tasks; its parts are what a unit can meet."""
        return total(
            self.info, [(t.classes, p.spent()) for t, p in zip(self.tasks, self.plans, strict=True)], self.one_class
        )

    def claim(self) -> Claim:
        """epsilon of all tasks together."""
        return claim(self.spent(), self.delta)

    @property
    def composition(self) -> str:
        """How the tasks add up, in words."""
        return composition([t.classes for t in self.tasks], self.one_class, self.info)

    def facts(self) -> dict[str, Any]:
        """What the first line of the stream's ledger keeps."""
        got = self.claim()
        tasks = [
            {"classes": list(t.classes), "method": m.name, "config": asdict(m.config), "plan": p.facts()}
            for t, m, p in zip(self.tasks, self.models, self.plans, strict=True)
        ]
        return {
            "set": self.info.to_json(),
            "tasks": tasks,
            "one_class": self.one_class,
            "per_class": self.per_class,
            "images": self.format,
            "composition": self.composition,
            "delta": self.delta,
            "epsilon": got.epsilon,
            "epsilon_rdp": got.epsilon_rdp,
            "accountant": got.accountant,
        }

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset continual plan --json`."""
        rows = [
            {"task": i, "classes": list(t.classes), "units": t.info(self.info).units, "method": m.name}
            | {"epsilon": p.claim().epsilon, "seconds": p.seconds, "releases": p.to_json()["releases"]}
            | {"warnings": list(p.warnings)}
            for i, (t, m, p) in enumerate(zip(self.tasks, self.models, self.plans, strict=True), 1)
        ]
        facts = self.facts()
        keys = ("composition", "epsilon", "delta", "per_class", "one_class")
        return {"set": self.info.name, "unit": self.info.unit, "tasks": rows} | {k: facts[k] for k in keys}

    def __str__(self) -> str:
        return plan_words(self.to_json())

    _repr_html_ = as_html


def plan_words(j: Mapping[str, Any]) -> str:
    """A stream's plan for people: one row per task, then the total.

    Args:
        j: the keys of `veilset continual plan --json`.
    """
    head = f"{'task':>4}  {'classes':<24}{'units':>8}  {'method':<16}{'epsilon':>9}{'seconds':>9}"
    lines = [head, "-" * len(head)]
    for r in j["tasks"]:
        names = ", ".join(r["classes"])
        lines.append(
            f"{r['task']:>4}  {names:<24}{r['units']:>8}  {r['method']:<16}{r['epsilon']:>9.4f}{r['seconds']:>9.0f}"
        )
    lines.append(
        f"all tasks: epsilon {j['epsilon']:.4f} at delta {j['delta']:g} on {j['set']}, unit: {j['unit']}; "
        "no record has been read"
    )
    lines.append(f"{j['composition']}; {j['per_class']} images per class are released")
    return "\n".join(lines + [f"warning: task {r['task']}: {w}" for r in j["tasks"] for w in r["warnings"]])


def plan(
    info: PublicInfo,
    tasks: Sequence[Task],
    *,
    delta: float = 1e-5,
    allow_large_delta: bool = False,
    one_class: bool | None = None,
    per_class: int = 10,
    format: str = "folder",
) -> StreamPlan:
    """Price every task of a stream; reads declared facts only.

    Args:
        info: declared facts of the whole set, with the classes of all tasks.
        tasks: all of them, in their order.
        delta: of every task, and of all together.
        allow_large_delta: accept delta >= 1/N, where N is the declared number of units of a task.
        one_class: each unit's images are of one class, in all the data of the stream; default: yes if a unit is one
            image. What the files show of it is checked whenever a task is run.
        per_class: images per class that each task releases, once.
        format: "folder" (PNGs), "npz" or "parquet".

    Raises:
        ConfigError: no task, an unknown class, method or parameter, or a value out of range.
    """
    from veilset.methods.catalogue import make

    if not tasks:
        raise ConfigError("tasks: a stream needs at least one; name the classes of each")
    if isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1:
        raise ConfigError(f"per_class = {per_class!r}: must be a whole number of at least 1")
    if format not in FORMATS:
        raise ConfigError(f"format = {format!r}: must be one of {', '.join(FORMATS)}")
    for number, task in enumerate(tasks, 1):
        task.check(info, number)
    models = tuple(make(t.method, recipe=t.recipe, **t.params) for t in tasks)
    budgets = [Privacy(t.epsilon, delta, allow_large_delta) for t in tasks]
    plans = tuple(m.plan(t.info(info), b) for m, t, b in zip(models, tasks, budgets, strict=True))
    alone = info.unit == "one image" and info.max_images_per_unit == 1
    return StreamPlan(
        info, tuple(tasks), models, plans, delta, allow_large_delta,
        alone if one_class is None else one_class, per_class, format,
    )  # fmt: skip


def total(info: PublicInfo, tasks: Sequence[tuple[Sequence[str], Sequence[Spent]]], one_class: bool) -> list[Spent]:
    """`accounting.together` for tasks whose classes are given by name."""
    return together([([info.classes.index(c) for c in names], spent) for names, spent in tasks], one_class)


def composition(tasks: Sequence[Sequence[str]], one_class: bool, info: PublicInfo) -> str:
    """How tasks on these classes add up, in words."""
    if not one_class:
        return "sequential composition over all tasks: a unit may have images in several of them"
    declared = "" if info.unit == "one image" else f"; that {info.unit} has images of one class only is declared"
    several = repeated(tasks)
    if not several:
        return f"parallel composition over tasks: each unit is in one class, and each class in one task{declared}"
    named = "; ".join(f"{name} in tasks {', '.join(map(str, numbers))}" for name, numbers in several.items())
    return f"sequential composition over tasks that share a class ({named}), parallel otherwise{declared}"


def repeated(tasks: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Class -> the numbers of its tasks, for classes in more than one."""
    found: dict[str, list[int]] = {}
    for number, names in enumerate(tasks, 1):
        for name in names:
            found.setdefault(name, []).append(number)
    return {name: numbers for name, numbers in found.items() if len(numbers) > 1}
