"""Attacks on our own claims: each gives a lower bound on epsilon, to stand beside the accountant's upper bound.

Calling this package makes them: `veilset.audit(target, levels, effort)` is `veilset.audit.ladder.climb`.
"""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.audit.ladder", "climb")
