"""Plans: what may be asked, and what it costs, before any record is read."""

from __future__ import annotations

import math

import pytest
from sets import facts

from veilset.core.errors import BudgetExceeded, ConfigError, PlanError
from veilset.privacy.accounting import Spent
from veilset.privacy.plan import Plan, Release, check_within
from veilset.privacy.spec import Privacy


@pytest.mark.parametrize(
    "wrong",
    [
        {"verb": "look"},
        {"bound": 0.0},
        {"bound": -1.0},
        {"bound": math.inf},
        {"bound": math.nan},
        {"bound": 1e-11},
        {"bound": 1e11},
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"sample_rate": math.nan},
        {"steps": 0},
        {"steps": 1.5},
        {"weight": 0.0},
        {"weight": math.inf},
        {"weight": math.nan},
        {"partition": "patient"},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"name": ""},
        {"name": "../up"},
        {"name": "a/b"},
        {"name": "a.class1"},
    ],
)
def test_a_release_out_of_range_is_refused(wrong):
    with pytest.raises(PlanError, match=next(iter(wrong))):
        Release(**{"name": "x"} | wrong)


def test_names_are_distinct_and_known():
    with pytest.raises(PlanError, match="distinct"):
        Plan((Release(name="x"), Release(name="x")))
    with pytest.raises(PlanError, match="not planned"):
        Plan((Release(name="x"),))["y"]


PLANS = {
    "one": (Release(name="a"),),
    "two": (Release(name="a", bound=3.0), Release(name="b", weight=4.0)),
    "parts": (Release(name="a", partition="class"), Release(name="b", partition="class", steps=2)),
    "loop": (Release(name="a", weight=20), Release(name="g", verb="grad", sample_rate=0.05, steps=40)),
}


@pytest.mark.parametrize(
    ("name", "epsilon"), [(n, e) for n in PLANS for e in (0.3, 1.0, 10.0) if n != "loop" or e == 1]
)
def test_pricing_uses_the_budget_and_not_more(name, epsilon):
    releases = PLANS[name]
    priced = Plan(releases).price(Privacy(epsilon), facts())
    assert epsilon * (1 - 1e-3) <= priced.claim().epsilon <= epsilon * (1 + 1e-9)
    assert sum(share for share, _ in priced.shares()) == pytest.approx(1)
    for r, old in zip(priced.releases, releases, strict=True):
        assert r.noise_multiplier / priced.releases[0].noise_multiplier == pytest.approx(
            old.weight / releases[0].weight
        )
    row = priced.to_json()["releases"][0]
    keys = {"name", "mechanism", "noise_multiplier", "sample_rate", "steps", "epsilon_share", "epsilon_alone"}
    assert keys <= set(row)
    assert row["epsilon_alone"] <= epsilon * (1 + 1e-3)


def test_row_06_the_bound_is_the_sensitivity_of_add_or_remove():
    """A sum of bounded records has sensitivity = bound; the replace-one form would need twice that."""
    priced = Plan((Release(name="a"),)).price(Privacy(1.0), facts())
    assert priced["a"].noise_multiplier == pytest.approx(3.730632, abs=1e-6)


def test_row_07_a_price_depends_on_declared_facts_only():
    """Sets with N and N + 1 records and the same declaration get the same plan, byte for byte."""
    from sets import private

    from veilset.core.io import canonical

    plans = []
    for n in (50, 51):
        data = private(n)
        data.check()
        plans.append(canonical(Plan(PLANS["loop"]).price(Privacy(1.0), data.info).facts()))
    assert plans[0] == plans[1]


def test_delta_above_one_in_n_needs_permission():
    info = facts(units=50_000)
    plan = Plan((Release(name="a"),))
    with pytest.raises(ConfigError, match="allow-large-delta"):
        plan.price(Privacy(1.0, 2e-5), info)
    with pytest.raises(ConfigError, match="1/N"):
        plan.price(Privacy(1.0, 1 / 50_000), info)
    assert plan.price(Privacy(1.0, 2e-5, allow_large_delta=True), info).claim().epsilon <= 1


@pytest.mark.parametrize("epsilon", [0, -1, math.nan, -math.inf, True, "1", None])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(ConfigError, match="epsilon"):
        Privacy(epsilon)


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 2, math.nan, math.inf, True, "1e-5"])
def test_delta_out_of_range(delta):
    with pytest.raises(ConfigError, match="delta"):
        Privacy(1.0, delta)


def test_row_37_infinite_epsilon_has_no_noise_and_says_so():
    priced = Plan(PLANS["two"]).price(Privacy(math.inf), facts())
    assert [r.noise_multiplier for r in priced.releases] == [0, 0]
    assert priced.claim().epsilon == math.inf
    assert "NON-PRIVATE" in priced.warnings[0]
    assert priced.to_json()["epsilon"] is None


def test_a_useless_n_is_announced():
    assert Plan(PLANS["one"]).price(Privacy(0.1), facts(units=50)).warnings
    assert not Plan(PLANS["one"]).price(Privacy(10.0), facts(units=50_000)).warnings


def test_overspending_is_refused_beyond_rounding():
    priced = Plan(PLANS["one"]).price(Privacy(1.0), facts())
    sigma = priced["a"].noise_multiplier
    check_within([Spent(sigma)], priced)
    with pytest.raises(BudgetExceeded, match="nothing is certified"):
        check_within([Spent(sigma * (1 - 1e-6))], priced)
    with pytest.raises(BudgetExceeded):
        check_within([Spent(sigma), Spent(1e3 * sigma)], priced)
