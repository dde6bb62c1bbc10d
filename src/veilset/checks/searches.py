"""Runs and searches: what they cost in all, when a search ends, and what stands in the account afterwards."""

from __future__ import annotations

import importlib
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import veilset.tune as module
from veilset.audit.selftest.base import Check, random_check, refused, wrong
from veilset.audit.selftest.coupled import remembered
from veilset.core.errors import RunError
from veilset.core.io import lock
from veilset.core.types import PublicInfo
from veilset.data.load import load
from veilset.methods.catalogue import open_model
from veilset.privacy.account import Account
from veilset.privacy.accounting import Search, claim
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy
from veilset.runs import RunSpec, draw_run, execute
from veilset.tune import Priced, Tuning, price, tune

DATA, DELTA = "digits", 1e-5
QUICK = {"basis_size": 8, "mc_samples": 20}  # of dp-moments
OTHER = {"steps": [200], "batch_size": [600, 1797]}  # of dp-kip: candidates of one epsilon, with curves of other shapes
TRIALS, SEARCHES = 4, 500
CANDIDATES = 3


def prices() -> Iterator[Check]:
    """A search is priced so that every candidate could be drawn in every trial, in whatever order they stand."""
    over, of = -math.inf, dict[str, bool]()
    for turned in (False, True):
        grid = {k: v[::-1] if turned else v for k, v in OTHER.items()}
        got = price(Tuning(method="dp-kip", data=DATA, epsilon=2.0, grid=grid, trials=TRIALS))
        for plan in got.plans:
            alone = claim(Search(TRIALS, (tuple(plan.spent()),)), DELTA).epsilon
            over = max(over, alone / got.epsilon - 1, got.epsilon / 2.0 - 1)
        paid = got.gate_plan(got.plans[-1]).cost()
        of[f"all candidates are paid for, {turned}"] = isinstance(paid, Search) and (
            set(paid.candidates) == {tuple(p.spent()) for p in got.plans} and paid.trials == TRIALS
        )
        of[f"each has its score, {turned}"] = all(module.SCORE in [r.name for r in p.releases] for p in got.plans)
        of[f"one trial costs less, {turned}"] = claim(got.plans[0].spent(), DELTA).epsilon < got.epsilon
    yield Check(
        "a search's price holds for every candidate", over, 1e-9, "largest relative excess, of it or its budget"
    )
    yield wrong("a search pays for all that it may ask", "parts of it that are left out", of=of)


def trials() -> Iterator[Check]:
    """How many trials there are, and of which candidates, follows from coins alone, whatever scores they have."""
    with remembered():
        priced = price(_moments({"mc_samples": [10, 20, 30]}))
        found = {name: _searched(priced, score) for name, score in SCORES.items()}
    once, many, each, best = list[float](), list[float](), list[float](), dict[str, bool]()
    for name, searches in found.items():
        once.append(_share([len(drawn) == 1 for drawn, _ in searches], 1 / TRIALS))
        many.append(_share([len(drawn) > 2 * TRIALS for drawn, _ in searches], (1 - 1 / TRIALS) ** (2 * TRIALS)))
        flat = [which for drawn, _ in searches for which, _ in drawn]
        each += [_share([which == k for which in flat], 1 / CANDIDATES) for k in range(CANDIDATES)]
        again = [a[0] == b[0] for drawn, _ in searches for a, b in zip(drawn, drawn[1:], strict=False)]
        each.append(_share(again, 1 / CANDIDATES))
        best[name] = all(kept == max(score for _, score in drawn) for drawn, kept in searches)
    yield random_check(
        "no score ends a search, or lets it go on", f"searches of one trial, of {SEARCHES}", *once, *many
    )
    yield random_check("each trial draws a candidate anew", "how often each is drawn, and one twice in a row", *each)
    yield wrong("a search keeps its best trial", "scores that are not the largest", of=best)


def written_down() -> Iterator[Check]:
    """What was made without the account is entered once, and costs what it would have cost with it."""
    with tempfile.TemporaryDirectory() as home, remembered():
        folder = Path(home)
        info = load(DATA).info
        paid, late, runs = (_account(folder / name, info) for name in ("paid", "late", "runs"))
        tune(price(_moments(trials=1, account=str(paid.path))), folder / "one")
        tune(price(_moments(trials=1)), folder / "two")
        draw_run(late, folder / "two", "late")
        of = {
            "a search costs the same, early or late": _charge(late).get("search") == _charge(paid)["search"]
            and late.balance().share == paid.balance().share > 0,
            "a search is paid before its first trial": _paid_first(folder, paid),
            "a search verifies": verify(folder / "one").release,
            "a search that was paid for": refused(lambda: draw_run(late, folder / "one", "again"), RunError),
        }
        of |= _runs(folder, runs)
    yield wrong("what is written down late costs what it did", "runs that cost less, or are missed", of=of)


CHECKS = (prices, trials, written_down)

Score = Callable[[int, random.Random], float]
SCORES: dict[str, Score] = {
    "good": lambda n, g: 0.99 + g.random(),
    "bad": lambda n, g: -g.random(),
    "any": lambda n, g: g.uniform(-1, 2),
    "better and better": lambda n, g: n / (n + 1),
    "worse and worse": lambda n, g: 1 / (n + 1),
    "all alike": lambda n, g: 0.5,
}


def _moments(grid: Any = None, **changes: Any) -> Tuning:
    given: Any = {"method": "dp-moments", "data": DATA, "epsilon": 2.0, "trials": TRIALS}
    return Tuning(**given | {"grid": {k: [v] for k, v in QUICK.items()} | (grid or {})} | changes)


def _searched(priced: Priced, score: Score) -> list[tuple[list[tuple[int, float]], float]]:
    """Of each search the candidates that were drawn with their scores, and the score that it ends with."""
    drawn: list[tuple[int, float]] = []
    given, chance = load(DATA), random.Random(0)

    class Fitted:
        def settle(self, session: Any) -> None: ...

        def save(self, out: Any) -> None: ...

    def trial(p: Priced, data: Any, which: int, *rest: Any) -> tuple[float, Any, Any]:
        drawn.append((which, score(len(drawn), chance)))
        return drawn[-1][1], Fitted(), None

    out = []
    with (
        mock.patch.object(importlib.import_module("veilset.data.load"), "load", lambda source: given),
        mock.patch.object(module, "_trial", trial),
    ):
        for _ in range(SEARCHES // len(SCORES) + 1):
            drawn.clear()
            kept = tune(priced, "no such folder")[1]
            out.append((list(drawn), kept))
    return out


def _share(found: list[bool], expected: float) -> float:
    """p-value of a number of successes."""
    from scipy.stats import binom

    n, k = len(found), sum(found)
    return min(1.0, 2 * float(min(binom.cdf(k, n, expected), binom.sf(k - 1, n, expected))))


def _account(path: Path, info: PublicInfo) -> Account:
    account = Account(path)
    account.create(info, Privacy(4.0, DELTA))
    return account


def _charge(account: Account) -> dict[str, Any]:
    """The first one."""
    charges: list[dict[str, Any]] = account.balance().to_json()["charges"]
    return charges[0]


def _runs(folder: Path, account: Account) -> dict[str, bool]:
    """Two runs of one plan are two, whose ledgers are equal; what is drawn from a run is that run."""
    spec = RunSpec(method="dp-moments", data=DATA, epsilon=0.4, params=QUICK)
    for name in ("first", "second"):
        execute(spec, folder / name)
    model = open_model(folder / "second")
    model.write_samples(model.sample(20), folder / "samples")
    execute(replace(spec, account=str(account.path)), folder / "third")
    once, late, shares = account.balance().share, list[bool](), list[float]()
    for name in ("first", "second"):
        late.append(not refused(lambda n=name: draw_run(account, folder / n, n), RunError))  # type: ignore[misc]
        shares.append(account.balance().share)
    lines = len(account.balance().book.lines)
    return {
        "ledgers of two runs are equal": (folder / "first" / "ledger.jsonl").read_bytes()
        == (folder / "second" / "ledger.jsonl").read_bytes(),
        "each run is charged, with the account or late": all(late) and all(
            abs(share / once - n) < 1e-9 for n, share in enumerate(shares, 2)
        ),
        "a run is charged once": all(
            refused(lambda n=name: draw_run(account, folder / n, n), RunError)  # type: ignore[misc]
            for name in ("first", "second", "third", "samples")
        )
        and len(account.balance().book.lines) == lines == 4,
        "a folder with a run in it": refused(lambda: execute(spec, folder / "first"), RunError),
        "other arguments for a run that goes on": all(
            refused(lambda s=other: execute(s, folder / "first", resume=True), RunError)  # type: ignore[misc]
            for other in (
                replace(spec, epsilon=0.5), replace(spec, seed=1), replace(spec, params=QUICK | {"basis_size": 9}),
                replace(spec, account=str(account.path)),
            )
        ),
        "a run that is in use": _in_use(spec, folder / "first"),
        "a run that was changed": _spoilt(folder / "second") and refused(
            lambda: draw_run(account, folder / "second", "again"), RunError
        ),
    }  # fmt: skip


def _paid_first(folder: Path, account: Account) -> bool:
    """Whether a search that is stopped in its first trial stands in the account, and leaves nothing else."""
    before, seen = len(account.balance().book.lines), list[int]()

    def stopped(*a: Any) -> None:
        seen.append(len(account.balance().book.lines))
        raise RunError("stopped")

    with mock.patch.object(module, "_trial", stopped):
        refused(lambda: tune(price(_moments(epsilon=0.1, account=str(account.path))), folder / "stopped"), RunError)
    return seen == [before + 1] and not (folder / "stopped").exists()


def _in_use(spec: RunSpec, folder: Path) -> bool:
    """Whether a second process that goes on with a run is refused while the first one has it."""
    with lock(folder / "private" / "lock", "selftest"):
        return refused(lambda: execute(spec, folder, resume=True), RunError)


def _spoilt(folder: Path) -> bool:
    (folder / "model.json").write_text("{}")
    return True
