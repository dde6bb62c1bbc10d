"""What a mechanism is: one way of answering about private units, with everything that its claim needs.

How many units an answer reads, what one of them moves, what that costs, how a charge is written and read back, which
figures are known of it, and which words tell a reader what it does: all of it is in one class. Gate, plan, ledger,
accountant, receipt, self-test and report ask that class, and know no mechanism by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from veilset.core.errors import LedgerError
from veilset.privacy.spent import Facts, Spent, in_order

if TYPE_CHECKING:
    import numpy as np

    from veilset.privacy.noise import Stream
    from veilset.privacy.plan import Release
    from veilset.privacy.sampling import Units

CHARGE = {"kind", "release", "part", "mechanism", "sensitivity", "noise_multiplier", "sample_rate", "steps"}


class Line(Protocol):
    """What a planned release and a line of the accountant have in common."""

    @property
    def mechanism(self) -> str: ...
    @property
    def noise_multiplier(self) -> float: ...
    @property
    def sample_rate(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def facts(self) -> Facts: ...


@dataclass(frozen=True)
class Known:
    """A figure that was found elsewhere: epsilon at delta of what was spent; `veilset selftest` asks for it."""

    what: str
    spent: tuple[Spent, ...]
    delta: float
    epsilon: float


class Mechanism(ABC):
    """One mechanism. All curves are upper bounds for both directions: a unit comes, a unit goes.

    Attributes:
        name: in plans and ledgers; never changes once a ledger holds it.
        label: the same in words.
        verbs: of the gate that it may answer.
        rules: the facts that its releases state beside noise, rate and steps: name -> whether a value is allowed.
        demands: what a line must keep to besides, in words that follow the rules' names in a message; or "".
        symmetric: one curve of the privacy loss holds whether a unit comes or goes, and `loss` has it once.
        state: whether a hidden model that answered keeps what it learned; see `Gate.pull`.
        known: figures for the self-test, at least one.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    verbs: ClassVar[tuple[str, ...]] = ("sum",)
    rules: ClassVar[Mapping[str, Callable[[Any], bool]]] = {}
    demands: ClassVar[str] = ""
    symmetric: ClassVar[bool] = False
    state: ClassVar[bool] = False
    known: ClassVar[tuple[Known, ...]]

    # ------------------------------------------------------------------ what a release states

    def fits(self, line: Line) -> bool:
        """Whether a line states this mechanism's facts, all of them and no others, with values that are allowed."""
        facts = dict(line.facts)
        return facts.keys() == self.rules.keys() and all(self.rules[k](v) for k, v in facts.items())

    def factor(self, line: Line) -> float:
        """L2 sensitivity of an answer / bound of one unit's contribution; noise is a multiple of this times the bound.

        1 where a unit moves nothing but its own contribution; 2 where all of an answer may change with one unit.
        """
        return 1  # a whole number, which leaves a bound in a ledger as it was written

    def block(self, line: Line) -> int:
        """Steps that are charged together at the least, of which a line has a multiple."""
        return 1

    # ------------------------------------------------------------------ whom a step reads

    def chosen(
        self, release: Release, units: Units, part: int | None, step: int, coins: Callable[[str], Stream]
    ) -> np.ndarray[Any, Any]:
        """Indices of the units that a step reads: by a coin each, at the sample rate.

        Args:
            release: as planned.
            units: of the set.
            part: of the class partition, or None.
            step: from 0.
            coins: name -> a secret stream of this release, part and name; a new call starts it anew.
        """
        return units.sample(release.sample_rate, coins(str(step)), part)

    # ------------------------------------------------------------------ the ledger

    def body(self, release: Release, part: int | None, steps: int) -> dict[str, Any]:
        """What a charge says, as it is written to the ledger."""
        facts = {"facts": dict(release.facts)} if release.facts else {}
        return {
            "release": release.name,
            "part": part,
            "mechanism": self.name,
            "sensitivity": release.bound * self.factor(release),
            "noise_multiplier": release.noise_multiplier,
            "sample_rate": release.sample_rate,
            "steps": steps,
        } | facts

    def read(self, body: Mapping[str, Any]) -> Spent:
        """The accountant's line of a charge, which a stranger may have written.

        Raises:
            LedgerError: a fact is missing, or one stands there that this mechanism does not write.
            ConfigError: a value out of range.
        """
        wanted = CHARGE | ({"facts"} if self.rules else set())
        for what, names in (("misses", wanted - body.keys()), ("must not have", body.keys() - wanted)):
            if names:
                raise LedgerError(
                    f"a charge of release {str(body.get('release'))[:40]!r} {what} {min(names)[:40]!r}: mechanism "
                    f"{self.name!r} writes {', '.join(sorted(wanted))}; use the version that wrote it"
                )
        facts = in_order(body.get("facts", ()))
        return Spent(body["noise_multiplier"], body["sample_rate"], body["steps"], body["part"], self.name, facts)

    def as_planned(self, body: Mapping[str, Any], release: Release) -> bool:
        """Whether a charge says what the gate would write for this release, with no less noise."""
        mine = {"kind": "charge", **self.body(release, body["part"], body["steps"])}
        noise = body["noise_multiplier"]
        return bool(noise >= release.noise_multiplier) and mine | {"noise_multiplier": noise} == body

    # ------------------------------------------------------------------ what it costs

    def squared_mu(self, s: Spent) -> float | None:
        """mu^2 of a line, all of its steps, that costs exactly what Gaussians without sampling do; None if it does not.

        Such lines add up in mu^2 and need no grid. Equal lines come as one, so a mechanism that reads a unit in every
        K-th step only may divide its steps.
        """
        return None

    @abstractmethod
    def divergence(self, s: Spent, orders: Any) -> Any:
        """Renyi divergence of a line, all of its steps, at each order [n] -> [n]; infinite where it is not known.

        The second accountant: where it can be, another argument than that behind `loss`, which may not exceed it.
        """

    @abstractmethod
    def second(self, s: Spent, orders: Any) -> Any:
        """The same for one step at integer orders, by other code: where RDP makes the claim, both must agree."""

    @abstractmethod
    def span(self, s: Spent) -> tuple[float, float]:
        """The least and the largest privacy loss of one step that `loss` gives a place; known before a grid is made."""

    @abstractmethod
    def loss(self, s: Spent, spacing: float) -> Any:
        """One step as dp-accounting's PrivacyLossDistribution on a grid, which errs upwards; steps compose.

        Its deltas are off by at most 2^-53 times `ulps`; what is cut off counts as an infinite loss. That is what `pld`
        reckons with.
        """

    def ulps(self, s: Spent, spacing: float) -> float:
        """How far a delta of one step may be off, in units of 2^-53.

        As a rule it is a difference of two probabilities with relative errors of at most 2^-51 (2 R + 8), for losses up
        to R.
        """
        low, high = self.span(s)
        return 8 * max(-low, high) + 32

    # ------------------------------------------------------------------ words

    def title(self, line: Line) -> str:
        """Its name in a plan's JSON."""
        return self.name

    def words(self, line: Line) -> str:
        """A charge in a ledger, after the number of steps."""
        facts = "".join(f", {k} {v}" for k, v in line.facts)
        return f"{self.label}, noise multiplier {line.noise_multiplier:.6g}{facts}"

    @abstractmethod
    def sentence(self, line: Line) -> str:
        """What a reader of a report must know: what one unit moves, and how the answer hides it."""
