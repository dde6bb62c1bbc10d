"""The noise that a budget needs: `accounting.claim` turned around."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from veilset.core.errors import BudgetExceeded
from veilset.privacy import pld, renyi
from veilset.privacy.accounting import (
    Spent,
    by_part,
    case_claim,
    claim,
    exact,
    ideal_delta,
    merge,
    rdp_epsilon,
    share_of_work,
    squared_mu,
)
from veilset.privacy.gaussian import gaussian_noise_multiplier
from veilset.privacy.mechanisms import of

SEARCHED = 4  # a grid that is searched on may cause a quarter of the work of one that is claimed on
FEW = 3  # different sampled releases; with more, the quicker implementation of RDP is solved
SPACINGS = (
    pld.COARSE,
    pld.COARSE / 16,
    pld.COARSE * 16,
)  # of grids to search on: finer for many steps, coarser for few

Epsilon = Callable[[Sequence[Spent]], float]


def calibrate(make: Callable[[float], Sequence[Spent]], epsilon: float, delta: float) -> float:
    """Smallest scale (to 1e-4 relative) with claim(make(scale)).epsilon <= epsilon; never overshoots.

    Args:
        make: scale of all noise multipliers -> what will be spent.
        epsilon: finite target.
        delta: target.

    Unsampled plans are solved in closed form. Sampled ones are bracketed by RDP, searched on a coarse PLD grid and
    confirmed on the grid that the claim itself will use, which makes the search some ten times faster. Where PLD cannot
    certify, or its grids are too large to be searched, RDP is solved.

    Raises:
        BudgetExceeded: delta is too small to be certified.
    """
    left = ideal_delta(epsilon, delta)
    one = by_part(make(1.0))
    if all(exact(s) for case in one for s in case):
        mu = max(math.sqrt(squared_mu(case)) for case in one)
        scale = gaussian_noise_multiplier(epsilon, left) * mu
        while claim(make(scale), delta).epsilon > epsilon:
            scale *= 1 + 1e-12
        return scale

    search = _Search(make, epsilon, left, share_of_work(one))
    few = sum(not exact(s) for case in one for s in case) <= FEW
    scale = search.solve(lambda case: rdp_epsilon(case, left)[0], epsilon, 1.0, 0.02) * 0.95 if few else 1.0
    for interval in SPACINGS if few else ():
        if search.worst(scale, search.on(interval)) < 1.2 * epsilon:
            scale, found = search.by_pld(scale, interval)
            if found and claim(make(scale), delta).epsilon <= epsilon:
                return scale
            break
    else:
        least = renyi.least_delta(epsilon)
        if left < least:
            raise BudgetExceeded(
                f"delta = {delta:g}: the smallest delta that can be certified for this plan at epsilon = {epsilon:g} "
                f"is {least:g}; choose a larger delta or epsilon"
            )
        scale = search.solve(search.by_rdp, epsilon * (1 - 1e-4), scale, 1e-4)
    step = 1e-4
    while claim(make(scale), delta).epsilon > epsilon:
        scale *= 1 + step
        step *= 2
    return scale


class _Search:
    """What the steps of one calibration share."""

    def __init__(self, make: Callable[[float], Sequence[Spent]], epsilon: float, delta: float, most: float):
        self._make, self._epsilon, self._delta, self._most = make, epsilon, delta, most

    def worst(self, scale: float, how: Epsilon) -> float:
        return max(how(case) for case in by_part(self._make(scale)))

    def solve(self, how: Epsilon, target: float, scale: float, tol: float) -> float:
        """Secant steps in logarithms, where epsilon is nearly a power of the scale, until within tol of the target."""
        slope, last = -1.5, None
        for _ in range(60):
            gap = math.log(max(self.worst(scale, how), 1e-300) / target)
            if abs(gap) < tol:
                break
            if last and last[1] != gap:
                slope = min(-0.5, max(-20.0, (gap - last[1]) / (math.log(scale) - last[0])))
            last = (math.log(scale), gap)
            scale *= math.exp(max(-1.0, min(1.0, -gap / slope)))
        return scale

    def on(self, interval: float, share: float = 1 / SEARCHED) -> Epsilon:
        """epsilon by PLD on one grid, infinite where that is more than a share of the work or certifies nothing."""

        def epsilon(case: Sequence[Spent]) -> float:
            try:
                got, error, _ = pld.at(tuple(merge(case)), self._delta, interval, self._most * share)
            except pld.TooLarge:
                return math.inf
            return got if error <= pld.SHARE * self._delta else math.inf

        return epsilon

    def by_rdp(self, case: Sequence[Spent]) -> float:
        """epsilon by our own implementation of RDP; the claim asks the other one too."""
        curves = [[s.steps * r for r in of(s).second(s, renyi.ORDERS)] for s in merge(case)]
        curve = [sum(at) for at in zip(*curves, strict=True)]
        return renyi.epsilon(renyi.ORDERS, curve, self._delta)

    def by_pld(self, scale: float, interval: float) -> tuple[float, bool]:
        """The scale, and whether epsilon by the claim's own grid is confirmed to be the target.

        A coarse grid is ten times cheaper, and epsilon on it nearly a constant times the claim: solve on it, and mend
        the constant. The first constant is a guess from two grids, whose error falls with the square of the spacing.
        """
        coarse = self.on(interval)
        scale = self.solve(coarse, self._epsilon, scale, 0.01)
        two = self.worst(scale, coarse), self.worst(scale, self.on(interval / 4, 1.0))
        claimed = two[1] - (two[0] - two[1]) / 15 if math.isfinite(two[1]) else two[0]
        for _ in range(6):
            target = self._epsilon * (1 - 1e-4) * self.worst(scale, coarse) / max(claimed, 1e-12)
            scale = self.solve(coarse, target, scale, 2e-5)
            claimed = self.worst(scale, lambda case: case_claim(case, self._delta, self._most).epsilon)
            if self._epsilon * (1 - 3e-4) <= claimed <= self._epsilon:
                return scale, True
        return scale, False
