"""Chunks of a fixed shape, and the look at whether rows are alone on this machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.privacy.private import InMemory, Opened
from veilset.privacy.reading import EVEN, Reader, steady_rows


def reader(n: int = 50, cap: int = 1, units=None, declared: int = 50) -> Reader:
    info = PublicInfo(
        name="r", classes=("a", "b"), shape=(1, 2, 2), value_range=(0.0, 255.0), units=declared,
        unit="one person" if cap > 1 else "one image", max_images_per_unit=cap,
    )  # fmt: skip
    x = np.arange(n * 4, dtype=np.float32).reshape(n, 1, 2, 2)
    return Reader(Opened(InMemory(x), np.arange(n) % 2, units), info, "cpu")


def test_every_chunk_has_the_same_shape_and_blanks_at_its_end():
    chunks = list(reader().chunks(np.arange(50), 16))
    assert [len(c.x) for c in chunks] == [16] * 4 and [len(c.unit) for c in chunks] == [16, 16, 16, 2]
    last = chunks[-1]
    assert not last.x[2:].any() and not last.y[2:].any() and last.x[:2].any()
    assert torch.cat([c.unit for c in chunks]).tolist() == list(range(50))


def test_a_units_images_may_lie_in_several_chunks():
    units = np.repeat([0, 1, 2], [1, 40, 9])
    chunks = list(reader(cap=500, units=units).chunks(np.array([0, 1, 2]), 16))
    assert torch.cat([c.unit for c in chunks]).tolist() == units.tolist()
    assert torch.cat([c.images for c in chunks]).tolist() == np.repeat([1, 40, 9], [1, 40, 9]).tolist()


SIZES = [(1, 256), (10, 256), (64, 256), (256, 256), (2048, 256), (60_000, 4096)]


@pytest.mark.parametrize(("expected", "most"), SIZES)
def test_rows_follow_declared_facts_and_waste_little(expected, most):
    rows = reader().rows(expected, most)
    assert rows <= most and rows % EVEN == 0
    assert reader(n=3).rows(expected, most) == rows  # how many records there are does not matter
    likely = expected + 2 * expected**0.5
    assert -(-likely // rows) * rows <= 1.2 * likely + 2 * EVEN


def test_memory_for_less_than_eight_records_is_kept_to():
    assert [reader().rows(100, most) for most in (1, 3, 7, 9)] == [1, 3, 7, 8]


# ---------------------------------------------------------------------- rows that are alone


LIKE = torch.zeros(1, 2, 2), torch.zeros((), dtype=torch.int64)


def test_rows_that_are_alone_stay_as_many():
    w = torch.rand(4, 3)
    assert steady_rows("r", lambda x, y: [x.flatten(1)[:, None] @ w], LIKE, 3, 64) == 64


def test_a_record_that_sees_its_neighbours_is_mapped_alone():
    assert steady_rows("r", lambda x, y: [x - x.mean(0)], LIKE, 3, 64) == 1


def test_a_record_that_knows_its_row_is_mapped_alone():
    assert steady_rows("r", lambda x, y: [x + 1e-7 * torch.arange(len(x)).view(-1, 1, 1, 1)], LIKE, 3, 64) == 1


def test_rows_are_halved_until_they_are_alone():
    """As a library that takes another way for large products."""
    seen = []

    def look(x, y):
        seen.append(len(x))
        return [x * 1.0 + (1e-7 * torch.arange(len(x)).view(-1, 1, 1, 1) if len(x) > 16 else 0.0)]

    assert steady_rows("r", look, LIKE, 3, 64) == 16 and seen[2:] == [64, 64, 32, 32, 16, 16]


def test_values_that_are_not_numbers_are_no_difference():
    assert steady_rows("r", lambda x, y: [x / 0.0 * 0.0], LIKE, 3, 32) == 32


def test_a_map_that_keeps_a_state_is_refused():
    lot = torch.Generator().manual_seed(0)
    with pytest.raises(ConfigError, match="two answers.*draws="):
        steady_rows("r", lambda x, y: [x + torch.rand((), generator=lot)], LIKE, 3, 8)


def test_the_users_generators_are_left_alone():
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    steady_rows("r", lambda x, y: [x + torch.rand(()) + np.random.rand()], LIKE, 3, 8)
    assert torch.equal(before, torch.get_rng_state()) and np.array_equal(numbers, np.random.get_state()[1])
