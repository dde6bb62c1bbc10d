"""Attacks on our own claims: each gives a lower bound on epsilon, to stand beside the accountant's upper bound.

Calling this package makes them: `veilset.audit(target, levels, effort)` is `veilset.audit.ladder.climb`.

Examples:
    >>> from veilset.audit.ladder import Effort, Target
    >>> found = vs.audit(Target(epsilon=1.0, delta=1e-5), ["images"], Effort(trainings=40, seed=0))
    >>> found.checks[0].verdict.partition(":")[0]  # 8,000 trainings would tell
    'SAYS NOTHING'
"""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.audit.ladder", "climb")
