"""What one unit can do to an answer: found by experiment on neighbours, and against plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from veilset.audit.selftest.base import Array, Check, along, facts, flat, gate_for, hidden, pictures
from veilset.core.types import PublicInfo
from veilset.privacy.plan import Release

BOUND = 1.5
SPARE = 1e-6  # contributions are clipped to this much below the bound, to cover rounding
HALF = 1 - SPARE / 2
SIZE = 16
RECORDS = {
    "ordinary": np.linspace(0, 1, SIZE),
    "white": np.ones(SIZE),
    "1e30": np.full(SIZE, 1e30),
    "NaN": np.full(SIZE, np.nan),
    "one NaN": np.r_[np.ones(SIZE - 1), np.nan],
    "infinite": np.full(SIZE, np.inf),
}


def huge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A contribution far beyond any bound."""
    return x.flatten() * 1e6


def split(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, kept apart by cells; cell numbers are out of range on purpose."""
    return y * 100 - 50, x.flatten() * 1e6


def neighbours() -> Iterator[Check]:
    """Add one unit to a set, with the coins of the others kept: the answer may move by the bound at most."""
    ways: tuple[tuple[Any, dict[str, Any], float], ...] = (
        (huge, {}, 1.0),
        (huge, {"by_class": True}, 1.0),
        (split, {"cells": 2, "by_class": True}, 1.0),
        (huge, {}, 0.9),
        ("grad", {}, 1.0),
        ("grad", {}, 0.9),
    )
    record = unit = kept_out = 0.0
    for f, how, rate in ways:
        for name, new in RECORDS.items():
            moved = _moved(f, how, rate, new.reshape(1, 1, 4, 4))
            record = max(record, moved)
            kept_out = max(kept_out, moved if "NaN" in name else 0.0)
        for images in (1, 3, 7):
            new = np.linspace(0, 1, images * SIZE).reshape(images, 1, 4, 4)
            unit = max(unit, _moved(f, how, rate, new, cap=3))
    yield Check("one record moves an answer by its bound at most", record, HALF, "largest movement / bound")
    yield Check("one unit of several images does too", unit, HALF, "largest movement / bound")
    yield Check("NaN contributes nothing", kept_out, 1e-9, "largest movement / bound")


def sums() -> Iterator[Check]:
    """Sums over 9,000 images of 3,000 people, capped, clipped and shared as written, against plain NumPy."""
    info = facts(units=3000, max_images_per_unit=3)
    x, y = pictures(9000, info)
    units = np.unique(np.random.default_rng(5).integers(0, 3000, 9000), return_inverse=True)[1]
    v = x.reshape(9000, -1).astype(float) * 1.2
    reference = _reference(v, y, units, BOUND)
    gate = gate_for(hidden(info, x, y, units), Release(name="r", bound=BOUND))
    got = gate.sum("r", lambda x, y: x.flatten().double() * 1.2, by_class=True).numpy()
    far = float(np.abs(got - reference).max())
    yield Check("sums equal a plain reference", far / BOUND, 1e-6, "largest difference / bound, 3,000 units")
    few = slice(0, 600)  # of long contributions a chunk holds some 128 only, and its border may fall within a unit
    units = np.unique(units[few] % 200, return_inverse=True)[1]
    gate = gate_for(hidden(info, x[few], y[few], units), Release(name="r", bound=BOUND))
    got = gate.sum("r", lambda x, y: (x.flatten().double() * 1.2).repeat(1024), by_class=True)[:, :SIZE].numpy()
    far = float(np.abs(got - _reference(v[few], y[few], units, BOUND / 32)).max())  # 1,024 copies: 32 times as long
    yield Check("units are whole over chunks", far / BOUND, 1e-6, "largest difference / bound, chunks of 128 images")


def matrix_products() -> Iterator[Check]:
    """A map may round otherwise when more records are there; then one record would move the others' contributions."""
    info = facts((1, 28, 28), units=100)
    w = torch.randn(300, 784, generator=torch.Generator().manual_seed(0))
    f, far = (lambda x, y: torch.cos(w @ x.flatten())), 0.0
    white = np.ones((1, 1, 28, 28), np.float32)

    def answer(x: Array) -> torch.Tensor:
        return gate_for(hidden(info, x, np.zeros(len(x), np.int64)), Release(name="r")).sum("r", f)

    alone = answer(white)
    for common in (1, 2, 5, 8, 12, 31, 32, 63):
        x, _ = pictures(common, info)
        far = max(far, float((answer(np.concatenate([x, white])) - answer(x) - alone).norm()))
    yield Check("a record does not move the contributions of others", far, 1e-12, "largest movement of the rest")


def denominators() -> Iterator[Check]:
    """Gradients are divided by the declared q N, whatever was sampled and however many records there are."""
    info, off = facts(), 0.0
    for n in (5, 50, 300):
        for rate in (1.0, 0.5):
            x = np.full((n, 1, 4, 4), 0.1, np.float32)  # of norm 0.4: not clipped
            data = hidden(info, x, np.zeros(n, np.int64))
            release = Release(name="r", verb="grad", bound=BOUND, sample_rate=rate)
            w = {"w": torch.zeros(1, 4, 4, dtype=torch.float64)}
            got = float(gate_for(data, release, seed=2).grad("r", along, w)["w"].sum()) / 1.6
            coins = gate_for(data, Release(name="r", bound=BOUND, sample_rate=rate), seed=2)
            taken = float(coins.sum("r", flat).sum()) / 1.6
            off = max(off, abs(got * rate * info.units - taken))
    yield Check("gradients are divided by the declared q N", off, 0.01, "largest error, in records")


CHECKS = (neighbours, sums, matrix_products, denominators)


def _moved(f: Any, how: dict[str, Any], rate: float, new: Array, cap: int = 1) -> float:
    """Movement / bound of an answer when a unit of these images joins 31 others."""
    info = facts(max_images_per_unit=cap)
    x, y = pictures(31, info)
    units = None if cap == 1 else np.arange(31) // 2
    more = np.concatenate([x, new.astype(np.float32)]), np.r_[y, np.arange(len(new)) % 3]
    joined = None if units is None else np.r_[units, np.full(len(new), units.max() + 1)]
    a, b = _answer(info, x, y, units, f, how, rate), _answer(info, *more, joined, f, how, rate)
    return float((a - b).norm()) / BOUND if bool(torch.isfinite(b).all()) else float("inf")


def _answer(
    info: PublicInfo, x: Array, y: Array, units: Array | None, f: Any, how: dict[str, Any], rate: float
) -> torch.Tensor:
    """An exact answer, with the same coins for the same units."""
    verb = "grad" if f == "grad" else "sum"
    gate = gate_for(hidden(info, x, y, units), Release(name="r", verb=verb, bound=BOUND, sample_rate=rate), seed=0)
    if verb == "sum":
        return gate.sum("r", f, **how)
    w = {"w": torch.zeros(1, 4, 4, dtype=torch.float64), "b": torch.zeros((), dtype=torch.float64)}
    got = gate.grad("r", lambda p, x, y: 1e6 * ((p["w"] + 1) * x).sum() + 1e6 * p["b"], w)
    return torch.cat([got["w"].flatten(), got["b"].flatten()]) * rate * info.units


def _reference(v: Array, y: Array, units: Array, bound: float, cap: int = 3) -> Array:
    """[3, d] the sum over units of the mean of its first `cap` contributions, each clipped, kept apart by class."""
    out = np.zeros((3, v.shape[1]))
    for u in range(units.max() + 1):
        for i in (mine := np.flatnonzero(units == u)[:cap]):
            out[y[i]] += v[i] * min(1.0, bound * (1 - SPARE) / np.linalg.norm(v[i])) / len(mine)
    return out
