"""Streams of tasks: what they cost together, what each task reads, and that a stranger notices what was altered."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from veilset.audit.selftest.base import Array, Check, flat, gate_for, hidden, refused, wrong
from veilset.audit.selftest.coupled import remembered
from veilset.continual.check import draw_stream, verify_stream
from veilset.continual.plan import StreamPlan, Task, plan
from veilset.continual.stream import TaskStream
from veilset.core.errors import DataError, RunError
from veilset.core.types import PublicInfo
from veilset.privacy.account import Account
from veilset.privacy.accounting import gaussian_epsilon, gaussian_noise_multiplier
from veilset.privacy.ledger import Ledger
from veilset.privacy.plan import Release
from veilset.privacy.private import PrivateImages, restricted
from veilset.privacy.spec import Privacy

INFO = PublicInfo(name="selftest", classes=("a", "b", "c", "d"), shape=(1, 4, 4), units=80, value_range=(0.0, 1.0))
PEOPLE = replace(INFO, unit="one person", units=40, max_images_per_unit=2)
QUICK = {"basis_size": 4, "mc_samples": 10}  # of dp-moments
DELTA = 1e-5
PARALLEL = "parallel composition over tasks: each unit is in one class, and each class in one task"


def costs() -> Iterator[Check]:
    """Tasks that share a class cost their sum, others the dearest; Gaussian releases, whose sum is known exactly."""

    def sums(*epsilons: float) -> float:
        noise = [gaussian_noise_multiplier(e, DELTA) for e in epsilons]
        return gaussian_epsilon(math.sqrt(sum(n**-2 for n in noise)), DELTA)

    cases = (
        (_planned("ab", "cd"), 1.0),
        (_planned("ab", "cd", epsilon=(1.0, 3.0)), 3.0),
        (_planned("ab", "cd", "ac", epsilon=(1.0, 0.5, 2.0)), sums(1.0, 2.0)),
        (_planned("ab", "ac", "ad", epsilon=(1.0, 0.5, 0.2)), sums(1.0, 0.5, 0.2)),
        (_planned("d", "cd", "abd"), sums(1.0, 1.0, 1.0)),
        (_planned("ab", "cd", info=PEOPLE), sums(1.0, 1.0)),
        (_planned("ab", "cd", one_class=False), sums(1.0, 1.0)),
        (_planned("ab", "cd", info=PEOPLE, one_class=True), 1.0),
    )
    got = [made.claim().epsilon / known - 1 for made, known in cases]
    yield Check(
        "a stream is not claimed below its tasks' sum", -min(got), 1e-6, f"largest shortfall of {len(got)} streams"
    )
    yield Check("a stream is not claimed far above it", max(got), 1e-6, "largest relative excess")


def parts() -> Iterator[Check]:
    """A task reads the records of its classes alone; and a set whose units are not as declared is refused."""
    g = np.random.default_rng(3)
    x, y = g.random((80, *INFO.shape), dtype=np.float32), np.repeat(np.arange(4), 20)
    of = {}
    for names in ("ab", "d", "ca"):
        info = replace(INFO, classes=tuple(names))
        gate = gate_for(restricted(hidden(INFO, x, y), info, True), Release(name="r", bound=4.0))
        told = gate.sum("r", flat, by_class=True).reshape(-1, 16)
        own = torch.stack([torch.from_numpy(x[y == "abcd".index(k)]).double().sum(0).flatten() for k in names])
        of[f"task {names} reads its classes"] = torch.allclose(told, own, rtol=1e-4)
        other = np.where(np.isin(y, ["abcd".index(k) for k in names])[:, None, None, None], x, 1 - x).astype(np.float32)
        again = gate_for(restricted(hidden(INFO, other, y), info, True), Release(name="r", bound=4.0))
        of[f"task {names} reads nothing else"] = torch.equal(
            again.sum("r", flat, by_class=True).reshape(-1, 16), told
        )  # fmt: skip
    people = {
        "neighbours": (np.arange(80) // 2, False),
        "all over the set": (np.arange(80) % 40, True),
        "one in the task and in another": (np.r_[np.arange(79) // 2, 0], True),
        "one in two other tasks": (np.r_[np.arange(41) // 2, 39, np.arange(42, 80) // 2], True),
    }
    for what, (units, mixed) in people.items():
        data = hidden(PEOPLE, x, y, np.unique(units, return_inverse=True)[1])
        for names in ("ab", "cd", "abcd"):
            info = replace(PEOPLE, classes=tuple(names))
            found = refused(restricted(data, info, True).check, DataError)
            of[f"{what}, task {names}, one class declared"] = found == mixed
            of[f"{what}, task {names}, nothing declared"] = not refused(restricted(data, info, False).check, DataError)
    yield wrong(
        "a task reads its own classes alone", "records that are read, or units that are taken at their word", of=of
    )


def altered() -> Iterator[Check]:
    """A stream's folder verifies as it was made, and not once something in it was altered, however it was sealed."""
    of: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as home, remembered():
        made, other = (_finished(Path(home) / name) for name in ("made", "other"))
        twin = Path(shutil.copytree(Path(home) / "made begun", Path(home) / "twin"))
        TaskStream(twin).fit(_blobs())
        of["as it was made"] = verify_stream(made).release and verify_stream(twin).release
        for name in ("task-1", "task-2", "task-3"):
            copy = _handed(made, name)
            shutil.rmtree(copy / name)
            of[f"{name} is gone"] = not verify_stream(copy).ok
            shutil.copytree(other / name, copy / name)
            of[f"{name} of another stream"] = not verify_stream(copy).ok
        copy = _handed(made, "forked")
        shutil.rmtree(copy / "task-1")
        shutil.copytree(twin / "task-1", copy / "task-1")
        of["a task that was run again in a copy of the stream"] = not verify_stream(copy).ok
        for what, lie in LIES.items():
            copy = _handed(made, what)
            _rechain(copy, lie)
            of[what] = not verify_stream(copy).ok
        for what, change in CHANGES.items():
            copy = _handed(made, what)
            change(copy)
            of[what] = not verify_stream(copy).ok
        for what, change_first in FIRST.items():  # before a task begins nothing else binds its plan
            folder = Path(home) / f"first {what}"
            TaskStream.create(_planned("ab", "ab"), folder)
            _rechain(folder, lambda lines, c=change_first: [c(lines[0])])  # type: ignore[misc]
            of[f"{what}, of a stream that has not begun"] = not verify_stream(folder).ok
    yield wrong("only what was planned and released verifies", "streams that verify, though they were altered", of=of)


def paid() -> Iterator[Check]:
    """A stream costs the account all its tasks, once, early or late; and each task is run once."""
    with tempfile.TemporaryDirectory() as home, remembered():
        folder = Path(home)
        early, late = Account(folder / "early"), Account(folder / "late")
        for account in (early, late):
            account.create(INFO, Privacy(9.0, DELTA))
        planned = _planned("ab", "cd", "a")
        TaskStream.create(planned, folder / "paid", account=early.path)
        begun = TaskStream.create(planned, folder / "begun")
        begun.fit(_blobs())
        draw_stream(late, begun.folder, "late")
        charges = [account.balance().to_json()["charges"] for account in (early, late)]
        of = {
            "as much early as late": [c[0]["releases"] for c in charges] == [charges[0][0]["releases"]] * 2
            and late.balance().share == early.balance().share > 0,
            "a stream is charged once": refused(lambda: draw_stream(late, begun.folder, "again"), RunError),
            "one that was paid for is not": refused(lambda: draw_stream(late, folder / "paid", "again"), RunError),
            "a task is run once": refused(lambda: begun.fit(_blobs(), 1), RunError),
            "another set": refused(lambda: begun.fit(hidden(PEOPLE, *_arrays(), np.arange(80) // 2)), DataError),
            "what it keeps is for its owner": all(
                p.stat().st_mode & 0o077 == 0 for p in (begun.folder / "private").rglob("*.json")
                if p.parent.name == "private"
            ) and (begun.folder / "private").stat().st_mode & 0o077 == 0,
        }  # fmt: skip
        twin = TaskStream.create(planned, folder / "twin")
        draw_stream(late, twin.folder, "twin")
        of["another stream of this plan is another"] = abs(late.balance().share / early.balance().share - 2) < 1e-9
        book = Ledger(begun.folder / "stream.jsonl", "stream")
        book.append("begin", task=2)  # and its run folder is lost
        of["a task whose run is lost is not run again"] = refused(lambda: begun.fit(_blobs(), 2), RunError)
    yield wrong("a stream is paid as a whole, and each task run once", "ways to have a task unpaid", of=of)


CHECKS = (costs, parts, altered, paid)


def _planned(*classes: str, info: PublicInfo = INFO, epsilon: tuple[float, ...] = (), **options: Any) -> StreamPlan:
    """A stream with one task for each word, whose letters are its classes; each of epsilon 1 unless said otherwise."""
    budgets = epsilon or (1.0,) * len(classes)
    tasks = [
        Task(classes=tuple(names), method="dp-moments", epsilon=e, params=QUICK)
        for names, e in zip(classes, budgets, strict=True)
    ]
    return plan(info, tasks, delta=DELTA, per_class=3, format="npz", **options)


def _arrays() -> tuple[Array, Array]:
    g = np.random.default_rng(4)
    return g.random((80, *INFO.shape), dtype=np.float32), np.repeat(np.arange(4), 20)


def _blobs() -> PrivateImages:
    return hidden(INFO, *_arrays())


def _finished(folder: Path) -> Path:
    """A stream whose class a is in two tasks, all released; and a copy of it before any task began."""
    made = TaskStream.create(_planned("ab", "cd", "a"), folder)
    shutil.copytree(folder, folder.with_name(f"{folder.name} begun"))
    for _ in range(3):
        made.fit(_blobs())
    return folder


def _handed(made: Path, name: str) -> Path:
    """What a stranger gets of it."""
    copy = made.with_name(f"handed {name.replace('/', ' ')}")
    return Path(shutil.copytree(made, copy, ignore=shutil.ignore_patterns("private")))


Lines = list[dict[str, Any]]


def _rechain(folder: Path, change: Callable[[Lines], Lines]) -> None:
    """Rewrite the stream's whole chain with changed bodies."""
    book = folder / "stream.jsonl"
    bodies = change([json.loads(line)["body"] for line in book.read_bytes().splitlines()])
    book.unlink()
    ledger = Ledger(book, "stream")
    for body in bodies:
        ledger.append(body["kind"], **{k: v for k, v in body.items() if k != "kind"})


def _say(**said: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [lines[0] | said, *lines[1:]]


def _task(body: dict[str, Any], number: int, **said: Any) -> dict[str, Any]:
    """The first line, with something else said of one task."""
    tasks = list(body["tasks"])
    tasks[number - 1] = tasks[number - 1] | said
    return body | {"tasks": tasks}


def _other_plan(body: dict[str, Any], part: str, **said: Any) -> dict[str, Any]:
    own = body["tasks"][1]["plan"]
    return _task(body, 2, plan=own | {part: own[part] | said})


def _quieter(body: dict[str, Any]) -> dict[str, Any]:
    """A plan of less noise under the budget that it had."""
    own = body["tasks"][1]["plan"]
    releases = [r | {"noise_multiplier": r["noise_multiplier"] / 2} for r in own["releases"]]
    return _task(body, 2, plan=own | {"releases": releases})


LIES: dict[str, Callable[[Lines], Lines]] = {
    "a smaller total": _say(epsilon=1.0, epsilon_rdp=1.1),
    "a smaller second total": _say(epsilon_rdp=1.0),
    "another delta": _say(delta=1e-3),
    "other words for the sum": _say(composition=PARALLEL),
    "another id": _say(id="0" * 32),
    "another mode": _say(mode="research"),
    "an account that did not pay": _say(account={"line": 1, "head": "0" * 64}),
    "a task of another method": lambda lines: [_task(lines[0], 1, method="dp-merf"), *lines[1:]],
    "lines in another order": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "a task that stands there twice": lambda lines: [*lines, lines[-2], lines[-1]],
    "a release twice": lambda lines: [*lines, lines[-1]],
    "a task left out": lambda lines: [b for b in lines if b.get("task") != 2],
}
FIRST: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a task on other classes": lambda b: (
        _task(b, 2, classes=["c", "d"]) | {"composition": PARALLEL, "epsilon": 1.0, "epsilon_rdp": 1.1}
    ),
    "a task on one class less": lambda b: _task(b, 2, classes=["a"]),
    "a task of another delta": lambda b: _other_plan(b, "privacy", delta=1e-3),
    "a task of less epsilon": lambda b: _other_plan(b, "privacy", epsilon=0.5),
    "a task of less noise": _quieter,
    "that units are in one class": lambda b: b | {"one_class": False},
}
CHANGES: dict[str, Callable[[Path], Any]] = {
    "a file that nobody knows": lambda f: (f / "more.png").write_bytes(b"x"),
    "a folder that nobody knows": lambda f: (f / "task-4").mkdir(),
    "an image that was changed": lambda f: (f / "task-2" / "images.npz").write_bytes(b"x"),
    "a ledger that was changed": lambda f: (f / "task-2" / "ledger.jsonl").write_bytes(b""),
    "no receipt": lambda f: (f / "task-2" / "receipt.json").unlink(),
    "an empty chain": lambda f: (f / "stream.jsonl").write_bytes(b""),
    "a torn chain": lambda f: (f / "stream.jsonl").write_bytes((f / "stream.jsonl").read_bytes()[:-9]),
    "a task that is elsewhere": lambda f: (f / "task-1").symlink_to((f / "task-1").rename(f.with_name("away"))),
}
