"""Renyi divergences of Poisson-sampled Gaussians at integer orders, written apart from the accountant's library.

Where RDP makes the claim, both must agree at every order, and the larger epsilon counts; see `accounting`. All figures
hold for adding or removing one unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Every integer to 64, then four to an octave. Larger orders would suit a smaller epsilon at a smaller delta.
ORDERS = (*range(2, 65), *(round(64 * 2 ** (k / 4)) for k in range(1, 25)))


def divergence(noise_multiplier: float, rate: float, order: int) -> float:
    """Renyi divergence of one release (Mironov, Talwar and Zhang 2019, section 3.3).

    exp((a - 1) R(a)) is the sum over k of binom(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / (2 s^2)). Without the last
    factor the terms add up to 1, so the excess over 1 is summed instead: all of its terms are positive, and nothing
    cancels however small it is.

    Args:
        noise_multiplier: s > 0, noise standard deviation / sensitivity.
        rate: q in (0, 1].
        order: a, an integer of at least 2.
    """
    import numpy as np
    from scipy.special import gammaln, logsumexp

    if rate == 1:
        return order / (2 * noise_multiplier**2)
    k = np.arange(2, order + 1)
    x = k * (k - 1) / (2 * noise_multiplier**2)
    binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = binomial + k * math.log(rate) + (order - k) * math.log1p(-rate) + x + np.log(-np.expm1(-x))
    return float(np.logaddexp(0.0, logsumexp(terms))) / (order - 1)


def conversion(order: float, delta: float) -> float:
    """What an order adds to its divergence to give epsilon (Canonne, Kamath and Steinke 2020, Proposition 12)."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def epsilon(orders: Sequence[int], curve: Any, delta: float) -> float:
    """The smallest epsilon >= 0 that any order gives at delta; `curve` holds the divergence at each order."""
    return max(0.0, min(float(r) + conversion(a, delta) for a, r in zip(orders, curve, strict=True)))


def least_delta(largest_epsilon: float) -> float:
    """The smallest delta at which the conversion alone takes at most half of epsilon, rounded up to two digits.

    Below it the orders end too early: noise would grow without bound for nothing.
    """
    a = ORDERS[-1]
    log10 = ((a - 1) * (math.log1p(-1 / a) - largest_epsilon / 2) - math.log(a)) / math.log(10)
    if log10 < -300:
        return 1e-300
    power = math.floor(log10)
    return math.ceil(10 ** (log10 - power + 1)) / 10 * 10.0**power
