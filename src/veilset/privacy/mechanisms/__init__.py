"""The mechanisms by name: one class each, in a file of its own. How to add one: docs/architecture.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from veilset.core.errors import PlanError
from veilset.privacy.mechanisms.base import Line, Mechanism
from veilset.privacy.mechanisms.round_robin import RoundRobin
from veilset.privacy.mechanisms.sampled_gaussian import SampledGaussian
from veilset.privacy.mechanisms.secret_shards import SecretShards
from veilset.privacy.mechanisms.teacher_votes import TeacherVotes
from veilset.privacy.mechanisms.whole_batch import WholeBatch
from veilset.privacy.spent import Spent

ALL = (SampledGaussian(), SecretShards(), RoundRobin(), TeacherVotes(), WholeBatch())
MECHANISMS: dict[str, Mechanism] = {m.name: m for m in ALL}


def of(line: Line) -> Mechanism:
    """The mechanism of a release or of a line of the accountant, whose facts are its own.

    Raises:
        PlanError: unknown, or with facts that it does not have: what it costs cannot be said.
    """
    found = _named(line.mechanism)
    if not found.fits(line):
        own = ", ".join(found.rules) or "none"
        raise PlanError(
            f"mechanism {found.name!r} with facts {str(dict(line.facts))[:80]} at rate {str(line.sample_rate)[:20]}: "
            f"not allowed; it states {own}{found.demands}, see veilset.privacy.mechanisms"
        )
    return found


def read(body: Mapping[str, Any]) -> Spent:
    """The accountant's line of a charge in a ledger, which a stranger may have written.

    Raises:
        PlanError, LedgerError, ConfigError: it says nothing that a claim can be made of.
    """
    spent = _named(body.get("mechanism")).read(body)
    of(spent)
    return spent


def _named(name: object) -> Mechanism:
    found = MECHANISMS.get(name) if isinstance(name, str) else None
    if found is None:
        known = ", ".join(MECHANISMS)
        raise PlanError(
            f"mechanism = {str(name)[:40]!r}: not known to this version, so no claim is made for it (known: {known}); "
            "use the version that wrote it"
        )
    return found
