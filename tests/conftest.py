"""What all tests share: one thread, quiet accountants, and the choice of a part of them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
from unittest import mock

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", default="1/1", metavar="I/N", help="of the chosen tests, only the I-th of N parts")


@pytest.hookimpl(trylast=True)  # after -m, which chooses first
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every N-th test from the I-th on, so that long neighbours of one kind fall into different parts."""
    text = config.getoption("--part")
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise pytest.UsageError(f"--part = {text!r}: must be I/N with 1 <= I <= N, such as 2/4")
    chosen = items[int(part) - 1 :: int(parts)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


@pytest.fixture(scope="module", autouse=True)
def _catalogue_as_it_is():
    """What a module registers it takes back, so that their order does not matter."""
    from veilset.methods.catalogue import BUILT_IN

    yield
    left = [name for name, entry in BUILT_IN.items() if not entry.module.startswith("veilset.")]
    assert not left, f"still registered after the module's tests: {left}"


@pytest.fixture(scope="module")
def remembered_prices():
    """The same plan at the same budget costs the same: pricing takes up to a second, and is done once in a module.

    Not where accounting itself is tested or changed.
    """
    from veilset.audit.selftest.coupled import remembered

    with remembered():
        yield


@pytest.fixture(autouse=True)
def _looked_at_afresh(request: pytest.FixtureRequest):
    """What was found about gradients holds for the code as it is: a test that changes code finds out anew."""
    from veilset.privacy.alone import KNOWN

    if "monkeypatch" not in request.fixturenames:
        yield
        return
    with mock.patch.dict(KNOWN, clear=True):
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tests share two cores with each other; a second thread only slows them down."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("absl").setLevel(logging.ERROR)  # RDP says which orders it drops; claims do not rest on them
