"""Poisson sampling by unit, caps, and parts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from veilset.privacy.noise import Keys
from veilset.privacy.private import InMemory, Opened
from veilset.privacy.sampling import Units


def opened(labels, units=None) -> Opened:
    labels = np.asarray(labels)
    return Opened(
        InMemory(np.zeros((len(labels), 1, 1, 1), np.uint8)), labels, None if units is None else np.asarray(units)
    )


def read(units: Units, chosen, size: int) -> list[list[int]]:
    """The records of each chosen unit in reading order, put together from its chunks."""
    out: list[list[int]] = [[] for _ in chosen]
    for records, unit, images in units.chunks(np.asarray(chosen), size):
        assert len(records) == len(unit) == len(images)
        for r, u in zip(records, unit, strict=True):
            out[u].append(int(r))
    return out


def test_row_03_poisson_sampling_is_poisson_sampling():
    """5,000 steps: inclusion is binomial, pairs are independent, and the batch size varies as N q (1 - q)."""
    n, q, steps = 40, 0.05, 5000
    units, keys = Units(opened(np.zeros(n, np.int64)), 1), Keys(0)
    taken = np.zeros((steps, n))
    for t in range(steps):
        taken[t, units.sample(q, keys.stream(f"sample/x/None/{t}"))] = 1
    sigma = np.sqrt(q * (1 - q) / steps)
    assert np.abs(taken.mean(0) - q).max() < 4.5 * sigma
    sizes = taken.sum(1)
    assert sizes.mean() == pytest.approx(n * q, rel=0.05)
    assert sizes.var() == pytest.approx(n * q * (1 - q), rel=0.1)
    correlation = np.corrcoef(taken.T)[np.triu_indices(n, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(steps)
    assert (sizes == 0).any()  # q N = 2: empty and large batches both occur
    assert (sizes >= 6).any()


def test_rate_1_is_everybody_and_tiny_rates_are_nobody():
    units, stream = Units(opened(np.zeros(100, np.int64)), 1), Keys(0).stream("s")
    assert units.sample(1.0, stream).tolist() == list(range(100))
    assert len(units.sample(1e-15, stream)) == 0
    assert len(units.sample(1 - 2**-53, stream)) == 100


def test_sampling_is_by_unit():
    """All images of a unit come together or not at all."""
    ids = np.repeat(np.arange(50), 3)[np.random.default_rng(0).permutation(150)]
    units = Units(opened(np.zeros(150, np.int64), ids), 3)
    assert units.count == 50
    chosen = units.sample(0.3, Keys(1).stream("s"))
    assert 5 < len(chosen) < 28
    got = read(units, chosen, 7)
    assert [set(ids[r]) for r in got] == [{c} for c in chosen]
    assert all(len(r) == 3 for r in got)


def test_a_cap_keeps_the_first_images_of_a_unit():
    ids = np.array([0, 1, 0, 0, 1, 0])
    units = Units(opened(np.zeros(6, np.int64), ids), 2)
    assert read(units, [0, 1], 100) == [[0, 2], [1, 4]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize("large", [0, 500])
def test_chunks_are_full_and_hold_each_record_once(size, large):
    """Units may lie in several chunks, also one of 500 images; what tells them apart is told with every record."""
    ids = np.r_[np.random.default_rng(2).integers(0, 30, 100), np.full(large, 12)]
    ids = np.unique(ids, return_inverse=True)[1]
    units = Units(opened(np.zeros(len(ids), np.int64), ids), 4 if not large else 500)
    held = np.minimum(np.bincount(ids), 4 if not large else 500)
    chosen = np.flatnonzero(np.arange(units.count) % 3 != 1)
    chunks = list(units.chunks(chosen, size))
    assert [len(records) for records, _, _ in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert 1 <= len(chunks[-1][0]) <= size
    records, unit, images = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    assert (np.diff(unit) >= 0).all()
    assert np.array_equal(ids[records], chosen[unit]) and np.array_equal(images, held[chosen[unit]])
    assert len(np.unique(records)) == len(records) == held[chosen].sum()
    assert read(units, chosen, size) == read(units, chosen, 10**6)


@pytest.mark.parametrize("size", [1, 7, 50, 60])
def test_chunks_of_single_records_are_full_too(size):
    chosen = np.arange(0, 100, 2)
    chunks = list(Units(opened(np.zeros(100, np.int64)), 1).chunks(chosen, size))
    assert [len(r) for r, _, _ in chunks] == [size] * (50 // size) + [50 % size] * (50 % size > 0)
    records, unit, images = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    assert np.array_equal(records, chosen) and np.array_equal(unit, np.arange(50)) and (images == 1).all()


@pytest.mark.parametrize("rate", [9.3e-5, 1.7e-5])
def test_sampling_rates_are_not_rounded_up_to_a_coarse_grid(rate):
    """3 x 10^7 coins: a rate rounded up to a multiple of 2^-16 takes a seventh, or four fifths, too many units."""
    units, keys, times = Units(opened(np.zeros(10**6, np.int64)), 1), Keys(3), 30
    taken = sum(len(units.sample(rate, keys.stream(f"sample/x/None/{t}"))) for t in range(times))
    coins, coarse = times * units.count, math.ceil(rate * 2**16) / 2**16
    assert binomtest(taken, coins, rate).pvalue > 1e-6
    assert binomtest(round(coarse * coins), coins, rate).pvalue < 1e-10  # what the fault would have given


def test_coins_compare_all_of_their_64_bits_with_the_rate():
    """Rates between two coarse ones: what is chosen is what lies below the rate to 2^-63, number by number."""
    units = Units(opened(np.zeros(8, np.int64)), 1)

    class Told:
        def __init__(self, edge: int):
            self.edge = edge

        def uint64(self, n: int) -> np.ndarray:
            return np.array([self.edge + k for k in (-5000, -4097, -1, 0, 1, 4097, 5000, 2**20)][:n], np.uint64)

    for rate in (2**-16 + 2**-40, 1e-4, 0.3, 0.5 - 2**-50):
        edge = int(Fraction(rate) * 2**64)
        assert units.sample(rate, Told(edge)).tolist() == [0, 1, 2]


def test_a_unit_lies_in_the_part_of_its_first_image_only():
    units = Units(opened([2, 0, 1, 0], [0, 0, 1, 1]), 5)
    stream = Keys(0).stream("s")
    assert [units.sample(1.0, stream, part).tolist() for part in range(3)] == [[], [1], [0]]


def test_no_records_at_all():
    for ids in (None, []):
        units = Units(opened(np.zeros(0, np.int64), None if ids is None else np.zeros(0, np.int64)), 2)
        assert units.count == 0
        assert list(units.chunks(units.sample(1.0, Keys(0).stream("s")), 10)) == []
        assert len(units.sample(0.5, Keys(0).stream("s"))) == 0
