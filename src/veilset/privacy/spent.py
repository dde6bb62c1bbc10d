"""What was asked, as the accountant sees it: lines of releases, and searches that ask one of several such lists."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veilset.core.errors import ConfigError

GAUSSIAN = "gaussian"  # the mechanism of what names none: ledgers were written before there was another
Facts = tuple[tuple[str, Any], ...]


def in_order(facts: Mapping[str, Any] | Facts) -> Facts:
    """What a mechanism states beside noise, rate and steps, in one order, so that equal facts are equal.

    Raises:
        ConfigError: a name that is none, or a value that is no finite number or text; they may be a stranger's.
    """
    if not isinstance(facts, Mapping | tuple):
        raise ConfigError(f"facts = {str(facts)[:40]!r}: must be names with values; see the mechanism")
    pairs = tuple(facts.items()) if isinstance(facts, Mapping) else facts
    for name, value in pairs:
        number = type(value) is int or (type(value) is float and math.isfinite(value))
        if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z_]*", name) and (number or type(value) is str)):
            raise ConfigError(
                f"facts: {str(name)[:40]!r} = {str(value)[:40]!r}: names are lower-case words, values finite numbers "
                "or text; see the mechanism"
            )
    return tuple(sorted(pairs))


def written(mechanism: str, facts: Facts) -> dict[str, Any]:
    """The keys of a line that only other mechanisms than the first one have: what is absent is not written."""
    named = {} if mechanism == GAUSSIAN else {"mechanism": mechanism}
    return named | ({"facts": dict(facts)} if facts else {})


@dataclass(frozen=True)
class Spent:
    """`steps` releases of one kind: one line of the accountant's input.

    Attributes:
        noise_multiplier: noise standard deviation / L2 sensitivity; 0 means no noise.
        sample_rate: probability q that a unit takes part in a step; 1 means all units.
        steps: number of releases.
        part: None, or which part of the class partition was read. A unit lies in one part only.
        mechanism: its name in `veilset.privacy.mechanisms`.
        facts: what else the mechanism's cost follows from, by name.

    Raises:
        ConfigError: a value out of range; it may come from a file that a stranger wrote.
    """

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1
    part: int | None = None
    mechanism: str = GAUSSIAN
    facts: Facts = ()

    def __post_init__(self) -> None:
        noise, rate = self.noise_multiplier, self.sample_rate
        rules = {
            "noise_multiplier": type(noise) in (int, float) and (noise == 0 or 1e-9 <= noise <= 1e7),
            "sample_rate": type(rate) in (int, float) and 0 <= rate <= 1,
            "steps": type(self.steps) is int and 0 <= self.steps <= 2**63,
            "part": self.part is None or type(self.part) is int,
        }
        for name, good in rules.items():
            if not good:
                raise ConfigError(
                    f"a release with {name} = {str(getattr(self, name))[:40]!r}: no claim is made for that; noise "
                    "multipliers are 0 or from 1e-9 to 1e7, rates from 0 to 1, steps whole numbers"
                )
        if self.facts != ():
            object.__setattr__(self, "facts", in_order(self.facts))

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `Spent(**facts)` reads it back."""
        common = {name: getattr(self, name) for name in ("noise_multiplier", "sample_rate", "steps", "part")}
        return common | written(self.mechanism, self.facts)


@dataclass(frozen=True)
class Search:
    """A random number of trials, of which only the best one leaves (Papernot and Steinke 2022, Theorem 2).

    Each trial draws one of the candidates by public coins, runs it, and scores what it gave; the score is paid for with
    the trial, or reads nothing private. How many trials there were, and what the others gave, stays secret.

    Attributes:
        trials: mean of their number, which is geometric: after each one it ends with probability 1 / trials.
        candidates: what one trial may spend, the score included; each trial costs as much as the worst of them.
    """

    trials: int
    candidates: tuple[tuple[Spent, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `from_json` reads it back."""
        return {"trials": self.trials, "candidates": tuple(tuple(s.to_json() for s in c) for c in self.candidates)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Search:
        """Read what `to_json` wrote."""
        return cls(facts["trials"], tuple(tuple(Spent(**s) for s in c) for c in facts["candidates"]))


Cost = Sequence[Spent] | Search
