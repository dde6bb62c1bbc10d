"""epsilon of phases by two accountants and from below, of any size: these are not claims of ours, which end at 1000.

The main accountant is the closed form where nothing is sampled, else privacy loss distributions on a grid that starts
coarse, so that an epsilon of many thousands still has one; a coarse grid only adds. The check is the smaller of two
other bounds: Renyi divergences, and, where a secret choice is all that is sampled, the choices told: then a unit meets
a binomial number n of Gaussians, and delta is the mean over n of the closed form. That holds even if the hidden models
keep state, because it needs no secret. `attack` is a bound from below: an event that tells two sets apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from veilset.privacy import pld, renyi, shards
from veilset.privacy.accounting import Spent, rdp_epsilon
from veilset.privacy.gaussian import gaussian_epsilon
from veilset.privacy.mechanisms.secret_shards import SecretShards
from veilset.published.mechanisms import Part

COARSEST = 1.024  # first spacing
RARE = 1e-6  # of delta: what the numbers of draws beyond the table may weigh
EXACT, TOLD = "exact Gaussian", "choices told: binomial mean of exact Gaussians"


@dataclass(frozen=True)
class Price:
    """epsilon and what it is by; `check` by another way, `lower` what an attack reaches (None: none is known)."""

    epsilon: float
    accountant: str
    check: float
    check_accountant: str
    lower: float | None


def price(parts: Sequence[Part], delta: float) -> Price:
    """epsilon of phases together at delta."""
    import numpy as np

    with np.errstate(over="ignore"):  # an order that overflows is infinite, and another one is taken
        return _price(parts, delta)


def _price(parts: Sequence[Part], delta: float) -> Price:
    if any(p.kind == "none" for p in parts):
        none = "none: no bound or no noise"
        return Price(math.inf, none, math.inf, none, math.inf)
    checks = [(_renyi(parts, delta), "RDP")]
    if any(p.kind == "secret" for p in parts):
        checks[0] = (checks[0][0], "RDP, sampling without replacement at integer orders")
    if {p.kind for p in parts} <= {"gaussian", "secret"}:
        checks += [(told(parts, delta), TOLD)] if any(p.kind == "secret" for p in parts) else []
    check = min(checks)
    mu = math.sqrt(sum(p.steps / p.noise**2 for p in parts if p.kind == "gaussian"))
    if all(p.kind == "gaussian" for p in parts):
        exact = gaussian_epsilon(mu, delta)
        return Price(exact, EXACT, *check, exact)
    best, why = pld.refine(lambda interval: _on_grid(parts, mu, delta, interval), delta, pld.MOST_WORK, COARSEST)
    main = (best, f"PLD{' (grid not refined to the end)' if why else ''}")
    main = main if math.isfinite(best) else (check[0], f"{check[1]} ({why})")
    lower = max((attack(p, delta) for p in parts), default=0.0)
    return Price(*main, *check, max(lower, gaussian_epsilon(mu, delta) if mu else 0.0))


def _on_grid(parts: Sequence[Part], mu: float, delta: float, interval: float) -> tuple[float, float, float]:
    grids = [pld.grid([Spent(1 / mu)], interval)] if mu else []
    for p in parts:
        if p.kind == "secret":
            grids.append(_secret(p, interval))
        elif p.kind == "poisson":
            grids.append(pld.grid([Spent(p.noise, p.rate, p.steps)], interval))
        elif p.kind == "laplace":
            grids.append(_laplace(p, interval))
    whole, error = grids[0].loss, grids[0].error(delta)
    for g in grids[1:]:
        whole, more = pld.composed(whole, g.loss)
        error += g.error(delta) + more
    return float(whole.get_epsilon_for_delta(delta)), error, sum(g.work for g in grids)


def _secret(p: Part, interval: float) -> pld.Grid:
    """As `pld.grid` of secret shards, at a rate that need not be 1 / K: sampling without replacement has it, too."""
    how, line = SecretShards(), Spent(p.noise, p.rate, p.steps)
    low, high = how.span(line)
    work = pld.SINGLE * ((high - low) / interval + 1)
    if not work <= pld.MOST_WORK:
        raise pld.TooLarge
    many, error, work = pld.self_composed(how.loss(line, interval), p.steps, work)
    error += p.steps * pld.ULP * how.ulps(line, interval) + pld.TAIL
    return pld.Grid(many, error, p.steps * 4 * pld.ULP / interval, work)


def _laplace(p: Part, interval: float) -> pld.Grid:
    from dp_accounting.pld import privacy_loss_distribution as library

    one = library.from_laplace_mechanism(p.noise, value_discretization_interval=interval)
    many, error, work = pld.self_composed(one, p.steps, 0.0)
    return pld.Grid(many, error + p.steps * pld.ULP * (8 / p.noise + 40), p.steps * 4 * pld.ULP / interval, work)


def _renyi(parts: Sequence[Part], delta: float) -> float:
    """By Renyi divergences: dp-accounting's where it has them, else ours at integer orders."""
    if all(p.kind in ("gaussian", "poisson") for p in parts):
        return rdp_epsilon([Spent(p.noise, p.rate, p.steps) for p in parts], delta)[0]
    curve = [sum(p.steps * _divergence(p, a) for p in parts) for a in renyi.ORDERS]
    pure = sum(p.steps / p.noise for p in parts) if all(p.kind == "laplace" for p in parts) else math.inf
    return min(renyi.epsilon(renyi.ORDERS, curve, delta), pure)


def _divergence(p: Part, order: int) -> float:
    if p.kind == "secret":
        return shards.divergence(p.noise, p.rate, order)
    if p.kind != "laplace":
        return renyi.divergence(p.noise, p.rate, order)
    up = math.log(order / (2 * order - 1)) + (order - 1) / p.noise  # Mironov 2017, Proposition 6
    down = math.log((order - 1) / (2 * order - 1)) - order / p.noise
    return (max(up, down) + math.log1p(math.exp(-abs(up - down)))) / (order - 1)


def told(parts: Sequence[Part], delta: float) -> float:
    """epsilon if everybody learns which shard answered at each step; only Gaussians and secret choices."""
    import numpy as np
    from scipy.stats import binom

    squares = np.array([sum(p.steps / p.noise**2 for p in parts if p.kind == "gaussian")])
    weights, beyond = np.ones(1), 0.0
    for p in (p for p in parts if p.kind == "secret"):
        most = int(binom.isf(RARE * delta, p.steps, p.rate)) + 1
        n = np.arange(most + 1)
        beyond += float(binom.sf(most, p.steps, p.rate))
        squares = np.add.outer(squares, n / p.noise**2).ravel()
        weights = np.multiply.outer(weights, binom.pmf(n, p.steps, p.rate)).ravel()
    mu, weights = np.sqrt(squares[squares > 0]), weights[squares > 0]

    def fits(epsilon: float) -> bool:
        return float(weights @ shards.gaussian_deltas(epsilon, mu)) + beyond <= delta

    low, high = 0.0, 1.0
    while not fits(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def attack(p: Part, delta: float) -> float:
    """What one attack proves: at least n of the steps release more than c, in the direction of the unit's own answer.

    The unit moves its answer by the whole sensitivity, and everybody else answers as if it were not there. With N the
    number of such steps, epsilon >= log((P(N >= n) - delta) / Q(N >= n)), and Q(N >= n) <= exp(-T KL(n / T, q0)).
    """
    import numpy as np
    from scipy.special import log_ndtr, ndtr
    from scipy.stats import binom

    if p.kind == "laplace":
        c = np.array([0.5, 1.0])  # in units of the sensitivity
        rare = np.log(0.5) - c / p.noise
        often = 1 - 0.5 * np.exp((c - 1) / p.noise)
    else:
        c = np.linspace(0.0, 1 / p.noise + 3, 80)
        rare = log_ndtr(-c)
        often = p.rate * ndtr(1 / p.noise - c) + (1 - p.rate) * np.exp(rare)
    shares = np.concatenate([np.linspace(0.99, 0.01, 50), np.geomspace(0.01, 1.01 * delta, 50)])
    n = np.maximum(1, binom.isf(shares[:, None], p.steps, often))
    found = binom.sf(n - 1, p.steps, often) - delta
    a = n / p.steps
    with np.errstate(divide="ignore", invalid="ignore"):
        other = np.where(a < 1, (1 - a) * (np.log1p(-a) - np.log1p(-np.exp(rare))), 0.0)
        apart = np.where(a > np.exp(rare), p.steps * (a * (np.log(a) - rare) + other), 0.0)
        return float(np.max(np.where(found > 0, np.log(found) + apart, 0.0), initial=0.0))
