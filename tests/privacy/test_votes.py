"""Votes of all hidden models: what they cost, what is counted, and that one unit moves one model's votes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sets import facts, gate_for, pictures

from veilset.core.errors import BudgetExceeded, ConfigError, PlanError
from veilset.privacy.accounting import Spent, claim
from veilset.privacy.ballots import votes
from veilset.privacy.mechanisms import of, read
from veilset.privacy.mechanisms.teacher_votes import teacher_votes
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import from_arrays
from veilset.privacy.spec import Privacy

INFO, SHARDS, ROWS = facts(units=60), 5, 2


def asked(kind="one-hot", columns=3, entries=1, steps=20, rows=ROWS, shards=SHARDS, **changes) -> Release:
    stated = {"kind": kind, "columns": columns, "entries": entries, "rows": rows, "shards": shards}
    return Release(
        **{"name": "poll", "verb": "vote", "mechanism": "teacher-votes", "steps": steps, "facts": stated} | changes
    )


def people(n=60, change=None):
    x, y = pictures(n, INFO)
    if change is not None:
        x, y = change(x.copy(), y.copy())
    return from_arrays(INFO, x, y)


def train(h):
    """A model that keeps the mean of its records."""
    return {"mean": h.x.sum(0).flatten() / (1 + h.count) + 0 * torch.rand(16), "seen": torch.zeros(())}


def scores(state):
    """Something that depends on the model, its draws and what it learned."""
    state["seen"] = state["seen"] + 1
    return state["mean"][:6].view(2, 3) + 0.05 * torch.rand(2, 3)


def trained(release, data=None, **how):
    gate = gate_for(people() if data is None else data, release, **{"epsilon": math.inf} | how)
    gate.train_hidden("poll", train, together=3)
    return gate


# ---------------------------------------------------------------------- what a vote is, and what it may move


def test_a_part_of_a_vote_is_cut_to_the_grid_before_anything_is_added():
    """Five thirds of a vote worth ten spacings are five times three of them: rounding the sum would move it by more."""
    gate = trained(asked("count", 1, rows=1))
    poll = gate._enclave(gate.plan["poll"])
    assert poll.vote(0, lambda s: s["seen"] * 0 + torch.full((1, 1), 1 / 3), 3, 10).tolist() == [[15.0]]
    assert poll.vote(1, lambda s: s["seen"] * 0 + torch.ones(1, 1), 3, 10).tolist() == [[50.0]]


def ballot(kind, entries=1, columns=3):
    return lambda row: votes(torch.tensor([[row]]), {"kind": kind, "entries": entries})[0, 0].tolist()


def test_votes_are_of_their_kind_whatever_the_scores_are():
    one, many, count = ballot("one-hot"), ballot("signs", 2), ballot("count")
    assert one([5.0, 7.0, 7.0]) == [0, 1, 0] and one([0.0, 0.0, 0.0]) == [1, 0, 0]
    assert many([5.0, -7.0, 6.0]) == [0, -1, 1] and many([0.0, 0.0, -1e-9]) == [0, 0, -1]
    assert count([0.25]) == [0.25] and count([9.0]) == [1] and count([-9.0]) == [0]
    for bad in (math.nan, math.inf, -math.inf):
        assert one([bad, 1.0, 2.0]) == many([bad, 1.0, 2.0]) == [0, 0, 0] and count([bad]) == [0]


@pytest.mark.parametrize(
    ("kind", "columns", "entries"), [("one-hot", 4, 1), ("count", 1, 1), ("signs", 5, 2), ("signs", 3, 3)]
)
def test_the_factor_is_the_largest_distance_of_two_votes_and_reached(kind, columns, entries):
    g = torch.Generator().manual_seed(0)
    rows = [torch.randn(columns, generator=g) * 3 for _ in range(150)]
    rows += [-r for r in rows[:20]] + [torch.full((columns,), math.nan)]
    cast = votes(torch.stack(rows)[:, None], {"kind": kind, "entries": entries})[:, 0]
    far = max(float((a - b).norm()) for a, b in itertools.combinations(cast, 2))
    for queries in (1, 4, 9):
        line = teacher_votes(1.0, kind, 10, 3, queries, columns, entries)
        assert of(line).factor(line) == pytest.approx(far * math.sqrt(queries), rel=1e-12)


def test_an_exchanged_shard_moves_counts_by_at_most_the_sensitivity_and_no_other_models_votes():
    first = trained(asked(), seed=3)
    table = first._enclave(first.plan["poll"])._table

    def change(x, y):
        x[table == 2] = 255 - x[table == 2]
        return x, y

    second = trained(asked(), people(change=change), seed=3)
    moved, public = [], []
    for gate in (first, second):
        torch.manual_seed(0)
        moved.append(torch.stack([gate.vote("poll", scores, together=3) for _ in range(20)]))
        public.append(torch.rand(3))
    gaps = (moved[0] - moved[1]).flatten(1).norm(dim=1)
    assert 0 < float(gaps.max()) <= of(first.plan["poll"]).factor(first.plan["poll"]) + 1e-12
    states = [gate._enclave(gate.plan["poll"])._all for gate in (first, second)]
    same = [all(torch.equal(states[0][k][i], states[1][k][i]) for k in states[0]) for i in range(SHARDS)]
    assert same == [True, True, False, True, True] and torch.equal(*public)


# ---------------------------------------------------------------------- noise, charges, prices


@pytest.mark.parametrize(
    ("kind", "columns", "entries", "moved"), [("one-hot", 50, 1, math.sqrt(2)), ("count", 1, 1, 1), ("signs", 40, 9, 6)]
)
def test_the_noise_is_that_of_all_queries(kind, columns, entries, moved):
    rows = 4000 // columns
    gate = gate_for(people(0), asked(kind, columns, entries, steps=2, rows=rows), epsilon=1.0)
    gate.train_hidden("poll", lambda h: {"w": torch.zeros(1) + 0 * h.count})
    noisy = gate.vote("poll", lambda s: s["w"] + torch.full((rows, columns), math.nan))
    std = gate.plan["poll"].noise_multiplier * moved * math.sqrt(rows)
    assert float(noisy.std()) == pytest.approx(std, rel=0.05)
    (charge,) = gate.ledger.bodies("charge")
    assert charge["sensitivity"] == pytest.approx(moved * math.sqrt(rows)) and charge["sample_rate"] == 1.0
    again = gate.vote("poll", lambda s: s["w"] + torch.full((rows, columns), math.nan))
    assert not torch.equal(noisy, again) and gate.ledger.steps("poll", None) == 2


def test_the_charge_does_not_follow_how_well_votes_agree():
    charges = []
    for spread in (0.0, 1.0):
        gate = gate_for(people(), asked(steps=3), epsilon=2.0)
        gate.train_hidden("poll", train)
        for _ in range(3):
            gate.vote("poll", lambda s, spread=spread: s["mean"][:6].view(2, 3) * spread)
        charges.append([(b["noise_multiplier"], b["steps"], b["facts"]) for b in gate.ledger.bodies("charge")])
    assert charges[0] == charges[1] and len(charges[0]) == 3


def test_claims_are_the_gaussians_of_all_steps():
    """GNMax without its data-dependent part: RDP a / s_v^2 a query (Papernot et al. 2018); here all queries at once."""
    for kind, entries, squared in (("one-hot", 1, 2), ("count", 1, 1), ("signs", 7, 28)):
        columns, steps, rows, std = {"count": 1}.get(kind, 10), 30, 12, 300.0
        line = teacher_votes(std / math.sqrt(squared * rows), kind, 1000, steps, rows, columns, entries)
        one = Spent(std / math.sqrt(squared), 1.0, steps * rows)  # each query by itself
        assert of(line).factor(line) * line.noise_multiplier == pytest.approx(std)
        assert claim([line], 1e-5).epsilon == pytest.approx(claim([one], 1e-5).epsilon, rel=1e-9)
        assert claim([line], 1e-5).accountant == "exact Gaussian"
        a = 7.0
        assert of(line).divergence(line, [a])[0] == pytest.approx(steps * rows * squared * a / (2 * std**2))


def test_published_presets_cost_what_follows_from_them_by_hand():
    """RDP at order a, a step: DataLens 2 K B a / s^2 = 1.41e-2 a and 2.4e-4 a; the votes of G-PATE 300 a / 100^2."""
    for kind, std, rows, columns, entries, expected in (
        ("signs", 800.0, 15, 784, 300, 2 * 300 * 15 / 800**2),
        ("signs", 5000.0, 15, 784, 200, 2.4e-4),
        ("one-hot", 100.0, 300, 10, 1, 3.0e-2),
    ):
        moved = {"signs": 2 * math.sqrt(entries * rows), "one-hot": math.sqrt(2 * rows)}[kind]
        line = teacher_votes(std / moved, kind, 4000, 1, rows, columns, entries)
        assert of(line).factor(line) == pytest.approx(moved)
        assert of(line).divergence(line, [5.0])[0] == pytest.approx(5 * expected)


def test_a_price_and_a_charge():
    plan = Plan((asked(),)).price(Privacy(2.0), INFO)
    release = plan["poll"]
    assert 1.999 < plan.claim().epsilon <= 2.0
    body = {"kind": "charge", **of(release).body(release, None, 10)}
    assert read(body) == Spent(release.noise_multiplier, 1.0, 10, None, "teacher-votes", release.facts)
    assert of(release).as_planned(body, release) and not of(release).as_planned({**body, "sensitivity": 1.0}, release)
    said = of(release).sentence(release)
    assert "Votes of 5 hidden models on 2 queries" in said and "√2" in said
    assert "3 of 8 entries" in of(asked("signs", 8, 3)).sentence(asked("signs", 8, 3))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sample_rate": 0.5}, "the rate is 1"),
        ({"kind": "ranks"}, "not allowed"),
        ({"kind": "count"}, "a count has 1 column"),
        ({"entries": 2}, "not allowed"),
        ({"kind": "signs", "entries": 4}, "at most the columns"),
        ({"verb": "pull"}, "verb = 'pull' is not allowed"),
        ({"partition": "class"}, "partition = 'class' is not allowed"),
    ],
)
def test_a_release_that_cannot_be_answered(changes, expected):
    with pytest.raises(PlanError) as e:
        asked(**changes)
    assert expected in str(e.value) and "\n" not in str(e.value)


# ---------------------------------------------------------------------- models


def test_models_keep_what_they_learn_and_draw_each_their_own():
    gate, draws = trained(asked(steps=4)), []
    for t in range(4):
        counts = gate.vote("poll", lambda s: scores(s) * 0 + torch.rand(2, 3), together=2)
        draws.append(counts)
        assert float(counts.sum()) == SHARDS * ROWS
        assert gate._enclave(gate.plan["poll"])._all["seen"].tolist() == [t + 1.0] * SHARDS
    assert not torch.equal(draws[0], draws[1]), "each step draws anew"
    gate = trained(asked("count", 1, rows=1, steps=1, shards=50))
    values = []
    gate.vote("poll", lambda s: s["seen"] * 0 + torch.rand(1, 1), together=50)
    enclave = gate._enclave(gate.plan["poll"])
    with torch.no_grad():
        got, _ = enclave._mapped(lambda s: s["seen"] * 0 + torch.rand(1, 1), dict(enclave._all), 5)
        values = got.flatten().tolist()
    assert len(set(values)) == 50, "no two models share a draw"


def test_a_model_that_diverges_votes_no_more_and_spoils_no_other(monkeypatch):
    """A library that multiplies what lies beside a row by 0 is played: one NaN in a pass makes all of it NaN."""

    def diverging(state):
        out = scores(state)
        state["mean"] = torch.where((state["mean"].sum() > bar) & (state["seen"] == 2), math.nan, 1.0) * state["mean"]
        return out + 0 * state["mean"].sum()

    vmap, bar = torch.func.vmap, math.inf
    plain = trained(asked(), seed=1)
    sums = plain._enclave(plain.plan["poll"])._all["mean"].sum(1)
    before = [plain.vote("poll", diverging, together=5) for _ in range(4)]
    bar = float(sums.sort().values[-2:].mean())  # the largest one diverges at its second step

    def spoiling(f, **how):
        def mapped(states):
            scores, changed = vmap(f, **how)(states)
            spoilt = not all(v.isfinite().all() for v in changed.values())
            worst = math.nan if spoilt else 1.0
            return scores * worst, {k: v * worst for k, v in changed.items()}

        return mapped

    ill = trained(asked(), seed=1)
    monkeypatch.setattr(torch.func, "vmap", spoiling)
    after = [ill.vote("poll", diverging, together=5) for _ in range(4)]
    assert torch.equal(before[0], after[0])
    assert [float(a.sum()) for a in after] == [10, 8, 8, 8], "its votes are missing, no one else's"
    gaps = [a - b for a, b in zip(before, after, strict=True)]
    assert all(((g == 0) | (g == 1) | (g == 2)).all() for g in gaps)
    assert ill._enclave(ill.plan["poll"])._dead.tolist() == (sums > bar).tolist()


def test_what_was_not_planned_is_refused():
    with pytest.raises(ConfigError, match="nobody can vote yet"):
        gate_for(people(), asked()).vote("poll", scores)
    for wrong in (torch.ones(2, 4), torch.ones(3, 3), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(ConfigError, match="planned were 2 rows of 3 floating-point numbers"):
            trained(asked()).vote("poll", lambda s, wrong=wrong: wrong + (0 * s["seen"]).to(wrong.dtype))
    with pytest.raises(ConfigError, match="may change its values"):
        trained(asked()).vote("poll", lambda s: s.update(more=s["seen"]) or scores(s))
    calls = []
    with pytest.raises(ConfigError, match="it keeps a state, or a generator, of its own"):
        trained(asked()).vote("poll", lambda s: calls.append(1) or scores(s) + len(calls) * torch.eye(3)[:2])
    gate = trained(asked(steps=1))
    gate.vote("poll", scores)
    with pytest.raises(BudgetExceeded, match="was planned 1 time"):
        gate.vote("poll", scores)
    with pytest.raises(PlanError, match="planned as 'vote' but asked as 'pull'"):
        gate.pull("poll", scores)


def test_no_gradient_reaches_a_public_network():
    net = torch.nn.Linear(16, 3)

    def leaks(s):
        net(s["mean"]).sum().backward()
        return torch.zeros(2, 3)

    with pytest.raises(RuntimeError):
        trained(asked()).vote("poll", leaks)
    assert net.weight.grad is None


# ---------------------------------------------------------------------- interrupted runs


class Net:
    """Public state of a loop."""

    def __init__(self):
        self.sum = torch.zeros(2, 3, dtype=torch.float64)

    def state_dict(self):
        return {"sum": self.sum}

    def load_state_dict(self, state):
        self.sum = state["sum"]


def run(stop=None, **how):
    gate, net = trained(asked(), epsilon=2.0, **how), Net()
    for t in gate.loop("poll", {"net": net}):
        if t == stop:
            break
        net.sum = net.sum + gate.vote("poll", lambda s: scores(s) + s["seen"] % 3, together=2)
    return gate, net.sum


@pytest.mark.parametrize("stop", [1, 7])
def test_an_interrupted_run_goes_on(stop, tmp_path, monkeypatch):
    monkeypatch.setattr("veilset.privacy.run.run_store.KEEPING", 1e9)
    torch.manual_seed(0)
    whole, total = run()
    torch.manual_seed(0)
    first, _ = run(stop, folder=tmp_path / "research")
    again, more = run(folder=tmp_path / "research")
    assert torch.equal(total, more) and again.ledger.steps("poll", None) == 20
    release, _ = run(stop, folder=tmp_path / "release", seed=None)
    after, _ = run(folder=tmp_path / "release", seed=None)
    assert after.ledger.steps("poll", None) == 20 and after.close()
    tables = [g._enclave(g.plan["poll"])._table for g in (first, release)]
    assert not np.array_equal(*tables)
