"""Methods are fitted many times at the same budgets."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _remembered(remembered_prices):
    """Each price is made once."""
