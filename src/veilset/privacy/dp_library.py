"""What the claim takes from dp-accounting by names that the library keeps private: here, and nowhere else.

A test holds these to what they must do; pyproject.toml caps the versions for which it was run.
"""

from __future__ import annotations

from typing import Any


def rdp_of(accountant: Any) -> tuple[Any, Any]:
    """(orders, composed Renyi divergences) of an `RdpAccountant`."""
    return accountant._orders, accountant._rdp  # noqa: SLF001


def repeat_and_select(orders: Any, rdp: Any, mean: float) -> Any:
    """Renyi divergences of the best of a geometric number of runs, each with the curve `rdp`; mean number of runs.

    Theorem 2 of Papernot and Steinke 2022 (arXiv 2110.03620) for a whole curve; the public event
    RepeatAndSelectDpEvent takes no maximum over candidates.
    """
    from dp_accounting.rdp import rdp_privacy_accountant as library

    return library._compute_rdp_repeat_and_select(orders, rdp, mean, 1.0)  # noqa: SLF001


def sides(loss: Any) -> tuple[Any, Any]:
    """The mass functions of a privacy loss distribution, when a unit is removed and when it is added."""
    return loss._pmf_remove, loss._pmf_add  # noqa: SLF001


def masses(loss: Any) -> list[Any]:
    """Probabilities of the finite losses, in both directions."""
    return [p.to_dense_pmf()._probs for p in sides(loss)]  # noqa: SLF001
