"""How counts of an attack become a lower bound on epsilon, each bound with the hypothesis under which it holds.

An attack is a fixed question with a yes or no answer. In worlds without a record "yes" is a false alarm, in worlds with
it a hit. Rates are known up to Clopper-Pearson limits; no normal approximation is used anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from veilset.privacy.accounting import Spent, by_part, exact, gaussian_epsilon, squared_mu
from veilset.privacy.mechanisms import of
from veilset.privacy.pld import COARSE

if TYPE_CHECKING:
    import numpy as np

STRICT = 1e-9  # delta at which one-run verdicts are made: at 1e-5 the theorem's own delta term exceeds an error of 1e-4
LARGEST = 40.0  # epsilon up to which trade-off curves and one-run bounds are searched


def lower_rate(hits: Any, draws: int, alpha: float) -> Any:
    """One-sided Clopper-Pearson limit: below the true rate with probability at least 1 - alpha. Takes arrays."""
    import numpy as np
    from scipy.special import betaincinv

    hits = np.asarray(hits, float)
    return np.where(hits > 0, betaincinv(np.maximum(hits, 1), draws - hits + 1, alpha), 0.0)


def upper_rate(hits: Any, draws: int, alpha: float) -> Any:
    """One-sided Clopper-Pearson limit: above the true rate with probability at least 1 - alpha. Takes arrays."""
    import numpy as np

    return 1.0 - lower_rate(draws - np.asarray(hits), draws, alpha)


@dataclass(frozen=True)
class Counts:
    """What an attack scored, its question fixed beforehand.

    Attributes:
        false_alarms, absent: "yes" among independent draws without the record.
        hits, present: "yes" among independent draws with it.
    """

    false_alarms: int
    absent: int
    hits: int
    present: int

    def limits(self, alpha: float) -> tuple[float, float]:
        """(upper limit of the false-positive rate, lower limit of the true-positive rate), together at 1 - alpha."""
        return (
            float(upper_rate(self.false_alarms, self.absent, alpha / 2)),
            float(lower_rate(self.hits, self.present, alpha / 2)),
        )


def dp_epsilon(counts: Counts, delta: float, alpha: float) -> float:
    """Lower bound on epsilon that holds for every (epsilon, delta)-DP mechanism, with probability 1 - alpha.

    Kairouz, Oh, Viswanath 2015, Theorem 2.1, with Clopper-Pearson limits for the two rates.
    """
    fpr, tpr = counts.limits(alpha)
    pairs = ((tpr - delta, fpr), (1 - fpr - delta, 1 - tpr))
    return max([0.0, *(math.log(a / b) for a, b in pairs if a > 0 and b > 0)])


def gaussian_dp_epsilon(counts: Counts, delta: float, alpha: float) -> float:
    """Lower bound on epsilon if the mechanism is a Gaussian without sampling; far tighter, wrong for anything else.

    mu >= Phi^-1(TPR) - Phi^-1(FPR) (Dong, Roth, Su 2022, equation 6), and epsilon(delta) of a mu-Gaussian is exact.
    """
    from scipy.special import ndtri

    fpr, tpr = counts.limits(alpha)
    mu = float(ndtri(tpr) - ndtri(fpr)) if tpr > 0 and fpr < 1 else 0.0
    return gaussian_epsilon(mu, delta) if mu > 0 else 0.0


def one_run_p_value(epsilon: float, delta: float, guesses: int, right: int, canaries: int) -> float:
    """Largest probability of so many right guesses if the run was (epsilon, delta)-DP.

    Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), Theorem 5.2: canaries take part by independent fair coins; for
    `guesses` of them, chosen as the attacker likes, membership is guessed. Needs no independence between canaries.
    """
    import numpy as np
    from scipy.stats import binom

    rate = 1 / (1 + math.exp(-epsilon))
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, rate))  # P[right > W >= right - i]
    slope = float((below / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, float(binom.sf(right - 1, guesses, rate)) + 2 * canaries * delta * slope)


def one_run_epsilon(delta: float, guesses: int, right: int, canaries: int, alpha: float) -> float:
    """Lower bound on epsilon from one run with canaries, with probability 1 - alpha; see `one_run_p_value`."""
    low, high = 0.0, LARGEST
    if one_run_p_value(low, delta, guesses, right, canaries) > alpha:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if one_run_p_value(middle, delta, guesses, right, canaries) <= alpha:
            low = middle
        else:
            high = middle
    return low


class Tradeoff:
    """The accountant's trade-off curve: the largest rate of hits that any attacker may have at a false-alarm rate.

    Exact for Gaussians without sampling. Otherwise the lower envelope of the lines of all (epsilon, delta(epsilon)) of
    the pessimistic PLD, in both directions (Dong, Roth, Su 2022, Proposition 6), so it is never too low.

    Args:
        spent: the accountant's lines of one draw.
    """

    def __init__(self, spent: Sequence[Spent]):
        import numpy as np

        cases = by_part(spent)
        self.gaussian = all(exact(s) for case in cases for s in case)
        self.mu = max(math.sqrt(squared_mu(case)) for case in cases)
        self._epsilon = np.linspace(0.0, LARGEST, 2001)
        self._delta = None if self.gaussian else np.max([_pld_deltas(case, self._epsilon) for case in cases], axis=0)

    def __call__(self, fpr: Any) -> np.ndarray[Any, Any]:
        """Largest true-positive rate at each false-positive rate."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        fpr = np.asarray(fpr, float)
        if self._delta is None:
            return np.asarray(ndtr(ndtri(fpr) + self.mu))
        a, e, d = fpr[..., None], np.exp(self._epsilon), self._delta
        most = np.minimum(e * a + d, 1 - (1 - d - a) / e).min(-1)
        return np.minimum(1.0, most)


def _pld_deltas(spent: Sequence[Spent], epsilon: Any) -> Any:
    """delta at each epsilon, by dp-accounting's pessimistic PLD."""
    import numpy as np
    from dp_accounting.pld import privacy_loss_distribution as library

    whole = library.identity(COARSE)
    for s in spent:
        whole = whole.compose(of(s).loss(s, COARSE).self_compose(s.steps))
    return np.array([whole.get_delta_for_epsilon(float(e)) for e in epsilon])
