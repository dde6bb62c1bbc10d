"""Faults of the noise sampler that a quick look at a histogram does not show: tests/faults has one patch for each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from veilset.privacy import normal
from veilset.privacy.noise import Stream
from veilset.privacy.normal import Law, rounded_normal

MANY = 1 << 22
STDS = [1.9999 * 2.0**46, 1.2386 * 2.0**33, 1.006 * 2.0**21]  # the finest that is drawn, and cells of other sizes


def drawn(std: float) -> np.ndarray:
    return rounded_normal(Stream(bytes(32)).uint64, MANY, std)


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.uint64)


def ones(n: int) -> np.ndarray:
    return np.full(n, 2**64 - 1, np.uint64)


@pytest.mark.parametrize("std", STDS)
def test_the_variance_is_that_of_the_law(std):
    """To a third of a percent: a cell is a hundredth of the deviation."""
    z = drawn(std) / std
    assert abs(float(np.square(z).mean()) - 1) < 5 * math.sqrt(2 / MANY)
    assert abs(float((z**4).mean()) - 3) < 5 * math.sqrt(96 / MANY)
    assert abs(float(z.mean())) < 5 / math.sqrt(MANY)


@pytest.mark.parametrize("std", STDS)
def test_a_sign_tells_nothing_of_the_rest(std):
    """Neither of the cell, nor in which half of it a value lies: one word gives all three."""
    z = drawn(std)
    size, positive = np.where(z >= 0, z, ~z), z >= 0
    shift = Law(2 * std).shift - 1  # the law is one bit finer, for rounding to the nearest
    half = (size >> (shift - 1)) & 1
    table = [[int((positive == p)[half == h].sum()) for h in (0, 1)] for p in (False, True)]
    assert chi2_contingency(table).pvalue > 1e-6
    cell = size >> shift
    whole, above = np.bincount(cell), np.bincount(cell, positive)
    often = whole >= 40
    apart = np.square(2 * above[often] - whole[often]) / whole[often]
    assert often.sum() > 200 and chi2.sf(apart.sum(), often.sum()) > 1e-6


def test_a_mass_at_an_edge_is_told_by_more_bits(monkeypatch):
    """The first 64 bits of an edge between two pieces leave open which of them it is."""
    monkeypatch.setattr(normal, "LONG", 300)  # as many as it takes here, and quicker
    law = Law(1.37 * 2.0**28)
    sums = law.sums(300)
    for i in (0, 1, 100, law.cells, law.cells + 70):
        first = np.array([(sums[i] << 64) // sums[-1]], np.uint64)
        assert law._piece(zeros, first).tolist() == [i] and law._piece(ones, first).tolist() == [i + 1]


@pytest.mark.parametrize("std", [1.37 * 2.0**28, 1.9999 * 2.0**47])
def test_points_near_the_curve_are_told_by_more_bits(std):
    """Also where they are nearer than a double can tell."""
    law = Law(std)
    for i in (1, 30, 200):
        place = 5 << (law.shift - 4)
        v = (place + 0.5) / 2.0**law.shift  # in the middle of what the place leaves open
        low = float(law.low[i])
        level = int((math.exp(-v * (2 * i + v) * law.half) - low) / (1 - low) * 2.0**64)
        point = np.array([i]), np.array([place]), np.array([level], np.uint64)
        asked: list[int] = []
        law._below(lambda n, asked=asked: asked.append(n) or zeros(n), *point)
        assert sum(asked) >= 4
        if law.shift < 30:  # where the place is open by more than the curve's rounding, it decides
            assert law._below(zeros, *point).tolist() == [True] and law._below(ones, *point).tolist() == [False]


def test_a_point_of_a_wedge_is_told_by_three_words():
    """Its piece, its place and its height: no bit counts twice."""
    law = Law(1.37 * 2.0**28)
    sums = law.sums(256)
    for i in (1, 30, 200):
        whole = law.cells + i
        mass = (sums[whole - 1] + sums[whole] << 63) // sums[-1]
        middle = 1 << (law.shift - 1)
        for place, level, below in ((middle, 0, True), (middle, 2**64 - 1, False), (middle - 1, 2**63, None)):
            words = [mass, place, level]
            value, kept = law._left_over(lambda n, words=words: np.array([words.pop(0)], np.uint64), 1)
            assert not words and value[0] == (i << law.shift) + place
            assert below is None or bool(kept[0]) is below
