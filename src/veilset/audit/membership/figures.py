"""What a score that should be larger for members is worth: AUC, rates at few false alarms, intervals, the curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

FALSE_ALARMS = (0.001, 0.01)  # the false-positive rates that are reported
CURVE = 120  # points of a curve that is kept for the picture

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rate:
    """The true-positive rate at a false-positive rate, or why none can be given.

    Attributes:
        fpr: false-positive rate, in (0, 1).
        tpr: true-positive rate, or None where outsiders are too few to tell that rate from zero.
        low, high: interval of tpr, or None.
        why: the reason, where tpr is None.
    """

    fpr: float
    tpr: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Figures:
    """What one score tells about members against outsiders.

    Attributes:
        auc: the chance that a member scores above an outsider (ties count half), in [0, 1]; 0.5 is guessing.
        low, high: its interval.
        advantage: the largest true- minus false-positive rate over all thresholds. Chosen on the same records, so it
            is above 0 for a useless score too.
        rates: at FALSE_ALARMS.
    """

    auc: float
    low: float
    high: float
    advantage: float
    rates: tuple[Rate, ...]


def figures(member: Array, outsider: Array, error: float = 0.05) -> Figures:
    """The figures of a score.

    Args:
        member: scores [m] of members. outsider: scores [n] of outsiders.
        error: chance with which an interval may miss (each by itself).
    """
    auc, low, high = area(member, outsider, error)
    f, t = roc(member, outsider)
    return Figures(auc, low, high, float((t - f).max()), tuple(rate(member, outsider, a, error) for a in FALSE_ALARMS))


def area(member: Array, outsider: Array, error: float) -> tuple[float, float, float]:
    """The area under the ROC and its interval, by DeLong, DeLong, Clarke-Pearson 1988 on the logit scale.

    Where the scores separate perfectly DeLong's variance is 0. Then a share s of one kind lies beyond the other with
    s^k >= error / 2 for k records of the smaller kind (Clopper-Pearson), and the area is at least (at most 1 -) that s.
    """
    from scipy.stats import norm, rankdata

    m, n = len(member), len(outsider)
    ranks = rankdata(np.concatenate([member, outsider]))
    below = (ranks[:m] - rankdata(member)) / n  # of each member: the share of outsiders below it
    above = 1 - (ranks[m:] - rankdata(outsider)) / m  # of each outsider: the share of members above it
    auc = float(below.mean())
    edge = (error / 2) ** (1 / min(m, n))
    if auc in (0.0, 1.0):
        return auc, (edge if auc else 0.0), (1.0 if auc else 1 - edge)
    deviation = math.sqrt(below.var(ddof=1) / m + above.var(ddof=1) / n)
    wide = float(norm.isf(error / 2)) * deviation / (auc * (1 - auc))
    logit = math.log(auc / (1 - auc))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, v)))) for v in (logit - wide, logit + wide))
    return auc, low, high


def needed(fpr: float, error: float = 0.05) -> int:
    """How many outsiders it takes to say that a threshold which none of them passes has this false-positive rate."""
    return math.ceil(math.log(error) / math.log1p(-fpr))


def rate(member: Array, outsider: Array, fpr: float, error: float) -> Rate:
    """The share of members above the threshold that a share `fpr` of outsiders passes, and its interval.

    The threshold is not known: how many of n outsiders pass the true one is binomial, which bounds it by two order
    statistics of their scores (half of the error). At those the members' shares have Clopper-Pearson limits (the
    other half). So the interval holds for any distribution of scores, and is wide where outsiders are few.
    """
    from scipy.stats import beta, binom

    m, n = len(member), len(outsider)
    if n < needed(fpr):
        return Rate(fpr, None, why=f"{n:,} outsiders are too few: {100 * fpr:g} % takes {needed(fpr):,}")
    sorted_ = np.sort(outsider)[::-1]  # from the highest
    tpr = float((member > sorted_[int(fpr * n + 1e-9)]).mean())
    few, many = (int(binom.ppf(q, n, fpr)) for q in (error / 4, 1 - error / 4))
    caught = int((member > sorted_[few - 1]).sum()) if few else 0
    found = int((member > sorted_[many]).sum()) if many < n else m
    low = float(beta.ppf(error / 4, caught, m - caught + 1)) if caught else 0.0
    high = float(beta.isf(error / 4, found + 1, m - found)) if found < m else 1.0
    return Rate(fpr, tpr, low, high)


def roc(member: Array, outsider: Array) -> tuple[Array, Array]:
    """False- and true-positive rates of every threshold, ascending from (0, 0) to (1, 1)."""
    values = np.unique(np.concatenate([member, outsider]))[::-1]
    f = 1 - np.searchsorted(np.sort(outsider), values, side="left") / len(outsider)
    t = 1 - np.searchsorted(np.sort(member), values, side="left") / len(member)
    return np.concatenate([[0.0], f]), np.concatenate([[0.0], t])


def curve(member: Array, outsider: Array) -> list[list[float]]:
    """The ROC at false-positive rates that are even on a logarithmic scale from 1/n to 1, for pictures and JSON."""
    f, t = roc(member, outsider)
    wanted = np.unique(np.floor(np.geomspace(1, len(outsider), CURVE) + 1e-9)) / len(outsider)
    at = np.searchsorted(f, wanted + 1e-12, side="right") - 1
    return [[round(float(a), 6), round(float(b), 6)] for a, b in zip(wanted, t[at], strict=True)]
