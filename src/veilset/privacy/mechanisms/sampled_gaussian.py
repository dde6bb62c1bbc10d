"""A sum over units of bounded contributions, each unit taking part by a coin of its own, plus Gaussian noise.

Rate 1 reads every unit: the plain Gaussian mechanism. One unit moves a sum by its own contribution, since each record,
or for `Gate.unit` each unit, is mapped alone (docs/proof.md), so the answers about two neighbours are at worst
N(0, s^2) and the mixture of weight 1 - q around 0 and q around 1, in units of the bound: the pair that is composed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

from veilset.privacy import renyi
from veilset.privacy.dp_library import rdp_of
from veilset.privacy.mechanisms.base import Known, Line, Mechanism
from veilset.privacy.spent import GAUSSIAN, Spent


class SampledGaussian(Mechanism):
    """Poisson-sampled Gaussian releases; every ledger before there was another mechanism is of this one."""

    name, label = GAUSSIAN, "Gaussian"
    verbs: ClassVar[tuple[str, ...]] = ("sum", "grad", "unit")
    # Poisson-sampled ones: PLD on a grid of 1e-4, which is at most so much too large, so the truth lies a little lower;
    # two libraries agree on them. Unsampled ones are exact.
    known: ClassVar[tuple[Known, ...]] = (
        Known("one Gaussian", (Spent(3.730631634816),), 1e-5, 1.0),
        Known("one Gaussian at epsilon 10", (Spent(0.499888619709),), 1e-5, 10.0),
        Known("one Gaussian at delta 1e-6", (Spent(4.224678889327),), 1e-6, 1.0),
        Known("ten Gaussians", (Spent(5.0, 1.0, 10),), 1e-5, 2.594383),
        Known("a mix of Gaussians", (Spent(5.0, 1.0, 4), Spent(5.0, 1.0, 6)), 1e-5, 2.594383),
        Known("a training run", (Spent(1.0, 0.01, 1000),), 1e-5, 1.828244),
        Known("the same in blocks", tuple(Spent(1.0, 0.01, 100) for _ in range(10)), 1e-5, 1.828244),
        Known("large batches", (Spent(2.0, 0.25, 200),), 1e-5, 9.556777),
        Known("little noise", (Spent(0.5, 0.01, 500),), 1e-5, 10.283014),
        Known("a histogram and a run", (Spent(20.0), Spent(1.0, 0.01, 1000)), 1e-5, 1.838695),
        Known("a partition and a sum", (Spent(5.0, 1.0, 4), *(Spent(5.0, 1.0, 6, k) for k in range(3))), 1e-5,
              2.594383),
    )  # fmt: skip

    def squared_mu(self, s: Spent) -> float | None:
        """Exact without sampling."""
        if s.sample_rate < 1:
            return None
        return s.steps / s.noise_multiplier**2 if s.noise_multiplier else math.inf

    def divergence(self, s: Spent, orders: Any) -> Any:
        """By dp-accounting, which leaves out an order whose series does not converge."""
        import dp_accounting as dp

        accountant = dp.rdp.RdpAccountant(orders)
        gaussian = dp.GaussianDpEvent(s.noise_multiplier)
        accountant.compose(gaussian if s.sample_rate == 1 else dp.PoissonSampledDpEvent(s.sample_rate, gaussian))
        return s.steps * rdp_of(accountant)[1]

    def second(self, s: Spent, orders: Any) -> Any:
        """See `renyi.divergence`."""
        return [renyi.divergence(s.noise_multiplier, s.sample_rate, a) for a in orders]

    def span(self, s: Spent) -> tuple[float, float]:
        """Losses beyond have a mass of 0.5 exp(-50) on a side."""
        from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

        mechanism = GaussianPrivacyLoss(s.noise_multiplier, log_mass_truncation_bound=-50, sampling_prob=s.sample_rate)
        ends = mechanism.connect_dots_bounds()
        return float(ends.epsilon_lower), float(ends.epsilon_upper)

    def loss(self, s: Spent, spacing: float) -> Any:
        """By dp-accounting, in both directions."""
        from dp_accounting.pld import privacy_loss_distribution as library

        return library.from_gaussian_mechanism(
            s.noise_multiplier, value_discretization_interval=spacing, sampling_prob=s.sample_rate
        )

    def title(self, line: Line) -> str:
        """As plans have always named it."""
        return self.name if line.sample_rate == 1 else f"poisson-subsampled {self.name}"

    def sentence(self, line: Line) -> str:
        """What is clipped, and what the noise is."""
        own = "" if line.sample_rate == 1 else " Each unit takes part in a step by a secret coin of its own."
        return (
            "A sum over records. One unit moves it by no more than the bound; the noise has a standard deviation of "
            f"noise multiplier × bound.{own}"
        )


class Gaussians(Mechanism):
    """Base of mechanisms by which a unit meets so many Gaussians of sensitivity 1, whatever is drawn: exact."""

    @abstractmethod
    def met(self, s: Spent) -> int:
        """The answers that one unit meets."""

    def squared_mu(self, s: Spent) -> float | None:
        """Of all of them."""
        return PLAIN.squared_mu(Spent(s.noise_multiplier, 1.0, self.met(s)))

    def divergence(self, s: Spent, orders: Any) -> Any:
        """Of all of them."""
        return PLAIN.divergence(Spent(s.noise_multiplier, 1.0, self.met(s)), orders)

    def second(self, s: Spent, orders: Any) -> Any:
        """Of one, by other code."""
        return [renyi.divergence(s.noise_multiplier, 1.0, a) for a in orders]

    def span(self, s: Spent) -> tuple[float, float]:
        """Of one."""
        return PLAIN.span(Spent(s.noise_multiplier))

    def loss(self, s: Spent, spacing: float) -> Any:
        """Of one; not asked for, since lines are exact."""
        return PLAIN.loss(Spent(s.noise_multiplier), spacing)


PLAIN = SampledGaussian()
