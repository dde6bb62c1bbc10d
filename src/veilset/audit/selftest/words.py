"""The sampler of the noise against the same law in whole numbers: every value, for random words and for chosen ones.

Statistics see neither what is decided by the 300th bit nor what happens once in 10^20 draws. Here the words of random
bits are put together so that it happens: masses at the edges of their pieces, points next to the curve, both tails.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from veilset.audit.selftest.base import Array, Check
from veilset.audit.selftest.exact_normal import CURVE, OPEN, SURE, ExactNormal, Rest
from veilset.privacy import normal
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.normal import rounded_normal

STDS = (2.0**47, 1.2386 * 2.0**33, 0.3)  # the largest that is drawn, another, and one that is drawn finer and rounded
BLOCK = 1 << 14  # values that share their requests for words
Bits = Callable[[int], Array]


def words() -> Iterator[Check]:
    """What leaves the sampler for given words, one deviation after another."""
    found = {"random words": 0, "masses at the edges of their pieces": 0, "points next to the curve": 0}
    count = dict.fromkeys(found, 0)
    for std in STDS:
        law, dice = ExactNormal(std), random.Random(7)
        with _remembered(std, law.finer):
            wrong = _streams(law, std), _draws(law, std, _masses(law, dice)), _draws(law, std, _points(law, dice))
        for what, (bad, all_) in zip(found, wrong, strict=True):
            found[what] += bad
            count[what] += all_
    for what, bad in found.items():
        about = f"of {count[what]} values those that are not the exact law's for their words"
        yield Check(f"noise is exact for {what}", float(bad), 0.0, about)


def bits() -> Iterator[Check]:
    """Random words are a counter's under AES-256, with a key made of the root and of all of the purpose."""
    off = 0
    for seed, purpose in ((1, "noise/a/None/0"), (2, "sample/" + "long" * 20 + "/3/17"), (2, "sample/" + "long" * 20)):
        root = hashlib.sha256(b"veilset research %d" % seed).digest()
        stream, wanted = Keys(seed).stream(purpose), _enciphered(hashlib.sha256(root + purpose.encode()).digest(), 4000)
        got = np.concatenate([stream.uint64(n) for n in (1, 2, 700, 0, 3297)])
        off += int((got != wanted).sum())
    yield Check("random words are enciphered counters", float(off), 0.0, "words that are not")
    off = 0
    for n, std in ((0, 1.0), (1, 0.4), (100, 1.37 * 2.0**25), (BLOCK + 1, 2.0**47), (5, 0.0)):
        wanted = rounded_normal(Stream(bytes(32)).uint64, n, std) if std else np.zeros(n, np.int64)
        off += int((Stream(bytes(32)).noise(n, std) != wanted).sum())
    yield Check("a stream's noise is the sampler's", float(off), 0.0, "values that are not")


CHECKS = (bits, words)


def _enciphered(key: bytes, n: int) -> Array:
    """AES of 0, 1, 2, ..., block by block."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    blocks = b"".join(i.to_bytes(16, "big") for i in range(n // 2))
    return np.frombuffer(Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks), np.uint64)  # noqa: S305


@contextmanager
def _remembered(std: float, finer: int) -> Iterator[None]:
    """Within it the sampler computes the long masses of this deviation once, not for every value that asks for them."""
    law = normal._law(math.ldexp(std, finer))
    law.sums = functools.cache(law.sums)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del law.sums


# ---------------------------------------------------------------------- random words, many values at a time


def _streams(law: ExactNormal, std: float) -> tuple[int, int]:
    """(wrong values, values) of more than a block of random words, and of words that the table leaves open."""
    key, bad, n = bytes(range(32)), 0, BLOCK + 2000
    got = rounded_normal(Stream(key).uint64, n, std)
    bad += int((got != _many(law, Stream(key).uint64, n)).sum())
    few = 1500
    got = rounded_normal(_opened(Stream(key).uint64), few, std)
    return bad + int((got != _many(law, _opened(Stream(key).uint64), few)).sum()), n + few


def _opened(real: Bits) -> Bits:
    """A source whose first request gives words that no cell of the table has."""
    asked: list[int] = []

    def bits(n: int) -> Array:
        asked.append(n)
        return real(n) | np.uint64(0xFFFF << 48) if len(asked) == 1 else real(n)

    return bits


def _many(law: ExactNormal, bits: Bits, n: int) -> Array:
    """Values for words in the order in which a block asks for them."""
    out: list[int | None] = [None] * n
    for start in range(0, n, BLOCK):
        open_ = list(range(start, min(n, start + BLOCK)))
        while open_:
            for i, word in zip(open_, bits(len(open_)), strict=True):
                out[i] = law.from_table(int(word))
            open_ = [i for i in open_ if out[i] is None]
            for i, *three in zip(open_, *(bits(len(open_)) for _ in range(3)), strict=True):
                out[i] = law.left_over(int(three[0]), int(three[1]), int(three[2]))
            open_ = [i for i in open_ if out[i] is None]
    return np.array(out, np.int64)


# ---------------------------------------------------------------------- chosen words, one value at a time

Words = tuple[int, int, int, Rest]  # the mass, the place and sign, the level, and the bits behind them


def _draws(law: ExactNormal, std: float, chosen: Iterator[Words]) -> tuple[int, int]:
    """(wrong values, values)."""
    bad = count = 0
    again = 1 << 62 | 12345  # what is rejected is looked up again: a cell of the table
    for mass, word, level, rest in chosen:
        wanted = law.left_over(mass, word, level, rest)
        wanted = law.from_table(again) if wanted is None else wanted
        got = rounded_normal(_told([OPEN, mass, word, level, again], rest), 1, std)
        bad, count = bad + (int(got[0]) != wanted), count + 1
    return bad, count


def _told(words: list[int], rest: Rest) -> Bits:
    """A source of these words, one a request, and of these bits where several are asked for at once."""
    longer = {"mass": (rest.mass, SURE), "place": (rest.place, CURVE), "level": (rest.level, CURVE)}
    turn = ["place", "level"]

    def bits(n: int) -> Array:
        if n == 1:
            return np.array([words.pop(0)], np.uint64)
        what = "mass" if 64 * n > 4 * CURVE else turn[0]
        if what != "mass":
            turn.reverse()
        value, left = longer[what]
        less = max(0, left - 64 * n)
        longer[what] = value % (1 << less), less  # what was not used yet
        given = value >> less << max(0, 64 * n - left)
        return np.frombuffer(given.to_bytes(8 * n, "little"), np.uint64)

    return bits


def _cells(law: ExactNormal) -> list[int]:
    """Cells in the middle, in both tails, and the last ones."""
    far = (0.1, 0.5, 1, 2, 3, 4.5, 6, 8, 8.6, 9, 12, 18, 25, 40, 61)  # deviations
    return [0, 1, 2, *(math.ceil(d * law.ratio) for d in far), law.cells - 2, law.cells - 1]


def _masses(law: ExactNormal, dice: random.Random) -> Iterator[Words]:
    """Masses in the middle of pieces, and so near their edges that 64 bits, and many more, tell no piece."""
    whole = 64 + SURE
    for first in (0, law.cells):
        for i in _cells(law):
            below, edge = (law.sums[first + i - 1] if first + i else 0), law.sums[first + i]
            middle = ((below + edge) // 2 << whole) // law.sums[-1]
            near = (edge << whole) // law.sums[-1]
            away = (1 << SURE + 1, 1 << SURE, 1 << SURE - 3, 1 << SURE - 200, 1 << 12)
            for m in (middle, *(near + sign * d for d in away for sign in (-1, 1))):
                if 0 <= m < 1 << whole:
                    rest = Rest(m % (1 << SURE), dice.getrandbits(CURVE), dice.getrandbits(CURVE))
                    yield m >> SURE, dice.getrandbits(64), dice.getrandbits(64), rest


def _points(law: ExactNormal, dice: random.Random) -> Iterator[Words]:
    """Points of wedges above and below the curve, from far away to so near that no double tells on which side."""
    size, whole = law.shift, 64 + SURE
    for i in _cells(law)[:10]:
        middle = ((law.sums[law.cells + i - 1] + law.sums[law.cells + i]) // 2 << whole) // law.sums[-1]
        for place in (0, (1 << size) - 1, dice.getrandbits(size)):
            behind = dice.getrandbits(CURVE)
            level = int(law.curve(i, place << CURVE | behind) * (1 << 64 + CURVE))
            for bits in (4, 30, 44, 50, 54, 60, 63, 66, 90, 130, 150):
                for sign in (-1, 1):
                    n = level + sign * (1 << 64 + CURVE - bits)
                    if 0 <= n < 1 << 64 + CURVE:
                        word = dice.getrandbits(64) >> size << size | place
                        yield middle >> SURE, word, n >> CURVE, Rest(middle % (1 << SURE), behind, n % (1 << CURVE))
