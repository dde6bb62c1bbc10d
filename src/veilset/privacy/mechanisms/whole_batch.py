"""Any function of all units of a Poisson sample together: one tensor, clipped to C, plus Gaussian noise.

*One step.* Units take part by coins of their own, at rate q. Fix all coins but one unit's, and what the function draws
(its generators are seeded for the step, not by what was sampled). Where that unit's coin does not fall, the sample is
the same in both worlds, and so is the tensor a. Where it does, the function may give any other tensor a' in the ball
of radius C, so |a - a'| <= 2 C: with an inner normalisation, a matching or a median one unit may turn all of it round.
So the step releases N(a, s^2) without the unit and (1 - q) N(a, s^2) + q N(a', s^2) with it. Any hockey-stick
divergence is jointly convex, so it is at most the mean over the fixed coins, and each is at most that of N(0, s^2) and
(1 - q) N(0, s^2) + q N(2 C, s^2): the pair of the Poisson-sampled Gaussian, with sensitivity 2 C in place of C. Steps
compose, since coins are fresh. Nothing depends on a secret choice among models here, so no symmetrised curve is needed
(`secret_shards` is that case), and nothing may be carried from step to step but what was released.

*An empty sample* answers with zeros, of which noise is left; not to answer would tell that nobody was there.
"""

from __future__ import annotations

from veilset.privacy.mechanisms.base import Known, Line
from veilset.privacy.mechanisms.sampled_gaussian import SampledGaussian
from veilset.privacy.mechanisms.secret_shards import count
from veilset.privacy.spent import Spent

NAME = "whole-batch"


def whole_batch(noise_multiplier: float, rate: float, steps: int, columns: int = 1) -> Spent:
    """The accountant's line of `steps` answers about a Poisson sample each."""
    return Spent(noise_multiplier, rate, steps, None, NAME, (("columns", columns),))


class WholeBatch(SampledGaussian):
    """One clipped tensor that is any function of a Poisson sample."""

    name, label, verbs = NAME, "Gaussian on one answer about a whole sample", ("batch",)
    rules = {"columns": count}
    # Between two grids of 1e-5 that round all losses up, and down; the last one is exact.
    known = (
        Known("a run of sampled batches", (whole_batch(1.0, 0.01, 1000),), 1e-5, 1.828244),
        Known("little noise on batches", (whole_batch(0.5, 0.01, 500, 784),), 1e-5, 10.283014),
        Known("everybody in one batch", (whole_batch(3.730631634816, 1.0, 1),), 1e-5, 1.0),
    )

    def factor(self, line: Line) -> float:
        """All of the answer may change, from one side of its ball to the other."""
        return 2

    def sentence(self, line: Line) -> str:
        """What is clipped, and what one unit may change."""
        return (
            f"One answer of {dict(line.facts)['columns']} numbers about a sample of units, to which each comes by a "
            "secret coin of its own. It may be any function of them all, so one unit moves it from one side of its "
            "bound to the other at most; the noise has a standard deviation of noise multiplier × 2 × bound."
        )
