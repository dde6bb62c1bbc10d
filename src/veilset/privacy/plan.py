"""What a method will ask of the private data, written down before any record is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from veilset.core.errors import BudgetExceeded, ConfigError, PlanError
from veilset.core.rendering import as_html, plan_table
from veilset.core.types import PublicInfo
from veilset.privacy import mechanisms
from veilset.privacy.accounting import LARGEST, Claim, Cost, Search, Spent, by_part, claim, rdp_curve, rdp_epsilon
from veilset.privacy.calibration import calibrate
from veilset.privacy.public_data import PublicData, written_public
from veilset.privacy.spec import Privacy
from veilset.privacy.spent import GAUSSIAN, Facts, in_order, written

UNUSED = 0.02  # warn when a plan leaves more than this share of its epsilon unused
CIPHER = 2.0**-100  # warn below this delta: what tells the cipher's bits from ideal ones weighs more
USELESS = 0.1  # warn when the noise in a class mean exceeds this share of the largest possible mean


@dataclass(frozen=True, kw_only=True)
class Release:
    """One named question: as a rule the sum over sampled units of a bounded contribution, plus Gaussian noise.

    Attributes:
        name: what the method calls it at the gate.
        verb: "sum", "grad", "unit", "batch", "pull" or "vote", the gate's verb that answers it; the mechanism says
            which ones it may.
        bound: L2 bound of one unit's contribution, which is the sensitivity under add/remove, of one row of a hidden
            model's answer, of an answer about a whole sample, or what a vote weighs; 1e-10 to 1e10, where squares of
            float32 numbers neither vanish nor overflow.
        sample_rate: probability that a unit takes part in a step (Poisson); 1 reads every unit.
        steps: how many times it is asked.
        weight: its noise relative to the other releases of the plan; 2 means twice the noise multiplier.
        partition: None, or "class": asked once (`steps` times) for every class, each unit in one class only.
        noise_multiplier: noise standard deviation / L2 sensitivity, which is the bound unless the mechanism says
            otherwise; set by `Plan.price`.
        mechanism: how it is answered, paid and proved: a name in `veilset.privacy.mechanisms`.
        facts: what else the mechanism must know, by name: into how many parts the units are dealt, the shape of an
            answer. Absent ones are not written.

    Examples:
        >>> vs.Release(name="gradient", verb="grad", bound=0.1, sample_rate=0.25, steps=100).steps
        100
    """

    name: str
    verb: str = "sum"
    bound: float = 1.0
    sample_rate: float = 1.0
    steps: int = 1
    weight: float = 1.0
    partition: str | None = None
    noise_multiplier: float = 0.0
    mechanism: str = GAUSSIAN
    facts: Facts = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", in_order(self.facts))
        if not isinstance(self.name, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name) is None:
            raise PlanError(
                f"release {self.name!r}: its name must be letters, digits, - and _, and begin with one of the first two"
            )
        rules = {
            "verb": self.verb in mechanisms.of(self).verbs,
            "bound": 1e-10 <= self.bound <= 1e10,
            "sample_rate": 0 < self.sample_rate <= 1,
            "steps": type(self.steps) is int and self.steps >= 1,
            "weight": 0 < self.weight < math.inf,
            "partition": self.partition is None or (self.partition == "class" and self.verb not in ("pull", "vote")),
            "noise_multiplier": 0 <= self.noise_multiplier < math.inf,
        }
        for name, good in rules.items():
            if not good:
                raise PlanError(
                    f"release {self.name!r}: {name} = {getattr(self, name)!r} is not allowed; see veilset.Release"
                )

    def spent(self, scale: float, parts: int) -> list[Spent]:
        """The accountant's lines for the whole release with noise multiplier scale x weight."""
        which = range(parts) if self.partition else [None]
        return [
            Spent(scale * self.weight, self.sample_rate, self.steps, part, self.mechanism, self.facts) for part in which
        ]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as the ledger's first line holds it; `Release(**facts)` reads it back."""
        absent = ("mechanism", "facts")
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in absent}
        return own | written(self.mechanism, self.facts)


@dataclass(frozen=True)
class Plan:
    """Every release of a method, with a rough cost. Holds nothing private.

    Attributes:
        releases: in the order of use; names are distinct.
        seconds, memory_mb: estimate for fit on the reference machine (two cores).
        info: the declared facts the plan was made for, once priced.
        privacy: the budget, once priced.
        warnings: what the owner should know before spending: the method's own, and those that its price brings.
        search: the search that this is a trial of, whose price is then the price; see `veilset.tune`.
        stream: which task of which stream this is, and what all its tasks cost together; see `veilset.continual`.
        public: data that the owner declares to be public, on which the claim then rests.

    Examples:
        >>> plan = vs.make("dp-moments").plan(data.info, vs.Privacy(epsilon=1.0))
        >>> [release.name for release in plan.releases]
        ['mean', 'within']
        >>> plan.claim().epsilon <= 1.0
        True
    """

    releases: tuple[Release, ...]
    seconds: float = 0.0
    memory_mb: float = 0.0
    info: PublicInfo | None = None
    privacy: Privacy | None = None
    warnings: tuple[str, ...] = field(default=())
    search: Search | None = None
    stream: Mapping[str, Any] | None = None
    public: tuple[PublicData, ...] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.releases, tuple | list) and all(isinstance(r, Release) for r in self.releases)):
            raise PlanError("releases: must be a tuple of veilset.Release, such as (release,)")
        names = [r.name for r in self.releases]
        if len(set(names)) != len(names):
            raise PlanError(f"releases = {names}: the releases of a plan need distinct names")

    def __getitem__(self, name: str) -> Release:
        for r in self.releases:
            if r.name == name:
                return r
        known = ", ".join(r.name for r in self.releases)
        raise PlanError(f"release {name!r} was not planned (planned: {known}); add it to the method's plan")

    @property
    def parts(self) -> int:
        """Parts of the class partition: one a declared class."""
        return len(self.info.classes) if self.info else 1

    def price(self, privacy: Privacy, info: PublicInfo) -> Plan:
        """Set every noise multiplier so that the whole plan costs at most (epsilon, delta).

        Raises:
            ConfigError: delta >= 1/N without permission, a budget too small to reach with any sensible noise, or a
                finite one above LARGEST.
            BudgetExceeded: a delta too small to be certified for this plan.
        """
        privacy.check_units(info.units)
        if not privacy.private:
            priced = tuple(replace(r, noise_multiplier=0.0) for r in self.releases)
            warning = (
                "epsilon is infinite: no noise, no privacy, no receipt; everything made from it is stamped NON-PRIVATE"
            )
            return replace(self, releases=priced, info=info, privacy=privacy, warnings=(*self.warnings, warning))

        if privacy.epsilon > LARGEST:
            raise ConfigError(f"epsilon = {privacy.epsilon:g}: protects nobody; use at most {LARGEST:g}, or inf")

        def spend(scale: float) -> list[Spent]:
            return [s for r in self.releases for s in r.spent(scale, len(info.classes))]

        try:
            scale = calibrate(spend, privacy.epsilon, privacy.delta) if self.releases else 0.0
        except (ArithmeticError, ValueError, RuntimeError) as e:
            raise ConfigError(
                f"epsilon = {privacy.epsilon:g} at delta = {privacy.delta:g}: no noise level found ({e})"
            ) from e
        priced = tuple(replace(r, noise_multiplier=scale * r.weight) for r in self.releases)
        told = (*self.warnings, *_warn(priced, info), *_warn_of_claim(claim(spend(scale), privacy.delta), privacy))
        return replace(self, releases=priced, info=info, privacy=privacy, warnings=told)

    def spent(self) -> list[Spent]:
        """The accountant's lines of the priced plan."""
        return [
            replace(s, noise_multiplier=r.noise_multiplier) for r in self.releases for s in r.spent(1.0, self.parts)
        ]

    def cost(self) -> Cost:
        """What is paid for the priced plan: its own releases, or the search that it is a trial of."""
        return self.search or self.spent()

    def claim(self) -> Claim:
        """(epsilon by the main accountant, by RDP) of the whole priced plan."""
        return claim(self.cost(), self.budget.delta)

    @property
    def budget(self) -> Privacy:
        """The budget of a priced plan."""
        if self.privacy is None:
            raise PlanError("this plan has no price yet; call plan(info, privacy)")
        return self.privacy

    def shares(self) -> list[tuple[float, float]]:
        """For each release: (its part of the summed RDP at the best order, epsilon if it were the only one)."""
        delta = self.budget.delta
        if not self.budget.private:
            return [(1.0 / len(self.releases), float("inf")) for _ in self.releases]
        worst = max(by_part(self.spent()), key=lambda case: rdp_epsilon(case, delta)[0])
        _, best = rdp_epsilon(worst, delta)
        single = [replace(r.spent(1.0, 1)[0], noise_multiplier=r.noise_multiplier, part=None) for r in self.releases]
        curves = [float(rdp_curve([s])[1][best]) for s in single]
        return [(c / sum(curves), claim([s], delta).epsilon) for c, s in zip(curves, single, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset plan --json`."""
        budget, got = self.budget, self.claim()
        rows = [
            {
                "name": r.name,
                "mechanism": mechanisms.of(r).title(r),
                "verb": r.verb,
                "bound": r.bound,
                "noise_multiplier": r.noise_multiplier,
                "sample_rate": r.sample_rate,
                "steps": r.steps,
                "partition": r.partition,
                "epsilon_share": share,
                "epsilon_alone": _finite(alone),
            }
            | ({"facts": dict(r.facts)} if r.facts else {})
            for r, (share, alone) in zip(self.releases, self.shares(), strict=True)
        ]
        return {
            "epsilon": _finite(got.epsilon),
            "delta": budget.delta,
            "accountant": got.accountant,
            "unit": self.info.unit if self.info else None,
            "classes": len(self.info.classes) if self.info else None,
            "seconds": self.seconds,
            "memory_mb": self.memory_mb,
            "releases": rows,
            "warnings": list(self.warnings),
        } | written_public(self.public)

    def facts(self) -> dict[str, Any]:
        """What the ledger's first line keeps: releases with their noise, declared facts, budget."""
        budget = asdict(self.budget)
        budget["epsilon"] = _finite(budget["epsilon"])
        assert self.info is not None
        of = {"search": self.search.to_json()} if self.search else {}
        of |= {"stream": dict(self.stream)} if self.stream else {}
        of |= written_public(self.public)
        return {"releases": [r.to_json() for r in self.releases], "info": self.info.to_json(), "privacy": budget} | of

    def __str__(self) -> str:
        if self.privacy is None:
            return "Plan(" + ", ".join(f"{r.name}: {r.steps} x {r.verb}" for r in self.releases) + "), not priced yet"
        return plan_table(self.to_json())

    _repr_html_ = as_html


def _finite(x: float) -> float | None:
    return x if x != float("inf") else None


def _warn(releases: Sequence[Release], info: PublicInfo) -> tuple[str, ...]:
    """Warn when even the mean of one class would drown: its entries have norm at most bound, and N/K units carry it."""
    out = []
    for r in releases:
        if r.verb != "sum":
            continue
        per_class = r.sample_rate * info.units / len(info.classes)
        noise = r.noise_multiplier * mechanisms.of(r).factor(r)
        error = noise / per_class
        if error > USELESS:
            need = round(noise / USELESS * len(info.classes))
            out.append(
                f"release {r.name!r}: with {info.units} declared units in {len(info.classes)} classes noise in "
                f"every direction of a class mean is {error:.0%} of the largest possible mean; expect poor images "
                f"below about {need} units, or choose a larger epsilon"
            )
    return tuple(out)


def _warn_of_claim(got: Claim, privacy: Privacy) -> tuple[str, ...]:
    """Warn when another accountant than usual claims, epsilon is left over, or delta is below what a cipher keeps."""
    out = []
    if got.accountant.startswith("RDP"):
        out.append(f"epsilon is claimed by {got.accountant}, which asks for more noise")
    if 0 < got.epsilon < privacy.epsilon * (1 - UNUSED):
        out.append(
            f"only epsilon = {got.epsilon:.4g} of {privacy.epsilon:g} is used: a search for less noise is too large"
        )
    if privacy.delta < CIPHER:
        out.append(
            f"delta = {privacy.delta:g} holds for ideal random bits; that nobody tells the cipher's bits from them is "
            "believed to about 2^-100, so a smaller delta promises nothing more (docs/threat-model.md)"
        )
    return tuple(out)


def check_within(spent: Sequence[Spent], plan: Plan) -> Claim:
    """The claim of what was spent, refused when it passes the plan's budget by more than 1e-9 relative."""
    budget = plan.budget
    got = claim(spent, budget.delta)
    if got.epsilon > budget.epsilon * (1 + 1e-9):
        raise BudgetExceeded(
            f"epsilon = {got.epsilon:.6g} was spent but {budget.epsilon:g} was allowed; nothing is certified"
        )
    return got
