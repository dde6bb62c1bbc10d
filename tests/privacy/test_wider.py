"""A whole sample, and a whole unit: what one unit moves, what is drawn, and what nobody may learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sets import facts, gate_for, pictures

from veilset.core.errors import BudgetExceeded, ConfigError, PlanError
from veilset.privacy import wider
from veilset.privacy.accounting import Spent, claim
from veilset.privacy.mechanisms import of
from veilset.privacy.mechanisms.whole_batch import whole_batch
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays

INFO = facts(units=60)
PEOPLE = facts(units=20, unit="one person", max_images_per_unit=3)


def batch(columns=16, **changes) -> Release:
    given = {"name": "b", "verb": "batch", "mechanism": "whole-batch", "sample_rate": 0.2, "steps": 20, "bound": 0.5}
    return Release(**given | {"facts": {"columns": columns}} | changes)


def unit(**changes) -> Release:
    return Release(**{"name": "u", "verb": "unit", "sample_rate": 0.5, "steps": 4, "bound": 0.5} | changes)


def data(n=60, info=INFO, change=None):
    x, y = pictures(n, info)
    if change is not None:
        x, y = change(x, y)
    units = np.arange(len(x)) // 4 if info.max_images_per_unit > 1 else None
    return from_arrays(info, x, y, units)


def mean(x, y):
    return x.mean(0).flatten() + 0.1 * torch.rand(16)


# ---------------------------------------------------------------------- a whole sample


def test_an_answer_about_a_sample_is_clipped_as_a_whole_with_noise_for_twice_the_bound():
    gate = gate_for(data(), batch(), epsilon=math.inf)
    assert float(gate.batch("b", lambda x, y: torch.full((16,), 9.0)).norm()) == pytest.approx(0.5, rel=1e-5)
    for bad in (math.nan, math.inf):
        got = gate.batch("b", lambda x, y, bad=bad: torch.full((16,), bad))
        assert not got.any()
    noisy = gate_for(data(), batch(columns=4000), epsilon=1.0)
    got = noisy.batch("b", lambda x, y: torch.zeros(4000))
    assert float(got.std()) == pytest.approx(noisy.plan["b"].noise_multiplier * 2 * 0.5, rel=0.05)
    (charge,) = noisy.ledger.bodies("charge")
    assert (charge["sensitivity"], charge["mechanism"], charge["facts"]) == (1.0, "whole-batch", {"columns": 4000})


def test_one_unit_moves_it_by_up_to_twice_the_bound_and_only_where_it_was_sampled():
    def sides(x, y):
        """One image turns it round."""
        return torch.eye(16)[0] * torch.where((x > 0.999).all(-1).all(-1).any(), 9.0, -9.0)

    def brighter(x, y):
        return np.concatenate([x, np.full((1, 1, 4, 4), 255, np.uint8)]), np.append(y, 0)

    first, second = (gate_for(d, batch(steps=60), epsilon=math.inf) for d in (data(), data(change=brighter)))
    gaps = [float((a.batch("b", sides) - b.batch("b", sides)).norm()) for a, b in [(first, second)] * 60]
    assert {round(g, 4) for g in gaps} == {0.0, 1.0} and 3 <= sum(g > 0 for g in gaps) <= 25
    same = (gate_for(data(), batch(), epsilon=math.inf) for _ in range(2))
    assert torch.equal(*(g.batch("b", mean) for g in same)), "draws are the step's, and repeat in research"


def test_nobody_in_the_sample_is_noise_alone():
    for seed in (0, None):
        gate = gate_for(data(0), batch(columns=2000), epsilon=1.0, seed=seed)
        got = gate.batch("b", lambda x, y: torch.full((2000,), 1 / len(x)))
        assert float(got.std()) == pytest.approx(gate.plan["b"].noise_multiplier, rel=0.1)
    seen = []
    exact = gate_for(data(3), batch(sample_rate=0.05, steps=40), epsilon=math.inf)
    for _ in range(40):
        seen.append(bool(exact.batch("b", lambda x, y: torch.ones(16)).any()))
    assert any(seen) and not all(seen)


def test_all_images_of_a_person_are_in_a_sample_together():
    seen = []
    people = gate_for(data(61, PEOPLE), batch(steps=30), epsilon=math.inf)
    for _ in range(30):
        people.batch("b", lambda x, y: seen.append(x.clone()) or torch.zeros(16))
    whole = torch.from_numpy(pictures(61, PEOPLE)[0] / 255.0).float()
    for x in seen[3:]:  # the first three are made up
        who = sorted(int((whole - one).abs().flatten(1).amax(1).argmin()) for one in x)
        assert all(i % 4 < 3 for i in who), "three images a person, the first ones"
        assert {w // 4 for w in who if w // 4 < 15} == {w // 4 for w in who if w % 4 == 2}


def test_a_function_of_a_sample_draws_alone_and_keeps_nothing():
    gate = gate_for(data(), batch(), epsilon=math.inf)
    torch.manual_seed(1)
    before, drawn = torch.get_rng_state(), []
    for _ in range(3):
        gate.batch("b", lambda x, y: drawn.append(torch.rand(len(x))[0]) or torch.zeros(16))
    assert torch.equal(before, torch.get_rng_state()) and len({float(d) for d in drawn[3:]}) == 3
    kept = []
    with pytest.raises(ConfigError, match="it keeps a state, or a generator, of its own"):
        gate_for(data(), batch()).batch("b", lambda x, y: kept.append(1) or torch.full((16,), float(len(kept))))
    net = torch.nn.Linear(16, 16)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gate_for(data(), batch()).batch("b", lambda x, y: net(x.flatten(1)).sum().backward())
    assert net.weight.grad is None


def test_what_was_not_planned_is_refused_and_charged():
    for wrong in (torch.ones(15), torch.ones(1, 16), torch.ones(16, dtype=torch.int64), 3):
        gate = gate_for(data(), batch())
        with pytest.raises(ConfigError, match="planned were 16 floating-point numbers"):
            gate.batch("b", lambda x, y, wrong=wrong: wrong)
        assert gate.ledger.steps("b", None) == 1
    gate = gate_for(data(), batch(steps=1))
    gate.batch("b", mean)
    with pytest.raises(BudgetExceeded, match="was planned 1 time"):
        gate.batch("b", mean)
    with pytest.raises(PlanError, match="verb = 'grad' is not allowed"):
        batch(verb="grad")
    with pytest.raises(PlanError, match="it states columns"):
        batch(facts={})


def test_a_sample_costs_what_a_poisson_sample_does():
    line, plain = whole_batch(1.1, 0.02, 400, 9), Spent(1.1, 0.02, 400)
    assert claim([line], 1e-5).epsilon == claim([plain], 1e-5).epsilon and of(line).factor(line) == 2
    assert "twice" not in of(line).sentence(line) and "× 2 × bound" in of(line).sentence(line)
    assert of(line).title(line) == "poisson-subsampled whole-batch"


# ---------------------------------------------------------------------- a whole unit


def local(x, y, there):
    """Two steps of gradient descent of a mean on a unit's images, on batches that are drawn."""
    w = torch.rand(16)
    for _ in range(2):
        weight = there * (torch.rand(len(there)) > 0.3)
        w = w - 0.4 * torch.func.grad(lambda w, k=weight: (k[:, None] * (x.flatten(1) - w).square()).sum())(w)
    return w * torch.randn(16)


def test_a_unit_contributes_what_f_gives_for_its_images_and_no_others():
    for info, n in ((INFO, 60), (PEOPLE, 61)):
        gate = gate_for(data(n, info), unit(sample_rate=1.0, bound=1e3), epsilon=math.inf)

        def told(x, y, there):
            """The largest pixel of all, the labels, how many there are: not additive over images."""
            return torch.stack(
                [(x.flatten(1).amax(1) * there).amax(), (y * there).sum().square(), there.sum(), y[0] + 1.0]
            )

        got = gate.unit("u", told)
        x, y = pictures(n, info)
        each = 1 if info is INFO else 4
        expected = torch.zeros(4)
        for i in range(0, n, each):
            mine = slice(i, min(i + min(each, 3), n))
            own = torch.from_numpy(x[mine] / 255.0), torch.from_numpy(y[mine])
            expected += torch.tensor(
                [float(own[0].max()), float(own[1].sum()) ** 2, float(len(own[1])), float(own[1][0]) + 1]
            )
        assert got.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("info", [INFO, PEOPLE], ids=["images", "people"])
def test_one_unit_moves_the_sum_by_at_most_the_bound_wherever_it_stands(info, monkeypatch):
    """Local training that draws: others must draw as they did, whatever is in front of them."""
    monkeypatch.setattr(wider, "UNIT_BYTES", 1 << 16)  # several chunks
    x, y = pictures(60, info)
    each = 1 if info is INFO else 3
    units = np.arange(60) // each
    sums = []
    for where in (None, 0, 30, 60):
        one, label, who = x, y, units
        if where is not None:
            one = np.insert(x, [where] * each, np.full(x[0].shape, 255), axis=0)
            label, who = np.insert(y, [where] * each, 0), np.arange(60 + each) // each
        gate = gate_for(
            from_arrays(info, one, label, who if each > 1 else None), unit(sample_rate=1.0), epsilon=math.inf
        )
        torch.manual_seed(5)
        sums.append(torch.stack([gate.unit("u", local) for _ in range(2)]))
    for other in sums[1:]:
        gaps = (other - sums[0]).norm(dim=1)
        assert float(gaps.min()) > 0.05 and float(gaps.max()) <= 0.5


def test_a_unit_is_clipped_and_the_noise_is_that_of_the_bound():
    gate = gate_for(data(1), unit(sample_rate=1.0), epsilon=math.inf)
    assert float(gate.unit("u", lambda x, y, there: torch.full((9,), 5.0)).norm()) == pytest.approx(0.5, rel=1e-5)
    assert not gate.unit("u", lambda x, y, there: torch.full((9,), math.nan)).any()
    noisy = gate_for(data(), unit(), epsilon=1.0)
    got = noisy.unit("u", lambda x, y, there: torch.zeros(60, 50))
    assert got.shape == (60, 50)
    assert float(got.std()) == pytest.approx(noisy.plan["u"].noise_multiplier * 0.5, rel=0.05)
    (charge,) = noisy.ledger.bodies("charge")
    assert (charge["mechanism"], charge["sensitivity"]) == ("gaussian", 0.5) and "facts" not in charge


def test_a_unit_that_is_not_finite_spoils_no_other():
    def spoilt(x, y, there):
        return x.flatten(1).mean(0) + torch.where(y[0] == 1, math.nan, 0.0)

    def plain(x, y, there):
        return x.flatten(1).mean(0) * (y[0] != 1)

    got = [gate_for(data(), unit(), epsilon=math.inf).unit("u", f) for f in (spoilt, plain)]
    assert torch.equal(*got)


def test_a_function_of_a_unit_keeps_no_state_and_parts_are_those_of_the_first_image():
    kept = []
    with pytest.raises(ConfigError, match="it keeps a state"):
        gate_for(data(), unit()).unit("u", lambda x, y, there: kept.append(1) or y[:1] * 0.0 + len(kept))
    gate = gate_for(data(60, PEOPLE), unit(partition="class", sample_rate=1.0, bound=1e3, steps=1), epsilon=math.inf)
    counts = [float(gate.unit("u", lambda x, y, there: there[:1], part=k)) for k in range(3)]
    first = pictures(60, PEOPLE)[1][::4]
    assert counts == pytest.approx(np.bincount(first, minlength=3).tolist(), rel=1e-5)


# ---------------------------------------------------------------------- interrupted runs


@pytest.mark.parametrize("verb", ["batch", "unit"])
def test_a_loop_over_them_goes_on(verb, tmp_path, monkeypatch):
    monkeypatch.setattr("veilset.privacy.run.run_store.KEEPING", 1e9)

    def run(stop=None, **how):
        torch.manual_seed(0)
        release = batch() if verb == "batch" else unit(steps=20)
        gate, total = gate_for(data(), release, epsilon=2.0, **how), torch.nn.Parameter(torch.zeros(16))
        steps = gate.loop(release.name, {"total": torch.nn.ParameterList([total])})
        for t in steps:
            if t == stop:
                break
            answer = gate.batch("b", mean) if verb == "batch" else gate.unit("u", local)
            total.data += answer.float() * torch.rand(())
        return total.data, gate

    whole, _ = run()
    run(7, folder=tmp_path / "a")
    again, _ = run(folder=tmp_path / "a")
    assert torch.equal(whole, again)
    run(7, folder=tmp_path / "b", seed=None)
    _, gate = run(folder=tmp_path / "b", seed=None)
    assert gate.ledger.steps(gate.plan.releases[0].name, None) == 20 and gate.close()
