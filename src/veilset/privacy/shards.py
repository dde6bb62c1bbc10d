"""epsilon where one of K shards, drawn in secret, answers at each step.

Every unit lies in one of K shards, by a draw of its own. At a step a fresh secret coin picks shard k with probability
q = 1 / K; a model made from that shard alone, and from what was released before, answers with an array in a convex set
of diameter d (B rows of norm at most C: d = 2 C sqrt(B)); the gate adds N(0, s^2) to every number. Noise multiplier:
s / d, which for a multiplier per row sigma = s / (2 C) is `answer_noise(sigma, B)` = sigma / sqrt(B). Line by line:

1. *Worlds.* Two sets differ in one unit (added, removed or replaced) of shard j. All else is equal, the tables of the
   other units' shards among it. Given what was released before, and all coins of training, the shards' answers are
   points a_1 .. a_K of the set, with a'_j instead of a_j in the other world; the step releases
   P = q N(a_j) + (1 - q) R or Q = q N(a'_j) + (1 - q) R, with R the mean of N(a_i) over i != j. (Given coins: what is
   released without knowing them is a mixture over them, and lines 2 to 5 bound a jointly convex quantity.)
2. *One step, epsilon >= 0.* H_e(P||Q) = sup over events of P - e^epsilon Q, the least delta at epsilon. With
   e^e' = 1 + (e^epsilon - 1) / q and b = e^epsilon / e^e', advanced joint convexity (Balle, Barthe and Gaboardi 2018,
   Theorem 2) says H_epsilon(P||Q) = q H_e'(N(a_j) || (1 - b) R + b N(a'_j)). H is convex in its second place: this is
   at most q times the largest H_e' of N(a_j) against one of the N(a_i) or N(a'_j). All lie within d of a_j, therefore
   H_epsilon(P||Q) <= h(epsilon) = q G(e'), with G the closed form for mu = d / s. Also with P and Q exchanged.
3. *epsilon < 0.* H_epsilon(P||Q) = 1 - e^epsilon + e^epsilon H_-epsilon(Q||P) for any two laws, so it is at most
   1 - e^epsilon + e^epsilon h(-epsilon). With 2., `step_delta` bounds both directions at every epsilon.
4. *It is a curve of two laws.* As a function of x = e^epsilon it falls from 1 to 0, lies above 1 - x, and is convex:
   for x >= 1 since G is convex in e^e', which is linear in x; for x <= 1 since x f(1 / x) is convex with f; at 1 the
   slope rises by (1 - q)(2 Phi(mu / 2) - 1) >= 0. Such a curve belongs to a pair of laws that dominates the step in
   both directions (Zhu, Dong and Wang 2022, Proposition 8), and products of dominating pairs dominate adaptive
   compositions (their Theorem 10). The mass at loss 0 is the share of steps that a symmetric pair does not tell apart.
5. *Steps.* Line 1 holds at each step given the earlier releases, because nothing else is carried from step to step: the
   coin is fresh, and a model that was drawn is thrown away. See docs/secret-shards.md for what breaks without that.

The curve is strung on a grid from above (`step`), and composed by `pld`; an exponent is off by at most 4 u relative,
here of losses up to e' of the last point. The check, `divergence`, is another theorem: sampling without replacement,
one of K records that are shards, replace-one. Both hold for adding, removing or replacing one unit. Sampling m of n
records without replacement has the same curve, with q = m / n, for replacing one record (Balle, Barthe and Gaboardi
2018, Theorem 11), and the same check.
"""

from __future__ import annotations

import math
from typing import Any

from veilset.privacy.gaussian import TAIL

EDGE = 10.0  # deviations; a step leaves less than exp(-53) of its mass beyond the last point


def answer_noise(noise_multiplier: float, rows: int) -> float:
    """Noise multiplier of a whole answer of `rows` rows, each with noise `noise_multiplier` times its diameter."""
    return noise_multiplier / math.sqrt(rows)


def inner(epsilon: Any, rate: float) -> Any:
    """log(1 + (exp(epsilon) - 1) / q) for epsilon >= 0; no term cancels, and none overflows."""
    import numpy as np

    return epsilon + np.log1p((1 - rate) * -np.expm1(-epsilon) / rate)


def gaussian_deltas(epsilon: Any, mu: Any) -> Any:
    """`gaussian.gaussian_delta` of arrays."""
    import numpy as np
    from scipy.special import erfcx, log_ndtr, ndtr

    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    near = ndtr(a) - np.exp(np.minimum(epsilon + log_ndtr(b), 0.0))
    far = np.minimum(a, TAIL)
    return np.where(
        a > TAIL, near, np.exp(-far * far / 2) * (erfcx(-far / math.sqrt(2)) - erfcx(-b / math.sqrt(2))) / 2
    )


def step_delta(epsilon: Any, noise_multiplier: float, rate: float) -> Any:
    """The least delta that is proved for one step, at every epsilon, in both directions: lines 2 and 3 above.

    Args:
        epsilon: array of any sign.
        noise_multiplier: of a whole answer.
        rate: q in (0, 1].
    """
    import numpy as np

    epsilon = np.asarray(epsilon, dtype=float)
    size = np.abs(epsilon)
    amplified = rate * np.maximum(gaussian_deltas(inner(size, rate), 1 / noise_multiplier), 0.0)
    return np.where(epsilon >= 0, amplified, -np.expm1(-size) + np.exp(-size) * amplified)


def edge(noise_multiplier: float, rate: float) -> float:
    """The loss of a step that belongs to EDGE deviations."""
    last = (0.5 / noise_multiplier + EDGE) / noise_multiplier
    return math.log1p(rate * math.expm1(last)) if last < 500 else last + math.log(rate)


def step(noise_multiplier: float, rate: float, interval: float) -> Any:
    """One step as dp-accounting's PrivacyLossDistribution: the curve's chords between the points of a grid.

    A chord of a convex curve lies above it; beyond the last point delta stays what it is there, as an infinite loss.
    Mass at a loss e > 0 is exp(e) times the rise of the slope there; at -e, by symmetry, exp(-e) times as much; at 0
    what is left of 1. So no mass is a difference of numbers near 1, and their sum is 1 however fine the grid is.
    """
    import numpy as np
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as library

    last = math.ceil(edge(noise_multiplier, rate) / interval)
    losses = np.arange(last + 1) * interval
    curve = np.minimum.accumulate(step_delta(losses, noise_multiplier, rate))
    falls = np.append(curve[:-1] - curve[1:], 0.0)
    above = np.maximum((falls[:-1] * math.exp(interval) - falls[1:]) / math.expm1(interval), 0.0)
    below = above * np.exp(-losses[1:])
    here = max(0.0, 1 - float(curve[-1]) - float(above.sum()) - float(below.sum()))
    whole = np.concatenate([below[::-1], [here], above])
    return library.PrivacyLossDistribution(pld_pmf.DensePLDPmf(interval, -last, whole, float(curve[-1]), True))


def divergence(noise_multiplier: float, rate: float, order: int) -> float:
    """Renyi divergence of one step at an integer order a >= 2 (Wang, Balle and Kasiviswanathan 2019, Theorem 9).

    exp((a - 1) R(a)) <= 1 + q^2 binom(a, 2) min(4 (e^r(2) - 1), 2 e^r(2)) + sum over j >= 3 of
    2 q^j binom(a, j) e^((j - 1) r(j)), with r(j) = j / (2 s^2) that of a Gaussian. Sampling never adds, so r(a) is a
    bound, too.
    """
    import numpy as np
    from scipy.special import gammaln, logsumexp

    j = np.arange(2, order + 1)
    whole = j / (2 * noise_multiplier**2)
    terms = gammaln(order + 1) - gammaln(j + 1) - gammaln(order - j + 1) + j * math.log(rate) + (j - 1) * whole
    terms = terms + math.log(2)
    terms[0] += min(0.0, math.log(2) + math.log(-math.expm1(-whole[0])))
    return min(float(np.logaddexp(0.0, logsumexp(terms))) / (order - 1), float(whole[-1]))


def told(noise_multiplier: float, rate: float, order: float) -> float:
    """Renyi divergence of one step at any order above 1 if everybody learns the choice: no secret is needed.

    A mean over the choice: exp((a - 1) R(a)) = 1 + q (e^((a - 1) r(a)) - 1), which holds even if models keep state.
    """
    whole = (order - 1) * order / (2 * noise_multiplier**2)
    if whole < 1:
        return math.log1p(rate * math.expm1(whole)) / (order - 1)
    return (whole + math.log(rate + (1 - rate) * math.exp(-whole))) / (order - 1)
