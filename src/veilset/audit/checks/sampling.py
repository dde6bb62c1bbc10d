"""Who takes part in a step: each unit by itself at the planned rate, all its images or none, in its part only."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from veilset.audit.checks.base import (
    Array,
    Check,
    along,
    chi_square,
    facts,
    flat,
    gate_for,
    hidden,
    random_check,
    uncorrelated,
    wrong,
)
from veilset.privacy.plan import Release
from veilset.privacy.private import PrivateImages
from veilset.privacy.spec import Privacy

N, SHAPE = 256, (1, 16, 16)


def poisson() -> Iterator[Check]:
    """Inclusion of 256 records over many steps, seen as one-hot contributions in exact answers of a release run."""
    for verb, rate, steps in (("sum", 0.25, 400), ("sum", 0.02, 400), ("grad", 0.5, 100)):
        taken, what = _taken(verb, rate, steps), f"{verb} at rate {rate:g}"
        yield random_check(f"records take part at the planned rate, {what}", _seen(taken), *_rates(taken, rate))
        yield random_check(
            f"batch sizes vary as Poisson sampling does, {what}",
            f"variance of the batch size / (N q (1 - q)) is {float(_spread(taken, rate).mean()):.3f}, should be 1",
            chi_square(float(_spread(taken, rate).sum()), steps),
        )
        p = [uncorrelated(taken[:-k].ravel(), taken[k:].ravel()) for k in (1, 2)]
        yield random_check(f"steps throw coins of their own, {what}", "correlation of steps", *p)


def small_rates() -> Iterator[Check]:
    """Coins at rates just above a multiple of 2^-16: to round them up would take a seventh more, or twice as many.

    So many coins that a seventh more is 14 standard deviations, where the alarm is at 5.7.
    """
    from scipy.stats import binomtest

    many, steps = 10**6, 100
    p, seen = [], []
    for rate in (9.3e-5, 1.53e-5):
        data = hidden(facts((1, 1, 1), units=many), np.zeros((many, 1, 1, 1), np.float32), np.zeros(many, np.int64))
        gate = gate_for(data, Release(name="r", sample_rate=rate, steps=steps), privacy=Privacy(math.inf, 1e-9))
        taken = sum(round(float(gate.sum("r", lambda x, y: torch.ones(1)))) for _ in range(steps))
        p.append(float(binomtest(taken, steps * many, rate).pvalue))
        seen.append(f"{taken} of {steps * many} coins at rate {rate:g}")
    yield random_check("small rates are not rounded", "; ".join(seen), *p)


def whole_units() -> Iterator[Check]:
    """Units of several images: together or not at all, capped, and each in one part of the partition."""
    info = facts(SHAPE, units=64, max_images_per_unit=3)
    units = np.random.default_rng(3).permutation(np.repeat(np.arange(64), 4))
    labels = np.random.default_rng(4).integers(0, 3, N)
    data = hidden(info, _one_hot(), labels, units)
    first = np.array([np.flatnonzero(units == u) for u in range(64)])  # the images of each unit in record order
    torn = capped = 0
    gate = gate_for(data, Release(name="r", sample_rate=0.5, steps=30))
    for _ in range(30):
        weight = gate.sum("r", flat).numpy()[first]
        here = weight[:, :3] > 0
        torn += int((here.any(1) != here.all(1)).sum())
        capped += int((weight[:, 3] > 0).sum())
    yield Check("a unit takes part with all its images", float(torn), 0.0, "units that were torn apart")
    yield Check("images beyond the cap are left out", float(capped), 0.0, "units with more images than the cap")
    gate = gate_for(data, Release(name="r", partition="class"))
    parts = [gate.sum("r", flat, part=k).numpy()[first][:, :3].sum(1) for k in range(3)]
    where = labels[first[:, 0]]
    yield wrong(
        "a unit lies in one part of the partition",
        "units that a part of another class has read, or that their own part has not",
        of={f"part {k}": bool(np.array_equal(parts[k] > 0.5, where == k)) for k in range(3)},
    )


CHECKS = (poisson, small_rates, whole_units)


def _one_hot() -> Array:
    return np.eye(N, dtype=np.float32).reshape(N, *SHAPE)


def _taken(verb: str, rate: float, steps: int) -> Array:
    """[steps, N] 1 where a record took part."""
    data: PrivateImages = hidden(facts(SHAPE, units=N), _one_hot(), np.zeros(N, np.int64))
    gate = gate_for(data, Release(name="r", verb=verb, sample_rate=rate, steps=steps))
    w = {"w": torch.zeros(SHAPE)}

    def ask() -> Array:
        return (gate.sum("r", flat) if verb == "sum" else gate.grad("r", along, w)["w"].flatten() * rate * N).numpy()

    return np.stack([ask() > 0.5 for _ in range(steps)]).astype(float)


def _seen(taken: Array) -> str:
    return f"{int(taken.sum())} of {taken.size} coins"


def _rates(taken: Array, rate: float) -> list[float]:
    """p-values of the number of all inclusions and of how they spread over records."""
    from scipy.stats import binomtest

    each = (taken.sum(0) - len(taken) * rate) ** 2 / (len(taken) * rate * (1 - rate))
    return [float(binomtest(int(taken.sum()), taken.size, rate).pvalue), chi_square(float(each.sum()), N)]


def _spread(taken: Array, rate: float) -> Array:
    return np.asarray((taken.sum(1) - N * rate) ** 2 / (N * rate * (1 - rate)))
