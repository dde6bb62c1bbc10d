"""The mechanisms by which hidden models answer: what they cost, write, and refuse; `test_shards` has the curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sets import facts

from veilset.core.errors import LedgerError, PlanError
from veilset.privacy import renyi, shards
from veilset.privacy.accounting import Spent, claim, merge, rdp_curve, renyi_epsilon
from veilset.privacy.gaussian import gaussian_epsilon, gaussian_noise_multiplier
from veilset.privacy.mechanisms import MECHANISMS, of, read
from veilset.privacy.mechanisms.round_robin import round_robin
from veilset.privacy.mechanisms.secret_shards import secret_shards
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

DELTA = 1e-5
SECRET = MECHANISMS["secret-shards"]


def asked(**changes) -> Release:
    given = {"name": "critic", "verb": "pull", "mechanism": "secret-shards", "steps": 20, "sample_rate": 1 / 10}
    return Release(**given | {"facts": {"shards": 10, "rows": 4, "columns": 6}} | changes)


# ---------------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("epsilon", "noise", "k", "steps"),
    [(10, 0.4645, 1000, 20000), (1, 0.944, 1000, 20000), (10, 0.513, 250, 3000), (1, 1.588, 100, 1000)],
)
def test_claims_of_secret_draws(epsilon, noise, k, steps):
    got = claim([secret_shards(noise, k, steps)], DELTA)
    assert got.accountant == "PLD" and got.epsilon == pytest.approx(epsilon, rel=2e-3)
    assert got.epsilon < got.epsilon_rdp < 2 * epsilon


@pytest.mark.long
def test_the_whole_answer_is_amplified_once_and_not_row_by_row():
    """B rows at a multiplier sigma a row are one Gaussian of sigma / sqrt(B), drawn once; 4.5 is B T draws of a row."""
    whole = shards.answer_noise(1.07, 32)
    assert claim([secret_shards(whole, 1000, 20000, rows=32)], DELTA).epsilon == pytest.approx(346.7, abs=0.5)
    assert claim([secret_shards(1.07, 1000, 32 * 20000)], DELTA).epsilon < 8


def test_the_factor_is_twice_the_root_of_the_rows():
    for rows in (1, 4, 8, 32):
        for one in (secret_shards(1.0, 10, 5, rows=rows), round_robin(1.0, 10, 10, rows=rows)):
            assert of(one).factor(one) == pytest.approx(math.sqrt(rows * 2**2), rel=1e-15)


@pytest.mark.parametrize("steps", [1, 5])
def test_one_shard_is_the_closed_form(steps):
    got = claim([secret_shards(2.0, 1, steps)], DELTA)
    assert got.accountant == "exact Gaussian"
    assert got.epsilon == pytest.approx(gaussian_epsilon(math.sqrt(steps) / 2, DELTA), rel=1e-9)


@pytest.mark.parametrize(("n", "noise"), [(1, 0.500), (5, 1.118), (10, 1.581), (20, 2.236)])
def test_round_robin_is_the_gaussian_of_the_answers_that_a_unit_meets(n, noise):
    got = claim([round_robin(noise, 100, 100 * n)], DELTA)
    assert got.accountant == "exact Gaussian" and got.epsilon == pytest.approx(10, rel=2e-3)
    assert got == claim([Spent(noise, 1.0, n)], DELTA)
    assert claim([round_robin(noise, 100, 100)] * n, DELTA).epsilon == pytest.approx(got.epsilon, rel=1e-12)


def test_round_robin_counts_whole_passes_only():
    """Two releases of half a pass each may both meet a unit: added up they would be charged for one answer."""
    with pytest.raises(PlanError, match="steps are whole passes over all shards"):
        of(round_robin(1.0, 10, 5))
    with pytest.raises(PlanError, match="whole passes"):
        asked(mechanism="round-robin", steps=15)


@pytest.mark.parametrize(
    ("noise", "k"),
    [*(pytest.param(*row, marks=pytest.mark.long) for row in ((0.3, 1000), (20.0, 10), (3.0, 100))), (1.0, 2)],
)
def test_the_check_is_the_smaller_of_two_theorems_and_both_implementations_agree(noise, k):
    line = secret_shards(noise, k, 1)
    own = rdp_curve([line], renyi.ORDERS)[1]
    assert own == pytest.approx(np.array(SECRET.second(line, renyi.ORDERS)), rel=1e-6)
    told = [shards.told(noise, 1 / k, a) for a in renyi.ORDERS]
    drawn = [shards.divergence(noise, 1 / k, a) for a in renyi.ORDERS]
    assert own == pytest.approx(np.minimum(told, drawn), rel=1e-12)
    fine = rdp_curve([line], [1.5, 2.0, 2.5, 3.0])[1]
    assert (np.diff(fine) >= 0).all() and (fine > 0).all()
    assert math.isfinite(renyi_epsilon(merge([secret_shards(noise, k, 7)]), DELTA))


@pytest.mark.parametrize("order", [1.5, 2, 8])
@pytest.mark.parametrize(("noise", "rate"), [(0.5, 0.01), (1.0, 0.5), (3.0, 1.0)])
def test_choices_told_are_the_mixture_over_a_public_coin(noise, rate, order):
    x = np.linspace(-40, 40, 80_001)
    one = np.exp(order * -((x - 1 / noise) ** 2) / 2 + (order - 1) * x**2 / 2) / math.sqrt(2 * math.pi)
    mean = 1 - rate + rate * float(np.trapezoid(one, x))
    assert shards.told(noise, rate, order) == pytest.approx(math.log(mean) / (order - 1), rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.35, 0.7, 1.4, 5.0])
@pytest.mark.parametrize("k", [2, 10, 300])
@pytest.mark.parametrize("steps", [1, 50, 2000])
def test_the_distribution_never_contradicts_the_check(noise, k, steps):
    if rdp_curve([secret_shards(noise, k, steps)], [2])[1][0] < 200:
        got = claim([secret_shards(noise, k, steps)], DELTA)
        assert 0 <= got.epsilon <= got.epsilon_rdp + 0.01


def test_they_compose_with_other_mechanisms():
    parts = [secret_shards(1.588, 100, 1000), round_robin(8.0, 100, 200), Spent(20.0), Spent(2.0, 0.01, 100)]
    alone = [claim([s], DELTA).epsilon for s in parts]
    got = claim(parts, DELTA)
    assert got.accountant == "PLD" and max(alone) < got.epsilon < sum(alone)


# ---------------------------------------------------------------------- plan and ledger


@pytest.mark.parametrize("mechanism", ["secret-shards", "round-robin"])
def test_a_price_and_a_charge(mechanism):
    info = facts(units=500)
    plan = Plan((asked(mechanism=mechanism, bound=0.5),)).price(Privacy(2.0, DELTA), info)
    release = plan["critic"]
    assert 1.99 < plan.claim().epsilon <= 2.0
    body = {"kind": "charge", **of(release).body(release, None, 10)}
    assert body["sensitivity"] == 2.0, "2 C sqrt(B)"
    assert body["facts"] == {"columns": 6, "rows": 4, "shards": 10}
    assert read(body) == Spent(release.noise_multiplier, 0.1, 10, None, mechanism, release.facts)
    assert of(release).as_planned(body, release)
    assert not of(release).as_planned({**body, "sensitivity": 1.0}, release)
    with pytest.raises(LedgerError, match="misses 'facts'"):
        read({k: v for k, v in body.items() if k != "facts"})
    assert "4 rows by one hidden model of 10" in of(release).sentence(release)
    if mechanism == "round-robin":
        left = gaussian_noise_multiplier(2.0, DELTA) * math.sqrt(2)
        assert release.noise_multiplier == pytest.approx(left, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sample_rate": 1.0}, "the rate is 1 / shards"),
        ({"facts": {"shards": 10, "rows": 4}}, "it states shards, rows, columns"),
        ({"facts": {"shards": 10, "rows": 0, "columns": 6}}, "not allowed"),
        ({"facts": {"shards": 10, "rows": 4.0, "columns": 6}}, "not allowed"),
        ({"verb": "sum"}, "verb = 'sum' is not allowed"),
        ({"partition": "class"}, "partition = 'class' is not allowed"),
    ],
)
def test_a_release_that_cannot_be_answered(changes, expected):
    with pytest.raises(PlanError) as e:
        asked(**changes)
    assert expected in str(e.value) and "\n" not in str(e.value)
