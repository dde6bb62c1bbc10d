"""A record's share depends on no other record and on no place: chunks, their rows, and what is looked at beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sets import facts, gate_for, linear_loss, linear_params, pictures, pixels, private

from veilset.audit.selftest import places
from veilset.privacy import gate as gate_module
from veilset.privacy.gradients.sheet import MARGIN
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays
from veilset.privacy.reading import Reader

FLOATS = {"shape": (1, 4, 4), "value_range": (0.0, 1.0)}


def test_one_unit_anywhere_moves_the_sum_by_the_bound_at_most():
    """In front, in the middle, at the end; with draws, without; single images and people; several chunks."""
    checks = list(places.positions())
    assert len(checks) == 4 and all(c.ok and c.statistic > 0.9 for c in checks), checks


def test_a_records_share_is_the_same_to_the_last_bit_in_any_company():
    checks = list(places.company())
    assert len(checks) == 2 and all(c.ok for c in checks), checks


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_rows_are_made_of_declared_facts_not_of_what_is_there(verb):
    rows = set()
    for n in (0, 1, 50, 400):
        gate = gate_for(private(n), Release(name="r", verb=verb, sample_rate=0.5), epsilon=1.0)
        _ask(gate, verb)
        rows.add(tuple(gate._rows.values()))
    assert len(rows) == 1 and rows.pop()[0] == 32


def _ask(gate, verb):
    return gate.sum("r", pixels) if verb == "sum" else gate.grad("r", linear_loss, linear_params(gate.info))


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
    """Units of one image, of three, and of 500 images in chunks of 1, 4, 8 and many records."""
    info = facts(units=12, max_images_per_unit=large, **FLOATS)
    units = np.concatenate([np.repeat(k, n) for k, n in enumerate((1, large, 3, large + 9, 2, 1))])
    x, y = pictures(len(units), info)
    x = (x / 255).astype(np.float32)
    v = torch.from_numpy(x).double().flatten(1)
    means = torch.stack([v[torch.from_numpy(np.flatnonzero(units == k)[:large])].mean(0) for k in range(6)])
    seen = []
    for most in (1, 4, 8, 250):
        monkeypatch.setattr(gate_module, "CHUNK_BYTES", 1)
        monkeypatch.setattr(gate_module.Clipped, "most", lambda self, memory, most=most: most)
        monkeypatch.setattr(Reader, "rows", lambda self, units, rate, limit, most=most: most)
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
