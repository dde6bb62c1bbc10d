"""The private names of dp-accounting that the claim uses still mean what they meant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from dp_accounting.pld import privacy_loss_distribution as library

from veilset.privacy import dp_library

ORDERS = [2.0, 4.0, 8.0, 32.0]


def test_the_curve_of_an_accountant_is_that_of_the_gaussian():
    accountant = rdp.RdpAccountant(ORDERS)
    accountant.compose(dp_event.GaussianDpEvent(2.0), 3)
    orders, curve = dp_library.rdp_of(accountant)
    assert list(orders) == ORDERS and np.allclose(curve, [3 * a / (2 * 4) for a in ORDERS])


@pytest.mark.parametrize("mean", [1.0, 8.0])
def test_the_best_of_a_geometric_number_of_runs(mean):
    """Theorem 2 of Papernot and Steinke with eta = 1, worked out here for every pair of orders."""
    orders = np.array([*np.linspace(1.5, 60, 200), *ORDERS])
    orders.sort()
    curve = orders / (2 * 9)
    got = dp_library.repeat_and_select(orders, curve, mean)
    gamma = 1 / mean
    for a in ORDERS:
        i = int(np.argmin(abs(orders - a)))
        least = min(
            curve[i] + 2 * (1 - 1 / b) * c + (2 * math.log(1 / gamma) / b if gamma < 1 else 0.0)
            for b, c in zip(orders, curve, strict=True)
        ) + (math.log(mean) / (a - 1) if mean > 1 else 0.0)
        assert got[i] <= least + 1e-9
        assert got[i] >= curve[i]


def test_masses_are_probabilities_of_both_directions():
    loss = library.from_gaussian_mechanism(1.5, value_discretization_interval=1e-3, pessimistic_estimate=True)
    removed, added = dp_library.sides(loss)
    both = dp_library.masses(loss)
    assert len(both) == 2 and removed is not None and added is not None
    for p in both:
        assert (p >= 0).all() and 1 - 1e-6 < p.sum() <= 1 + 1e-9
