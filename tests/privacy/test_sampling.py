"""Poisson sampling by unit, caps, and parts."""

from __future__ import annotations

import numpy as np
import pytest

from veilset.privacy.noise import Keys
from veilset.privacy.private import InMemory, Opened
from veilset.privacy.sampling import Units


def opened(labels, units=None) -> Opened:
    labels = np.asarray(labels)
    return Opened(
        InMemory(np.zeros((len(labels), 1, 1, 1), np.uint8)), labels, None if units is None else np.asarray(units)
    )


def read(units: Units, chosen, size: int) -> list[tuple[int, list[int]]]:
    """[(unit's place in its chunk, its records)] in reading order."""
    out = []
    for records, place in units.chunks(np.asarray(chosen), size):
        for k in range(place.max() + 1):
            out.append((k, records[place == k].tolist()))
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
    got = [records for _, records in read(units, chosen, 7)]
    assert [set(ids[r]) for r in got] == [{c} for c in chosen]
    assert all(len(r) == 3 for r in got)


def test_a_cap_keeps_the_first_images_of_a_unit():
    ids = np.array([0, 1, 0, 0, 1, 0])
    units = Units(opened(np.zeros(6, np.int64), ids), 2)
    assert [r for _, r in read(units, [0, 1], 100)] == [[0, 2], [1, 4]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
def test_chunks_hold_whole_units_and_each_record_once(size):
    ids = np.random.default_rng(2).integers(0, 30, 100)
    ids = np.unique(ids, return_inverse=True)[1]
    units = Units(opened(np.zeros(100, np.int64), ids), 4)
    seen = [records for _, records in read(units, np.arange(units.count), size)]
    assert [ids[r[0]] for r in seen] == list(range(units.count))
    flat = np.concatenate(seen)
    assert len(np.unique(flat)) == len(flat) == np.minimum(np.bincount(ids), 4).sum()


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
