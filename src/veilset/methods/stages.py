"""A method as a composition of stages: parts that plan, learn and draw, each for its own share of one budget.

`Staged` is the base of such a method, `Single` of one that has a single stage.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from veilset.core.errors import ConfigError, suggest
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import loop_multiplier, part_of
from veilset.methods.base import BATCH, Method, State, Synthesizer
from veilset.methods.returned import handed, tensors
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

Earlier = Mapping[str, State]  # what stages before learned, by their names
S = TypeVar("S", bound="Stage")


class Stage(ABC):
    """A part of a method. It knows its own budget, and not its neighbours.

    Attributes:
        device: where torch computes.
    """

    device = "cpu"

    def on(self: S, device: str) -> S:
        """The stage itself, which computes there from now on."""
        self.device = device
        return self

    @abstractmethod
    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Its releases, in names of its own, with an estimate of seconds and memory.

        Args:
            info: declared facts.
            budget: the privacy that its share alone would buy, to choose steps and sizes by; what it asks is weighted
                by `Compose`, so weights matter only among its own releases.
        """

    @abstractmethod
    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """Ask what was planned, and return every tensor that later stages or drawing need.

        Args:
            gate: answers its releases, by the names that it gave them.
            info, budget: as in `plan`.
            earlier: what the stages before it returned.
        """

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Draw one image a label: labels int64 [n] -> float [n, C, H, W] in [0, 1]. Not every stage can."""
        raise NotImplementedError(f"{type(self).__name__} draws no images")

    def draw_many(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """`draw`, BATCH images at a time."""
        return torch.cat([self.draw(state, info, part) for part in labels.split(BATCH)])


@dataclass(frozen=True)
class Part:
    """A stage of a composition.

    Attributes:
        stage: what it is.
        share: its part of the budget, in units of mu^2 of Gaussian privacy, where shares add up: a number, which the
            weights of its releases divide among them; or a number for each of its releases, which are sums over all
            units; None: what the other parts leave.
    """

    stage: Stage
    share: float | Mapping[str, float] | None = None

    @property
    def given(self) -> list[float]:
        """Its share or shares, if it has one."""
        if isinstance(self.share, Mapping):
            return list(self.share.values())
        return [] if self.share is None else [self.share]


class Learned(dict[str, State]):
    """What stages learned so far, by their names; one that is not there yet is named."""

    def __missing__(self, name: str) -> State:
        raise ConfigError(
            f"stage {name!r}: nothing was learned by a stage of this name before; there are {list(self)} so far. "
            "Stages are fitted in the order in which `Compose` is given them"
        )


class Compose:
    """Stages one after the other, under one budget.

    Args:
        parts: name -> stage with its share, in the order in which they are planned and fitted. One has no share: its
            weights stay as it planned them, and the others' are relative to it.
        prefixed: releases are called PART-RELEASE, so that two parts may ask alike. Off for methods whose ledgers
            had plain names before there were stages; these names enter the noise of research runs.
        memory_mb: what is held beside what the largest stage takes.
        warnings: what the owner should know of the composition.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        *,
        prefixed: bool = True,
        memory_mb: float = 0,
        warnings: Sequence[str] = (),
    ):
        self.parts, self._prefixed = dict(parts), prefixed
        for name, part in self.parts.items():
            if not (isinstance(part, Part) and isinstance(part.stage, Stage)):
                raise ConfigError(
                    f"stage {name!r}: must be Part(stage), or Part(stage, share=...), with a `Stage` in it"
                )
        self._memory_mb, self._warnings = memory_mb, tuple(warnings)
        given = [s for p in self.parts.values() for s in p.given]
        rest = [k for k, p in self.parts.items() if p.share is None]
        if len(rest) != 1 or not all(s > 0 for s in given) or sum(given) >= 1:
            raise ConfigError(
                f"shares {given} of {list(self.parts)}: each stage but one needs a share above 0, together below 1; "
                "the one without a share has the rest of the budget"
            )
        self._rest = rest[0]
        self.shares = {k: 1 - sum(given) if k == self._rest else sum(p.given) for k, p in self.parts.items()}

    def budget(self, name: str, privacy: Privacy) -> Privacy:
        """What a part would have on its own."""
        return privacy if self.shares[name] == 1 else part_of(privacy, self.shares[name])

    def plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        """All releases, weighted so that each part costs about its share; the price of the whole is exact.

        Returns:
            A plan with the sum of all seconds, the largest memory, all warnings, and all public data that a part names.
        """
        plans = {
            k: handed(p.stage.plan(info, self.budget(k, privacy)), Plan, f"stage {k!r}: plan")
            for k, p in self.parts.items()
        }
        return Plan(
            tuple(self._weighted(plans, privacy)),
            seconds=sum(p.seconds for p in plans.values()),
            memory_mb=max(p.memory_mb for p in plans.values()) + self._memory_mb,
            warnings=(*(w for p in plans.values() for w in p.warnings), *self._warnings),
            public=tuple(dict.fromkeys(d for p in plans.values() for d in p.public)),  # two parts may use one set
        )

    def _weighted(self, plans: Mapping[str, Plan], privacy: Privacy) -> Iterator[Release]:
        """The releases of all parts, under the names and with the weights that they have in the whole.

        The order of the arithmetic is kept: ledgers hold weights to the last bit, and a run goes on only under its own.
        """
        mu = 1 / gaussian_noise_multiplier(privacy.epsilon, privacy.delta) if privacy.private else 1.0
        own = scale_for(plans[self._rest].releases, mu * math.sqrt(self.shares[self._rest]))
        for part, plan in plans.items():
            share = self.parts[part].share
            for r in plan.releases:
                weight = r.weight
                if isinstance(share, Mapping):
                    one = 1 / (math.sqrt(share[r.name]) * mu * own) if privacy.private else 1.0
                    weight = one * math.sqrt(r.steps)
                elif share is not None:
                    weight = r.weight * scale_for(plan.releases, mu * math.sqrt(share)) / own
                yield replace(r, name=self._called(part, r.name), weight=weight)

    def fit(self, gate: Gate, info: PublicInfo, privacy: Privacy, device: str) -> dict[str, State]:
        """Fit all stages in order; returns what each learned, by its name."""
        learned = Learned()
        for name, part in self.parts.items():
            asked = Asked(gate, lambda release, name=name: self._called(name, release))  # type: ignore[misc]
            state = part.stage.on(device).fit(asked, info, self.budget(name, privacy), learned)
            learned[name] = tensors(state, f"stage {name!r}: fit")
        return learned

    def _called(self, part: str, release: str) -> str:
        return f"{part}-{release}" if self._prefixed else release


class Asked:
    """The gate as one stage sees it: it answers the stage's releases by the names that the stage gave them.

    Args:
        gate: which answers.
        called: a stage's name of a release -> the plan's.
    """

    def __init__(self, gate: Gate, called: Callable[[str], str] = str):
        self._gate, self._called = gate, called
        self.info = gate.info

    def release(self, name: str) -> Release:
        """A release as it was priced."""
        return self._gate.plan[self._called(name)]

    def deviation(self, name: str) -> float:
        """Standard deviation of the noise of each number of a sum."""
        priced = self.release(name)
        return priced.noise_multiplier * priced.bound

    def sum(self, name: str, f: Any, **how: Any) -> torch.Tensor:
        """As `Gate.sum`."""
        return self._gate.sum(self._called(name), f, **how)

    def grad(self, name: str, loss: Any, params: Any, **how: Any) -> dict[str, torch.Tensor]:
        """As `Gate.grad`."""
        return self._gate.grad(self._called(name), loss, params, **how)

    def train_hidden(self, name: str, train: Any, **how: Any) -> None:
        """As `Gate.train_hidden`."""
        self._gate.train_hidden(self._called(name), train, **how)

    def pull(self, name: str, f: Any) -> torch.Tensor:
        """As `Gate.pull`."""
        return self._gate.pull(self._called(name), f)

    def vote(self, name: str, f: Any, **how: Any) -> torch.Tensor:
        """As `Gate.vote`."""
        return self._gate.vote(self._called(name), f, **how)

    def batch(self, name: str, f: Any, **how: Any) -> torch.Tensor:
        """As `Gate.batch`."""
        return self._gate.batch(self._called(name), f, **how)

    def unit(self, name: str, f: Any, **how: Any) -> torch.Tensor:
        """As `Gate.unit`."""
        return self._gate.unit(self._called(name), f, **how)

    def loop(self, name: str, state: Mapping[str, Any], **how: Any) -> Iterator[int]:
        """As `Gate.loop`."""
        return self._gate.loop(self._called(name), state, **how)


def scale_for(releases: Sequence[Release], mu: float) -> float:
    """The factor of all weights with which releases are together about mu-Gaussian private.

    One subsampled loop by the central limit (`loop_multiplier`); releases that read every unit exactly.
    """
    if len(releases) == 1:
        (r,) = releases
        return loop_multiplier(mu, r.sample_rate, r.steps) / r.weight
    if any(r.sample_rate < 1 for r in releases):
        raise ValueError("a stage with several releases, one of them subsampled: give the loop a stage of its own")
    return math.sqrt(sum(r.steps / r.weight**2 for r in releases)) / mu


class Staged(Method):
    """Base of a method that is a composition of stages. It says which, and what of all that they learned it keeps.

    `class Mine(Staged, veilset.Synthesizer)` overrides `_stages` and `_sample`; a teacher, `_stages` and `_predict`.
    """

    @abstractmethod
    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        """The stages, by declared facts and the whole budget."""

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        """The tensors of the model, of what the stages learned; all of them, unless a method says otherwise."""
        return named(learned)

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return self._composed(info, privacy).plan(info, privacy)

    def _composed(self, info: PublicInfo, privacy: Privacy) -> Compose:
        stages = self._stages(info, privacy)
        if not isinstance(stages, Compose):
            raise ConfigError(
                f"{type(self).__name__}._stages returned a {type(stages).__name__}: must return "
                "Compose({name: Part(stage)})"
            )
        return stages

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        learned = self._composed(info, plan.budget).fit(gate, info, plan.budget, self.device)
        return self._kept(learned, info)


class Single(Staged, Synthesizer):
    """Base of a synthesizer of one stage, which names its releases and tensors: overrides `_stage`."""

    @abstractmethod
    def _stage(self) -> Stage:
        """The stage, which has the whole budget."""

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        return Compose({self.name: Part(self._stage())}, prefixed=False)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        return learned[self.name]

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return self._stage().on(self.device).draw(state, info, labels)


def named(learned: Earlier) -> State:
    """The tensors of all stages, as STAGE.NAME."""
    return {f"{stage}.{name}": v for stage, state in learned.items() for name, v in state.items()}


def learned_by(stage: str, state: State) -> State:
    """What a stage learned, of the tensors of a model that `named` made.

    Raises:
        ConfigError: no stage of this name learned anything.
    """
    found = {name.removeprefix(f"{stage}."): v for name, v in state.items() if name.startswith(f"{stage}.")}
    if not found:
        known = sorted({name.split(".")[0] for name in state if "." in name})
        raise ConfigError(
            f"stage {stage!r}: no stage of this name learned anything.{suggest(stage, known)} There are {known}"
        )
    return found
