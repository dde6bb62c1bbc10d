"""K hidden models answer one after the other, in a public order, and keep what they learned.

Nothing is secret about who answers, so nothing is amplified; but a unit lies in one shard, and meets one answer in K,
however long its model lives. Whole passes over all shards only: then the answers that a unit meets add up, over blocks
of a ledger and over releases. Each is a Gaussian of sensitivity 2 C sqrt(B), as in `secret_shards`.
"""

from __future__ import annotations

from veilset.privacy.mechanisms.base import Known, Line
from veilset.privacy.mechanisms.sampled_gaussian import Gaussians
from veilset.privacy.mechanisms.secret_shards import Answers, answered
from veilset.privacy.spent import Spent

NAME = "round-robin"


def round_robin(noise_multiplier: float, parts: int, steps: int, rows: int = 1, columns: int = 1) -> Spent:
    """`answered` where the shards answer in turn."""
    return answered(NAME, noise_multiplier, parts, steps, rows, columns)


class RoundRobin(Answers, Gaussians):
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

    def met(self, s: Spent) -> int:
        """The answers by the shard that the unit is in."""
        return s.steps // int(dict(s.facts)["shards"])

    def sentence(self, line: Line) -> str:
        """What is clipped, and how often a unit is met."""
        facts = dict(line.facts)
        return (
            f"A matrix of {facts['rows']} rows by one hidden model of {facts['shards']}, in turn, each made from units "
            "that the others never see. One unit moves every row of its own model's answers from one side of its bound "
            "to the other at most; the noise has a standard deviation of noise multiplier × 2 × bound × √rows."
        )
