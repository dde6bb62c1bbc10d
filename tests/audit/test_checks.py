"""Each exact check of the self-test fails for a fault of its kind; patches of tests/faults are more of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from veilset.audit.selftest import chunks, exact_normal, formulas, looks, randomness, rounding, words
from veilset.audit.selftest.exact_normal import SURE, ExactNormal, Rest
from veilset.privacy import accounting, alone, bounding, draws, gate, normal, pld, renyi
from veilset.privacy.gate import Gate
from veilset.privacy.gradients import clipped, sheet
from veilset.privacy.gradients.clipped import Total
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.normal import Law
from veilset.privacy.reading import Reader
from veilset.privacy.sampling import Units

pytestmark = pytest.mark.filterwarnings("ignore:gradients are computed by the slower general path")


def failing(measure) -> set[str]:
    return {c.name for c in measure() if not c.ok}


# ---------------------------------------------------------------------- words and streams


def test_masses_that_64_bits_decide_fail(monkeypatch):
    monkeypatch.setattr(words, "STDS", words.STDS[:1])
    monkeypatch.setattr(Law, "_exactly", lambda self, first, bits: self.cells)
    assert failing(words.words) == {"noise is exact for masses at the edges of their pieces"}


@pytest.mark.long
def test_points_that_doubles_decide_fail(monkeypatch):
    monkeypatch.setattr(words, "STDS", words.STDS[:1])
    monkeypatch.setattr(Law, "_surely_below", lambda self, bits, cell, place, level: False)
    assert failing(words.words) == {"noise is exact for points next to the curve"}


@pytest.mark.long
def test_noise_that_is_cut_off_instead_of_rounded_fails(monkeypatch):
    real = normal.rounded_normal
    monkeypatch.setattr(words, "STDS", words.STDS[2:])
    monkeypatch.setattr(words, "rounded_normal", lambda bits, n, std: real(bits, n, 2 * std) >> 1)
    assert "noise is exact for random words" in failing(words.words)


def test_words_that_come_twice_and_purposes_that_are_cut_fail(monkeypatch):
    real, noise = Keys.stream, Stream.noise
    monkeypatch.setattr(Keys, "stream", lambda self, purpose: real(self, purpose[:40]))
    assert failing(words.bits) == {"random words are enciphered counters"}
    monkeypatch.setattr(Stream, "noise", lambda self, n, std: np.clip(noise(self, n, std), -(2**48), 2**48))
    assert failing(words.bits) == {"random words are enciphered counters", "a stream's noise is the sampler's"}
    monkeypatch.setattr(Keys, "stream", lambda self, purpose: real(self, purpose.split("/")[0]))
    assert failing(randomness.purposes) == {"every use of random numbers has its own stream"}


def test_another_deviation_of_the_noise_fails(monkeypatch):
    real = Gate._noised
    less = lambda self, exact, *a: real(self, dataclasses.replace(exact, sensitivity=exact.sensitivity * 0.999999), *a)  # noqa: E731
    monkeypatch.setattr(Gate, "_noised", less)
    assert failing(randomness.deviations) == {"noise is asked for in its exact deviation"}


def test_draws_that_share_bits_or_have_another_law_fail(monkeypatch):
    real = Stream.normal

    def normals(self, n):
        z = real(self, n + n % 2)
        return torch.cat([z[::2], z[1::2]])[:n]

    def short(self, n):
        return self.uniform(12 * n).view(n, 12).sum(1) - 6

    monkeypatch.setattr(Stream, "normal", normals)
    assert failing(randomness.own_bits) == {"no bit is in the draws of two records"}
    monkeypatch.setattr(Stream, "normal", short)
    assert "draws of a record's own follow their laws" in failing(randomness.own_laws)
    monkeypatch.undo()
    uniform = Stream.uniform
    monkeypatch.setattr(Stream, "uniform", lambda self, n: 1 - uniform(self, n) + (torch.arange(n) == 0))
    assert "draws of a record's own are in range" in failing(randomness.own_laws)


def test_generators_that_are_not_seeded_fail(monkeypatch):
    monkeypatch.setattr(draws.random, "seed", lambda seed: None)
    assert "a loss draws by the seed of its step alone" in failing(randomness.shared_draws)


# ---------------------------------------------------------------------- chunks and looks


def test_units_of_several_chunks_that_count_less_fail(monkeypatch):
    add = Total.add_means
    monkeypatch.setattr(Total, "add_means", lambda self, rows, unit, images: add(self, rows / 9, unit, images))
    assert failing(chunks.neighbours) == {"such a unit counts as much as others"}


@pytest.mark.long
def test_sums_and_gradients_that_show_where_a_chunk_ends_fail(monkeypatch):
    real = Units.chunks

    def counted_here(self, chosen, size):
        for records, unit, images in real(self, chosen, size):
            yield records, unit, np.minimum(images, np.bincount(unit)[unit])

    monkeypatch.setattr(Units, "chunks", counted_here)
    assert "a unit over several chunks moves an answer by its bound" in failing(chunks.neighbours)
    assert failing(chunks.cuts) == {
        f"{what} do not show where a chunk ends" for what in ("sums", "gradients", "gradients, slow path")
    }


def test_chunks_that_are_not_filled_up_fail(monkeypatch):
    real = Reader.rows
    monkeypatch.setattr(Reader, "rows", lambda self, *a: max(1, real(self, *a) - self.units.count % 7))
    assert failing(chunks.shapes) == {"chunks have one size whoever is there"}


def test_rows_that_stay_spoilt_fail(monkeypatch):
    monkeypatch.setattr(alone, "twins", lambda records, rows: iter(()))
    assert failing(chunks.spoilt) == {"a spoilt record spoils no neighbour"}


def test_blanks_that_count_fail(monkeypatch):
    real = sheet.Sheet.add_clipped
    monkeypatch.setattr(
        sheet.Sheet, "add_clipped", lambda self, total, used, bound: real(self, total, torch.ones_like(used), bound)
    )
    assert failing(chunks.blanks) == {"blank rows add nothing"}


def test_losses_that_draw_otherwise_by_chunk_or_row_fail(monkeypatch):
    real, calls = clipped.shared, [0]

    def anew(seed, device):
        calls[0] += 1
        return real(seed + calls[0], device)

    monkeypatch.setattr(clipped, "shared", anew)
    assert failing(chunks.alike) == {"a loss draws alike in all chunks"}
    monkeypatch.undo()
    vmap = torch.vmap
    monkeypatch.setattr(torch, "vmap", lambda f, randomness: vmap(f, randomness="different"))
    assert "a loss draws alike in all rows" in failing(chunks.alike)


def test_looks_that_see_nothing_fail(monkeypatch):
    monkeypatch.setattr(alone, "_same", lambda *_: True)
    assert failing(looks.rows) == {
        "records that see others are mapped alone",
        "what gives two answers about a record is refused",
    }
    assert failing(looks.used) == {"chunks are as small as records need to be alone"}


def test_layers_that_are_trusted_blindly_fail(monkeypatch):
    monkeypatch.setattr(clipped, "TOLERANCE", 0.1)
    assert failing(looks.layers) == {"layers that are computed wrongly are not trusted"}


def test_open_ways_between_records_fail(monkeypatch):
    monkeypatch.setattr(gate, "CROWD", 9)
    assert failing(looks.refusals) == {"ways from one record to another are refused"}


# ---------------------------------------------------------------------- rounding


def test_margins_that_are_dropped_fail(monkeypatch):
    monkeypatch.setattr(bounding, "MARGIN", 0.0)
    assert failing(rounding.rows) == {"clipped rows are not longer than their bound"}
    monkeypatch.setattr(bounding, "MARGIN", 0.01)
    assert failing(rounding.rows) == {"clipped rows are not shorter than need be"}
    monkeypatch.setattr(sheet, "MARGIN", 0.0)
    assert "a record of a sheet stays in its bound" in failing(rounding.weighted)


def test_another_grid_fails(monkeypatch):
    monkeypatch.setattr(bounding, "HEADROOM", 54)
    monkeypatch.setattr(rounding, "grid", bounding.grid)
    assert failing(rounding.whole_numbers) == {"sums are exact on the grid"}
    monkeypatch.undo()
    monkeypatch.setattr(Gate, "_step", lambda self, release: 1e-9 * (1 + self._reader.units.count))
    assert failing(rounding.crowds) == {"chunks and grid follow from declared facts"}


def test_sums_and_norms_in_less_than_float64_fail(monkeypatch):
    real = sheet.Sheet._weighted
    less = lambda self, name, share: real(self, name, share).float().double()  # noqa: E731
    monkeypatch.setattr(sheet.Sheet, "_weighted", less)
    assert failing(rounding.weighted) == {"weighted gradients are added in float64"}
    assert failing(rounding.added) == {
        f"gradients are added in float64, {form}" for form in ("explicit", "outer", "gram")
    }
    monkeypatch.undo()
    monkeypatch.setattr(sheet, "UNIT", 0.0)
    assert failing(rounding.cancelling) == {"norms hold what rounding may hide"}
    norms = sheet.Sheet.norms
    monkeypatch.setattr(sheet.Sheet, "norms", lambda self: norms(self).bfloat16().double())
    assert failing(rounding.low_precision) == {f"norms are not bfloat16, {f}" for f in ("explicit", "outer", "gram")}


# ---------------------------------------------------------------------- formulas


def test_a_wrong_closed_form_fails(monkeypatch):
    real = formulas.gaussian_delta
    monkeypatch.setattr(formulas, "gaussian_delta", lambda e, mu: real(e, mu) * (1 - 1e-6))
    assert failing(formulas.closed_form) == {"a Gaussian's delta is not below the exact one"}
    monkeypatch.setattr(formulas, "gaussian_delta", lambda e, mu: real(e, mu) * (1 + 1e-5))
    assert failing(formulas.closed_form) == {"a Gaussian's delta is not far above the exact one"}


@pytest.mark.long
def test_claims_that_are_too_small_or_large_fail(monkeypatch):
    real = formulas.claim

    def times(factor):
        def other(spent, delta):
            got = real(spent, delta)
            return dataclasses.replace(got, epsilon=got.epsilon * factor)

        return other

    monkeypatch.setattr(formulas, "claim", times(0.999))
    assert failing(formulas.nearly_all) == {"sampled Gaussians cost no less than they must"}
    assert failing(formulas.one_step) == {"one sampled step's delta is not passed"}
    monkeypatch.setattr(formulas, "claim", times(1.6))
    assert failing(formulas.nearly_all) == {"sampled Gaussians cost little more than they must"}
    assert failing(formulas.one_step) == {"one sampled step's delta is used"}


def test_wrong_divergences_and_conversions_fail(monkeypatch):
    real = renyi.divergence
    with monkeypatch.context() as m:
        m.setattr(renyi, "divergence", lambda s, q, a: real(s, q, a) * (1 + 1e-5 * (a == 17)))
        m.setattr(accounting, "AGREE", (1e-4, 1e-4))
        assert failing(formulas.divergences) == {"RDP is that of sums of 60 digits"}
    monkeypatch.setattr(renyi, "conversion", lambda a, delta: math.log(1 / delta) / (a - 1))
    assert failing(formulas.divergences) == {"RDP claims what its orders give, at small deltas"}


@pytest.mark.long
def test_contradictions_that_are_not_seen_fail(monkeypatch):
    monkeypatch.setattr(renyi, "conversion", lambda a, delta: math.log(1 / delta) / (a - 1))
    monkeypatch.setattr(accounting, "AGREE", (1e-2, 1e-2))
    assert failing(formulas.contradictions) == {"accountants that contradict each other certify nothing"}


@pytest.mark.long
def test_pld_that_is_trusted_too_far_fails(monkeypatch):
    monkeypatch.setattr(pld, "SHARE", 1e6)
    monkeypatch.setattr(pld, "_rounding", lambda points, roots: 1e-18)
    assert failing(formulas.who_claims) == {
        "PLD claims only where its arithmetic is sure",
        "PLD knows how far its arithmetic may be off",
    }


def test_a_sampler_that_is_paid_wrongly_fails(monkeypatch):
    monkeypatch.setattr(accounting, "sampler_delta", lambda epsilon: 2.0 ** (64 - accounting.SAMPLER_BITS))
    assert failing(formulas.sampler) >= {"what the sampler takes is left to it"}


@pytest.mark.long
def test_a_sampler_that_is_paid_too_much_or_is_worse_than_it_is_accounted_fails(monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(accounting, "sampler_delta", lambda epsilon: 9e-9)
        assert failing(formulas.sampler) >= {"what the sampler does not take is used"}
    monkeypatch.setattr(accounting, "SAMPLER_BITS", 5000)
    assert failing(formulas.sampler) == {"the sampler is as good as is accounted"}


def test_forgotten_releases_and_weights_fail(monkeypatch):
    real = accounting.by_part
    with monkeypatch.context() as m:
        m.setattr(accounting, "by_part", lambda spent: real(spent)[:1])
        assert failing(formulas.compositions) == {"releases cost together what a unit meets"}
    price = formulas.Plan.price

    def alike(self, privacy, info):
        got = price(self, privacy, info)
        same = [dataclasses.replace(r, noise_multiplier=got.releases[0].noise_multiplier) for r in got.releases]
        return dataclasses.replace(got, releases=tuple(same))

    monkeypatch.setattr(formulas.Plan, "price", alike)
    assert failing(formulas.compositions) == {"a plan's noise follows its weights"}


# ---------------------------------------------------------------------- the exact law itself


def test_the_exact_law_is_the_curves():
    """Its masses cover each cell up to its left edge, and what it keeps of a wedge lies below the curve."""
    law = ExactNormal(1.2386 * 2.0**33)
    h, total = law.heights, sum(law.heights[:-1])
    for i in (0, 1, 70, 500, law.cells):
        exact = -((i / law.ratio) ** 2) / 2
        assert math.isclose(math.log(h[i] >> 4000 or 1) if i < 500 else exact, exact + (
            exact_normal.DEPTH - 4000) * math.log(2) if i < 500 else exact, rel_tol=1e-9)  # fmt: skip
    masses = [b - a for a, b in zip([0, *law.sums], law.sums, strict=False)]
    entries = [b - a for a, b in zip([0, *law._ends], law._ends, strict=False)]
    assert min(masses) >= 0
    for i in range(law.cells):
        assert (entries[i] * total) + masses[i] + masses[law.cells + i] == h[i] << 16
    assert (65536 - law._ends[-1]) * total == law.sums[-1]
    half = 1 << law.shift - 1
    assert law.left_over((law.sums[law.cells + 30] << 64) // law.sums[-1], half, 0) is not None
    assert law.left_over((law.sums[law.cells + 30] << 64) // law.sums[-1], half, 2**64 - 1) is None
    assert law.value(3, 5) == -law.value(3, 5 | 1 << 46) == ((3 << law.shift) + 5 + 1) >> 1
    assert Rest(mass=1).mass < 1 << SURE
