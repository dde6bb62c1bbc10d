"""The rounded normal law: its masses are exact, its comparisons right, and all below 62 deviations is possible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest, norm

from veilset.privacy import normal
from veilset.privacy.noise import Stream
from veilset.privacy.normal import BLOCK, FAR, INDEX, LONG, SHORT, Law, rounded_normal

STDS = [2.0**47, 1.9999 * 2.0**46, 1.2345 * 2.0**33, 3.7 * 2.0**21]


def bits(key: int = 0):
    return Stream(key.to_bytes(32, "big")).uint64


@pytest.mark.parametrize("std", STDS)
def test_large_deviations_give_normals(std):
    z = rounded_normal(bits(), 300_000, std)
    assert z.dtype == np.int64 and int(np.abs(z).max()) < 2**53
    y = z / std
    assert kstest(y, "norm").pvalue > 1e-3
    assert abs(y.mean()) < 0.01 and abs(y.std() - 1) < 0.006
    assert abs(np.corrcoef(y[:-1], y[1:])[0, 1]) < 0.01
    for far in (2.0, 3.0, 4.0):
        assert binomtest(int((np.abs(y) > far).sum()), len(y), 2 * norm.sf(far)).pvalue > 1e-4
    low = z & 0xFF  # the low bits are coins
    assert chisquare(np.bincount(low, minlength=256)).pvalue > 1e-4


@pytest.mark.parametrize("std", [0.05, 0.4, 1.0, 7.3])
def test_small_deviations_are_rounded_to_the_nearest_integer(std):
    z = rounded_normal(bits(), 200_000, std)
    for k in range(-4, 5):
        p = norm.cdf((k + 0.5) / std) - norm.cdf((k - 0.5) / std)
        assert binomtest(int((z == k).sum()), len(z), min(1.0, p)).pvalue > 1e-5


@pytest.mark.parametrize("n", [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1])
def test_any_number_of_them(n):
    assert rounded_normal(bits(), n, 1e9).shape == (n,)


def test_no_noise_is_zero():
    assert not Stream(bytes(32)).noise(5, 0.0).any()


@pytest.mark.parametrize("depth", [SHORT, LONG])
@pytest.mark.parametrize("std", [2.0**20, 1.9 * 2.0**30])
def test_the_masses_make_up_the_blocks_exactly(std, depth):
    """Table entries and what they leave over: together each cell is covered up to its left edge, in integers."""
    law = Law(std)
    h, sums = law.heights(depth), law.sums(depth)
    masses = [b - a for a, b in zip([0, *sums], sums, strict=False)]
    total = sum(h[:-1])
    kept, wedge = masses[: law.cells], masses[law.cells :]
    assert min(masses) >= 0 and len(masses) == 2 * law.cells
    for i in range(law.cells):
        assert law.entries[i] * total + kept[i] + wedge[i] == h[i] << INDEX
        assert wedge[i] == (h[i] - h[i + 1]) << INDEX
    assert [int(n) for n in np.bincount(law.table[law.table >= 0], minlength=law.cells)] == law.entries
    assert int((law.table < 0).sum()) * total == sums[-1]  # the open entries stand for what is left over


def test_heights_are_those_of_the_curve():
    mp = pytest.importorskip("mpmath")
    law = Law(1.2345 * 2.0**33)
    for depth in (SHORT, LONG):
        h = law.heights(depth)
        with mp.workprec(depth + 100):
            for i in (0, 1, 2, 77, 500, law.cells // 2, law.cells):
                exact = mp.exp(-(mp.mpf(i) ** 2) / (2 * mp.mpf(law.ratio) ** 2)) * mp.mpf(2) ** depth
                assert abs(exact - h[i]) <= 2


def test_the_curve_is_covered_to_62_deviations():
    for std in STDS:
        law = Law(std)
        assert law.cells >= FAR * law.ratio and 64 <= law.ratio < 128
        assert law.cells << law.shift < 2**55
        assert law.heights(LONG)[-1] > 0  # nothing is lost of what is this rare


def test_quick_comparisons_agree_with_exact_ones():
    """Where 53 bits decide whether a point of a wedge lies below the curve, all the bits decide alike."""
    law, lot, source = Law(1.37 * 2.0**28), np.random.default_rng(0), bits(1)
    cell = lot.integers(0, 400, 200)
    word, level = source(200).view(np.int64), source(200)
    quick = law._below(source, cell, word, level)
    mask = (1 << law.shift) - 1
    exact = [
        law._surely_below(source, int(i), int(w) & mask, int(u)) for i, w, u in zip(cell, word, level, strict=True)
    ]
    assert quick.tolist() == exact and 0 < sum(exact) < 200


@pytest.mark.long
def test_quick_pieces_agree_with_exact_ones():
    law, source = Law(1.37 * 2.0**28), bits(2)
    mass = source(10)
    assert law._piece(source, mass).tolist() == [law._exactly(int(u), source) for u in mass]


@pytest.mark.parametrize("draws", [200, pytest.param(1500, marks=pytest.mark.long)])
def test_what_few_bits_cannot_tell_is_drawn_by_many(monkeypatch, draws):
    """The slow path alone gives the same law."""
    monkeypatch.setattr(normal, "DOUBT", 10.0)  # no comparison is trusted
    monkeypatch.setattr(normal, "LONG", 600)
    law = Law(2.0**25)
    law.before, law.behind = np.zeros_like(law.before), np.full_like(law.behind, 2**64 - 1)
    asked = {"mass": 0, "wedge": 0}
    piece, below = law._exactly, law._surely_below
    law._exactly = lambda *a: asked.update(mass=asked["mass"] + 1) or piece(*a)
    law._surely_below = lambda *a: asked.update(wedge=asked["wedge"] + 1) or below(*a)
    law.table[:] = -1  # nothing is looked up, so that what is left over is all there is
    law.entries = [0] * law.cells
    z = law.draw(bits(3), draws) / law.ratio / 2.0**law.shift
    assert asked["mass"] >= draws and asked["wedge"] > 0
    assert kstest(z, "norm").pvalue > 1e-3


def test_an_answer_forty_deviations_off_is_possible():
    """With 64-bit words alone nothing beyond 9 deviations would be: rare bits reach as far as the law does."""
    law = Law(2.0**30)
    sums = law.sums(LONG)
    cell = math.ceil(40 * law.ratio)
    u = ((sums[cell - 1] + sums[cell]) // 2 << LONG + 64) // sums[-1]  # within the kept block of this cell
    words = [(1 << 64) - 1, u >> LONG, 0, 0]  # an open entry of the table, the mass, the place, the level
    rest = (u & ((1 << LONG) - 1)) << (64 * -(-LONG // 64) - LONG)
    more = np.frombuffer(rest.to_bytes(8 * -(-LONG // 64), "little"), np.uint64)

    def told(n: int) -> np.ndarray:
        return np.array([words.pop(0)], np.uint64) if n == 1 else more if n > 1 else np.zeros(0, np.uint64)

    assert abs(law.draw(told, 1)[0]) >= 40 * 2.0**30


def test_the_largest_mass_is_told_by_more_bits():
    """Behind its 64 bits lie all pieces beyond 9 deviations; the last of them was once taken for all."""
    law, largest = Law(2.0**30), np.array([2**64 - 1], np.uint64)
    pieces = [int(law._piece(lambda n, v=v: np.full(n, v, np.uint64), largest)[0]) for v in (0, 2**63, 2**64 - 1)]
    assert law.cells + 7 * law.ratio < pieces[0] < pieces[1] < law.cells + 9.5 * law.ratio < pieces[2]


def test_the_law_is_that_of_its_very_deviation():
    """Two deviations that differ in the last bit have other masses: nothing is rounded to a coarser list of laws."""
    a, b = 1.5 * 2.0**30, math.nextafter(1.5 * 2.0**30, math.inf)
    assert Law(a).heights(SHORT)[100] != Law(b).heights(SHORT)[100]
