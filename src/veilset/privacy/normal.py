"""Normal deviates rounded to integers, exactly: what the gate adds to its integer sums.

The ideal law is round(X) for X normal with deviation s. To add it to an integer sum is to round sum + X, so whatever
holds of Gaussian noise holds of what leaves the gate. What is drawn differs from the ideal only where |X| > 62 s and by
the last of 4,200 bits: by less than 2^-2700 in total variation a coordinate (docs/proof.md has the argument, and the
libraries that were looked at first).

How, for a half-normal x >= 0 in units of a cell of 2^shift integers (Marsaglia's table of cells, then rejection):
cell i is covered by a block of the height h_i = exp(-(i / r)^2 / 2) of its left edge, r = s / 2^shift in [64, 128). A
block is chosen in proportion to h_i and x uniformly in it. The part of the block up to h_{i+1} lies below the curve at
every x and is kept at once; of the rest, the wedge, what lies below the curve. 16 random bits look up a cell in a table
that holds each floor(65536 h_{i+1} / sum h) times; what the table leaves over is drawn by its cumulative masses. Masses
and wedges are compared in 64 and 53 bits, and by as many more as it takes where those do not decide.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Bits = Callable[[int], Array]  # n -> n independent uniform 64-bit integers

INDEX = 16  # bits that look up a cell
PLACE = 47  # bits below them: the lowest are a place in the cell, the highest is the sign
FAR = 62  # deviations; 2^-2770 lies beyond
FEWEST = 20  # log2 of the least deviation that is drawn: less is drawn finer, and rounded
SHORT, LONG = 256, 4200  # bits of the masses: at first, and where two words do not decide
DOUBT = 2.0**-44  # of a comparison in float64 whose terms are each right to 2^-50
BLOCK = 1 << 14  # drawn at a time, so that all of it stays in the processor's cache


def rounded_normal(bits: Bits, n: int, std: float) -> Array:
    """n independent values of round(X), X normal with mean 0 and deviation std; int64 [n].

    Args:
        bits: the source of all randomness.
        n: how many.
        std: in [2^-900, 2^47]; exactly this binary number.
    """
    finer = max(1, FEWEST - math.frexp(std)[1] + 1)  # at least one bit, so that rounding is to the nearest
    out = _law(math.ldexp(std, finer)).draw(bits, n)
    out += 1 << (finer - 1)
    out >>= finer
    return out


@functools.lru_cache(maxsize=64)
def _law(std: float) -> Law:
    return Law(std)


class Law:
    """floor(X) for X normal with deviation `std` in [2^20, 2^48]."""

    def __init__(self, std: float):
        self.shift = math.frexp(std)[1] - 7
        self.ratio = math.ldexp(std, -self.shift)
        self.cells = math.ceil(FAR * self.ratio)
        heights = self.heights(SHORT)
        total, cells = sum(heights[:-1]), range(self.cells)
        # A little less than the floor where a mass is nearly a whole number of entries: what is left over is positive.
        self.entries = [(h << INDEX) // (total + (total >> 100)) for h in heights[1:]]
        self.table = np.full(1 << INDEX, -1, np.int16)
        filled = np.repeat(np.arange(self.cells, dtype=np.int16), self.entries)
        self.table[: len(filled)] = filled
        sums = self.sums(SHORT)
        edges = np.array([min((c << 64) // sums[-1], 2**64 - 1) for c in sums[:-1]], np.uint64)
        # A number with these first 64 bits, or one less or more, is not told from the edge itself.
        self.before, self.behind = edges - np.minimum(edges, 1), edges + np.minimum(~edges, 2)
        self.half = 0.5 / self.ratio**2
        self.low = np.exp([-(2 * i + 1) * self.half for i in cells])  # a wedge's lower edge over its upper

    def heights(self, depth: int) -> list[int]:
        """exp(-(i / ratio)^2 / 2) x 2^depth for i = 0 .. cells, each right to two units."""
        p, q = self.ratio.as_integer_ratio()
        one = 1 << (depth + 16)
        with localcontext() as context:
            context.prec = depth // 3 + 20
            step = int((-(Decimal(q) ** 2) / (2 * Decimal(p) ** 2)).exp() * one)
        out, h, twice = [], one, step * step // one
        for _ in range(self.cells + 1):
            out.append(h >> 16)
            h, step = h * step // one, step * twice // one
        return out

    def sums(self, depth: int) -> list[int]:
        """Cumulative masses of what the table leaves over: the rest of each kept block, then each wedge."""
        h = self.heights(depth)
        total, out, c = sum(h[:-1]), [], 0
        masses = [(h[i + 1] << INDEX) - n * total for i, n in enumerate(self.entries)]
        for mass in masses + [(h[i] - h[i + 1]) << INDEX for i in range(self.cells)]:
            c += mass
            out.append(c)
        return out

    def draw(self, bits: Bits, n: int) -> Array:
        """n independent values, int64."""
        out = np.empty(n, np.int64)
        for start in range(0, n, BLOCK):
            block = out[start : start + BLOCK]
            open_ = self._look_up(bits, block)
            while len(open_):
                value, kept = self._left_over(bits, len(open_))
                block[open_[kept]] = value[kept]
                open_ = open_[~kept]
                again = np.empty(len(open_), np.int64)  # what a wedge rejects begins anew
                still = self._look_up(bits, again)
                block[open_] = again
                open_ = open_[still]
        return out

    def _look_up(self, bits: Bits, out: Array) -> Array:
        """Fill `out` from the table; returns where the table leaves it open."""
        word = bits(len(out)).view(np.int64)
        cell = self.table.take(word.view(np.uint64) >> np.uint64(64 - INDEX))
        self._signed(cell, word, out)
        return np.flatnonzero(cell < 0)

    def _signed(self, cell: Array, word: Array, out: Array) -> None:
        """floor(x) of the place in each cell that the low bits of a word tell, or floor(-x) if its sign bit is set."""
        np.left_shift(cell, self.shift, out=out, dtype=np.int64)
        low = word & ((1 << self.shift) - 1)
        out |= low
        np.left_shift(word, 64 - PLACE, out=low)
        low >>= 63
        out ^= low

    def _left_over(self, bits: Bits, n: int) -> tuple[Array, Array]:
        """(values [n], which of them are kept [n]) from what the table leaves over."""
        mass, word, level = bits(n), bits(n).view(np.int64), bits(n)
        piece = self._piece(bits, mass)
        cell = piece % self.cells
        value = np.empty(n, np.int64)
        self._signed(cell, word, value)
        kept = piece < self.cells
        wedge = np.flatnonzero(~kept)
        kept[wedge] = self._below(bits, cell[wedge], word[wedge], level[wedge])
        return value, kept

    def _piece(self, bits: Bits, mass: Array) -> Array:
        """Which piece of what is left over: the number of cumulative masses not above a uniform number."""
        most = np.uint64(2**64 - 2)  # the last number may lie before any edge that is not told from it
        piece = np.searchsorted(self.behind, np.minimum(mass, most), side="right")
        for i in np.flatnonzero(np.searchsorted(self.before, mass, side="right") != piece):
            piece[i] = self._exactly(int(mass[i]), bits)
        return piece

    def _exactly(self, first: int, bits: Bits) -> int:
        u, sums = _longer(first, LONG, bits), self.sums(LONG)
        return bisect_right(sums[:-1], u * sums[-1] >> (64 + LONG))

    def _below(self, bits: Bits, cell: Array, word: Array, level: Array) -> Array:
        """Whether points of wedges lie below the curve: low + (1 - low) u < exp(-(2 i v + v^2) / (2 r^2))."""
        width = math.ldexp(1.0, -self.shift)
        v = (word & ((1 << self.shift) - 1)) * width
        height = self.low[cell] + (1 - self.low[cell]) * ((level >> np.uint64(11)) * 2.0**-53)
        most = np.exp(-v * (2 * cell + v) * self.half) - height
        v += width
        least = np.exp(-v * (2 * cell + v) * self.half) - height
        below = least > DOUBT
        for i in np.flatnonzero((least <= DOUBT) & (most >= -DOUBT)):
            below[i] = self._surely_below(bits, int(cell[i]), int(word[i]) & ((1 << self.shift) - 1), int(level[i]))
        return below

    def _surely_below(self, bits: Bits, cell: int, place: int, level: int) -> bool:
        """The same with ever more bits of place and level, until they decide."""
        more, (p, q) = 128, self.ratio.as_integer_ratio()
        place_bits, level_bits = self.shift, 64
        while True:
            place, place_bits = _longer(place, more, bits), place_bits + more
            level, level_bits = _longer(level, more, bits), level_bits + more
            with localcontext() as context:
                context.prec = (max(place_bits, level_bits) + 64) // 3
                half = Decimal(q) ** 2 / (2 * Decimal(p) ** 2)
                low, doubt = (-(2 * cell + 1) * half).exp(), Decimal(2) ** (8 - place_bits)
                u, v = Decimal(level) / Decimal(2) ** level_bits, Decimal(place) / Decimal(2) ** place_bits
                gap = (-v * (2 * cell + v) * half).exp() - low - (1 - low) * u
                if abs(gap) > doubt:
                    return gap > 0
            more *= 2


def _longer(value: int, more: int, bits: Bits) -> int:
    """A uniform integer with `more` random bits behind it."""
    words = -(-more // 64)
    return value << more | int.from_bytes(bits(words).tobytes(), "little") >> (64 * words - more)
