"""Prices are remembered between fits: the same plan at the same budget costs the same, and pricing takes a second."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture(scope="session", autouse=True)
def _remembered_prices():
    from veilset.privacy import plan, receipt

    patch = pytest.MonkeyPatch()
    real = plan.claim
    kept = functools.cache(lambda spent, delta: real(list(spent), delta))

    def claim(spent, delta):
        return kept(tuple(spent), delta) if isinstance(spent, list | tuple) else real(spent, delta)

    for module in (plan, receipt):
        patch.setattr(module, "claim", claim)
    patch.setattr(plan.Plan, "price", functools.cache(plan.Plan.price))
    yield
    patch.undo()
