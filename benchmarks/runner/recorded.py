"""private-set with copies of its images from the way to the released set."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from veilset.core.types import PublicInfo
from veilset.methods.base import State
from veilset.methods.condensation.private_set import Matching, PrivateSet
from veilset.methods.stages import Asked, Earlier
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy


@dataclass(frozen=True)
class Point:
    """The set on its way.

    Attributes:
        questions: how many the gate has answered so far, of the loop.
        seconds: of the processor until then, since the model was made.
        state: what would be released.
    """

    questions: int
    seconds: float
    state: State


class Watched(Matching):
    """The loop of private-set, which keeps copies of its images.

    Args:
        config: parameters.
        points: how many to keep.

    Attributes:
        path: the points, in order.
    """

    def __init__(self, config: Any, points: int):
        super().__init__(config)
        self.path: list[Point] = []
        self._classes = 1
        self._points, self._begun, self._aside, self._steps = points, time.process_time(), 0.0, 0

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """As the loop that nobody watches, bit for bit."""
        self._classes, self._kept = len(info.classes), counts(gate.release("match").steps, self._points)
        return super().fit(gate, info, budget, earlier)

    def _optimiser(self, images: nn.Module) -> torch.optim.Optimizer:  # made once, between first images and questions
        self._keep(images, 0)
        return super()._optimiser(images)

    def _step(self, images: nn.Module, *rest: Any) -> None:
        super()._step(images, *rest)
        self._steps += 1
        questions, more = divmod(self._steps, 1 + self.config.replay)
        if not more and questions in self._kept:
            self._keep(images, questions)

    def _keep(self, images: nn.Module, questions: int) -> None:
        """Add a point; the time that this takes does not count."""
        now = time.process_time()
        x = images().detach().cpu().unflatten(0, (self._classes, -1))
        self.path.append(Point(questions, now - self._begun - self._aside, {"x": x}))
        self._aside += time.process_time() - now


class Recorded(PrivateSet):
    """private-set that keeps its images on the way: a fit draws and asks the same as one without, bit for bit.

    Args:
        points: how many to keep: the first images, the last, and others between, see `counts`.
        params: parameters of private-set.

    Attributes:
        priced: the plan of the fit.
    """

    priced: Plan

    def __init__(self, points: int, **params: Any):
        super().__init__(**params)
        self._watched = Watched(self.config, points)

    @property
    def path(self) -> list[Point]:
        """The points of a fit, in order."""
        return self._watched.path

    def after(self, point: Point) -> PrivateSet:
        """A fitted model whose images are those of a point."""
        model = copy.copy(self)
        model._state = point.state  # noqa: SLF001 a copy of itself
        return model

    def _matching(self) -> Matching:
        return self._watched

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        self.priced = plan
        return super()._fit(gate, info, plan)


def counts(steps: int, points: int) -> list[int]:
    """About `points` (2 or more) numbers from 0 to `steps`, spaced as squares: epsilon grows about as their root."""
    return sorted({round(steps * (i / (points - 1)) ** 2) for i in range(points)})


def epsilon_after(plan: Plan, questions: int) -> float:
    """epsilon by the accountant of a priced plan of private-set whose loop ends after so many questions."""
    before = tuple(r for r in plan.releases if r.name != "match")
    asked = (replace(plan["match"], steps=questions),) if questions else ()
    return replace(plan, releases=before + asked).claim().epsilon
