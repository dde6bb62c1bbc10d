"""What no other test would notice if it were planted; see tests/faults."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from veilset.privacy.gradients.clipped import Clipped, Total
from veilset.privacy.noise import Stream
from veilset.privacy.normal import BLOCK


def test_no_value_of_the_noise_follows_from_another():
    """Neither in a block of the sampler nor across blocks; a pair with equal bits would have equal magnitudes."""
    z = Stream(bytes(32)).noise(2 * BLOCK + 1000, 2.0**46)
    assert len(np.unique(np.abs(z))) == len(z)
    y = z / 2.0**46
    for lag in (1, 2, BLOCK // 2, BLOCK, BLOCK + 1):
        for f in (lambda v: v, np.square, np.abs):
            assert abs(np.corrcoef(f(y[:-lag]), f(y[lag:]))[0, 1]) < 5 / math.sqrt(len(y) - lag), lag


def test_norms_of_positions_are_not_taken_in_bfloat16():
    """Equal positions, whose Gram matrices would all be rounded the same way: by up to 2^-9, twice the margin."""
    x = torch.rand(64, 1, 40, generator=torch.Generator().manual_seed(0)).expand(64, 4, 40)
    w = {"w": torch.zeros(40, 40)}
    loss = lambda p, x, y: 1e4 * (1 + y / 64) * F.linear(x, p["w"]).sum()  # noqa: E731
    with torch.autocast("cpu", torch.bfloat16):
        clipped = Clipped(loss, w, (x[0], torch.tensor(0)))
        norms = []
        for k in range(64):
            total = Total(clipped.size, 1.0, several=False)
            clipped.add(total, loss, w, (x[k : k + 1], torch.tensor([k])), torch.zeros(1).long(), torch.ones(1).long())
            norms.append(float(total.sum.norm()))
    assert max(norms) <= 1 - 0.99e-3
    assert min(norms) >= 1 - 1.1e-3
