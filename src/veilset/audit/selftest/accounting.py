"""The accountants against figures that other libraries, papers and closed forms give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from veilset.audit.selftest.base import Check, facts, nobody, refused, wrong
from veilset.core.errors import BudgetExceeded, ConfigError
from veilset.privacy.accounting import Spent, claim
from veilset.privacy.gate import Gate
from veilset.privacy.mechanisms import MECHANISMS
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

SHORT, LONG = 2e-4, 2e-3  # relative: epsilon may fall short of a vector by its own rounding, or be so much too large


def vectors() -> Iterator[Check]:
    """Claimed epsilon against the known figures of every mechanism; one wrong step in a thousand shows."""
    short = long = rdp = 0.0
    vectors = [known for mechanism in MECHANISMS.values() for known in mechanism.known]
    for v in vectors:
        got = claim(v.spent, v.delta)
        short, long = max(short, 1 - got.epsilon / v.epsilon), max(long, got.epsilon / v.epsilon - 1)
        rdp = max(rdp, 1 - got.epsilon_rdp / v.epsilon)
    told = f"largest relative shortfall of {len(vectors)} vectors"
    yield Check("epsilon is not below known figures", short, SHORT, told)
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
