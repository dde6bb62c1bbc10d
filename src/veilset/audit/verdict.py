"""What an audit found, in words that cannot be misread: only a large lower bound says something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95  # of the printed bound
FAMILY_ERROR = 1e-4  # probability that a sound installation fails any check of one audit


@dataclass(frozen=True, kw_only=True)
class Check:
    """One attack on one claim.

    Attributes:
        name: what was attacked.
        threat_model: what the attacker knows, chooses and sees.
        claim: epsilon that the accountant claims for what was attacked.
        delta: of claim and bound.
        lower_bound: on epsilon, at 95 %, with a question fixed in advance; None if it cannot be given.
        draws: independent repetitions with the record, and as many without; canaries, if there was one run.
        findings: what a sound mechanism would not have shown; one line each.
        enough: whether these draws could have shown a fault at all.
        method: how counts became the bound.
        details: further figures, for machines.
    """

    name: str
    threat_model: str
    claim: float
    delta: float
    lower_bound: float
    draws: int
    findings: tuple[str, ...] = ()
    enough: bool = True
    method: str = ""
    details: tuple[tuple[str, Any], ...] = ()

    @property
    def ok(self) -> bool | None:
        """False: a fault was shown. None: these draws could not have shown one. True: they could, and did not."""
        if self.findings:
            return False
        return True if self.enough else None

    @property
    def verdict(self) -> str:
        """One line."""
        if self.findings:
            return f"FAULT: {self.findings[0]}"
        if not self.enough:
            return f"SAYS NOTHING: {self.draws} draws are too few to show a fault at epsilon = {self.claim:.3g}"
        if self.lower_bound > self.claim:
            return "no fault shown; the bound passes the claim, which 1 sound audit in 20 does: repeat with more draws"
        return "no fault shown; that this bound is small is no evidence of privacy"

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset audit --json`."""
        return {
            "name": self.name,
            "claim": self.claim,
            "lower_bound": self.lower_bound,
            "confidence": CONFIDENCE,
            "delta": self.delta,
            "threat_model": self.threat_model,
            "draws": self.draws,
            "method": self.method,
            "ok": self.ok,
            "verdict": self.verdict,
            "findings": list(self.findings),
            **dict(self.details),
        }


@dataclass(frozen=True)
class Audit:
    """All checks of one audit. Together they fail sound software with probability of at most 1e-4."""

    checks: Sequence[Check]

    @property
    def ok(self) -> bool | None:
        """False if any check shows a fault; None if any could not have shown one; else True."""
        found = [check.ok for check in self.checks]
        return False if False in found else None if None in found else True

    @property
    def worst(self) -> Check:
        """The check to show if only one is: a fault, else the bound that comes nearest to its claim."""
        return max(self.checks, key=lambda c: (c.ok is False, c.lower_bound / c.claim))

    def to_json(self) -> dict[str, Any]:
        """The worst check's keys, and all "checks"."""
        worst = self.worst.to_json()
        keys = ("claim", "lower_bound", "confidence", "threat_model", "verdict")
        facts = {key: worst[key] for key in keys} | {"ok": self.ok, "family_error": FAMILY_ERROR}
        return facts | {"checks": [check.to_json() for check in self.checks]}

    def __str__(self) -> str:
        lines = [f"{'check':<18}{'claim':>8}{'at least':>10}{'draws':>8}  verdict"]
        for c in self.checks:
            lines.append(f"{c.name:<18}{c.claim:>8.3g}{c.lower_bound:>10.2f}{c.draws:>8}  {c.verdict}")
        silent = sum(c.ok is None for c in self.checks)
        models = dict.fromkeys(c.threat_model for c in self.checks)
        words = {
            True: "NO FAULT SHOWN. An audit can show that a claim is wrong, never that it is right.",
            False: "FAULT. At least one claim is wrong, or this installation is.",
            None: f"{silent} OF {len(self.checks)} CHECKS SAY NOTHING: too few draws to show a fault. Take more.",
        }
        return "\n".join(
            [*lines, "", "'at least': lower bound on epsilon with 95 % confidence, the question fixed in advance.",
             *(f"Threat model: {m}" for m in models), words[self.ok]]
        )  # fmt: skip
