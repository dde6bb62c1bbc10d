"""One of K shards, drawn in secret, answers: the curve of a step against laws it is to bound, and its compositions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from veilset.privacy import pld, renyi, shards
from veilset.privacy.accounting import Spent, rdp_curve, rdp_epsilon
from veilset.privacy.dp_library import rdp_of
from veilset.privacy.gaussian import gaussian_delta, gaussian_epsilon
from veilset.privacy.mechanisms.secret_shards import secret_shards

DELTA = 1e-5
STEPS = [(0.4645, 1e-3), (1.0, 0.1), (3.0, 0.5), (0.2, 1e-3), (0.05, 0.02)]  # (noise multiplier, rate)

# ---------------------------------------------------------------------- the curve of one step


def hockey_stick(p, q, epsilon: float, edges: float = 25.0) -> float:
    """sup over events of P - e^epsilon Q for densities on the line, by the trapezoid rule."""
    x = np.linspace(-edges, edges, 80_001)
    return float(np.trapezoid(np.maximum(p(x) - math.exp(epsilon) * q(x), 0.0), x))


def mixture(rate: float, own: float, others: float):
    """What a step releases if shard j would answer `own`, and all others `others`; noise of deviation 1."""
    return lambda x: rate * norm.pdf(x, own) + (1 - rate) * norm.pdf(x, others)


@pytest.mark.parametrize(
    ("own", "other_world", "rest"), [(1, 0, 0), (0, 1, 0), (1, 0, 0.5), (0.5, 0, 1), (0.7, 0.2, 1)]
)
@pytest.mark.parametrize(("noise", "rate"), [(0.5, 0.01), (1.0, 0.1), (3.0, 0.5)])
def test_the_curve_bounds_answers_anywhere_in_the_ball(noise, rate, own, other_world, rest):
    """In the first two worlds it is exact: everybody else answers as the unit's shard does without the unit."""
    p, q = (mixture(rate, a / noise, rest / noise) for a in (own, other_world))
    for epsilon in (-3.0, -0.5, -0.01, 0.0, 0.01, 0.3, 1.0, 3.0):
        found, bound = hockey_stick(p, q, epsilon), float(shards.step_delta(epsilon, noise, rate))
        assert found <= bound + 1e-8
        if epsilon >= 0 and (own, other_world, rest) == (1, 0, 0):
            assert found == pytest.approx(bound, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("noise", "rate"), STEPS)
def test_the_curve_is_convex_falls_from_one_to_nothing_and_lies_above_what_any_pair_has(noise, rate):
    x = np.concatenate([np.linspace(1e-6, 1, 2001), np.geomspace(1, 1e6, 4001)[1:]])
    d = shards.step_delta(np.log(x), noise, rate)
    slopes = np.diff(d) / np.diff(x)
    assert (np.diff(slopes) >= -1e-9).all() and (slopes <= 1e-12).all() and slopes[0] >= -1 - 1e-9
    assert (d >= np.maximum(1 - x, 0) - 1e-15).all() and float(shards.step_delta(-60.0, noise, rate)) == pytest.approx(
        1
    )
    lower, upper = (float(shards.step_delta(e, noise, rate)) for e in (-1e-4, 1e-4))
    middle = float(shards.step_delta(0.0, noise, rate))
    rise = (upper - middle) / math.expm1(1e-4) - (middle - lower) / -math.expm1(-1e-4)
    assert rise == pytest.approx((1 - rate) * (2 * norm.cdf(0.5 / noise) - 1), rel=0.02, abs=1e-3)


@pytest.mark.parametrize(("noise", "rate"), STEPS)
@pytest.mark.parametrize("interval", [2e-3, 0.25])
def test_a_step_on_a_grid_has_mass_one_in_both_worlds_and_lies_just_above_the_curve(noise, rate, interval):
    loss = shards.step(noise, rate, interval)
    pmf = loss._pmf_remove.to_dense_pmf()
    points = (pmf._lower_loss + np.arange(pmf.size)) * interval
    assert pmf._probs.min() >= 0 and pmf._probs.sum() + pmf._infinity_mass == pytest.approx(1, abs=1e-11)
    assert np.exp(-points) @ pmf._probs == pytest.approx(1, abs=1e-9)  # the other world's
    assert pmf._infinity_mass < 1e-20 and loss._symmetric
    places = np.array([e for e in np.linspace(-4, 4, 33) if abs(e) < points[-1]])
    got, curve = loss.get_delta_for_epsilon(places), shards.step_delta(places, noise, rate)
    assert (got >= curve - 1e-12).all()
    assert (got <= curve + rate * interval + 1e-12).all()


def test_the_arithmetic_of_a_step_lies_within_its_bound():
    from mpmath import erfc, exp, expm1, log1p, mp, mpf, sqrt

    mp.dps = 60
    tail = lambda z: erfc(-z / sqrt(2)) / 2  # noqa: E731
    for noise, rate in [*STEPS, (0.0239, 1e-3), (10.0, 0.9)]:
        edge = shards.edge(noise, rate)
        for e in [0.0, *np.geomspace(1e-9, edge, 25)]:
            inner, mu = log1p(expm1(mpf(float(e))) / mpf(rate)), 1 / mpf(noise)
            up = mpf(rate) * (tail(mu / 2 - inner / mu) - exp(inner) * tail(-mu / 2 - inner / mu))
            down = 1 - exp(-mpf(float(e))) + exp(-mpf(float(e))) * up
            bound = pld.ULP * (8 * float(shards.inner(edge, rate)) + 40)
            for exact, place in ((up, e), (down, -e)):
                assert abs(float(mpf(float(shards.step_delta(place, noise, rate))) - exact)) <= bound


# ---------------------------------------------------------------------- compositions


def composed(noise: float, k: int, steps: int, delta: float = DELTA) -> tuple[float, str]:
    """(epsilon of secret draws by their distribution, why it is not refined to the end)."""
    return pld.refined((secret_shards(noise, k, steps),), delta)


@pytest.mark.parametrize(
    ("epsilon", "noise", "k", "steps"),
    [
        (10, 0.4645, 1000, 20000), (1, 0.944, 1000, 20000), (10, 0.465, 500, 5000), (1, 0.946, 500, 5000),
        (10, 0.513, 250, 3000), (1, 1.229, 250, 3000), (10, 0.566, 100, 1000), (1, 1.588, 100, 1000),
    ],
)  # fmt: skip
def test_vectors_of_secret_draws(epsilon, noise, k, steps):
    assert composed(noise, k, steps)[0] == pytest.approx(epsilon, rel=2e-3)


@pytest.mark.long
def test_the_published_run_costs_347_and_not_10():
    """K 1000, multiplier 1.07 a row, B 32, T 20000; at a grid twice as fine, too."""
    noise = shards.answer_noise(1.07, 32)
    assert noise == pytest.approx(0.18915, abs=1e-5)
    line = [secret_shards(noise, 1000, 20000)]
    coarse = pld.grid(line, 1e-3).loss.get_epsilon_for_delta(DELTA)
    fine = pld.grid(line, 5e-4, most=math.inf).loss.get_epsilon_for_delta(DELTA)
    assert fine <= coarse and [coarse, fine] == pytest.approx([346.7] * 2, abs=0.2)


@pytest.mark.parametrize(("noise", "rows"), [(1.07, 32), (5.0, 4), (2.0, 1)])
def test_the_curve_of_one_shard_and_one_step_is_the_gaussian_of_all_rows(noise, rows):
    """`SecretShards` takes the closed form there; the curve itself, without that shortcut, lies just above it."""
    whole = shards.answer_noise(noise, rows)
    exact = gaussian_epsilon(1 / whole, DELTA)
    assert exact <= shards.step(whole, 1.0, 1e-3).get_epsilon_for_delta(DELTA) <= exact * 1.001
    many = shards.step(whole, 1.0, 1e-3).self_compose(5).get_epsilon_for_delta(DELTA)
    assert (
        gaussian_epsilon(math.sqrt(5) / whole, DELTA) <= many <= gaussian_epsilon(math.sqrt(5) / whole, DELTA) * 1.001
    )


@pytest.mark.parametrize(("noise", "k", "steps"), [(1.0, 10, 10), (0.6, 100, 1000), (3.0, 2, 50)])
def test_secret_draws_cost_at_least_poisson_sampling_and_at_most_the_check(noise, k, steps):
    """Where all other shards answer alike, a step is a Poisson-sampled Gaussian: no smaller epsilon can be true."""
    from dp_accounting.pld import privacy_loss_distribution as library

    poisson = library.from_gaussian_mechanism(
        noise, pessimistic_estimate=False, value_discretization_interval=1e-3, sampling_prob=1 / k
    )
    least = poisson.self_compose(steps).get_epsilon_for_delta(DELTA)
    epsilon = composed(noise, k, steps)[0]
    assert least < epsilon < rdp_epsilon([secret_shards(noise, k, steps)], DELTA)[0]
    assert epsilon < gaussian_epsilon(math.sqrt(steps) / noise, DELTA)  # sampling helps


def test_too_large_a_grid_is_not_made():
    assert composed(0.0855, 1000, 20000) == (math.inf, pld.TOO_LARGE)
    assert composed(1.0, 100, 1000, 1e-14)[0] == math.inf
    with pytest.raises(pld.TooLarge):
        pld.grid([secret_shards(0.0855, 1000, 20000)], 1e-3)


# ---------------------------------------------------------------------- the check


def library_divergences(noise: float, k: int, orders: list[int]) -> np.ndarray:
    """dp-accounting's: Theorem 27 of the paper up to order 256, Theorem 9 above."""
    import dp_accounting as dp
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders, dp.NeighboringRelation.REPLACE_ONE)
    accountant.compose(dp.SampledWithoutReplacementDpEvent(k, 1, dp.GaussianDpEvent(noise)))
    return rdp_of(accountant)[1]


@pytest.mark.parametrize(("noise", "k"), [(0.5, 1000), (1.0, 10), (3.0, 100), (1.5, 2)])
def test_the_check_agrees_with_the_library_where_it_uses_the_same_theorem(noise, k):
    orders = [2, 3, 8, 64, 300, 512]
    own = np.array([shards.divergence(noise, 1 / k, a) for a in orders])
    whole = np.array([a / (2 * noise**2) for a in orders])
    theirs = np.minimum(library_divergences(noise, k, orders), whole)
    assert own[[0, 4, 5]] == pytest.approx(theirs[[0, 4, 5]], rel=1e-9)
    assert (own >= theirs * (1 - 1e-9)).all() and (own <= whole).all()


@pytest.mark.parametrize(("own", "other_world", "rest"), [(1, 0, 0), (0, 1, 0), (1, 0, 0.5), (0.5, 0, 1)])
@pytest.mark.parametrize(("noise", "rate"), [(0.5, 0.01), (1.0, 0.1), (3.0, 0.5)])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_the_check_bounds_the_divergence_of_answers_anywhere_in_the_ball(noise, rate, own, other_world, rest, order):
    p, q = (mixture(rate, a / noise, rest / noise) for a in (own, other_world))
    x = np.linspace(-60, 60, 60_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(q(x) > 0, np.exp(order * np.log(p(x)) - (order - 1) * np.log(q(x))), 0.0)
    found = math.log(float(np.trapezoid(ratio, x))) / (order - 1)
    assert found <= shards.divergence(noise, rate, order) + 1e-12


def test_the_check_without_sampling_is_the_gaussian():
    for a in (2, 7, 64):
        assert shards.divergence(0.8, 1.0, a) == renyi.divergence(0.8, 1.0, a)
    assert shards.divergence(2.0, 0.1, 4) > float(rdp_curve([Spent(2.0, 0.1)], [4.0])[1][0])  # replace-one costs more


# ---------------------------------------------------------------------- why nothing may be kept between steps


def test_a_shard_that_remembers_being_drawn_breaks_the_argument():
    """Two shards, two steps. The unit changes its shard's answer at the first only: without state that is one step.

    If the other shard shows at the second step whether it was drawn at the first, delta exceeds the one step's.
    """
    mu, rate = 2.0, 0.5
    x, dx = np.linspace(-12, 12, 1201, retstep=True)
    low, high = norm.pdf(x, -mu / 2), norm.pdf(x, mu / 2)

    def released(own, remembers: bool):
        seen = 0.5 * (low + high) if remembers else low  # at step 2, if the other shard was drawn at step 1
        return rate * np.outer(own, low) + (1 - rate) * np.outer(low, seen)

    for epsilon in (1.0, 2.0):
        cost = {
            k: float(np.maximum(released(high, k) - math.exp(epsilon) * released(low, k), 0).sum()) * dx**2
            for k in (False, True)
        }
        one = float(shards.step_delta(epsilon, 1 / mu, rate))
        assert cost[False] <= one + 1e-5 < cost[True] - 0.007
        assert cost[True] <= rate * gaussian_delta(epsilon, mu) + 1e-5  # as if the draw had been told
