"""A record's share depends on no other record and on no place: chunks, their rows, and what is looked at beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sets import facts, gate_for, linear_loss, linear_params, pictures, pixels, private

from veilset.audit.checks import places
from veilset.core.errors import ConfigError
from veilset.privacy import gate as gate_module
from veilset.privacy.gradients.sheet import MARGIN
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays
from veilset.privacy.reading import EVEN, Reader, steady_rows

FLOATS = {"shape": (1, 4, 4), "value_range": (0.0, 1.0)}


def test_one_unit_anywhere_moves_the_sum_by_the_bound_at_most():
    """In front, in the middle, at the end; with draws, without; single images and people; several chunks."""
    checks = list(places.positions())
    assert len(checks) == 4 and all(c.ok and c.statistic > 0.9 for c in checks), checks


def test_a_records_share_is_the_same_to_the_last_bit_in_any_company():
    checks = list(places.company())
    assert len(checks) == 2 and all(c.ok for c in checks), checks


@pytest.mark.parametrize("images", [1, 7])
def test_chunks_have_one_shape_and_blanks_behind_their_records(images):
    info = facts(max_images_per_unit=images)
    x, y = pictures(50, info)
    y = y * 0 + 2
    data = from_arrays(info, x + (x == 0), y, np.arange(50) // images if images > 1 else None)
    reader = Reader(data._open(), info, "cpu")
    chunks = list(reader.chunks(np.arange(reader.units.count), 16))
    assert all(c.x.shape == (16, 1, 4, 4) and c.y.shape == (16,) for c in chunks)
    assert [len(c.unit) for c in chunks] == [16, 16, 16, 2]
    last = chunks[-1]
    assert not last.x[2:].any() and not last.y[2:].any() and last.x[:2].all() and (last.y[:2] == 2).all()
    assert torch.cat([c.unit for c in chunks]).tolist() == (np.arange(50) // images).tolist()


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_rows_are_made_of_declared_facts_not_of_what_is_there(verb):
    rows = set()
    for n in (0, 1, 50, 400):
        gate = gate_for(private(n), Release(name="r", verb=verb, sample_rate=0.5), epsilon=1.0)
        _ask(gate, verb)
        rows.add(tuple(gate._rows.values()))
    assert len(rows) == 1 and 8 <= rows.pop()[0] < 50


def _ask(gate, verb):
    return gate.sum("r", pixels) if verb == "sum" else gate.grad("r", linear_loss, linear_params(gate.info))


@pytest.mark.parametrize("expected", [0.01, 3, 64, 65, 1000, 10**6])
@pytest.mark.parametrize("most", [1, 5, 64, 256])
def test_rows_are_few_chunks_and_few_blanks(expected, most):
    info = facts()
    rows = Reader(private(5, info)._open(), info, "cpu").rows(expected, most)
    assert 1 <= rows <= most and (rows % EVEN == 0 or rows == most)
    if expected < most / 2:
        assert rows >= expected


# ---------------------------------------------------------------------- what is looked at beforehand

LIKE = torch.zeros(1, 4, 4), torch.zeros((), dtype=torch.int64)


def test_rows_that_are_alone_are_kept():
    assert steady_rows("r", lambda x, y: [x * 2, y], LIKE, 3, 48) == 48
    assert steady_rows("r", lambda x, y: [x / (x - x)], LIKE, 3, 48) == 48  # NaN is equal to NaN here


def test_rows_that_a_neighbour_or_a_place_can_move_are_halved_until_they_are_alone():
    eps = 1 + 2.0**-20
    mean = lambda x, y: [x + (1e-6 * x.mean() if len(x) > 12 else 0)]  # noqa: E731
    place = lambda x, y: [torch.cat([x[:6], x[6:] * eps])]  # noqa: E731
    assert steady_rows("r", mean, LIKE, 3, 48) == 12
    assert steady_rows("r", place, LIKE, 3, 48) == 6
    assert steady_rows("r", lambda x, y: [x * (1 + 1e-6 * torch.arange(len(x)).view(-1, 1, 1, 1))], LIKE, 3, 48) == 1


def test_a_map_with_a_state_is_refused():
    seen = [0]

    def counts(x, y):
        seen[0] += 1
        return [x * seen[0]]

    with pytest.raises(ConfigError, match="release 'r': asked twice"):
        steady_rows("r", counts, LIKE, 3, 48)


def test_the_users_generator_is_left_as_it_was_and_looks_draw_alike():
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert steady_rows("r", lambda x, y: [x * torch.rand(())], LIKE, 3, 48) == 48
    assert torch.equal(torch.get_rng_state(), before)


def test_a_gate_uses_the_rows_that_were_found(monkeypatch):
    """A loss whose rows are alone only in small chunks is asked in small chunks, and then the bound holds."""
    info, n = facts(units=64, **FLOATS), 40
    x, y = pictures(n, info)
    x = (x / 255).astype(np.float32)
    real = gate_module.Clipped._sheet

    def leaky(self, loss, params, inputs, several):
        sheet = real(self, loss, params, inputs, several)
        if len(inputs[0]) > 10:  # as a library would that rounds, only worse
            sheet.explicit = {k: ([p + p.mean(0)[None] for p in v], j) for k, (v, j) in sheet.explicit.items()}
        return sheet

    monkeypatch.setattr(gate_module.Clipped, "_sheet", leaky)

    def answer(k):
        gate = gate_for(from_arrays(info, x[k:], y[k:]), Release(name="r", verb="grad"), epsilon=1.0)
        gate._noised = lambda exact, *a: exact.value / exact.sensitivity
        params = {k: v.double() for k, v in linear_params(info).items()}
        got = gate.grad("r", lambda p, x, y: 1e3 * linear_loss(p, x.double(), y), params)
        step = gate._step(gate.plan["r"])
        assert list(gate._rows.values())[0] <= 10
        return torch.cat([v.flatten() for v in got.values()]) / step * info.units

    assert float((answer(0) - answer(1)).norm()) <= 1 - MARGIN / 2


# ---------------------------------------------------------------------- units over chunks


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("large", [5, 500])
def test_a_units_mean_is_the_same_wherever_chunks_are_cut(verb, large, monkeypatch):
    """Units of one image, of three, and of 500 images in chunks of 1, 5, 8 and many records."""
    info = facts(units=12, max_images_per_unit=large, **FLOATS)
    units = np.concatenate([np.repeat(k, n) for k, n in enumerate((1, large, 3, large + 9, 2, 1))])
    x, y = pictures(len(units), info)
    x = (x / 255).astype(np.float32)
    v = torch.from_numpy(x).double().flatten(1)
    means = torch.stack([v[torch.from_numpy(np.flatnonzero(units == k)[:large])].mean(0) for k in range(6)])
    seen = []
    for most in (1, 5, 8, 250):
        monkeypatch.setattr(gate_module, "CHUNK_BYTES", 1)
        monkeypatch.setattr(gate_module.Clipped, "most", lambda self, memory, most=most: most)
        monkeypatch.setattr(Reader, "rows", lambda self, expected, limit, most=most: most)
        gate = gate_for(from_arrays(info, x, y, units), Release(name="r", verb=verb, bound=50.0), epsilon=1.0)
        gate._noised = lambda exact, *a: exact.value
        if verb == "sum":
            got = gate.sum("r", pixels)
        else:
            got = gate.grad("r", lambda p, x, y: (p["w"] * x).sum(), {"w": torch.zeros(1, 4, 4, dtype=torch.float64)})
            got = got["w"].flatten() * info.units
        assert set(gate._rows.values()) == {most}
        assert torch.allclose(got, means.sum(0), rtol=1e-6)
        seen.append(got)
    assert all(float((got - seen[0]).abs().max()) < 1e-12 for got in seen)
