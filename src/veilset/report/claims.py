"""The claim from all sides: both accountants above, attacks below, and what it means for one person."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, VeilsetError
from veilset.core.io import read_json

if TYPE_CHECKING:
    from veilset.report.evidence import Evidence

PRIORS = (0.001, 0.01, 0.1, 0.5)  # beliefs before the release, of the risk sheet
GROUPS = (2, 5)
SLACK = 1.1  # odds may grow by this times exp(epsilon), except with probability delta / (1 - 1 / SLACK)
NEARLY = 1e-3  # relative difference below which an audit is taken to be of this claim


@dataclass(frozen=True)
class AuditRow:
    """One attack of an audit.

    Attributes:
        name: what was attacked.
        claim: epsilon that was claimed for it.
        lower_bound: on epsilon; None where none can be given.
        ok: True, no fault shown; False, a fault; None, it could not have shown one.
        threat_model, verdict: words of the audit.
        own: it was of the very claim of this page; another plan's bound says nothing about it.
    """

    name: str
    claim: float
    lower_bound: float | None
    ok: bool | None
    threat_model: str
    verdict: str
    own: bool


@dataclass(frozen=True)
class AuditNote:
    """What an audit file says; no rows where there is none, or it cannot be shown (then `fault` says why).

    `covered`: a receipt covers it; otherwise it was made by whoever made the page.
    """

    rows: tuple[AuditRow, ...] = ()
    confidence: float = 0.95
    fault: str = ""
    covered: bool = False

    @property
    def ok(self) -> bool | None:
        """False if any attack showed a fault; None if none could have."""
        if any(r.ok is False for r in self.rows):
            return False
        return True if any(r.ok for r in self.rows) else None

    @property
    def best(self) -> AuditRow | None:
        """The largest lower bound on the claim of the page."""
        return max(self._bounds, key=lambda r: r.lower_bound or 0.0, default=None)

    @property
    def together(self) -> float:
        """Confidence in the largest bound: each bound holds with `confidence`, and that the largest does needs all."""
        return max(0.0, 1 - max(1, len(self._bounds)) * (1 - self.confidence))

    @property
    def sure(self) -> str:
        """The same in words."""
        many, words = len(self._bounds), f"{100 * self.together:.0f} % confidence"
        return words if many < 2 else f"{words}, as the largest of {many} of {100 * self.confidence:.0f} % each"

    @property
    def _bounds(self) -> list[AuditRow]:
        return [r for r in self.rows if r.own and r.lower_bound is not None]


def find_audit(folder: Path, file: str | Path | None) -> Path | None:
    """The named audit file, or the one kept with a run, covered by a release, or lying beside it; None if none does."""
    if file is not None:
        return Path(file)
    near = (
        folder / "private" / "audit.json",
        folder / "audit.json",
        folder.with_name(f"{folder.name}-audit.json"),
    )
    return next((path for path in near if path.is_file()), None)


def read_audit(
    path: Path | None, epsilon: float | None, delta: float | None, folder: Path, facts: Mapping[str, Any]
) -> AuditNote:
    """What `veilset audit RUN` wrote. A damaged file, or one of another release, is told on the page and is no audit.

    Args:
        path: the file, or None.
        epsilon, delta: the claim of this page.
        folder, facts: the release and its receipt. The receipt covers an audit that lies in the folder; any other must
            name the hash of the release's list of files.
    """
    if path is None:
        return AuditNote()
    covered = path == folder / "audit.json"
    try:
        raw = read_json(path.parent.resolve() / path.name)
        if not covered and raw.get("files_sha256") != facts.get("files_sha256"):
            return AuditNote(fault=f"{path.name} does not name the list of files of this release (files_sha256)")
        found = raw.get("checks") or [raw]
        rows = tuple(_row(one, epsilon, delta) for one in found)
        confidence = float(raw.get("confidence", 0.95))
        if not 0 < confidence < 1:
            raise ValueError(f"confidence {confidence}")
        return AuditNote(rows, confidence, covered=covered)
    except VeilsetError:
        return AuditNote(fault=f"{path.name} is not valid JSON or cannot be read")
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, OSError) as e:
        return AuditNote(fault=f"{path.name} is not what `veilset audit --json` prints ({type(e).__name__})")


def _row(one: dict[str, Any], epsilon: float | None, delta: float | None) -> AuditRow:
    claim, ok = float(one["claim"]), one["ok"]
    bound = None if one["lower_bound"] is None else float(one["lower_bound"])
    if ok not in (True, False, None) or not math.isfinite(claim) or (bound is not None and not 0 <= bound < math.inf):
        raise ValueError("a value out of range")
    own = epsilon is not None and abs(claim - epsilon) <= NEARLY * epsilon
    own = own and (one.get("delta") is None or delta is None or math.isclose(one["delta"], delta, rel_tol=1e-9))
    threat_model, verdict = str(one.get("threat_model", "")), str(one.get("verdict", ""))
    return AuditRow(str(one.get("name", "release")), claim, bound, ok, threat_model, verdict, own)


# ---------------------------------------------------------------------- for one person


@dataclass(frozen=True)
class Risk:
    """What (epsilon, delta) means for one unit.

    Attributes:
        factor: the odds of any suspicion about one unit grow at most by this ...
        chance: ... except with this probability.
        beliefs: (before, at most afterwards) probabilities of a suspicion.
        groups: (units that belong together, epsilon for all of them).
        outright: units, delta times N: how many a worst case of the same claim could publish, on average.
        none: the factor is so large that it limits nothing.
    """

    factor: float
    chance: float
    beliefs: tuple[tuple[float, float], ...]
    groups: tuple[tuple[int, float], ...]
    outright: float
    none: bool


def risk(epsilon: float, delta: float, units: int) -> Risk:
    """The risk sheet's numbers.

    Let L be the privacy loss of an output and t > epsilon. On A = {L > t} the probability under the neighbouring set is
    below exp(-t) P(A), and P(A) <= exp(epsilon) Q(A) + delta, so P(A) <= delta / (1 - exp(epsilon - t)). With
    exp(t) = SLACK exp(epsilon) the odds grow at most by that, except with probability delta / (1 - 1 / SLACK) (after
    Kasiviswanathan and Smith 2014, Lemma 3.3).
    """
    factor = SLACK * math.exp(min(epsilon, 700.0))
    beliefs = tuple((p, _after(p, factor)) for p in PRIORS)
    chance = min(1.0, delta / (1 - 1 / SLACK))
    groups = tuple((k, k * epsilon) for k in GROUPS)
    return Risk(factor, chance, beliefs, groups, delta * units, factor > 100)


def _after(prior: float, factor: float) -> float:
    """Probability after odds grew by `factor`."""
    odds = prior / (1 - prior) * factor
    return odds / (1 + odds) if math.isfinite(odds) else 1.0


# ---------------------------------------------------------------------- several releases together


def together(found: Sequence[Evidence]) -> tuple[float, float]:
    """(epsilon, delta) of all these releases of one set for somebody who holds all of them, by Renyi composition.

    It holds for plans that were fixed in advance, not for runs that were chosen after looking at others.

    Raises:
        ConfigError: there is none.
    """
    from veilset.privacy.accounting import by_part, rdp_epsilon

    ledgers = [f.ledger for f in found if f.ledger is not None]
    if not ledgers:
        raise ConfigError("runs = []: nothing to add up")
    delta = max(f.result.delta or 0.0 for f in found)
    spent = [line for ledger in ledgers for line in ledger.spent()]
    return max(rdp_epsilon(case, delta)[0] for case in by_part(spent)), delta
