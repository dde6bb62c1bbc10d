"""K hidden models answer one after the other, in a public order, and keep what they learned.

Nothing is secret about who answers, so nothing is amplified; but a unit lies in one shard, and meets one answer in K,
however long its model lives. Whole passes over all shards only: then the answers that a unit meets add up, over blocks
of a ledger and over releases. Each is a Gaussian of sensitivity 2 C sqrt(B), as in `secret_shards`.
"""

from __future__ import annotations

from typing import Any

from veilset.privacy import renyi
from veilset.privacy.mechanisms.base import Known, Line
from veilset.privacy.mechanisms.sampled_gaussian import SampledGaussian
from veilset.privacy.mechanisms.secret_shards import Answers, answered
from veilset.privacy.spent import Spent

NAME = "round-robin"
GAUSSIAN = SampledGaussian()


def round_robin(noise_multiplier: float, parts: int, steps: int, rows: int = 1, columns: int = 1) -> Spent:
    """`answered` where the shards answer in turn."""
    return answered(NAME, noise_multiplier, parts, steps, rows, columns)


class RoundRobin(Answers):
    """Answers of hidden models with state, in a public order."""

    name, label = NAME, "Gaussian on the answer of the next hidden model"
    demands = " (and the rate is 1 / shards, and steps are whole passes over all shards)"
    state = True
    known = (
        Known("every shard once", (round_robin(0.499888619709, 100, 100),), 1e-5, 10.0),
        Known("every shard ten times", (round_robin(5.0, 20, 200),), 1e-5, 2.594383),
    )

    def fits(self, line: Line) -> bool:
        """Whole passes."""
        return super().fits(line) and line.steps % self.block(line) == 0

    def block(self, line: Line) -> int:
        """A whole pass."""
        return int(dict(line.facts)["shards"])

    def _met(self, s: Spent) -> Spent:
        """The answers that one unit meets."""
        return Spent(s.noise_multiplier, 1.0, s.steps // dict(s.facts)["shards"])

    def squared_mu(self, s: Spent) -> float | None:
        """Exact."""
        return GAUSSIAN.squared_mu(self._met(s))

    def divergence(self, s: Spent, orders: Any) -> Any:
        """Of the Gaussians that a unit meets."""
        return GAUSSIAN.divergence(self._met(s), orders)

    def second(self, s: Spent, orders: Any) -> Any:
        """Of one answer, by other code."""
        return [renyi.divergence(s.noise_multiplier, 1.0, a) for a in orders]

    def span(self, s: Spent) -> tuple[float, float]:
        """Of one answer."""
        return GAUSSIAN.span(Spent(s.noise_multiplier))

    def loss(self, s: Spent, spacing: float) -> Any:
        """Of one answer; not asked for, since lines are exact."""
        return GAUSSIAN.loss(Spent(s.noise_multiplier), spacing)

    def sentence(self, line: Line) -> str:
        """What is clipped, and how often a unit is met."""
        facts = dict(line.facts)
        return (
            f"A matrix of {facts['rows']} rows by one hidden model of {facts['shards']}, in turn, each made from units "
            "that the others never see. One unit moves every row of its own model's answers from one side of its bound "
            "to the other at most; the noise has a standard deviation of noise multiplier × 2 × bound × √rows."
        )
