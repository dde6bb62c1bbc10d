"""Chunks of a fixed shape, and the look at whether rows are alone on this machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.privacy.alone import EVEN, alone, steady_rows, strangers, twins
from veilset.privacy.private import InMemory, Opened
from veilset.privacy.reading import Reader


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


SIZES = [(60_000, 1 / 60_000, 320), (1000, 0.01, 320), (60_000, 256 / 60_000, 320), (60_000, 2048 / 60_000, 320)]
SIZES += [(60_000, 1.0, 4096), (100, 1.0, 4096), (60_000, 256 / 60_000, 100)]


@pytest.mark.parametrize(("units", "rate", "most"), SIZES)
def test_rows_follow_declared_facts_and_waste_little(units, rate, most):
    rows = reader().rows(units, rate, most)
    assert rows <= most and rows % EVEN == 0
    assert reader(n=3).rows(units, rate, most) == rows  # how many records there are does not matter
    lot = np.random.default_rng(0)
    batches = lot.binomial(units, rate, 2000)
    used = np.maximum(1, -(-batches // rows)).mean() * rows
    assert used <= 1.3 * units * rate + 2 * EVEN


def test_a_step_that_takes_everybody_fills_its_chunks():
    assert reader(declared=256).rows(256, 1.0, 320) == 256
    assert reader(declared=640).rows(640, 1.0, 320) == 320


def test_memory_for_few_records_is_kept_to():
    assert [reader().rows(100, 1.0, most) for most in (1, 3, 31, 40)] == [1, 3, 31, 32]


# ---------------------------------------------------------------------- rows that are alone


LIKE = torch.zeros(1, 2, 2), torch.zeros((), dtype=torch.int64)


def test_rows_that_are_alone_stay_as_many():
    w = torch.rand(4, 3)
    assert steady_rows("r", lambda x, y: [x.flatten(1)[:, None] @ w], LIKE, 3, 64) == 64


def test_a_record_that_sees_its_neighbours_is_mapped_alone():
    assert steady_rows("r", lambda x, y: [x - x.mean(0)], LIKE, 3, 64) == 1


def test_a_record_that_knows_its_row_is_mapped_alone():
    assert steady_rows("r", lambda x, y: [x + 1e-7 * torch.arange(len(x)).view(-1, 1, 1, 1)], LIKE, 3, 64) == 1


@pytest.mark.parametrize("rows", [2, 3, 5, 7, 32, 48, 64, 96])
def test_every_row_is_looked_at(rows):
    """Also where every third one is somebody else's: a row that is left out would be so whichever way round."""
    for row in range(rows):
        at = torch.arange(rows).view(-1, 1, 1, 1) == row
        assert steady_rows("r", lambda x, y, at=at: [x * (1 + 1e-6 * at[: len(x)])], LIKE, 3, rows) < max(2, row + 1)


def test_rows_are_halved_until_they_are_alone():
    """As a library that takes another way for large products."""
    seen = []

    def look(x, y):
        seen.append(len(x))
        return [x * 1.0 + (1e-7 * torch.arange(len(x)).view(-1, 1, 1, 1) if len(x) > 16 else 0.0)]

    assert steady_rows("r", look, LIKE, 3, 64) == 16
    assert seen[2:6] == [64, 64, 32, 32] and set(seen[6:]) == {16}


@pytest.mark.parametrize("rows", [2, 3, 7, 64, 256, 320])
def test_of_any_two_rows_each_holds_a_stranger_while_the_other_does_not(rows):
    marks = strangers(rows).double()
    apart = marks.T @ (1 - marks)
    assert bool((apart + torch.eye(rows) > 0).all()) and len(marks) <= max(3, 2 * math.log2(rows))


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


# ---------------------------------------------------------------------- NaN of a neighbour


def leaky(x, y):
    """As matrix tiles do: what lies behind a row is multiplied by 0."""
    return [x.flatten(1) + 0.0 * x.roll(-1, 0).flatten(1)]


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
@pytest.mark.parametrize("bad", [(), (0,), (3, 4, 5), range(8)])
def test_a_record_that_is_not_a_number_spoils_no_other(rows, bad):
    x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    x[list(bad)] = float("nan")
    got = torch.cat([alone(leaky, 0, a, b)[0] for a, b in zip(x.split(rows), y.split(rows), strict=True)])
    for i in range(8):
        assert bool(got[i].isnan().all()) if i in bad else torch.equal(got[i], x[i].flatten())


def test_a_second_look_draws_what_the_first_did():
    x = torch.ones(4, 1, 1, 1)
    x[1] = float("inf")
    got = alone(lambda x, y: [x + 0.0 * x.roll(-1, 0) + torch.rand(())], 5, x, torch.zeros(4))[0].flatten()
    first = 1 + torch.rand((), generator=torch.Generator().manual_seed(5))
    assert got[0] == got[2] == got[3] == first and not got[1].isfinite()


def test_twins_stand_on_even_rows():
    seen = list(twins(torch.tensor([4, 9, 2]), 4))
    assert [(o.tolist(), p.tolist()) for o, p in seen] == [([4, 4, 9, 9], [4, 9]), ([2, 2, 2, 2], [2])]
    assert list(twins(torch.tensor([0]), 1)) == [] and list(twins(torch.tensor([], dtype=torch.int64), 4)) == []
