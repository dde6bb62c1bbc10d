"""The closed form for Gaussian releases without sampling, at every delta down to 1e-300."""

from __future__ import annotations

import math

TAIL = -8.0  # in deviations; beyond it delta is under 1e-15


def gaussian_delta(epsilon: float, mu: float) -> float:
    """delta of a Gaussian release with sensitivity / noise = mu (Balle and Wang 2018, Theorem 8)."""
    from scipy.special import erfcx, log_ndtr, ndtr

    if mu == 0:
        return 0.0
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    if a > TAIL:
        return float(ndtr(a) - math.exp(epsilon + log_ndtr(b)))
    # exp(epsilon) times the density at b is the density at a: what is left is a difference of Mills ratios, in which
    # neither the exponent's rounding (|log delta| times too large) nor an underflow is carried along.
    ratios = float(erfcx(-a / math.sqrt(2)) - erfcx(-b / math.sqrt(2)))
    return math.exp(-a * a / 2) * ratios / 2


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon >= 0 of a Gaussian release with sensitivity / noise = mu, rounded up by at most 1e-12."""
    from scipy.optimize import brentq

    if mu == math.inf:
        return math.inf
    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(high, mu) > delta:
        high *= 2
    root = float(brentq(lambda e: gaussian_delta(e, mu) - delta, 0.0, high, xtol=1e-14, rtol=1e-14))
    while gaussian_delta(root, mu) > delta:
        root += 1e-13 * max(1.0, root)
    return root


def gaussian_noise_multiplier(epsilon: float, delta: float) -> float:
    """Smallest noise multiplier of one Gaussian release that is (epsilon, delta)-DP; 3.730632 at (1, 1e-5)."""
    from scipy.optimize import brentq

    low, high = 1e-6, 1.0
    while gaussian_delta(epsilon, 1 / high) > delta:
        high *= 2
    sigma = float(brentq(lambda s: gaussian_delta(epsilon, 1 / s) - delta, low, high, xtol=1e-14, rtol=1e-14))
    while gaussian_delta(epsilon, 1 / sigma) > delta:
        sigma *= 1 + 1e-13
    return sigma
