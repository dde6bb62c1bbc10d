"""Histograms denoised with shape constraints; post-processing of noisy shares, at no privacy cost.

The noise of a share has the same deviation in each cell, so far cells, where nothing is, keep a little of it: in a
histogram of fine structure that is speckle. Two forms help: a density with one peak, and few steps.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import bisect
from sklearn.isotonic import isotonic_regression
from torch.nn.functional import pad

STEP = 3.0  # deviations of the noise that a wavelet must have; the largest of a few hundred is about this by chance

Array = NDArray[np.float64]


def nearest(noisy: torch.Tensor) -> torch.Tensor:
    """The distribution [cells] nearest to noisy shares [cells]: all less one number, at least 0, of sum 1."""
    falling = noisy.sort(descending=True).values
    excess = (falling.cumsum(0) - 1) / torch.arange(1, len(noisy) + 1)
    return (noisy - excess[(falling > excess).nonzero().max()]).clamp_min(0)


def stepped(noisy: torch.Tensor, deviation: float) -> torch.Tensor:
    """The same for shares that are alike over runs of cells, but for peaks of any height in any cell.

    Haar wavelets of less than STEP deviations are nothing, whatever the cells they begin at: the mean over all shifts,
    as in Coifman and Donoho, Translation-invariant de-noising, 1995.
    """
    cells = len(noisy)
    wide = pad(noisy, (0, 2 ** (cells - 1).bit_length() - cells))
    shifts = range(len(wide))
    kept = _steps(torch.stack([wide.roll(s) for s in shifts]), STEP * deviation)
    return nearest(torch.stack([row.roll(-s) for s, row in zip(shifts, kept, strict=True)]).mean(0)[:cells])


def peaked(noisy: torch.Tensor, deviation: float, widths: torch.Tensor) -> torch.Tensor:
    """The nearest distribution whose density, a share by its cell's width, rises to the middle cell and falls after it.

    The middle cell itself may be anything. Where the noise cannot be why the shares have another form than this, they
    are taken as `stepped`.
    """
    shares, width = noisy.double().numpy(), widths.double().numpy()
    excess = bisect(lambda e: _peaked(shares - e, width).sum() - 1, shares.min() - 1, shares.max())
    found = _peaked(shares - excess, width)
    if np.square(found - shares).mean() > deviation**2:  # of a true form, the nearest is nearer than the truth
        return stepped(noisy, deviation)
    return torch.from_numpy(found / found.sum()).to(noisy.dtype)


def _steps(rows: torch.Tensor, least: float) -> torch.Tensor:
    """Rows [n, 2^k] without the Haar wavelets that are smaller than `least`."""
    if rows.shape[1] == 1:
        return rows
    left, right = rows[:, ::2], rows[:, 1::2]
    mean, step = _steps((left + right) / 2**0.5, least), (left - right) / 2**0.5
    step = step * (step.abs() >= least)
    return torch.stack([mean + step, mean - step], 2).flatten(1) / 2**0.5


def _peaked(shares: Array, width: Array) -> Array:
    """The nearest shares of this form, at least 0, of any sum."""
    middle = len(shares) // 2
    before, after = slice(None, middle), slice(middle + 1, None)
    out = shares.copy()
    for side, rises in ((before, True), (after, False)):
        w = width[side]
        out[side] = w * isotonic_regression(shares[side] / w, sample_weight=w**2, increasing=rises)
    return out.clip(0)
