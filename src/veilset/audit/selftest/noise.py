"""The protecting noise, as it leaves the gate: scale, shape, independence, grid, and that everybody gets it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch

from veilset.audit.selftest.base import (
    NO_NOISE,
    Array,
    Check,
    along,
    chi_square,
    facts,
    flat,
    gate_for,
    hidden,
    nobody,
    pictures,
    random_check,
    two_sided,
    uncorrelated,
    with_user_seeds,
    wrong,
)
from veilset.privacy import normal
from veilset.privacy.gate import Gate
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

SIDE = 775  # 600,625 coordinates: more than are drawn at a time
BOUND = 3.0
EXACT = 3.730631634816  # noise multiplier of one Gaussian at (1, 1e-5): Balle and Wang 2018, Theorem 8
BUDGET = Privacy(1.0, 1e-5)


def scale_and_shape() -> Iterator[Check]:
    """Noise alone, from an empty set: its variance, its distribution function, its third and fourth moments."""
    for verb in ("sum", "grad"):
        z = _noise(verb)
        yield random_check(
            f"noise scale, {verb}",
            f"variance / (noise multiplier {EXACT:.6f} x bound)^2 is {float((z * z).mean()):.4f}, should be 1",
            chi_square(float((z * z).sum()), len(z)),
        )
        yield random_check(f"noise shape, {verb}", "normal distribution", *_normality(z))
        yield random_check(f"noise has no pattern, {verb}", "correlations within one answer", *_patterns(z))
        repeated = 1 - len(np.unique(z)) / len(z)
        yield Check(f"noise does not repeat, {verb}", repeated, 1e-3, "share of values that occur twice in one answer")


def grid_rounding() -> Iterator[Check]:
    """Answers lie on a grid that is made of declared facts, and their lowest bits are coins."""
    info, off, p = facts((1, 128, 128)), {"sum": 0, "grad": 0}, []
    largest = BOUND * max(8 * info.units, 64 * EXACT)  # the sum of eight times the declared units, 64 deviations
    step = 2.0 ** (math.floor(math.log2(largest)) + 1 - 53)
    for n in (0, 1, 8 * info.units):  # the realised number must not show
        x, y = pictures(n, info)
        data, w = hidden(info, x, y), {"w": torch.zeros(info.shape, dtype=torch.float64)}
        for verb in off:
            rate = 1.0 if verb == "sum" else 0.5 if n else 1.0
            gate = gate_for(data, Release(name="r", verb=verb, bound=BOUND, sample_rate=rate), privacy=BUDGET)
            got = gate.sum("r", flat) if verb == "sum" else gate.grad("r", along, w)["w"].flatten()
            factor = step / (1.0 if verb == "sum" else rate * info.units)
            whole = (got / factor).round()
            off[verb] += int((whole * factor != got).sum())
            p.append(two_sided((float(whole.remainder(2).mean()) - 0.5) * 2 * math.sqrt(len(whole))))
    for verb, count in off.items():
        yield Check(
            f"answers lie on the declared grid, {verb}", float(count), 0.0, "count of values between its points"
        )
    yield random_check("lowest bits are coins", "share of even values", *p)


def tails() -> Iterator[Check]:
    """Bits that stand for noise many deviations away give it: no answer is impossible without somebody."""
    info, of = facts((1, 1, 1)), {}
    for far in (10, 40):
        gate = gate_for(nobody(info), Release(name="r", bound=BOUND), privacy=BUDGET)
        gate._keys = _Told(gate._keys, far)  # type: ignore[assignment]
        got = abs(float(gate.sum("r", flat))) / (EXACT * BOUND)
        of[f"{far} deviations"] = far <= got < far + 0.1
    yield wrong("noise reaches as far as a normal does", "distances that are not reached", of=of)


def cells() -> Iterator[Check]:
    """Noise where it is drawn finest: what a table of cells, a sixty-fourth of the deviation each, may get wrong."""
    std, n = 1.006 * 2.0**46, 1 << 23  # cells are largest, in deviations, just above a power of two
    z = Keys(None).stream("selftest").noise(n, std)
    x = z / std
    fourth = (float((x**4).mean()) - 3) / math.sqrt(96 / n)
    p = chi_square(float(np.square(x).sum()), n), two_sided(fourth), two_sided(float(x.mean()) * math.sqrt(n))
    yield random_check("noise is right within cells", f"moments of {n} values", *p)
    size, positive = np.where(z >= 0, z, ~z), z >= 0
    place = size >> (normal.Law(2 * std).shift - 2)  # halves of cells; the law is one bit finer than the noise
    by_half = [two_sided(2 * float(positive[place % 2 == h].mean() - 0.5) * math.sqrt(n / 2)) for h in (0, 1)]
    whole, above = np.bincount(place // 2), np.bincount(place // 2, positive)
    often = whole >= 40
    by_cell = chi_square(float((np.square(2 * above - whole)[often] / whole[often]).sum()), int(often.sum()))
    yield random_check(
        "signs tell nothing of the rest", "signs in halves of cells, and in each cell", *by_half, by_cell
    )


def parts() -> Iterator[Check]:
    """Every part of a partition has all of the planned noise: a unit is in one of them."""
    info, w = facts((1, 128, 128)), {"w": torch.zeros(1, 128, 128, dtype=torch.float64)}
    for verb in ("sum", "grad"):
        gate = gate_for(nobody(info), Release(name="r", verb=verb, bound=BOUND, partition="class"), privacy=BUDGET)
        asked = range(len(info.classes))
        if verb == "sum":
            got = [gate.sum("r", flat, part=k) for k in asked]
        else:
            got = [gate.grad("r", along, w, part=k)["w"].flatten() * info.units for k in asked]
        p = [chi_square(float((z / (EXACT * BOUND)).square().sum()), len(z)) for z in got]
        yield random_check(f"every part has all of the noise, {verb}", "variance of each part's noise", *p)


def independence() -> Iterator[Check]:
    """Steps, releases, parts and runs have noise of their own, whatever seeds the user sets."""
    draws = [v for _ in range(2) for v in with_user_seeds(_answers)]
    p = [uncorrelated(a, b) for a, b in combinations(draws, 2)]
    yield random_check("noise is fresh in every answer", f"correlation of {len(p)} pairs of answers", *p)
    # In research mode coins and noise can be had apart: coins without noise, and noise about nobody.
    info = facts((1, 50, 80), units=4000)
    x = np.eye(4000, dtype=np.float32).reshape(4000, 1, 50, 80)
    release = Release(name="r", sample_rate=0.5)
    coins = gate_for(hidden(info, x, np.zeros(4000, np.int64)), release, seed=1).sum("r", flat).numpy() > 0.5
    z = gate_for(nobody(info), Release(name="r"), privacy=BUDGET, seed=1).sum("r", flat).numpy()
    p = [uncorrelated(coins.astype(float), f(z)) for f in (np.asarray, np.abs)]
    yield random_check("noise does not depend on the coins", "correlation of coins and noise", *p)


def keys() -> Iterator[Check]:
    """Every release run throws coins of its own: 64 coins of 300 runs are all different."""
    info = facts((1, 8, 8), units=64)
    data = hidden(info, np.eye(64, dtype=np.float32).reshape(64, 1, 8, 8), np.zeros(64, np.int64))

    def coins() -> list[Array]:
        return [(gate_for(data, Release(name="r", sample_rate=0.5)).sum("r", flat) > 0.5).numpy()]

    seen = {with_user_seeds(coins)[0].tobytes() for _ in range(300)}
    yield Check("release runs have keys of their own", float(300 - len(seen)), 0.0, "runs that repeat another's coins")
    plan = Plan((Release(name="r", sample_rate=0.5),)).price(NO_NOISE, info)

    def thrown(device: str) -> bytes:  # no device is needed for it: coins are thrown on the processor
        return with_user_seeds(lambda: Gate(data, plan, device=device)._chosen(plan["r"], None, 0).tobytes())

    runs = [thrown(device) for device in ("cpu", "cuda", "mps", "xpu", "meta") for _ in range(3)]
    again = float(len(runs) - len(set(runs)))
    yield Check("keys are the system's on every device", again, 0.0, "runs that repeat another's coins")


def everyone() -> Iterator[Check]:
    """Answer minus truth: cells that hold nobody are noised like those that hold all, and no less with more records."""
    info, scale = facts((1, 64, 64)), EXACT * BOUND
    x, _ = pictures(50, info)
    data, p = hidden(info, x, np.zeros(50, np.int64)), []
    for how in ({"by_class": True}, {"cells": 2}):
        f = flat if "by_class" in how else lambda x, y: (y, x.flatten())
        exact, noisy = (
            gate_for(data, Release(name="r", bound=BOUND), privacy=budget).sum("r", f, **how)  # type: ignore[arg-type]
            for budget in (Privacy(math.inf), BUDGET)
        )
        rest = (noisy - exact).numpy() / scale
        p += [chi_square(float((row**2).sum()), len(row)) for row in rest]
    yield random_check("empty and full cells are noised alike", "variance of each cell's noise", *p)
    w, p = {"w": torch.zeros(info.shape)}, []
    release = Release(name="r", verb="grad", bound=BOUND)
    exact, noisy = (
        gate_for(data, release, privacy=budget).grad("r", along, w)["w"].double() * info.units
        for budget in (Privacy(math.inf), BUDGET)
    )
    rest = ((noisy - exact) / scale).flatten().numpy()
    yield random_check("a full batch is noised as planned", "variance", chi_square(float((rest**2).sum()), len(rest)))
    asked = gate_for(nobody(info), Release(name="r", verb="grad", steps=3), privacy=BUDGET)
    steps = [asked.grad("r", along, w)["w"] for _ in range(3)]
    charged = sum(s.steps for s in asked.ledger.spent())
    yield wrong(
        "an empty batch is a step like others",
        "empty batches that are not noised, not finite, or not charged",
        of={
            "noised": all(float(g.std()) > 0 and bool(torch.isfinite(g).all()) for g in steps),
            "charged": charged == 3,
        },
    )


CHECKS = (scale_and_shape, grid_rounding, tails, cells, parts, independence, keys, everyone)


def _noise(verb: str) -> Array:
    """One answer of a release run about nobody, in units of the deviation that the accounting rests on."""
    info = facts((1, SIDE, SIDE))
    gate = gate_for(nobody(info), Release(name="r", verb=verb, bound=BOUND), privacy=BUDGET)
    if verb == "sum":
        got = gate.sum("r", flat)
    else:
        w = torch.zeros(info.shape, dtype=torch.float64)
        got = gate.grad("r", along, {"w": w})["w"].flatten() * info.units
    return got.numpy() / (EXACT * BOUND)


class _Told:
    """Keys whose streams of noise say what stands for noise so many deviations away, whatever deviation is asked for.

    It must be that one to the last bit: its neighbours have other masses there.
    """

    def __init__(self, real: Keys, far: int):
        self._real, self._far = real, far

    def stream(self, purpose: str) -> Stream:
        """A stream for this purpose."""
        stream = self._real.stream(purpose)
        real = stream.noise

        def noise(n: int, std: float) -> Array:
            words = _words(std, self._far)
            stream.uint64 = lambda n: words.pop(0) if n else np.zeros(0, np.uint64)  # type: ignore[method-assign]
            return real(n, std)

        if purpose.startswith("noise/"):
            stream.noise = noise  # type: ignore[method-assign]
        return stream

    def noise(self, purpose: str, n: int, std: float) -> Array:
        """As `Keys.noise`, of a stream of these."""
        return self.stream(purpose).noise(n, std)

    def begin(self, purpose: str, n: int, std: float) -> None:
        """Nothing is drawn ahead."""


def _words(std: float, far: int) -> list[Array]:
    """What the bits must be for noise of deviation `std` so many deviations away (see `veilset.privacy.normal`)."""
    law = normal._law(math.ldexp(std, 1))  # one bit finer, for rounding to the nearest
    sums, cell = law.sums(normal.LONG), math.ceil(far * law.ratio)
    u = ((sums[cell - 1] + sums[cell]) // 2 << normal.LONG + 64) // sums[-1]  # the mass of this cell's block
    length = -(-normal.LONG // 64)
    rest = (u & ((1 << normal.LONG) - 1)) << (64 * length - normal.LONG)
    first = [(1 << 64) - 1, u >> normal.LONG, 0, 0]  # no entry of the table; the mass; a place in the cell; a level
    more = np.frombuffer(rest.to_bytes(8 * length, "little"), np.uint64)
    return [*(np.array([w], np.uint64) for w in first), more]


def _normality(z: Array) -> list[float]:
    """p-values of Kolmogorov and Smirnov's test, of skewness and of kurtosis."""
    from scipy.stats import kstest, kurtosistest, skewtest

    return [float(kstest(z, "norm").pvalue), float(skewtest(z).pvalue), float(kurtosistest(z).pvalue)]


def _patterns(z: Array) -> list[float]:
    """p-values of the correlations at lags 1, 8, 64, ... and those of a block, of the values and of their squares."""
    lags = [1, 2, 8, 64, 2**9, 2**12, 2**16, 2**17, 2**18]
    return [uncorrelated(f(z[:-k]), f(z[k:])) for k in lags for f in (np.asarray, np.square)]


def _answers() -> list[Array]:
    """Noise of two steps of a sum, another sum, a partition, and three steps of a gradient loop."""
    info, w = facts((1, 128, 128)), {"w": torch.zeros(1, 128, 128)}
    releases = (
        Release(name="a", steps=2),
        Release(name="b"),
        Release(name="c", partition="class"),
        Release(name="g", verb="grad", steps=3),
    )
    gate = gate_for(nobody(info), *releases, privacy=BUDGET)
    out = [gate.sum("a", flat), gate.sum("a", flat), gate.sum("b", flat)]
    out += [gate.sum("c", flat, part=k) for k in range(3)]
    out += [gate.grad("g", along, w)["w"].flatten() for _ in range(3)]
    return [v.double().numpy() for v in out]
