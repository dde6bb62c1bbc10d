"""Digits as Images, one thread, and a short schedule, for all evaluation tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits

from veilset.core.types import Images
from veilset.evaluation import Protocol


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def short() -> Protocol:
    """One epoch, for tests that ask how the call behaves and not how well a network learns."""
    return Protocol(name="cnn-1-epoch", epochs=1)


@pytest.fixture(scope="session")
def digits() -> Images:
    """1,797 images, uint8 [N, 1, 8, 8], in a fixed random order."""
    bunch = load_digits()
    x = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8)[:, None]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Images(x[order], torch.from_numpy(bunch.target)[order], tuple("0123456789"))


@pytest.fixture(scope="session")
def train(digits: Images) -> Images:
    return digits[:1200]


@pytest.fixture(scope="session")
def test(digits: Images) -> Images:
    return digits[1200:]
