"""One measured check, when it alarms, and the small sets and gates that checks are made with."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from veilset.core.types import PublicInfo
from veilset.privacy.account import Payment
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.spec import Privacy

ALARM = 8.0  # a random check alarms below a probability of 10^-ALARM; with at most 100 of them 1e-6 for all together
MOST = 100
NO_NOISE = Privacy(math.inf)  # answers are exact then, in release mode too
Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One figure and the limit that was fixed for it in advance.

    Attributes:
        name: what was checked.
        statistic: what was measured; for random checks -log10 of the probability that sound code does as badly.
        threshold: the check holds when statistic <= threshold.
        about: what the statistic is, and what a failure means.
    """

    name: str
    statistic: float
    threshold: float
    about: str

    @property
    def ok(self) -> bool:
        """Whether it holds; NaN does not."""
        return self.statistic <= self.threshold

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset selftest --json`; what is not a finite number becomes the largest one that fits."""
        shown = self.statistic if math.isfinite(self.statistic) else 1e300
        return {
            "name": self.name, "statistic": shown, "threshold": self.threshold, "ok": self.ok, "about": self.about
        }  # fmt: skip


def random_check(name: str, about: str, *p: float) -> Check:
    """A check that rests on p-values: -log10 of the smallest, times how many there are, against ALARM."""
    least = min(p) * len(p) if all(v == v for v in p) else 0.0
    return Check(name, abs(math.log10(min(1.0, max(least, 1e-300)))), ALARM, f"-log10 p: {about}")


def wrong(name: str, about: str, *, of: dict[str, bool]) -> Check:
    """A check that counts which of these statements do not hold."""
    bad = [what for what, holds in of.items() if not holds]
    return Check(name, float(len(bad)), 0.0, f"count: {about}" + (f" (wrong: {'; '.join(bad)})" if bad else ""))


def two_sided(z: float) -> float:
    """p-value of a standard normal statistic."""
    from scipy.stats import norm

    return float(2 * norm.sf(abs(z)))


def chi_square(total: float, freedom: int) -> float:
    """Two-sided p-value of a chi-square statistic."""
    from scipy.stats import chi2

    return min(1.0, 2 * float(min(chi2.cdf(total, freedom), chi2.sf(total, freedom))))


def uncorrelated(a: Array, b: Array) -> float:
    """p-value of the correlation of two long samples, by Fisher's transformation."""
    with np.errstate(invalid="ignore"):
        r = float(np.corrcoef(a, b)[0, 1])
    return two_sided(math.atanh(max(-1 + 1e-15, min(1 - 1e-15, r))) * math.sqrt(len(a) - 3)) if r == r else 0.0


# ---------------------------------------------------------------------- small sets and their gates


def facts(shape: tuple[int, int, int] = (1, 4, 4), **changes: Any) -> PublicInfo:
    """Declared facts of a set of 50 grey images in three classes."""
    given: dict[str, Any] = {"name": "selftest", "classes": ("a", "b", "c"), "units": 50, "value_range": (0.0, 1.0)}
    return PublicInfo(shape=shape, **(given | changes))


def pictures(n: int, info: PublicInfo) -> tuple[Array, Array]:
    """n random images in [0, 1] and labels; always the same."""
    g = np.random.default_rng(7)
    return g.random((n, *info.shape), dtype=np.float32), g.integers(0, len(info.classes), n)


def hidden(info: PublicInfo, x: Array, y: Array, units: Array | None = None) -> PrivateImages:
    """A private set of these arrays."""
    return from_arrays(info, x, y, units)


def nobody(info: PublicInfo) -> PrivateImages:
    """An empty private set: what is answered about it is noise."""
    return hidden(info, np.zeros((0, *info.shape), np.float32), np.zeros(0, np.int64))


def gate_for(
    data: PrivateImages,
    *releases: Release,
    privacy: Privacy = NO_NOISE,
    seed: int | None = None,
    folder: Path | None = None,
    payment: Payment | None = None,
) -> Gate:
    """A gate of a plan priced at this budget; without noise and in release mode unless said otherwise."""
    return Gate(data, Plan(releases).price(privacy, data.info), seed=seed, folder=folder, payment=payment)


def flat(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The image itself as a contribution."""
    return x.flatten()


def along(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient in w is the image."""
    return (p["w"] * x).sum()


def refused(ask: Callable[[], Any], *errors: type[Exception]) -> bool:
    """Whether asking raises one of these errors."""
    try:
        ask()
    except errors:
        return True
    return False


def with_user_seeds(make: Callable[[], T]) -> T:
    """What `make` returns just after the user has seeded all generators, which are put back afterwards."""
    kept, ours = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            return make()
    finally:
        np.random.set_state(kept)
        random.setstate(ours)
