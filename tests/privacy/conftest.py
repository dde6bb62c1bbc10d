"""Claims are remembered between gates of one plan: they are pure functions, and a sampled one takes a second."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture(scope="session", autouse=True)
def _remembered_claims():
    from veilset.privacy import plan, receipt

    patch, real = pytest.MonkeyPatch(), plan.claim
    kept = functools.cache(lambda spent, delta: real(list(spent), delta))
    for module in (plan, receipt):
        patch.setattr(module, "claim", lambda spent, delta: kept(tuple(spent), delta))
    yield
    patch.undo()
