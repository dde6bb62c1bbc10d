"""Which method to take for a set's declared facts, and why, from measured figures. No record is read.

How figures of one set speak for another: what noise does to a class mean, which most methods live on, depends on
mu N / K: the budget as the parameter mu of Gaussian privacy, times the declared units of a class. So a set and budget
are compared with the measured budget at which mu N / K is nearest. That is a rule of thumb, and the answer says how far
away the nearest figure is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, VeilsetError, suggest
from veilset.recommend.evidence import Row, evidence

if TYPE_CHECKING:
    from veilset.core.types import PublicInfo
    from veilset.privacy.plan import Plan

GOALS = ("accuracy", "pictures")
FAR = 3.0  # a set whose mu N / K differs more than this from every measured one is far from the evidence


@dataclass(frozen=True)
class Candidate:
    """A method beside the others.

    Attributes:
        method: its name, or NAME:RECIPE.
        rows: what was measured of it at the nearest budget, one per set.
        minutes: what its plan estimates for these facts, on two cores; None if it cannot plan for them.
        why_not: why it is not compared; empty if it is.
    """

    method: str
    rows: tuple[Row, ...]
    minutes: float | None
    why_not: str = ""


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        method, reason: what to take, with its defaults, and why.
        like: (measured epsilon that was compared with, the epsilon at which the measured sets would be like this one).
        candidates: every method with figures, the best first.
        plan: the priced plan of the method.
        cautions: where the evidence does not reach.
    """

    method: str
    reason: str
    like: tuple[float, float]
    candidates: tuple[Candidate, ...]
    plan: Plan
    cautions: tuple[str, ...]


def recommend(
    info: PublicInfo, epsilon: float, *, delta: float = 1e-5, minutes: float | None = None, goal: str = "accuracy"
) -> Advice:
    """The method that did best where it was measured, among those that fit these facts.

    Methods are ranked by their mean over the measured sets: accuracy of a CNN, or for "pictures" the logarithm of a
    Frechet distance on features of a public network, where it was measured. Of those within one standard deviation
    (over seeds) of the best, the quickest is taken, because a gain below the spread is no gain.

    Args:
        info: declared facts.
        epsilon: of the budget; finite.
        delta: of the budget.
        minutes: the longest fit, on two cores; None for no limit.
        goal: what matters more: "accuracy" of classifiers trained on the images, or "pictures".

    Raises:
        ConfigError: a value out of range, or no measured method fits.
    """
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    privacy = Privacy(epsilon, delta)
    if not privacy.private:
        raise ConfigError(f"epsilon = {epsilon}: nothing is recommended without a finite budget; give a number above 0")
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"minutes = {minutes:g}: must be above 0")
    if goal not in GOALS:
        raise ConfigError(f"goal = {goal!r}: must be one of {', '.join(GOALS)}.{suggest(goal, GOALS)}")
    privacy.check_units(info.units)
    near, equal = _nearest(info, privacy)
    rows = [r for r in evidence() if r.epsilon == near]
    sets = list(dict.fromkeys(r.data for r in rows))
    found = [_candidate(m, rows, sets, info, privacy, minutes, goal) for m in dict.fromkeys(r.method for r in rows)]
    compared = sorted((c for c in found if not c.why_not), key=lambda c: -_score(c, goal)[0])
    if not compared:
        reasons = "; ".join(dict.fromkeys(f"{c.method}: {c.why_not}" for c in found))
        raise ConfigError(f"no measured method fits ({reasons}); allow more minutes, or name a method to fit")
    best, spread = _score(compared[0], goal)
    level = [c for c in compared if best - _score(c, goal)[0] <= max(spread, _score(c, goal)[1])]
    taken = min(level, key=lambda c: c.minutes or 0.0)
    plan = make(taken.method).plan(info, privacy)
    return Advice(
        method=taken.method,
        reason=_reason(taken, compared[0], goal, sets, near),
        like=(near, equal),
        candidates=(*compared, *(c for c in found if c.why_not)),
        plan=plan,
        cautions=_cautions(info, near, equal, sets, plan),
    )


def _strength(units: int, classes: int, epsilon: float, delta: float) -> float:
    """mu N / K."""
    from veilset.privacy.accounting import gaussian_noise_multiplier

    return units / classes / gaussian_noise_multiplier(epsilon, delta)


def _nearest(info: PublicInfo, privacy: Any) -> tuple[float, float]:
    """The measured epsilon whose mu N / K is nearest, and the epsilon at which a measured set would have this one's."""
    from veilset.privacy.accounting import gaussian_epsilon

    own = _strength(info.units, len(info.classes), privacy.epsilon, privacy.delta)
    rows = evidence()
    near = min(rows, key=lambda r: abs(math.log(_strength(r.units, r.classes, r.epsilon, 1e-5) / own)))
    return near.epsilon, gaussian_epsilon(own * near.classes / near.units, 1e-5)


def _candidate(
    method: str,
    rows: Sequence[Row],
    sets: Sequence[str],
    info: PublicInfo,
    privacy: Any,
    minutes: float | None,
    goal: str,
) -> Candidate:
    """A method's rows and its estimated minutes, and why it is not compared if it is not."""
    from veilset.methods.catalogue import make

    own = tuple(r for r in rows if r.method == method)
    try:
        plan = make(method).unpriced(info, privacy)
    except VeilsetError as e:
        return Candidate(method, own, None, str(e))
    estimate = plan.seconds / 60
    if len(own) < len(sets):
        return Candidate(method, own, estimate, f"measured on {', '.join(r.data for r in own)} only")
    figures = [_figure(r, goal) for r in own]
    if None in figures:
        return Candidate(method, own, estimate, "the distance of its pictures was not measured")
    if any(f and f[1] is None for f in figures):
        what = "measured" if goal == "accuracy" else "distance measured"
        return Candidate(method, own, estimate, f"{what} with one seed so far, which shows no spread")
    if minutes is not None and estimate > minutes:
        return Candidate(method, own, estimate, f"would take about {estimate:.1f} min")
    return Candidate(method, own, estimate)


def _figure(row: Row, goal: str) -> tuple[float, float | None] | None:
    """(what is compared, the higher the better; its deviation over seeds, None for one); None if it is not there."""
    if goal == "accuracy":
        return row.accuracy, row.sd
    if row.distance is None:
        return None
    return -math.log(row.distance), row.distance_sd and row.distance_sd / row.distance


def _score(c: Candidate, goal: str) -> tuple[float, float]:
    """Mean over the sets, and its standard deviation over seeds, of a candidate that has all figures."""
    figures = [f for r in c.rows if (f := _figure(r, goal))]
    squares = sum((deviation or 0.0) ** 2 for _, deviation in figures)
    return sum(value for value, _ in figures) / len(figures), math.sqrt(squares) / len(figures)


def _reason(taken: Candidate, first: Candidate, goal: str, sets: Sequence[str], near: float) -> str:
    where = f"on {' and '.join(sets)} at epsilon {near:g}"
    what = "accuracy of a CNN trained on the images" if goal == "accuracy" else "Frechet distance of the images"
    if taken is first:
        return f"of the methods measured {where}, it has the best mean {what}"
    return f"{where}, its mean {what} is within the spread of the best ({first.method}), and it is the quicker one"


def _cautions(info: PublicInfo, near: float, equal: float, sets: Sequence[str], plan: Plan) -> tuple[str, ...]:
    from veilset.privacy.accounting import gaussian_noise_multiplier

    out = []
    ratio = gaussian_noise_multiplier(near, 1e-5) / gaussian_noise_multiplier(max(equal, 1e-9), 1e-5)
    if not 1 / FAR <= ratio <= FAR:
        way = "expect worse images, and prefer methods of few sums" if ratio < 1 else "methods of gradients may gain"
        times = f"{1 / ratio:.2g} times that on the measured sets at epsilon {near:g}"
        out.append(f"noise in a class mean is {times}: {way}")
    if any("left out" in w for w in plan.warnings):
        out.append("the method was measured with the releases that this plan leaves out")
    if info.shape != (1, 28, 28):
        out.append(f"all figures are of grey images of 28 x 28; none of shape {list(info.shape)}")
    if info.max_images_per_unit > 1:
        out.append("all figures are of one image per unit")
    return (*out, f"{' and '.join(sets)} are the sets that defaults were chosen on")
