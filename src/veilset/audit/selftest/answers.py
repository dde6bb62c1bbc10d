"""Answers of hidden models: bounded, noised, charged; made from one shard alone; and nothing else gets out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
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
from veilset.core.errors import BudgetExceeded, ConfigError, PlanError
from veilset.privacy import enclave
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy

SHARDS, BOUND = 4, 0.5


def asked(mechanism: str = "secret-shards", rows: int = 2, columns: int = 16, steps: int = 24) -> Release:
    """A release of so many steps."""
    facts = (("columns", columns), ("rows", rows), ("shards", SHARDS))
    how: dict[str, Any] = {"mechanism": mechanism, "sample_rate": 1 / SHARDS, "facts": facts}
    return Release(name="a", verb="pull", steps=steps, bound=BOUND, **how)


def bounded() -> Iterator[Check]:
    """Rows are clipped one by one, and the noise is that of all of them together."""
    rows = torch.tensor([[9.0] * 16, [0.01] * 16, [math.nan] * 16, [math.inf] * 16])
    gate = gate_for(nobody(facts()), asked(rows=4))
    norms = gate.pull("a", lambda h: rows).norm(dim=1)
    over = float((norms - torch.tensor([BOUND, 0.04, 0.0, 0.0])).abs().max())
    yield Check("rows of an answer are clipped one by one", over, 1e-6, "error of norms; NaN counts as zero")
    noisy = gate_for(nobody(facts()), asked(rows=64, columns=64), privacy=Privacy(1.0))
    std = noisy.plan["a"].noise_multiplier * 2 * BOUND * 8
    z = noisy.pull("a", lambda h: torch.zeros(64, 64)) / std
    p = chi_square(float(z.square().sum()), z.numel())
    yield random_check("the noise of an answer hides all of its rows", "deviation against 2 C sqrt(B)", p)


def dealt() -> Iterator[Check]:
    """Each unit is in one shard, the coin reaches all shards, and shapes tell nothing."""
    info = facts()
    x, y = pictures(50, info)
    gate, seen = gate_for(hidden(info, x, y), asked(steps=200)), list[tuple[Any, Any]]()

    def look(h: enclave.Hidden) -> torch.Tensor:
        seen.append((h.x.shape, h.x[: int(h.count)].flatten(1).sum(1).tolist()))
        return torch.zeros(2, 16)

    before = torch.get_rng_state()
    for _ in range(200):
        gate.pull("a", look)
    own = {tuple(sums) for _, sums in seen[3:]}  # the first three are made up
    together = sorted(s for sums in own for s in sums)
    all_of = sorted(torch.from_numpy(x).flatten(1).sum(1).tolist())
    yield wrong(
        "every unit lies in one shard, and shapes follow from declared facts",
        "statements about shards that do not hold",
        of={
            "as many shards as planned": len(own) == SHARDS,
            "no unit twice, none left out": bool(np.allclose(together, all_of, atol=1e-4)) if own else False,
            "one shape": len({shape for shape, _ in seen}) == 1,
            "the coin is not a public draw": torch.equal(before, torch.get_rng_state()),
        },
    )


def alone() -> Iterator[Check]:
    """Other records in one shard change nothing in the others, nor what is drawn in public."""
    info = facts()
    x, y = pictures(50, info)
    first = gate_for(hidden(info, x, y), asked("round-robin"), seed=0)
    mine = first._enclave(first.plan["a"])._table == 2
    other = np.where(mine[:, None, None, None], 1 - x, x)
    out, public = [], []
    for data in (x, other):
        gate = gate_for(hidden(info, data, y), asked("round-robin"), seed=0)
        torch.manual_seed(0)
        gate.train_hidden("a", lambda h: {"w": h.batch(5)[0].mean((0, 1)).flatten() + torch.rand(16)}, together=3)
        out.append([gate.pull("a", lambda h: (h.state["w"] + torch.rand(16)).expand(2, 16)) for _ in range(24)])
        public.append(torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(*out, strict=True)]
    yield wrong(
        "a shard's records change its own model's answers alone",
        "places where they show",
        of={
            "answers of other shards": all(s for t, s in enumerate(same) if t % SHARDS != 2),
            "its own answers do change": not any(s for t, s in enumerate(same) if t % SHARDS == 2),
            "public draws": torch.equal(*public),
        },
    )


def spoilt() -> Iterator[Check]:
    """A model that diverges spoils no other, even where a library lets it: one NaN in a pass makes all of it NaN."""
    real, models = torch.func.vmap, list[Any]()

    def spoiling(f: Any, **how: Any) -> Any:
        def mapped(*inputs: Any) -> Any:
            out = real(f, **how)(*inputs)
            return {k: v if v.isfinite().all() else torch.full_like(v, math.nan) for k, v in out.items()}

        return mapped

    def train(h: enclave.Hidden) -> dict[str, torch.Tensor]:
        return {"w": h.batch(5)[0].mean(0) + torch.where(h.y.max() > 1, math.nan, 0.0)}

    x, _ = pictures(50, facts())
    for how in (real, spoiling):
        gate = gate_for(hidden(facts(), x, np.zeros(50, np.int64)), asked(), seed=0)
        mine = gate._enclave(gate.plan["a"])._table == 2
        y = np.where(mine & (how is spoiling), 2, 0)
        gate = gate_for(hidden(facts(), x, y), asked(), seed=0)
        with mock.patch.object(torch.func, "vmap", how):
            gate.train_hidden("a", train)
        models.append([m["w"] for m in gate._enclave(gate.plan["a"])._models.values()])
    others = [torch.equal(a, b) for k, (a, b) in enumerate(zip(*models, strict=True)) if k != 2]
    yield wrong("a hidden model that diverges spoils no other", "models that changed", of={"all others": all(others)})


def forgotten() -> Iterator[Check]:
    """Without state nothing is kept; in turn a model goes on from where it was."""

    def counts(h: enclave.Hidden) -> torch.Tensor:
        h.state["seen"] = h.state["seen"] + 0.01
        return h.state["seen"].expand(2, 16)

    told = dict[str, list[float]]()
    for mechanism in ("secret-shards", "round-robin"):
        gate = gate_for(nobody(facts()), asked(mechanism))
        gate.train_hidden("a", lambda h: {"seen": torch.zeros(1)})
        told[mechanism] = [round(float(gate.pull("a", counts)[0, 0]) * 100) for _ in range(24)]
    kept, own = list[torch.Tensor](), torch.nn.Linear(16, 16)

    def keeps(h: enclave.Hidden) -> torch.Tensor:
        kept.append(h.x.mean((0, 1)).flatten())
        return torch.stack(kept).mean(0).expand(2, 16)

    def leaks(h: enclave.Hidden) -> torch.Tensor:
        own(h.x[:2].flatten(1)).sum().backward()
        return torch.zeros(2, 16)

    yield wrong(
        "a model that was drawn in secret is thrown away",
        "ways to keep one",
        of={
            "its own state": set(told["secret-shards"]) == {1},
            "in turn it is kept": told["round-robin"] == [1 + t // SHARDS for t in range(24)],
            "a state of the function": _refused(keeps),
            "gradients of public networks": refused(lambda: _ask(leaks), RuntimeError) and own.weight.grad is None,
        },
    )


def paid() -> Iterator[Check]:
    """What was not planned is refused, and what was asked is charged first."""
    gate, less = gate_for(nobody(facts()), asked(steps=1)), gate_for(nobody(facts()), asked(steps=1))
    refused(lambda: gate.pull("a", lambda h: 1 / 0), ZeroDivisionError)  # type: ignore[return-value,arg-type]
    less.pull("a", lambda h: torch.zeros(2, 16))
    (charge,) = less.ledger.bodies("charge")
    with tempfile.TemporaryDirectory() as tmp:
        folder, tables = Path(tmp), list[Any]()
        for _ in range(2):
            data = hidden(facts(), *pictures(50, facts()))
            run = gate_for(data, asked(), folder=folder)
            tables.append(run._enclave(run.plan["a"])._table.tolist())
    yield wrong(
        "answers are charged as planned, and units are dealt once per run",
        "statements about charges that do not hold",
        of={
            "charged before the model is asked": gate.ledger.steps("a", None) == 1,
            "with the sensitivity of all rows": charge["sensitivity"] == 2 * BOUND * math.sqrt(2),
            "one more is refused": refused(lambda: less.pull("a", lambda h: torch.zeros(2, 16)), BudgetExceeded),
            "another shape is refused": _refused(lambda h: torch.zeros(3, 16)),
            "half a pass is refused": refused(lambda: asked("round-robin", steps=6), PlanError),
            "the table is kept": tables[0] == tables[1],
        },
    )


CHECKS = (bounded, dealt, alone, spoilt, forgotten, paid)


def _ask(f: Callable[[enclave.Hidden], torch.Tensor]) -> torch.Tensor:
    return gate_for(nobody(facts()), asked()).pull("a", f)


def _refused(f: Callable[[enclave.Hidden], torch.Tensor]) -> bool:
    return refused(lambda: _ask(f), ConfigError)
