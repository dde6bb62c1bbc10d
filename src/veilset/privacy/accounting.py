"""epsilon from releases: exact for Gaussians without sampling, privacy-loss distributions (PLD) else; RDP checks.

Where the arithmetic of PLD may be off by more than delta / 100, or its grid would be too large, RDP makes the claim,
which says so. What is done follows from the releases and delta alone, never from how fast a machine is.

All figures hold for adding or removing one unit. Noise multipliers are noise standard deviation / L2 sensitivity.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from veilset.core.errors import BudgetExceeded
from veilset.privacy import pld, renyi
from veilset.privacy.dp_library import repeat_and_select
from veilset.privacy.gaussian import gaussian_delta as gaussian_delta  # handed on: this module is the accountant's face
from veilset.privacy.gaussian import gaussian_epsilon as gaussian_epsilon
from veilset.privacy.gaussian import gaussian_noise_multiplier as gaussian_noise_multiplier
from veilset.privacy.mechanisms import of
from veilset.privacy.spent import Cost as Cost
from veilset.privacy.spent import Search as Search
from veilset.privacy.spent import Spent as Spent

LARGEST = 1000.0  # epsilon; above it nothing is planned or claimed
LEAST_DELTA = 1e-300  # below it floating-point numbers lose digits
SLACK = 0.01  # PLD may exceed RDP by this much before we stop believing either
AGREE = 1e-6, 1e-11  # how far two implementations of RDP may differ at one order: relatively, plus this a step
MOST_KINDS, MOST_LINES = 10, 5_000  # different releases in one claim, sampled and all: each takes a moment
SAMPLER_BITS = 2700  # the gate's noise is off from a Gaussian by at most 2^-2700 in total variation, a coordinate
MOST_DRAWS_BITS = 64  # coordinates x steps of a plan are at most 2^64


@dataclass(frozen=True)
class Claim:
    """epsilon at delta by the main accountant, and by RDP as the check."""

    epsilon: float
    epsilon_rdp: float
    accountant: str


def exact(s: Spent) -> bool:
    """Whether a line costs what Gaussians without sampling do, so that no grid is needed."""
    return of(s).squared_mu(s) is not None


def squared_mu(spent: Sequence[Spent]) -> float:
    """mu^2 of the lines that are exact, all together."""
    return sum(mu2 for s in spent if s.steps and (mu2 := of(s).squared_mu(s)) is not None)


def merge(spent: Sequence[Spent]) -> list[Spent]:
    """The same composition in fewer lines: unsampled Gaussians become one, equal sampled ones add their steps."""
    mu2 = squared_mu(spent)
    steps: dict[Spent, int] = defaultdict(int)
    for s in spent:
        if s.steps and s.sample_rate and not exact(s):
            steps[replace(s, steps=1, part=None)] += s.steps
    merged = [Spent(mu2**-0.5)] if mu2 else []
    return merged + [replace(s, steps=t) for s, t in sorted(steps.items(), key=_place)]


def _place(item: tuple[Spent, int]) -> tuple[Any, ...]:
    s = item[0]
    return s.noise_multiplier, s.sample_rate, s.mechanism, repr(s.facts)


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
    """(orders, Renyi divergence at each order) of the composition, as each mechanism states its own."""
    import numpy as np
    from dp_accounting.rdp import rdp_privacy_accountant as library

    given = np.array(library.DEFAULT_RDP_ORDERS if orders is None else orders)
    curve = np.zeros_like(given, dtype=np.float64)
    steps: defaultdict[Spent, int] = defaultdict(int)  # a ledger has many lines of one kind
    for s in spent:
        steps[replace(s, steps=1, part=None)] += s.steps
    with _without_warnings():  # an order whose series does not converge is left out, which can only raise epsilon
        for s, count in steps.items():
            if count and s.sample_rate:
                line = replace(s, steps=count)
                curve += of(line).divergence(line, given)
    return given, curve


def rdp_epsilon(spent: Sequence[Spent], delta: float) -> tuple[float, int]:
    """(epsilon by RDP with the tight conversion, index of the best order)."""
    import numpy as np
    from dp_accounting import rdp

    orders, curve = rdp_curve(spent)
    if not np.any(curve):
        return 0.0, 0
    with _without_warnings():  # of divergences of next to nothing that rounding made negative
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
    whole = repeat_and_select(fine, one, cost.trials)
    return given, whole[np.searchsorted(fine, given)]


def by_part(spent: Sequence[Spent]) -> list[list[Spent]]:
    """The compositions that a unit can meet: what reads everybody, with what reads its own part.

    Raises:
        BudgetExceeded: too many to be told apart.
    """
    common = _blocks([s for s in spent if s.part is None])
    parts: dict[int, list[Spent]] = defaultdict(list)
    for s in spent:
        if s.part is not None:
            parts[s.part].append(s)
    if len(common) * len(parts) > 100 * MOST_LINES:
        raise BudgetExceeded(f"{len(common)} different releases and {len(parts)} parts: too many to certify together")
    # Equal parts cost the same; account once.
    return [list(case) for case in dict.fromkeys((*common, *_blocks(own)) for own in parts.values() or [[]])]


def _blocks(spent: Sequence[Spent]) -> list[Spent]:
    """Lines of one kind as one line, and no part: a ledger has many, a block of steps each.

    Exact ones without facts stay apart, and add up in mu^2; a mechanism with facts may count steps otherwise.
    """
    steps: dict[tuple[Spent, int], int] = defaultdict(int)
    for i, s in enumerate(spent):
        steps[replace(s, steps=1, part=None), i if exact(s) and not s.facts else -1] += s.steps
    return [replace(s, steps=count) for (s, _), count in steps.items()]


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


def renyi_epsilon(merged: Sequence[Spent], delta: float) -> float:
    """epsilon by RDP at integer orders, of two implementations the larger.

    Raises:
        BudgetExceeded: they contradict each other at an order, or epsilon is not finite.
    """
    import numpy as np
    from dp_accounting import rdp

    curves = np.zeros((2, len(renyi.ORDERS)))
    for s in merged:
        both = np.array([of(s).second(s, renyi.ORDERS), rdp_curve([replace(s, steps=1)], renyi.ORDERS)[1]])
        off = ~(np.abs(both[0] - both[1]) <= AGREE[0] * both[0] + AGREE[1])  # NaN is no agreement
        if off.any():
            order, (one, other) = renyi.ORDERS[int(off.argmax())], both[:, off.argmax()]
            raise BudgetExceeded(
                f"the divergence of order {order} is {one} and {other} by two implementations; nothing is certified"
            )
        curves += s.steps * both
    found = renyi.epsilon(renyi.ORDERS, curves[0], delta)
    with _without_warnings():
        found = max(found, float(rdp.compute_epsilon(renyi.ORDERS, curves[1], delta)[0]))
    if not math.isfinite(found):
        raise BudgetExceeded(f"epsilon = {found} by RDP; nothing is certified")
    return found


def case_claim(spent: Sequence[Spent], delta: float, most: float = pld.MOST_WORK) -> Claim:
    """epsilon of one composition of ideal Gaussians, on grids of at most so much work; see `pld`."""
    merged = merge(spent)
    if not merged:
        return Claim(0.0, 0.0, "exact Gaussian")
    check, _ = rdp_epsilon(spent, delta)
    if all(map(exact, merged)):
        epsilon, name = gaussian_epsilon(1 / merged[0].noise_multiplier, delta), "exact Gaussian"
    else:
        unpriced = (math.inf, pld.TOO_LARGE)  # bounded by RDP before a grid is made
        epsilon, why = pld.refined(tuple(merged), delta, most) if check <= LARGEST else unpriced
        name = "PLD"
        if why and math.isfinite(check) and (other := renyi_epsilon(merged, delta)) < epsilon:
            return Claim(other, other, f"RDP ({why})")
    if not (math.isfinite(epsilon) and math.isfinite(check) and epsilon <= check + SLACK):
        raise BudgetExceeded(
            f"epsilon = {epsilon} by {name} but {check} by RDP: they must be finite and agree; nothing is certified"
        )
    return Claim(epsilon, check, name)


def search_claim(search: Search, delta: float) -> Claim:
    """epsilon of a search, by RDP alone.

    Raises:
        BudgetExceeded: it is not finite, or there are too many different releases.
    """
    from dp_accounting import rdp

    share_of_work([case for c in search.candidates for case in by_part(c)], 3 * MOST_KINDS)  # no grids: quicker
    epsilon = float(rdp.compute_epsilon(*cost_curve(search), delta)[0])
    if not math.isfinite(epsilon):
        raise BudgetExceeded(f"epsilon = {epsilon} by RDP for the search; nothing is certified")
    return Claim(epsilon, epsilon, f"RDP of a search, {search.trials} trials in the mean, of which the best is kept")


def sampler_delta(epsilon: float) -> float:
    """What the gate's sampler of noise takes from delta, because it is not an ideal Gaussian; rounded up.

    All draws of a run together are within t = 2^MOST_DRAWS_BITS 2^-SAMPLER_BITS of ideal ones in total variation. So
    P(S) <= P*(S) + t <= exp(epsilon) P*'(S) + delta* + t <= exp(epsilon) (P'(S) + t) + delta* + t, with * for ideal.
    """
    log = max(epsilon, 0.0) + math.log1p(math.exp(-max(epsilon, 0.0))) + (MOST_DRAWS_BITS - SAMPLER_BITS) * math.log(2)
    return math.nextafter(math.exp(min(log + 1e-9, 700.0)), math.inf)


def ideal_delta(epsilon: float, delta: float) -> float:
    """What the sampler leaves of delta for ideal Gaussians.

    Raises:
        BudgetExceeded: delta is too small to be left anything, or the sampler takes more than delta / 1000.
    """
    if not delta >= LEAST_DELTA:
        raise BudgetExceeded(f"delta = {delta:g}: the smallest delta that can be certified is {LEAST_DELTA:g}")
    taken = sampler_delta(epsilon * (1 + 1e-6) + 1e-9)  # a little more, so that `claim` can end
    if taken > delta / 1000:
        raise BudgetExceeded(
            f"delta = {delta:g}: at epsilon = {epsilon:g} the sampler of noise, off by 2^-{SAMPLER_BITS} a draw, takes "
            f"{taken:.2g} of it, and may take a thousandth; choose a larger delta or a smaller epsilon"
        )
    return delta - taken


def claim(spent: Cost, delta: float) -> Claim:
    """epsilon of everything that was spent; parallel over the parts of the class partition.

    Raises:
        BudgetExceeded: the accountants contradict each other, one is not finite, epsilon is above LARGEST, delta below
            what can be certified, or there are too many different releases.
    """
    if not isinstance(spent, Search) and any(s.steps and s.sample_rate and s.noise_multiplier == 0 for s in spent):
        return Claim(math.inf, math.inf, "none: a release had no noise")
    ideal_delta(0.0, delta)
    got, left = _ideal_claim(spent, delta), delta
    while delta - sampler_delta(got.epsilon) < left:  # what the sampler takes depends on epsilon
        left = ideal_delta(got.epsilon, delta)
        got = _ideal_claim(spent, left)
    return got


def _ideal_claim(spent: Cost, delta: float) -> Claim:
    if isinstance(spent, Search):
        got = search_claim(spent, delta)
    else:
        got = Claim(0.0, 0.0, "exact Gaussian")
        cases = by_part(spent)
        most = share_of_work(cases)
        for case in cases:
            one = case_claim(case, delta, most)
            got = one if one.epsilon >= got.epsilon else got
    if got.epsilon > LARGEST:
        raise BudgetExceeded(f"epsilon = {got.epsilon:g} by {got.accountant}: above {LARGEST:g} nothing is claimed")
    return got


def share_of_work(cases: Sequence[Sequence[Spent]], kinds: int = MOST_KINDS) -> float:
    """The work that one case may cause, of all that a unit can meet, so that one claim takes seconds.

    Raises:
        BudgetExceeded: there are too many different releases, or more sampled ones than `kinds`.
    """
    lines, sampled = sum(len(set(case)) for case in cases), [sum(not exact(s) for s in case) for case in cases]
    if lines > MOST_LINES or sum(sampled) > kinds:
        raise BudgetExceeded(
            f"{lines} different releases, {sum(sampled)} of them sampled: at most {MOST_LINES} and {kinds} are "
            "certified together"
        )
    return pld.MOST_WORK / max(1, sum(map(bool, sampled)))


def true_positive_rate(spent: Sequence[Spent], fpr: float) -> float:
    """Largest share of members that any attacker finds while a share `fpr` of non-members raises false alarms.

    Exact for Gaussians without sampling; otherwise the envelope min over epsilon of exp(epsilon) fpr + delta(epsilon).
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    worst = fpr
    for case in by_part(spent):
        if any(s.noise_multiplier <= 0 for s in case):
            return 1.0
        merged = merge(case)
        if not merged:
            continue
        if all(map(exact, merged)):
            worst = max(worst, float(ndtr(ndtri(fpr) + 1 / merged[0].noise_multiplier)))
            continue
        try:
            loss = pld.grid(merged, pld.COARSE).loss
        except pld.TooLarge:
            return 1.0
        grid = np.linspace(0.0, -np.log(fpr), 200)
        worst = max(worst, min(1.0, min(float(np.exp(e) * fpr + loss.get_delta_for_epsilon(e)) for e in grid)))
    return worst
