"""Digits as Images, one thread, and a short schedule, for all evaluation tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from veilset.core.types import Images
from veilset.evaluation import Protocol
from veilset.networks.inception import Inception


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


def made_weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the right shapes and of a useful size, by a formula, so that others can make them too."""
    out = {}
    for j, (name, value) in enumerate(sorted(net.state_dict().items())):
        if name.endswith("num_batches_tracked"):
            continue
        w = torch.cos(torch.arange(value.numel(), dtype=torch.float64) * 0.7390851332151607 + 1.618 * j)
        w = w.view(value.shape)
        if value.ndim > 1:
            w = w * 2 / value[0].numel() ** 0.5
        elif name.endswith("running_var"):
            w = 1 + 0.2 * w
        else:
            w = 0.1 * w + (0 if name.endswith(("mean", "bias")) else 1)
        out[name] = w.float()
    return out


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("weights") / "made.pth"
    torch.save(made_weights(Inception()), path)  # noqa: TID251  the format of the public file
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
