"""Mechanisms of published runs: their constants, and which Gaussian, Poisson or secret choice each comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from veilset.core.errors import ConfigError, suggest
from veilset.privacy.shards import answer_noise

MOST = 2**40  # rows, shards or steps
BOTH = "add/remove or replace-one"


@dataclass(frozen=True)
class Part:
    """What a phase comes to.

    Attributes:
        kind: "gaussian", "poisson" (sampled), "secret" (one of many answers; `privacy.shards`), "laplace" or "none".
        noise: standard deviation, or scale of Laplace, / sensitivity.
        rate: probability that a unit, or its shard, takes part.
        steps: releases.
    """

    kind: str
    noise: float
    rate: float = 1.0
    steps: int = 1


@dataclass(frozen=True)
class Mechanism:
    """One that the command line takes.

    Attributes:
        constants: its constants, all needed.
        relation: which sets it tells apart.
        words: what it is, with the sense of its noise multiplier.
        reason: why such a run costs what it costs.
    """

    constants: tuple[str, ...]
    relation: str
    words: str
    reason: str


ROWS, VOTES = ("noise_multiplier", "rows", "shards", "steps"), ("noise_multiplier", "rows", "steps")
NOISE_OF_VOTES = "noise multiplier: standard deviation of the noise, in votes; rows: answers per step"
PER_QUERY = "Every answer of every step is a release of its own: hidden models vote each time, so nothing is amplified."
MECHANISMS = {
    "gaussian": Mechanism(
        ("noise_multiplier", "steps"), "that of the noise multiplier",
        "a Gaussian on everybody's sum", "Everybody takes part in every step, so nothing is amplified.",
    ),
    "poisson": Mechanism(
        ("noise_multiplier", "sample_rate", "steps"), "add/remove",
        "DP-SGD: a Gaussian on a sum over a Poisson sample", "This is what Poisson sampling and all steps come to.",
    ),
    "without-replacement": Mechanism(
        ("noise_multiplier", "sample_rate", "steps"), "replace-one",
        "a Gaussian on a batch of fixed size", "A batch of fixed size tells sets apart that differ by an exchange.",
    ),
    "shards": Mechanism(
        ROWS, BOTH, "one of K hidden models, drawn in secret, answers with B rows; noise / diameter of a row",
        "One secret draw moves all rows of an answer together: its noise multiplier is that of a row / sqrt(rows), and "
        "the draw amplifies the answer once, not each row.",
    ),
    "round-robin": Mechanism(
        ROWS, BOTH, "one of K hidden models answers in a public order with B rows; noise / diameter of a row",
        "A unit meets steps / shards answers, unamplified, each with the noise multiplier of a row / sqrt(rows).",
    ),
    "count": Mechanism(VOTES, BOTH, f"a noisy count of hidden models; {NOISE_OF_VOTES}", PER_QUERY),
    "votes": Mechanism(VOTES, BOTH, f"a noisy histogram, one vote a model (sqrt 2); {NOISE_OF_VOTES}", PER_QUERY),
    "signs": Mechanism(
        (*VOTES, "nonzeros"), BOTH, f"a noisy sum of sparse signs, one vector a model; {NOISE_OF_VOTES}", PER_QUERY,
    ),
    "laplace": Mechanism(VOTES, BOTH, "a count with Laplace noise; noise multiplier: its scale, in votes", PER_QUERY),
    "none": Mechanism((), BOTH, "no bound, or no noise", "Nothing bounds what a record changes, or no noise hides it."),
}  # fmt: skip


@dataclass(frozen=True)
class Phase:
    """Steps of one kind: the constants that a paper or a code base gives.

    Raises:
        ConfigError: a constant is missing, foreign to the mechanism or out of range.
    """

    mechanism: str
    noise_multiplier: float | None = None
    rows: int | None = None
    shards: int | None = None
    sample_rate: float | None = None
    steps: int | None = None
    nonzeros: int | None = None

    def __post_init__(self) -> None:
        if self.mechanism not in MECHANISMS:
            known = ", ".join(MECHANISMS)
            raise ConfigError(
                f"mechanism {self.mechanism!r} is unknown.{suggest(self.mechanism, MECHANISMS)} Known: {known}"
            )
        needed, given = MECHANISMS[self.mechanism].constants, self.given()
        for name in needed:
            if name not in given:
                raise ConfigError(f"mechanism {self.mechanism!r} needs {_flag(name)}; it has {_flags(needed)}")
        for name, value in given.items():
            if name not in needed:
                raise ConfigError(f"mechanism {self.mechanism!r} has no {_flag(name)}; leave it out: {_flags(needed)}")
            _check(name, value)

    def given(self) -> dict[str, Any]:
        """The constants that are set, without the mechanism."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "mechanism"}

    def part(self) -> Part:
        """What it comes to."""
        if self.mechanism == "none":
            return Part("none", 0.0)
        noise, rows, steps = self.noise_multiplier or 0.0, self.rows or 1, self.steps or 1
        if self.mechanism in ("gaussian", "poisson", "without-replacement"):
            kind = "secret" if self.mechanism == "without-replacement" else "poisson"
            rate = self.sample_rate or 1.0
            return Part("gaussian", noise, 1.0, steps) if rate == 1 else Part(kind, noise, rate, steps)
        if self.mechanism in ("shards", "round-robin"):
            k, whole = self.shards or 1, answer_noise(noise, rows)
            if self.mechanism == "round-robin":
                return Part("gaussian", whole, 1.0, math.ceil(steps / k))
            return Part("gaussian" if k == 1 else "secret", whole, 1 / k, steps)
        moved = {"votes": math.sqrt(2), "signs": 2 * math.sqrt(self.nonzeros or 1)}.get(self.mechanism, 1.0)
        return Part("laplace" if self.mechanism == "laplace" else "gaussian", noise / moved, 1.0, rows * steps)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flags(names: tuple[str, ...]) -> str:
    return ", ".join(map(_flag, names)) or "no constants"


def _check(name: str, value: Any) -> None:
    number = type(value) in (int, float) and math.isfinite(value)
    rules: Mapping[str, tuple[bool, str]] = {
        "noise_multiplier": (
            number and 1e-3 <= value <= 1e7,
            "a number from 0.001 to 1e7; without noise: --mechanism none",
        ),
        "sample_rate": (number and 1e-9 <= value <= 1, "a number from 1e-9 to 1: batch / records"),
    }
    whole = number and value == int(value) and 1 <= value <= MOST
    good, rule = rules.get(name, (whole, f"a whole number from 1 to {MOST}"))
    if not good:
        raise ConfigError(f"{_flag(name)} = {value!r}: must be {rule}")
