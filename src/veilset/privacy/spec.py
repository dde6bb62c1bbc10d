"""What the owner asks for: epsilon, delta, and the relation they are stated under."""

from __future__ import annotations

import math
from dataclasses import dataclass

from veilset.core.errors import ConfigError

RELATION = "add or remove one unit"


@dataclass(frozen=True)
class Privacy:
    """A differential-privacy budget under the relation "add or remove one unit".

    Args:
        epsilon: greater than 0; `math.inf` switches the noise off, and then no receipt can be made.
        delta: in (0, 1). At or above 1/N it is an error unless `allow_large_delta`, which the receipt then shows.
        allow_large_delta: accept delta >= 1/N.

    Raises:
        ConfigError: a value out of range.

    Examples:
        >>> vs.Privacy(epsilon=1.0)
        Privacy(epsilon=1.0, delta=1e-05, allow_large_delta=False)
    """

    epsilon: float
    delta: float = 1e-5
    allow_large_delta: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.epsilon, bool) or not isinstance(self.epsilon, int | float) or not self.epsilon > 0:
            raise ConfigError(f"epsilon = {self.epsilon!r}: must be a number greater than 0, for example 1.0")
        if isinstance(self.delta, bool) or not isinstance(self.delta, int | float) or not 0 < self.delta < 1:
            raise ConfigError(f"delta = {self.delta!r}: must lie between 0 and 1, for example 1e-5")

    @property
    def private(self) -> bool:
        """False for epsilon = infinity."""
        return math.isfinite(self.epsilon)

    def check_units(self, units: int) -> None:
        """Refuse a delta that lets one record in the set be published outright.

        Args:
            units: declared number N of units.

        Raises:
            ConfigError: delta >= 1/N without `allow_large_delta`.
        """
        if self.delta >= 1 / units and not self.allow_large_delta:
            raise ConfigError(
                f"delta = {self.delta:g}: must be below 1/N = {1 / units:.3g} for N = {units} declared units; "
                "choose a smaller delta or pass --allow-large-delta, which the receipt will show"
            )
