"""One of K hidden models, drawn by a secret coin at each step, answers with a matrix, and is thrown away.

Each of its B rows is clipped to the bound C. A unit lies in one shard, and may change that shard's model in any way, so
every row may move by 2 C: sensitivity 2 C sqrt(B), whether units are added, removed or replaced. What the secret draw
saves, and why nothing may be kept between steps: `veilset.privacy.shards` and docs/secret-shards.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from veilset.privacy import shards
from veilset.privacy.mechanisms.base import Known, Line, Mechanism
from veilset.privacy.spent import Spent

NAME = "secret-shards"
MOST = 2**20  # shards, rows, columns


def count(value: Any) -> bool:
    """Whether a fact is a number of shards, rows or columns."""
    return type(value) is int and 1 <= value <= MOST


def answered(name: str, noise_multiplier: float, parts: int, steps: int, rows: int, columns: int) -> Spent:
    """The accountant's line of `steps` answers by one of `parts` shards each; noise multiplier of a whole answer."""
    facts = (("columns", columns), ("rows", rows), ("shards", parts))
    return Spent(noise_multiplier, 1 / parts, steps, None, name, facts)


def secret_shards(noise_multiplier: float, parts: int, steps: int, rows: int = 1, columns: int = 1) -> Spent:
    """`answered` where a secret coin draws the shard."""
    return answered(NAME, noise_multiplier, parts, steps, rows, columns)


class Answers(Mechanism):
    """What mechanisms have in common by which a hidden model of one of K shards answers with B rows."""

    verbs = ("pull",)
    rules = {"shards": count, "rows": count, "columns": count}

    def fits(self, line: Line) -> bool:
        """The rate is one of K."""
        return super().fits(line) and line.sample_rate == 1 / dict(line.facts)["shards"]

    def factor(self, line: Line) -> float:
        """All rows may change, from one side of their balls to the other."""
        return 2 * math.sqrt(dict(line.facts)["rows"])


class SecretShards(Answers):
    """Answers of hidden models without state, drawn in secret."""

    name, label = NAME, "Gaussian on the answer of one hidden model of many, drawn in secret"
    demands = " (and the rate is 1 / shards)"
    symmetric = True
    # One step solves q G(e') = delta; runs lie between two grids of 2e-5 that round all losses up, and down.
    known = (
        Known("one secret draw of ten", (secret_shards(0.5, 10, 1),), 1e-5, 6.575539806),
        Known("one shard, ten answers of four rows", (secret_shards(5.0, 1, 10, rows=4),), 1e-5, 2.594383),
        Known("250 shards, 3000 steps of eight rows", (secret_shards(0.513, 250, 3000, rows=8),), 1e-5, 10.018457),
        Known("100 shards, 1000 steps", (secret_shards(1.588, 100, 1000),), 1e-5, 0.999626),
    )

    def squared_mu(self, s: Spent) -> float | None:
        """With one shard nothing is drawn."""
        return s.steps / s.noise_multiplier**2 if s.sample_rate == 1 else None

    def divergence(self, s: Spent, orders: Any) -> Any:
        """The smaller of two bounds: sampling without replacement, at the next integer order, and the choices told.

        A Renyi divergence does not fall as the order rises, so that of a larger order bounds it.
        """
        import numpy as np

        noise, rate = s.noise_multiplier, s.sample_rate
        return s.steps * np.array(
            [min(shards.divergence(noise, rate, max(2, math.ceil(a))), shards.told(noise, rate, a)) for a in orders]
        )

    def second(self, s: Spent, orders: Sequence[int]) -> Any:
        """The same two theorems term by term."""
        return [_second(s.noise_multiplier, s.sample_rate, a) for a in orders]

    def span(self, s: Spent) -> tuple[float, float]:
        """To ten deviations."""
        edge = shards.edge(s.noise_multiplier, s.sample_rate)
        return -edge, edge

    def loss(self, s: Spent, spacing: float) -> Any:
        """The symmetrised curve; see `shards`."""
        return shards.step(s.noise_multiplier, s.sample_rate, spacing)

    def ulps(self, s: Spent, spacing: float) -> float:
        """A delta at a loss is made of one at a larger loss, that of the Gaussian before it was amplified."""
        edge = shards.edge(s.noise_multiplier, s.sample_rate)
        return 8 * float(shards.inner(edge + spacing, s.sample_rate)) + 40

    def sentence(self, line: Line) -> str:
        """What is clipped, and what is secret."""
        facts = dict(line.facts)
        return (
            f"A matrix of {facts['rows']} rows by one hidden model of {facts['shards']}, each made from units that the "
            "others never see. A secret coin draws it at each step, and afterwards it is thrown away. One unit moves "
            "every row from one side of its bound to the other at most; the noise has a standard deviation of noise "
            "multiplier × 2 × bound × √rows."
        )


def _second(noise: float, rate: float, order: int) -> float:
    def log_term(j: int) -> float:
        r = j / (2 * noise**2)
        grows = (j - 1) * r
        if j == 2:
            grows += min(math.log(4) + math.log(-math.expm1(-r)), math.log(2))
        else:
            grows += math.log(2)
        return grows + math.log(math.comb(order, j)) + j * math.log(rate)

    logs = [0.0, *(log_term(j) for j in range(2, order + 1))]
    top = max(logs)
    drawn = (top + math.log(math.fsum(math.exp(x - top) for x in logs))) / (order - 1)
    if top == 0:  # next to 1: the excess over it, without cancellation
        drawn = math.log1p(math.fsum(math.exp(x) for x in logs[1:])) / (order - 1)
    whole = (order - 1) * order / (2 * noise**2)
    open_ = math.log1p(rate * math.expm1(whole)) if whole < 500 else whole + math.log(rate)
    return min(drawn, open_ / (order - 1))
