"""The mechanism audit of every verb of the gate, with few draws: what an attacker sees against what is claimed."""

from __future__ import annotations

from collections.abc import Iterator

from veilset.audit.mechanism.audit import audit, verbs
from veilset.audit.selftest.base import ALARM, Check
from veilset.audit.verdict import FAMILY_ERROR

EPSILON, DRAWS = 10.0, 250  # a large claim shows halved noise in few draws
SHARE = round(FAMILY_ERROR * 10**ALARM)  # so many checks share the audit's error: each fails sound code at 10^-ALARM


def worst_case_neighbours() -> Iterator[Check]:
    """One check per verb; `veilset audit` takes more draws, and shows the bounds."""
    for verb in verbs():
        got = audit(verb, epsilon=EPSILON, draws=DRAWS, checks=SHARE)
        said = got.findings[0] if got.findings else f"lower bound {got.lower_bound:.2f} of a claim of {got.claim:.2f}"
        about = f"what no mechanism with this claim shows in {DRAWS} draws; {said}"
        yield Check(f"audit of {verb}", float(len(got.findings)), 0.0, about)


CHECKS = (worst_case_neighbours,)
