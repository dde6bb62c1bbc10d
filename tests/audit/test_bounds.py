"""Bounds against closed forms and published tables, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, norm

from veilset.audit.bounds import (
    Counts,
    Tradeoff,
    dp_epsilon,
    gaussian_dp_epsilon,
    lower_rate,
    one_run_epsilon,
    one_run_p_value,
    upper_rate,
)
from veilset.privacy.accounting import Spent, gaussian_epsilon, gaussian_noise_multiplier, true_positive_rate


@pytest.mark.parametrize(("hits", "draws"), [(0, 10), (1, 10), (7, 10), (10, 10), (400, 8000)])
def test_limits_are_clopper_and_pearsons(hits: int, draws: int) -> None:
    low, high = float(lower_rate(hits, draws, 0.025)), float(upper_rate(hits, draws, 0.025))
    assert low == pytest.approx(beta.ppf(0.025, hits, draws - hits + 1) if hits else 0.0)
    assert high == pytest.approx(beta.ppf(0.975, hits + 1, draws - hits) if hits < draws else 1.0)


@pytest.mark.parametrize(("draws", "most"), [(100, 3.28), (500, 4.91), (1000, 5.60), (10_000, 7.91)])
def test_an_attack_without_errors_shows_this_much_and_no_more(draws: int, most: float) -> None:
    assert dp_epsilon(Counts(0, draws, draws, draws), 1e-5, 0.05) == pytest.approx(most, abs=0.006)


def test_both_errors_are_used() -> None:
    few_false, few_missed = Counts(0, 1000, 500, 1000), Counts(500, 1000, 1000, 1000)
    assert dp_epsilon(few_false, 1e-5, 0.05) == pytest.approx(dp_epsilon(few_missed, 1e-5, 0.05))
    assert dp_epsilon(Counts(500, 1000, 0, 1000), 1e-5, 0.05) == 0  # "yes" means "absent" here; the question is fixed


def test_a_gaussian_bound_comes_from_mu() -> None:
    mu = 1 / gaussian_noise_multiplier(4.0, 1e-5)
    n = 10**9
    counts = Counts(round(n * norm.cdf(-mu / 2)), n, round(n * norm.cdf(mu / 2)), n)
    assert gaussian_dp_epsilon(counts, 1e-5, 0.05) == pytest.approx(4.0, abs=2e-3)
    assert gaussian_dp_epsilon(Counts(5, 10, 5, 10), 1e-5, 0.05) == 0


@pytest.mark.parametrize(("canaries", "most"), [(100, 3.49), (500, 5.10), (1000, 5.78), (5000, 7.28)])
def test_one_run_without_errors_shows_this_much_and_no_more(canaries: int, most: float) -> None:
    assert one_run_epsilon(1e-5, canaries, canaries, canaries, 0.05) == pytest.approx(most, abs=0.02)


def test_one_run_p_value_is_the_papers_sum() -> None:
    epsilon, delta, guesses, right, canaries = 0.7, 1e-3, 30, 24, 40
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(guesses, k) * q**k * (1 - q) ** (guesses - k) for k in range(guesses + 1)]
    slope = max(2 / i * sum(mass[right - i : right]) for i in range(1, right + 1))
    expected = sum(mass[right:]) + delta * canaries * slope
    assert one_run_p_value(epsilon, delta, guesses, right, canaries) == pytest.approx(expected)


@pytest.mark.long
def test_one_run_bound_of_randomised_response_is_seldom_above_the_truth() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(500, math.e / (1 + math.e), 400)  # epsilon = 1, the mechanism for which the bound is tight
    bounds = [one_run_epsilon(0.0, 500, int(v), 500, 0.05) for v in right]
    assert np.mean(np.array(bounds) > 1.0) <= 0.08
    assert np.median(bounds) > 0.7


def test_curve_of_gaussians_is_exact_and_others_lie_above_what_is_attained() -> None:
    fpr = np.array([1e-4, 0.01, 0.3, 0.9])
    np.testing.assert_allclose(Tradeoff([Spent(2.0, 1.0, 4)])(fpr), norm.cdf(norm.ppf(fpr) + 1.0))
    sampled = Tradeoff([Spent(1.0, 0.3)])
    # The likelihood-ratio attack on one sampled Gaussian, in both directions.
    attained = 0.7 * fpr + 0.3 * norm.sf(norm.isf(fpr) - 1.0)
    assert (sampled(fpr) >= attained - 1e-9).all()
    assert (sampled(fpr)[:3] <= attained[:3] + 1e-3).all()  # the other direction bends the curve's upper end
    np.testing.assert_allclose(1 - sampled(1 - sampled(fpr)), fpr, atol=5e-3)
    assert float(sampled(0.01)) <= true_positive_rate([Spent(1.0, 0.3)], 0.01) + 1e-6


def test_a_bound_at_95_percent_is_wrong_in_at_most_5_of_100() -> None:
    rng = np.random.default_rng(1)
    noise, delta = gaussian_noise_multiplier(4.0, 1e-5), 1e-5
    false, hits = rng.binomial(2000, norm.sf(0.5 / noise), 400), rng.binomial(2000, norm.cdf(0.5 / noise), 400)
    bounds = np.array(
        [gaussian_dp_epsilon(Counts(int(a), 2000, int(b), 2000), delta, 0.05) for a, b in zip(false, hits, strict=True)]
    )
    assert np.mean(bounds > 4.0) <= 0.05
    assert np.median(bounds) > 3.0
    assert gaussian_epsilon(1 / noise, delta) == pytest.approx(4.0)
