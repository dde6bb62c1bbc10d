"""The accountants against figures that other libraries, papers and closed forms give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from veilset.audit.selftest.base import Check, facts, nobody, refused, wrong
from veilset.core.errors import BudgetExceeded, ConfigError
from veilset.privacy.accounting import Spent, claim
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

# (what, what was spent, delta, epsilon). Poisson-sampled ones: PLD on a grid of 1e-4, which is at most so much too
# large, so the truth lies a little lower; two libraries agree on them. Unsampled ones are exact.
VECTORS: tuple[tuple[str, tuple[Spent, ...], float, float], ...] = (
    ("one Gaussian", (Spent(3.730631634816),), 1e-5, 1.0),
    ("one Gaussian at epsilon 10", (Spent(0.499888619709),), 1e-5, 10.0),
    ("one Gaussian at delta 1e-6", (Spent(4.224678889327),), 1e-6, 1.0),
    ("ten Gaussians", (Spent(5.0, 1.0, 10),), 1e-5, 2.594383),
    ("a mix of Gaussians", (Spent(5.0, 1.0, 4), Spent(5.0, 1.0, 6)), 1e-5, 2.594383),
    ("a training run", (Spent(1.0, 0.01, 1000),), 1e-5, 1.828244),
    ("the same in blocks", tuple(Spent(1.0, 0.01, 100) for _ in range(10)), 1e-5, 1.828244),
    ("large batches", (Spent(2.0, 0.25, 200),), 1e-5, 9.556777),
    ("little noise", (Spent(0.5, 0.01, 500),), 1e-5, 10.283014),
    ("a histogram and a run", (Spent(20.0), Spent(1.0, 0.01, 1000)), 1e-5, 1.838695),
    ("a partition and a sum", (Spent(5.0, 1.0, 4), *(Spent(5.0, 1.0, 6, k) for k in range(3))), 1e-5, 2.594383),
)  # fmt: skip
SHORT, LONG = 2e-4, 2e-3  # relative: epsilon may fall short of a vector by its own rounding, or be so much too large


def vectors() -> Iterator[Check]:
    """Claimed epsilon against known figures; at these tolerances one wrong step in a thousand shows."""
    short = long = rdp = 0.0
    for _, spent, delta, known in VECTORS:
        got = claim(spent, delta)
        short, long = max(short, 1 - got.epsilon / known), max(long, got.epsilon / known - 1)
        rdp = max(rdp, 1 - got.epsilon_rdp / known)
    yield Check("epsilon is not below known figures", short, SHORT, "largest relative shortfall of 11 vectors")
    yield Check("epsilon is not far above known figures", long, LONG, "largest relative excess")
    yield Check("RDP is not below PLD", rdp, SHORT, "largest relative shortfall of the second accountant")


def calibration() -> Iterator[Check]:
    """Noise of a priced plan against known figures, and that no price passes its budget."""
    info = facts(units=60_000, classes=("a", "b"))
    cases = (
        ((Release(name="r"),), Privacy(1.0, 1e-5), 3.730631634816),
        ((Release(name="r"),), Privacy(10.0, 1e-5), 0.499888619709),
        ((Release(name="r", steps=4),), Privacy(1.0, 1e-5), 2 * 3.730631634816),
        ((Release(name="r", partition="class"),), Privacy(1.0, 1e-6), 4.224678889327),
        ((Release(name="r", verb="grad", sample_rate=0.01, steps=1000),), Privacy(1.0, 1e-5), 1.41463),
    )
    short = over = 0.0
    for releases, privacy, known in cases:
        plan = Plan(releases).price(privacy, info)
        short = max(short, 1 - plan.releases[0].noise_multiplier / known)
        over = max(over, plan.claim().epsilon / privacy.epsilon - 1)
    yield Check("noise is not below known figures", short, SHORT, "largest relative shortfall of 5 prices")
    yield Check("no price passes its budget", over, 1e-9, "largest relative excess of epsilon")


def refusals() -> Iterator[Check]:
    """What may not be certified is not."""
    yield wrong(
        "what may not be certified is refused",
        "budgets that are accepted though they must not be",
        of={
            "no noise has no finite epsilon": math.isinf(claim([Spent(0.0)], 1e-5).epsilon),
            "nothing spent costs nothing": claim([], 1e-5).epsilon == 0,
            "delta above 1/N": refused(lambda: Privacy(1.0, 0.1).check_units(50), ConfigError),
            "delta = 0": refused(lambda: Privacy(1.0, 0.0), ConfigError),
            "negative epsilon": refused(lambda: Privacy(-1.0), ConfigError),
            "no steps": refused(lambda: Release(name="r", steps=0), Exception),
            "a plan that was edited": refused(_edited, BudgetExceeded),
        },
    )


CHECKS = (vectors, calibration, refusals)


def _edited() -> None:
    """A priced plan with less noise than its price."""
    plan = Plan((Release(name="r"),)).price(Privacy(1.0), facts())
    less = replace(plan.releases[0], noise_multiplier=plan.releases[0].noise_multiplier / 2)
    Gate(nobody(facts()), replace(plan, releases=(less,)))
