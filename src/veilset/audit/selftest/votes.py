"""Votes of all hidden models, answers about whole samples, functions of whole units: bounded, noised, each alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from veilset.audit.selftest.base import (
    Check,
    chi_square,
    facts,
    gate_for,
    hidden,
    nobody,
    pictures,
    random_check,
    refused,
    wrong,
)
from veilset.core.errors import ConfigError
from veilset.privacy import wider
from veilset.privacy.mechanisms import of
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy

SHARDS, BOUND = 4, 0.5
KINDS = {"one-hot": (5, 1, math.sqrt(2)), "count": (1, 1, 1.0), "signs": (6, 2, 2 * math.sqrt(2))}


def poll(kind: str = "one-hot", rows: int = 3, steps: int = 6, columns: int | None = None) -> Release:
    """A release of votes of this kind."""
    size, entries, _ = KINDS[kind]
    stated = {"kind": kind, "rows": rows, "columns": columns or size, "entries": entries, "shards": SHARDS}
    how: dict[str, Any] = {"mechanism": "teacher-votes", "facts": tuple(stated.items())}
    return Release(name="a", verb="vote", steps=steps, **how)


def batch(columns: int = 16, rate: float = 0.5, steps: int = 40) -> Release:
    """A release of answers about a sample."""
    how: dict[str, Any] = {"mechanism": "whole-batch", "facts": (("columns", columns),)}
    return Release(name="a", verb="batch", steps=steps, bound=BOUND, sample_rate=rate, **how)


def cast() -> Iterator[Check]:
    """Whatever models say, one model's votes move the counts by at most what is charged, and by as much as that."""
    g, over = torch.Generator().manual_seed(0), 0.0
    for kind, (columns, _, moved) in KINDS.items():
        rows = [torch.randn(3, columns, generator=g) * 9 for _ in range(40)]
        rows += [-r for r in rows] + [torch.full((3, columns), v) for v in (math.nan, math.inf, -math.inf)]
        gate = gate_for(hidden(facts(), *pictures(50, facts())), poll(kind, steps=len(rows)))
        gate.train_hidden("a", lambda h: {"x": h.x.sum()})
        first, told = _models(gate)["x"][0].clone(), list[torch.Tensor]()
        for row in rows:
            told.append(gate.vote("a", lambda s, row=row: torch.where(s["x"] == first, row, 1.0)))  # type: ignore[misc]  # noqa: B023
        far = max(float((a - b).norm()) for a, b in itertools.combinations(told, 2))
        factor = of(poll(kind)).factor(poll(kind))
        over = max(over, far / factor - 1, abs(factor / (moved * math.sqrt(3)) - 1), 1 - 1e-9 - far / factor - 0.45)
    yield Check("one model's votes move counts by what is charged", over, 1e-6, "relative excess, of all kinds")


def noised() -> Iterator[Check]:
    """The noise hides one model's votes on all queries, or all of an answer about a sample."""
    gate = gate_for(nobody(facts()), poll("signs", rows=200, columns=40, steps=2), privacy=Privacy(1.0))
    gate.train_hidden("a", lambda h: {"w": 0.0 * h.x.sum()})
    z, again = (gate.vote("a", lambda s: s["w"] + torch.full((200, 40), math.nan)) for _ in range(2))
    same = torch.equal(z, again)
    z = z / (gate.plan["a"].noise_multiplier * 2 * math.sqrt(2 * 200))
    p = [chi_square(float(z.square().sum()), z.numel()), 1.0 - same]
    for n in (0, 50):
        data = hidden(facts(), *pictures(n, facts())) if n else nobody(facts())
        sampled = gate_for(data, batch(5000, 1.0, 1), privacy=Privacy(1.0))
        z = sampled.batch("a", lambda x, y: torch.zeros(5000)) / (sampled.plan["a"].noise_multiplier * 2 * BOUND)
        p.append(chi_square(float(z.square().sum()), z.numel()))
    yield random_check("votes and answers about samples have their noise", "deviations, also where nobody is", *p)


def apart() -> Iterator[Check]:
    """Other records in one shard change that shard's model alone; draws are each model's and step's own."""
    info = facts()
    x, y = pictures(50, info)
    first = gate_for(hidden(info, x, y), poll(), seed=0)
    mine = first._enclave(first.plan["a"])._table == 2
    out, public = list[Any](), []
    for data in (x, np.where(mine[:, None, None, None], 1 - x, x)):
        gate = gate_for(hidden(info, data, y), poll(), seed=0)
        torch.manual_seed(0)
        gate.train_hidden("a", lambda h: {"w": h.x.sum((0, 1)).flatten()[:5] / (1 + h.count), "r": torch.zeros(3, 5)})

        def says(s: Any) -> torch.Tensor:
            s["r"] = torch.rand(3, 5)
            return s["w"] + s["r"]

        draws = []
        for _ in range(6):
            gate.vote("a", says, together=2)
            draws.append(_models(gate)["r"].clone())
        out.append((_models(gate)["w"], torch.stack(draws)))
        public.append(torch.get_rng_state())
    (w, draws_), (v, other) = out
    same = [bool((w[k] == v[k]).all()) for k in range(SHARDS)]
    yield wrong(
        "hidden models that vote are apart",
        "places where one shows in another",
        of={
            "states of other shards": same == [k != 2 for k in range(SHARDS)],
            "draws": torch.equal(draws_, other),
            "every draw is fresh": len(draws_.unique()) == draws_.numel(),
            "public draws": torch.equal(*public),
        },
    )


def whole() -> Iterator[Check]:
    """A unit turns an answer about a sample round by 2 C at most, and a function of a unit sees no other one."""
    info = facts(units=20, unit="one person", max_images_per_unit=3)
    x, y = pictures(60, info)
    people = np.arange(60) // 3
    more = np.concatenate([np.ones_like(x[:3]), x])
    moved = list[float]()
    sides = lambda x, y: torch.eye(16)[0] * torch.where((x == 1).flatten(1).all(1).any(), 9.0, -9.0)  # noqa: E731
    gates = [
        gate_for(hidden(info, d, np.zeros(len(d), np.int64), np.arange(len(d)) // 3), batch(), seed=0)
        for d in (x, more[3:])
    ]
    same = all(torch.equal(*(g.batch("a", sides) for g in gates)) for _ in range(5))
    far = gate_for(hidden(info, more, np.zeros(63, np.int64), np.arange(63) // 3), batch(rate=1.0), seed=0)
    near = gate_for(hidden(info, x, y, people), batch(rate=1.0), seed=0)
    moved.append(float((far.batch("a", sides) - near.batch("a", sides)).norm()) / (2 * BOUND))
    unit = Release(name="u", verb="unit", bound=1e3)
    asked = gate_for(hidden(info, x, y, people), unit)
    most = asked.unit("u", lambda x, y, there: (x.flatten(1).amax(1) * there).amax()[None])
    expected = x.reshape(20, 3, -1).max((1, 2)).sum()
    agreed = gate_for(hidden(facts(), *pictures(50, facts())), poll(), privacy=Privacy(2.0))
    agreed.train_hidden("a", lambda h: {"w": 0.0 * h.x.sum()})
    agreed.vote("a", lambda s: s["w"] + torch.ones(3, 5))
    bad = gate_for(nobody(facts()), batch())
    refused(lambda: bad.batch("a", lambda x, y: torch.zeros(3)), ConfigError)
    state = torch.get_rng_state()
    near.batch("a", lambda x, y: torch.rand(len(x))[:16] if len(x) > 16 else torch.rand(16))
    kept = list[int]()

    def counts(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        kept.append(1)
        return torch.full((16,), float(len(kept)))

    yield wrong(
        "a unit counts as a whole, and alone",
        "statements that do not hold",
        of={
            "equal sets, equal answers": same,
            "from one side of the bound to the other": abs(moved[0] - 1) < 1e-5,
            "all images of a unit, and no others": abs(float(most) - expected) < 1e-3,
            "a state of the function": refused(
                lambda: gate_for(nobody(facts()), batch()).batch("a", counts), ConfigError
            ),
            "what a sample draws is not public": torch.equal(state, torch.get_rng_state()),
            "a poll is charged however clear it was": agreed.ledger.steps("a", None) == 1,
            "a sample is charged before it is read": bad.ledger.steps("a", None) == 1,
            "a whole sample is charged twice the bound": of(batch()).factor(batch()) == 2,
        },
    )


def spoilt() -> Iterator[Check]:
    """A model that diverges spoils no vote but its own, even where a library lets one NaN make all of a pass NaN."""
    real = torch.func.vmap

    def spoiling(f: Any, **how: Any) -> Any:
        def mapped(states: Any) -> Any:
            scores, changed = real(f, **how)(states)
            worst = 1.0 if all(v.isfinite().all() for v in changed.values()) else math.nan
            return scores * worst, {k: v * worst for k, v in changed.items()}

        return mapped

    gate = gate_for(hidden(facts(), *pictures(50, facts())), poll(steps=2))
    gate.train_hidden("a", lambda h: {"w": h.x.sum(), "seen": torch.zeros(())})
    ill = _models(gate)["w"][1].clone()

    def says(s: Any) -> torch.Tensor:
        s["seen"] = s["seen"] + torch.where(s["w"] == ill, math.nan, 1.0)
        return torch.ones(3, 5) + 0 * s["seen"]

    with mock.patch.object(torch.func, "vmap", spoiling):
        counts = [float(gate.vote("a", says).sum()) for _ in range(2)]
    yield wrong(
        "a model that diverges loses its own votes", "sums", of={"of votes": counts == [3.0 * (SHARDS - 1)] * 2}
    )


def drawn() -> Iterator[Check]:
    """What a function of a unit draws is the same for all units, in whichever chunk they lie."""
    gate = gate_for(hidden(facts(), *pictures(50, facts())), Release(name="u", verb="unit", bound=1e3))
    with mock.patch.object(wider, "UNIT_BYTES", 1 << 16):
        first, second = gate.unit("u", lambda x, y, there: torch.rand(()) ** torch.tensor([1.0, 2.0])).tolist()
    yield Check("units draw alike", abs(first**2 / 50 - second), 1e-3, "square of the mean against the mean of squares")


CHECKS = (cast, noised, apart, whole, spoilt, drawn)


def _models(gate: Any) -> Any:
    """The states of all hidden models, by name."""
    return gate._enclave(gate.plan["a"])._all
