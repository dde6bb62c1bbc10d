"""A method as a composition of stages: parts that plan, learn and draw, each for its own share of one budget."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import loop_multiplier, part_of
from veilset.methods.base import BATCH, State
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

Earlier = Mapping[str, State]  # what stages before learned, by their names


class Stage(ABC):
    """A part of a method. It knows its own budget, and not its neighbours.

    Attributes:
        device: where torch computes.
    """

    device = "cpu"

    @abstractmethod
    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Its releases, in names of its own, with an estimate of seconds and memory.

        Args:
            info: declared facts.
            budget: what it would have on its own, from its share. `Compose` weights what it returns.
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
        share: its part of the budget, in units of mu^2 of Gaussian privacy, where shares add up; None: the rest.
    """

    stage: Stage
    share: float | None = None


class Compose:
    """Stages one after the other, under one budget.

    Args:
        parts: name -> stage with its share, in the order in which they are planned and fitted. One has no share.
        scale: the part whose weights stay as it planned them; the others' are relative to it.
        prefixed: releases are called PART-RELEASE, so that two parts may ask alike. Off for methods whose ledgers
            had plain names before there were stages; these names enter the noise of research runs.
    """

    def __init__(self, parts: Mapping[str, Part], *, scale: str, prefixed: bool = True):
        self.parts, self._scale, self._prefixed = dict(parts), scale, prefixed
        given = [p.share for p in self.parts.values() if p.share is not None]
        if len(given) != len(self.parts) - 1 or not all(s > 0 for s in given) or sum(given) >= 1:
            raise ValueError(f"shares {given} of {list(self.parts)}: all but one part need one, together below 1")
        self.shares = {k: 1 - sum(given) if p.share is None else p.share for k, p in self.parts.items()}

    def budget(self, name: str, privacy: Privacy) -> Privacy:
        """What a part would have on its own."""
        return part_of(privacy, self.shares[name])

    def plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        """All releases, weighted so that each part costs about its share; the price of the whole is exact.

        Returns:
            A plan with the sum of all seconds, the largest memory, and all warnings.
        """
        plans = {k: p.stage.plan(info, self.budget(k, privacy)) for k, p in self.parts.items()}
        mu = 1 / gaussian_noise_multiplier(privacy.epsilon, privacy.delta) if privacy.private else 1.0
        noise = {k: scale_for(plan.releases, mu * math.sqrt(self.shares[k])) for k, plan in plans.items()}
        own = noise[self._scale]
        releases = [
            replace(r, name=self._called(k, r.name), weight=r.weight if k == self._scale else r.weight * noise[k] / own)
            for k, plan in plans.items()
            for r in plan.releases
        ]
        return Plan(
            tuple(releases),
            seconds=sum(p.seconds for p in plans.values()),
            memory_mb=max(p.memory_mb for p in plans.values()),
            warnings=tuple(w for p in plans.values() for w in p.warnings),
        )

    def fit(self, gate: Gate, info: PublicInfo, privacy: Privacy, device: str) -> dict[str, State]:
        """Fit all stages in order; returns what each learned, by its name."""
        learned: dict[str, State] = {}
        for name, part in self.parts.items():
            part.stage.device = device
            asked = Asked(gate, lambda release, name=name: self._called(name, release))  # type: ignore[misc]
            learned[name] = part.stage.fit(asked, info, self.budget(name, privacy), learned)
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
