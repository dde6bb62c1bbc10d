"""epsilon from releases: exact for Gaussians without sampling, privacy-loss distributions (PLD) else; RDP checks.

All figures hold for adding or removing one unit. Noise multipliers are noise standard deviation / L2 sensitivity.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from veilset.core.errors import BudgetExceeded

COARSE, FINEST = 1e-3, 1e-6
REFINED = 1e-3  # stop refining the grid when epsilon moves by less than this, relatively
SETTLED = 1e-5  # or absolutely: near epsilon = 0 a relative test would never end
LIMIT = 300.0  # seconds that one claim may take
SLACK = 0.01  # PLD may exceed RDP by this much before we stop believing either


@dataclass(frozen=True)
class Spent:
    """`steps` Poisson-sampled Gaussian releases: one line of the accountant's input.

    Attributes:
        noise_multiplier: noise standard deviation / L2 sensitivity; 0 means no noise.
        sample_rate: probability q that a unit takes part in a step; 1 means all units.
        steps: number of releases.
        part: None, or which part of the class partition was read. A unit lies in one part only.
    """

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1
    part: int | None = None


@dataclass(frozen=True)
class Search:
    """A random number of trials, of which only the best one leaves (Papernot and Steinke 2022, Theorem 2).

    Each trial draws one of the candidates by public coins, runs it, and scores what it gave; the score is paid for with
    the trial, or reads nothing private. How many trials there were, and what the others gave, stays secret.

    Attributes:
        trials: mean of their number, which is geometric: after each one it ends with probability 1 / trials.
        candidates: what one trial may spend, the score included; each trial costs as much as the worst of them.
    """

    trials: int
    candidates: tuple[tuple[Spent, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Search:
        """Read what `to_json` wrote."""
        return cls(facts["trials"], tuple(tuple(Spent(**s) for s in c) for c in facts["candidates"]))


Cost = Sequence[Spent] | Search


@dataclass(frozen=True)
class Claim:
    """epsilon at delta by the main accountant, and by RDP as the check."""

    epsilon: float
    epsilon_rdp: float
    accountant: str


def gaussian_delta(epsilon: float, mu: float) -> float:
    """delta of a Gaussian release with sensitivity / noise = mu (Balle and Wang 2018, Theorem 8)."""
    from scipy.special import log_ndtr, ndtr

    if mu == 0:
        return 0.0
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return float(ndtr(a) - math.exp(epsilon + log_ndtr(b)))


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


def _merge(spent: Sequence[Spent]) -> list[Spent]:
    """The same composition in fewer lines: unsampled Gaussians become one, equal sampled ones add their steps."""
    mu2 = sum(s.steps / s.noise_multiplier**2 for s in spent if s.sample_rate == 1 and s.steps)
    steps: dict[tuple[float, float], int] = defaultdict(int)
    for s in spent:
        if s.sample_rate < 1:
            steps[s.noise_multiplier, s.sample_rate] += s.steps
    merged = [Spent(mu2**-0.5)] if mu2 else []
    return merged + [Spent(nm, q, t) for (nm, q), t in sorted(steps.items()) if t and q]


def _event(s: Spent) -> Any:
    import dp_accounting as dp

    gaussian = dp.GaussianDpEvent(s.noise_multiplier)
    return gaussian if s.sample_rate == 1 else dp.PoissonSampledDpEvent(s.sample_rate, gaussian)


def pld_epsilon(spent: Sequence[Spent], delta: float, interval: float) -> float:
    """epsilon by dp-accounting's pessimistic PLD on one grid of privacy losses with this spacing."""
    return _pld_epsilon(tuple(_merge(spent)), delta, interval)


@functools.lru_cache(maxsize=1024)  # a plan is priced, shown, opened and closed: the same question each time
def _pld_epsilon(merged: tuple[Spent, ...], delta: float, interval: float) -> float:
    from dp_accounting import pld

    accountant = pld.PLDAccountant(value_discretization_interval=interval)
    for s in merged:
        accountant.compose(_event(s), s.steps)
    return float(accountant.get_epsilon(delta))


def refined_pld_epsilon(spent: Sequence[Spent], delta: float) -> float:
    """`pld_epsilon` on ever finer grids until it moves by less than 1e-3 relative, or 1e-5. Each is an upper bound.

    Raises:
        BudgetExceeded: not settled within LIMIT seconds.
    """
    interval, start = COARSE, time.monotonic()
    best = pld_epsilon(spent, delta, interval)
    while interval > FINEST:
        if time.monotonic() - start > LIMIT:  # to stop here would make the claim depend on the machine's speed
            raise BudgetExceeded(
                f"epsilon was not settled within {LIMIT:g} s (last {best:.6g} on a grid of {interval:g}); nothing is "
                "certified. Plan fewer steps, or a larger sample_rate or noise"
            )
        interval /= 4
        finer = pld_epsilon(spent, delta, interval)
        settled = abs(best - finer) <= max(REFINED * finer, SETTLED)
        best = min(best, finer)
        if settled:
            break
    return best


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def rdp_curve(spent: Sequence[Spent], orders: Sequence[float] | None = None) -> tuple[Any, Any]:
    """(orders, Renyi divergence at each order) of the composition, by dp-accounting's RDP accountant."""
    import numpy as np
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders)
    steps: defaultdict[tuple[float, float], int] = defaultdict(int)  # a ledger has many lines of one kind
    for s in spent:
        steps[s.noise_multiplier, s.sample_rate] += s.steps
    with _without_warnings():  # an order whose series does not converge is left out, which can only raise epsilon
        for (noise_multiplier, rate), count in steps.items():
            if count and rate:
                accountant.compose(_event(Spent(noise_multiplier, rate)), count)
    # The accountant keeps its curve in private fields; it is read here and nowhere else.
    return np.asarray(accountant._orders), np.asarray(accountant._rdp)


def rdp_epsilon(spent: Sequence[Spent], delta: float) -> tuple[float, int]:
    """(epsilon by RDP with the tight conversion, index of the best order)."""
    import numpy as np
    from dp_accounting import rdp

    orders, curve = rdp_curve(spent)
    if not np.any(curve):
        return 0.0, 0
    epsilon, order = rdp.compute_epsilon(orders, curve, delta)
    return float(epsilon), int(np.argmin(np.abs(orders - order)))


def cost_curve(cost: Cost, orders: Sequence[float] | None = None) -> tuple[Any, Any]:
    """(orders, Renyi divergence at each order) of what any unit can meet: of the worst part, of a whole search."""
    import numpy as np
    from dp_accounting.rdp import rdp_privacy_accountant as library

    if not isinstance(cost, Search):
        curves = [rdp_curve(case, orders) for case in by_part(cost)]
        return curves[0][0], np.max([curve for _, curve in curves], axis=0)
    given = np.asarray(library.DEFAULT_RDP_ORDERS if orders is None else orders)
    fine = np.union1d(given, library.DEFAULT_RDP_ORDERS)  # the theorem mixes two orders: more of them, lower bound
    one = np.max([cost_curve(candidate, list(fine))[1] for candidate in cost.candidates], axis=0)
    # Theorem 2 for a whole curve; the public event RepeatAndSelectDpEvent takes no maximum over candidates.
    whole = library._compute_rdp_repeat_and_select(fine, one, cost.trials, 1.0)
    return given, whole[np.searchsorted(fine, given)]


def by_part(spent: Sequence[Spent]) -> list[list[Spent]]:
    """The compositions that a unit can meet: what reads everybody, with what reads its own part."""
    common = [s for s in spent if s.part is None]
    parts: dict[int, list[Spent]] = defaultdict(list)
    for s in spent:
        if s.part is not None:
            parts[s.part].append(s)
    seen: list[list[Spent]] = []
    for own in parts.values() or [[]]:
        case = [Spent(s.noise_multiplier, s.sample_rate, s.steps) for s in common + own]
        if case not in seen:  # equal parts cost the same; account once
            seen.append(case)
    return seen


def together(tasks: Sequence[tuple[Sequence[int], Sequence[Spent]]], one_class: bool) -> list[Spent]:
    """The lines of tasks fixed in advance, each on the records of its classes of one set; parts are what a unit meets.

    Args:
        tasks: (numbers of its classes in the set, what it spends; its own parts are places in those numbers).
        one_class: a unit is in one class, so it meets the tasks on that class; else it may meet one part of every task.
    """
    if one_class:
        return [
            replace(s, part=k) for ks, spent in tasks for s in spent for i, k in enumerate(ks) if s.part in (None, i)
        ]
    cases = itertools.product(*(by_part(spent) for _, spent in tasks))
    return [replace(s, part=i) for i, case in enumerate(cases) for own in case for s in own]


def _case_epsilon(spent: Sequence[Spent], delta: float) -> tuple[float, str]:
    merged = _merge(spent)
    if not merged:
        return 0.0, "exact Gaussian"
    if all(s.sample_rate == 1 for s in merged):
        return gaussian_epsilon(1 / merged[0].noise_multiplier, delta), "exact Gaussian"
    return refined_pld_epsilon(merged, delta), "PLD"


def search_claim(search: Search, delta: float) -> Claim:
    """epsilon of a search, by RDP alone.

    Raises:
        BudgetExceeded: it is not finite.
    """
    from dp_accounting import rdp

    epsilon = float(rdp.compute_epsilon(*cost_curve(search), delta)[0])
    if not math.isfinite(epsilon):
        raise BudgetExceeded(f"epsilon = {epsilon} by RDP for the search; nothing is certified")
    return Claim(epsilon, epsilon, f"RDP of a search, {search.trials} trials in the mean, of which the best is kept")


def claim(spent: Cost, delta: float) -> Claim:
    """epsilon of everything that was spent; parallel over the parts of the class partition.

    Raises:
        BudgetExceeded: the two accountants contradict each other, or either is not finite.
    """
    if isinstance(spent, Search):
        return search_claim(spent, delta)
    if any(s.steps and s.sample_rate and s.noise_multiplier <= 0 for s in spent):
        return Claim(math.inf, math.inf, "none: a release had no noise")
    worst = Claim(0.0, 0.0, "exact Gaussian")
    for case in by_part(spent):
        epsilon, name = _case_epsilon(case, delta)
        check, _ = rdp_epsilon(case, delta)
        if not (math.isfinite(epsilon) and math.isfinite(check) and epsilon <= check + SLACK):
            raise BudgetExceeded(
                f"epsilon = {epsilon} by {name} but {check} by RDP: they must be finite and agree; nothing is certified"
            )
        if epsilon >= worst.epsilon:
            worst = Claim(epsilon, check, name)
    return worst


def true_positive_rate(spent: Sequence[Spent], fpr: float) -> float:
    """Largest share of members that any attacker finds while a share `fpr` of non-members raises false alarms.

    Exact for Gaussians without sampling; otherwise the envelope min over epsilon of exp(epsilon) fpr + delta(epsilon).
    """
    import numpy as np
    from dp_accounting import pld
    from scipy.special import ndtr, ndtri

    worst = fpr
    for case in by_part(spent):
        if any(s.noise_multiplier <= 0 for s in case):
            return 1.0
        merged = _merge(case)
        if not merged:
            continue
        if all(s.sample_rate == 1 for s in merged):
            worst = max(worst, float(ndtr(ndtri(fpr) + 1 / merged[0].noise_multiplier)))
            continue
        accountant = pld.PLDAccountant(value_discretization_interval=COARSE)
        for s in merged:
            accountant.compose(_event(s), s.steps)
        grid = np.linspace(0.0, -np.log(fpr), 200)
        worst = max(worst, min(1.0, min(float(np.exp(e) * fpr + accountant.get_delta(e)) for e in grid)))
    return worst


def calibrate(make: Callable[[float], Sequence[Spent]], epsilon: float, delta: float) -> float:
    """Smallest scale (to 1e-4 relative) with claim(make(scale)).epsilon <= epsilon; never overshoots.

    Args:
        make: scale of all noise multipliers -> what will be spent.
        epsilon: finite target.
        delta: target.

    Unsampled plans are solved in closed form. Sampled ones are bracketed by RDP, searched on a coarse PLD grid and
    confirmed on the grid that the claim itself will use, which makes the search some ten times faster.
    """
    one = by_part(make(1.0))
    if all(s.sample_rate == 1 for case in one for s in case):
        mu = max(math.sqrt(sum(s.steps / s.noise_multiplier**2 for s in case)) for case in one)
        scale = gaussian_noise_multiplier(epsilon, delta) * mu
        while claim(make(scale), delta).epsilon > epsilon:
            scale *= 1 + 1e-12
        return scale

    def worst(scale: float, how: Callable[[Sequence[Spent]], float]) -> float:
        return max(how(case) for case in by_part(make(scale)))

    def solve(how: Callable[[Sequence[Spent]], float], target: float, scale: float, tol: float) -> float:
        """Secant steps in logarithms, where epsilon is nearly a power of the scale, until within tol of the target."""
        slope, last = -1.5, None
        for _ in range(60):
            gap = math.log(max(worst(scale, how), 1e-300) / target)
            if abs(gap) < tol:
                break
            if last and last[1] != gap:
                slope = min(-0.5, max(-20.0, (gap - last[1]) / (math.log(scale) - last[0])))
            last = (math.log(scale), gap)
            scale *= math.exp(max(-1.0, min(1.0, -gap / slope)))
        return scale

    def coarse(case: Sequence[Spent]) -> float:
        return pld_epsilon(case, delta, COARSE)

    def fine(case: Sequence[Spent]) -> float:
        return _case_epsilon(case, delta)[0]

    scale = solve(lambda case: rdp_epsilon(case, delta)[0], epsilon, 1.0, 0.02) * 0.95
    if worst(scale, coarse) < 1.2 * epsilon:
        # A coarse grid is ten times cheaper, and epsilon on it nearly a constant times the claim: solve on it, and mend
        # the constant. The first constant is a guess from two grids, whose error falls with the square of the spacing.
        scale = solve(coarse, epsilon, scale, 0.01)
        two = worst(scale, coarse), worst(scale, lambda case: pld_epsilon(case, delta, COARSE / 4))
        claimed = two[1] - (two[0] - two[1]) / 15
        for _ in range(6):
            scale = solve(coarse, epsilon * (1 - 1e-4) * worst(scale, coarse) / max(claimed, 1e-12), scale, 2e-5)
            claimed = worst(scale, fine)
            if epsilon * (1 - 3e-4) <= claimed <= epsilon:
                return scale
    scale = solve(fine, epsilon * (1 - 1.5e-4), scale, 1.5e-4)
    step = 1e-4
    while claim(make(scale), delta).epsilon > epsilon:
        scale *= 1 + step
        step *= 2
    return scale
