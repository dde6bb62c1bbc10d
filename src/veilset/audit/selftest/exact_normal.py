"""The law of the protecting noise once more, in whole numbers: what every word of random bits must become.

`veilset.privacy.normal` draws many values at a time in doubles, and asks for more bits where those do not decide. Here
is one value at a time, with masses of 4,300 bits and a curve of 130 digits, written apart from it; slow, and exact for
all that the checks ask. Nothing but the layout of a word is common to both.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from itertools import accumulate

DEPTH = 4300  # bits of the heights; a few more than the sampler has
SURE = 4100  # bits to which a mass is surely told from its neighbours, in both
DIGITS = 130  # of the curve
FAR = 62  # deviations
OPEN = (1 << 64) - 1  # a word that no cell of the table has: it asks for what the table leaves over
CURVE = 192  # bits of a place and of a level that are looked at


class ExactNormal:
    """round(X) for X normal with deviation `std`.

    Attributes:
        finer: bits that are drawn and then rounded away.
        shift: log2 of a cell's width, in what is drawn.
        cells: how many there are.
        heights: left edges of the cells' blocks, in units of 2^-DEPTH.
        sums: cumulative masses of what the table leaves over: the rest of each kept block, then each wedge.
    """

    def __init__(self, std: float):
        self.finer = max(1, 21 - math.frexp(std)[1])
        drawn = math.ldexp(std, self.finer)
        self.shift = math.frexp(drawn)[1] - 7
        self.ratio = math.ldexp(drawn, -self.shift)
        self.cells = math.ceil(FAR * self.ratio)
        self.heights = self._heights()
        h, total = self.heights, sum(self.heights[:-1])
        entries = [(v << 16) // total for v in h[1:]]
        self._ends = list(accumulate(entries))
        rest = [(v << 16) - n * total for v, n in zip(h[1:], entries, strict=True)]
        self.sums = list(accumulate(rest + [(a - b) << 16 for a, b in zip(h, h[1:], strict=False)]))

    def _heights(self) -> list[int]:
        """exp(-(i / ratio)^2 / 2) x 2^DEPTH for i = 0 .. cells, by powers of one number."""
        p, q = self.ratio.as_integer_ratio()
        one = 1 << (DEPTH + 64)
        with localcontext() as context:
            context.prec = DEPTH // 3 + 40
            base = int((-(Decimal(q) ** 2) / (2 * Decimal(p) ** 2)).exp() * one)
        powers = []  # of 256^k, j times
        for _ in range(4):
            row = [one]
            for _ in range(256):
                row.append(row[-1] * base // one)
            powers.append(row)
            base = row[-1]
        out = []
        for i in range(self.cells + 1):
            h, n = one, i * i
            for row in powers:
                n, digit = divmod(n, 256)
                h = h * row[digit] // one if digit else h
            out.append(h >> 64)
        return out

    def from_table(self, word: int) -> int | None:
        """The value that a word gives by the table, or None if it leaves it open."""
        cell = bisect_right(self._ends, word >> 48)
        return None if cell == self.cells else self.value(cell, word)

    def value(self, cell: int, word: int) -> int:
        """What a word's place and sign give in a cell."""
        x = (cell << self.shift) + word % (1 << self.shift)
        drawn = ~x if word >> 46 & 1 else x  # floor(-x) of what goes on behind the last bit
        return (drawn + (1 << (self.finer - 1))) >> self.finer

    def piece(self, mass: int, bits: int) -> int:
        """Which piece of what is left over a mass of so many bits lies in."""
        return bisect_right(self.sums, mass * self.sums[-1] >> bits)

    def left_over(self, mass: int, word: int, level: int, more: Rest | None = None) -> int | None:
        """The value that three words give by what the table leaves over, or None if they are rejected.

        Args:
            mass, word, level: 64 bits each.
            more: the bits that follow on the mass, the place and the level; random ones hardly ever count.
        """
        more = more or Rest()
        piece = self.piece(mass << SURE | more.mass, 64 + SURE)
        cell = piece % self.cells
        place = word % (1 << self.shift) << CURVE | more.place
        return self.value(cell, word) if piece < self.cells or self.below(cell, place, level, more.level) else None

    def below(self, cell: int, place: int, level: int, rest: int) -> bool:
        """Whether a point of a wedge lies below the curve."""
        with localcontext() as context:
            context.prec = DIGITS
            height = Decimal(level << CURVE | rest) / (1 << (64 + CURVE))
            return height < self.curve(cell, place)

    def curve(self, cell: int, place: int) -> Decimal:
        """The height of the curve above a place in a cell, 0 at the wedge's lower edge and 1 at its upper one."""
        with localcontext() as context:
            context.prec = DIGITS
            half = 1 / (2 * Decimal(self.ratio) ** 2)
            x = cell + Decimal(place) / (1 << (self.shift + CURVE))
            low, high = (-half * (cell + 1) ** 2).exp(), (-half * cell**2).exp()
            return ((-half * x * x).exp() - low) / (high - low)


class Rest:
    """Bits behind those of the first words, as whole numbers of SURE, CURVE and CURVE bits."""

    def __init__(self, mass: int = 0, place: int = 0, level: int = 0):
        self.mass, self.place, self.level = mass, place, level
