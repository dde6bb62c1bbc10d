"""Prices are remembered between fits: the same plan at the same budget costs the same, and pricing takes a second."""

from __future__ import annotations

import pytest

from veilset.audit.selftest.coupled import remembered


@pytest.fixture(scope="session", autouse=True)
def _remembered_prices():
    with remembered():
        yield
