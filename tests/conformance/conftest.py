"""Every method is fitted many times at the same budgets."""

from __future__ import annotations

import pytest

from veilset.methods.moments import taught_moments


@pytest.fixture(scope="module", autouse=True)
def _remembered(remembered_prices):
    """Each price is made once."""


@pytest.fixture(scope="module", autouse=True)
def _few_tried():
    """Offsets of the default method from a few drawn images: they are worse, and found in the same way."""
    with pytest.MonkeyPatch.context() as few:
        few.setattr(taught_moments, "TRIED", 20)
        yield
