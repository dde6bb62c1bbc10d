"""A method that takes milliseconds, a small private set of four classes, and streams of tasks on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import veilset as vs
from veilset.continual.plan import StreamPlan, Task, plan
from veilset.core.types import PublicInfo
from veilset.privacy.private import PrivateImages, from_arrays

INFO = PublicInfo(name="blobs", classes=("a", "b", "c", "d"), shape=(1, 4, 4), units=80)


@dataclass(frozen=True)
class Config:
    bound: float = vs.option(2.0, "L2 bound", gt=0)
    split: bool = vs.option(False, "ask each class apart")


class Tiny(vs.Synthesizer):
    """Class means, in one question or in one per class."""

    name = "tiny"
    Config = Config

    def _plan(self, info: Any, privacy: Any) -> Any:
        partition = "class" if self.config.split else None
        return vs.Plan((vs.Release(name="mean", bound=self.config.bound, partition=partition),), seconds=0.1)

    def _fit(self, gate: Any, info: Any, plan: Any) -> Any:
        if self.config.split:
            total = torch.stack([gate.sum("mean", lambda x, y: x - 0.5, part=k) for k in range(len(info.classes))])
        else:
            total = gate.sum("mean", lambda x, y: x - 0.5, by_class=True)
        return {"mean": (total / (info.units / len(info.classes)) + 0.5).float()}

    def _sample(self, state: Any, info: Any, labels: torch.Tensor) -> torch.Tensor:
        return state["mean"][labels] + 0.1 * torch.rand(len(labels), *info.shape)


def blobs(labels: str = "abcd", seed: int = 0, info: PublicInfo = INFO, units: Any = None) -> PrivateImages:
    """Twenty images of each of these classes."""
    g = np.random.default_rng(seed)
    y = np.repeat([info.classes.index(c) for c in labels], 20).astype(np.int64)
    return from_arrays(info, g.integers(0, 256, (len(y), *info.shape), dtype=np.uint8), y, units)


def priced(*classes: str, info: PublicInfo = INFO, epsilon: tuple[float, ...] = (), **options: Any) -> StreamPlan:
    """A plan with one task for each word, whose letters are its classes; each of epsilon 1 unless said otherwise."""
    budgets = epsilon or (1.0,) * len(classes)
    params = options.pop("params", {})
    tasks = [
        Task(classes=tuple(names), method="tiny", epsilon=e, params=params)
        for names, e in zip(classes, budgets, strict=True)
    ]
    return plan(info, tasks, **{"per_class": 3, "format": "npz"} | options)
