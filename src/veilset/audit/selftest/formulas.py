"""The accountants against each other and against formulas written down here once more, down to deltas of 1e-300."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from unittest.mock import patch

import numpy as np

from veilset.audit.selftest.base import Check, facts, refused, wrong
from veilset.audit.selftest.exact_normal import ExactNormal
from veilset.core.errors import BudgetExceeded
from veilset.privacy import accounting, dp_library, pld, renyi
from veilset.privacy.accounting import Spent, claim, cost_curve, together
from veilset.privacy.gaussian import gaussian_delta, gaussian_epsilon, gaussian_noise_multiplier
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

LOOP = Spent(1.1, 0.0043, 14_000)
SHORT = Spent(1.0, 0.01, 100)
DIGITS = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
TINY = 1e-30  # a delta at which RDP claims


def closed_form() -> Iterator[Check]:
    """One Gaussian's delta, epsilon and noise against 60 digits, at every delta down to 1e-300."""
    under = over = 0.0
    for epsilon in (1e-3, 0.1, 1.0, 10.0, 1000.0):
        for delta in (1e-2, 1e-5, 1e-16, 1e-100, 1e-300):
            sigma = gaussian_noise_multiplier(epsilon, delta)
            exact = _delta(Decimal(epsilon), 1 / Decimal(sigma))
            for said in (delta, gaussian_delta(epsilon, 1 / sigma)):
                ratio = float(exact / Decimal(said))
                under, over = max(under, ratio - 1), max(over, 1 - ratio)
            again = gaussian_epsilon(1 / sigma, delta) / epsilon
            under, over = max(under, 1 - again), max(over, again - 1)
    yield Check("a Gaussian's delta is not below the exact one", under, 1e-9, "largest relative shortfall, 75 figures")
    yield Check("a Gaussian's delta is not far above the exact one", over, 1e-6, "largest relative excess")


def nearly_all() -> Iterator[Check]:
    """Sampling that leaves out next to nobody costs what no sampling does, which the closed form tells exactly."""
    under = over = 0.0
    for sigma, steps in ((3.0, 1), (8.0, 7), (40.0, 100), (300.0, 5_000)):
        for delta in (1e-5, 1e-12, 1e-60):
            got = claim([Spent(sigma, 1 - 1e-9, steps)], delta)
            exact = gaussian_epsilon(math.sqrt(steps) / sigma, delta)
            under = max(under, exact - got.epsilon - 1e-4 * exact)
            over = max(over, got.epsilon / exact - 1)
    yield Check("sampled Gaussians cost no less than they must", under, 1e-6, "largest shortfall of 12 epsilons")
    yield Check("sampled Gaussians cost little more than they must", over, 0.5, "largest relative excess")


def one_step() -> Iterator[Check]:
    """A single sampled Gaussian, whose delta has a closed form: at the claimed epsilon it is not passed."""
    over = under = 0.0
    for s, q, delta in ((1.0, 0.01, 1e-5), (0.5, 0.1, 1e-3), (2.0, 0.5, 1e-7), (1.0, 0.9, 1e-5)):
        exact = _sampled_delta(claim([Spent(s, q)], delta).epsilon, s, q)
        over, under = max(over, exact / delta - 1), max(under, 1 - exact / delta)
    yield Check("one sampled step's delta is not passed", over, 1e-3, "largest relative excess of 4 deltas")
    yield Check("one sampled step's delta is used", under, 0.05, "largest relative rest")


def divergences() -> Iterator[Check]:
    """Both implementations of RDP against sums of 60 digits, and the conversion against its formula."""
    off, orders = 0.0, (2, 3, 17, 64, 362)
    for s, q in ((1.0, 0.01), (0.5, 0.3), (20.0, 1e-3), (1.1, 0.9999)):
        exact = [_divergence(s, q, a) for a in orders]
        own = [renyi.divergence(s, q, a) for a in orders]
        library = accounting.rdp_curve([Spent(s, q)], orders)[1]
        off = max([off, *(abs(v / e - 1) for v, e in zip(own, exact, strict=True))])
        off = max([off, *(abs(v - e) / (e + 1e-5) for v, e in zip(library, exact, strict=True))])  # it cancels a little
    yield Check("RDP is that of sums of 60 digits", off, 1e-6, "largest relative error at 5 orders of 4 releases")
    off = 0.0
    for spent, delta in ((SHORT, TINY), (LOOP, 1e-13), (Spent(2.0, 0.3, 50), 1e-100)):
        curve = [spent.steps * renyi.divergence(spent.noise_multiplier, spent.sample_rate, a) for a in renyi.ORDERS]
        least = min(  # Canonne, Kamath and Steinke 2020, Proposition 12
            r + (math.log(1 / delta) + (a - 1) * math.log(1 - 1 / a) - math.log(a)) / (a - 1)
            for a, r in zip(renyi.ORDERS, curve, strict=True)
        )
        got = claim([spent], delta)
        off = max(off, abs(got.epsilon / least - 1), float(not got.accountant.startswith("RDP")))
    yield Check("RDP claims what its orders give, at small deltas", off, 1e-6, "largest relative error of 3 epsilons")


def contradictions() -> Iterator[Check]:
    """Of two implementations the larger counts, and what they do not agree on is not certified."""
    honest, real, library = claim([SHORT], TINY).epsilon, renyi.divergence, accounting.rdp_curve

    def own(factor: float, only: int | None = None) -> float:
        other = lambda s, q, a: real(s, q, a) * (factor if only in (None, a) else 1.0)  # noqa: E731
        with patch.object(renyi, "divergence", other):
            return claim([SHORT], TINY).epsilon

    def theirs(factor: float) -> float:
        def other(spent: object, orders: object = None) -> object:
            at, curve = library(spent, orders)  # type: ignore[arg-type]
            return at, curve * factor

        with patch.object(accounting, "rdp_curve", other):
            return claim([SHORT], TINY).epsilon

    def by_pld(epsilon: float) -> float:
        with patch.object(pld, "at", lambda *a: (epsilon, 0.0, 1.0)):
            return claim([SHORT], 1e-5).epsilon

    best = min(renyi.ORDERS, key=lambda a: 100 * real(1.0, 0.01, a) + renyi.conversion(a, TINY))
    check = claim([SHORT], 1e-5).epsilon_rdp
    of = {
        "ours is a little larger": honest < own(1 + 5e-7) <= honest * (1 + 1e-6),
        "ours is a little smaller": abs(own(1 - 5e-7) / honest - 1) < 1e-9,
        "theirs is a little larger": honest < theirs(1 + 5e-7) <= honest * (1 + 1e-6),
        "theirs is a little smaller": abs(theirs(1 - 5e-7) / honest - 1) < 1e-9,
        **{
            f"one is {factor:g} of the other{' at one order' if only else ''}": refused(
                functools.partial(own, factor, only), BudgetExceeded
            )
            for factor in (1 - 1e-5, 1 + 1e-5, 0.5, math.nan)
            for only in (None, best)
        },
        "theirs is half of ours": refused(lambda: theirs(0.5), BudgetExceeded),
        "PLD above RDP": refused(lambda: by_pld(check + 0.02), BudgetExceeded),
        "PLD is infinite": refused(lambda: by_pld(math.inf), BudgetExceeded) or by_pld(math.inf) >= check * (1 - 1e-3),
    }
    yield wrong("accountants that contradict each other certify nothing", "contradictions that pass", of=of)


def who_claims() -> Iterator[Check]:
    """PLD claims only while all that its arithmetic may be off by, and is, lies below a hundredth of delta."""
    cases = ((LOOP, 1e-5, True), (LOOP, 1e-9, False), (LOOP, 1e-13, False), (SHORT, 1e-9, True), (SHORT, 1e-12, False))
    of = {}
    for spent, delta, by_pld in cases:
        got, want = claim([spent], delta), "PLD" if by_pld else f"RDP (PLD cannot certify delta = {delta:g})"
        of[f"{spent.steps} steps at {delta:g}"] = got.accountant == want and got.epsilon <= got.epsilon_rdp * (1 + 1e-9)
    yield wrong("PLD claims only where its arithmetic is sure", "claims by another accountant than should", of=of)
    most = 0.0
    for s, q, t in ((0.5, 0.01, 500), (2.0, 0.25, 200)):
        bound = pld.grid((Spent(s, q, t),), pld.COARSE).absolute
        most = max(most, *(v / bound if bound else math.inf for v in _rounded(s, q, t)))
    yield Check(
        "PLD knows how far its arithmetic may be off", most, 1.0, "largest error, found or written down / bound"
    )


def sampler() -> Iterator[Check]:
    """What the sampler of noise is off by is taken from delta, with the factor of exp(epsilon), or refused."""
    far = under = 0.0
    for bits in (93, 100):
        with patch.object(accounting, "SAMPLER_BITS", bits):
            for sigma in (1.2, 3.7, 20.0):
                epsilon = claim([Spent(sigma)], 1e-4).epsilon
                taken = (1 + math.exp(epsilon)) * 2.0 ** (64 - bits)
                left = gaussian_delta(epsilon, 1 / sigma) + taken
                far, under = max(far, left / 1e-4 - 1), max(under, 1 - left / 1e-4)
            run = claim([SHORT], 1e-5).epsilon
        under = max(under, 0.0 if run >= claim([SHORT], 1e-5).epsilon else 1.0)
    yield Check("what the sampler takes is left to it", far, 1e-8, "largest relative excess of delta")
    yield Check("what the sampler does not take is used", under, 1e-5, "largest relative rest of delta")
    law = ExactNormal(2.0**30)
    beyond = Fraction(law.heights[-1] * law.cells, sum(law.heights))  # a bound: heights fall
    with patch.object(accounting, "SAMPLER_BITS", 80):
        of = {"too coarse a sampler": refused(lambda: claim([Spent(3.7)], 1e-5), BudgetExceeded)}
    of |= {
        "its tails": beyond < Fraction(1, 2**accounting.SAMPLER_BITS),
        "its last bits": accounting.SAMPLER_BITS <= 2700 and accounting.MOST_DRAWS_BITS >= 64,
        "a delta that floats do not hold": refused(lambda: claim([Spent(3.7)], 1e-310), BudgetExceeded),
    }
    yield wrong("the sampler is as good as is accounted", "ways in which it is not", of=of)


def compositions() -> Iterator[Check]:
    """Unsampled releases in every order, in blocks, in parts: the most that one unit meets, by the closed form."""
    common = [Spent(5.0, 1.0, 3), Spent(7.0), Spent(5.0, 1.0, 2), Spent(2.0, 0.0, 9), Spent(0.5, 1.0, 0)]
    parts = [Spent(4.0, 1.0, k + 1, k) for k in range(3)] + [Spent(9.0, 1.0, 30, 1)]
    both = 5 / 25 + 1 / 49
    worst = max(1 / 16, 2 / 16 + 30 / 81, 3 / 16)  # neither the first part nor the last
    cases = {
        "common ones": (common, both),
        "the same from behind": (common[::-1], both),
        "parts": (parts, worst),
        "parts and common ones": (common + parts, both + worst),
        "mixed": ((common + parts)[::-1], both + worst),
        "a single part": (common + parts[2:3], both + 3 / 16),
    }
    off = 0.0
    for spent, square in cases.values():
        off = max(off, abs(claim(spent, 1e-5).epsilon / gaussian_epsilon(math.sqrt(square), 1e-5) - 1))
        orders, curve = cost_curve(spent)  # the account's: order / 2 times the same
        off = max(off, float(np.max(np.abs(curve / (np.asarray(orders) / 2 * square) - 1))))
    tasks = (((0, 1), [Spent(5.0), Spent(4.0, part=1)]), ((1, 2), [Spent(3.0), Spent(6.0, part=0)]))
    for one_class, square in ((True, 1 / 25 + 1 / 16 + 1 / 9 + 1 / 36), (False, 1 / 25 + 1 / 16 + 1 / 9 + 1 / 36)):
        lines = together(tasks, one_class)
        off = max(off, abs(claim(lines, 1e-5).epsilon / gaussian_epsilon(math.sqrt(square), 1e-5) - 1))
    apart = together((((0,), [Spent(5.0)]), ((1,), [Spent(3.0)])), True)
    off = max(off, abs(claim(apart, 1e-5).epsilon / gaussian_epsilon(1 / 3, 1e-5) - 1))
    yield Check("releases cost together what a unit meets", off, 1e-9, "largest relative error of 15 compositions")
    releases = (
        Release(name="a", weight=2.0, steps=3),
        Release(name="b", weight=0.5, bound=7.0),
        Release(name="c", weight=3.0, steps=2, partition="class"),
    )
    priced = Plan(releases).price(Privacy(1.0, 1e-5), facts()).releases
    met = math.sqrt(sum(r.steps / r.noise_multiplier**2 for r in priced))
    shares = [abs(r.noise_multiplier / priced[0].noise_multiplier * 2.0 / r.weight - 1) for r in priced]
    off = max(abs(gaussian_epsilon(met, 1e-5) - 1), *shares)
    yield Check("a plan's noise follows its weights", off, 1e-6, "largest relative error of one price")


CHECKS = (closed_form, nearly_all, one_step, divergences, contradictions, who_claims, sampler, compositions)


def _tail(x: Decimal) -> Decimal:
    """P(X > x) of a standard normal: by a series near 0, and by Laplace's continued fraction far out."""
    if x < 0:
        return 1 - _tail(-x)
    density = (-x * x / 2).exp() / (2 * PI).sqrt()
    if x > 5:
        fraction = x
        for k in range(400, 0, -1):
            fraction = x + k / fraction
        return density / fraction
    term = total = x
    for k in range(1, 300):
        term *= x * x / (2 * k + 1)
        total += term
    return Decimal("0.5") - density * total


def _delta(epsilon: Decimal, mu: Decimal) -> Decimal:
    """delta of one Gaussian (Balle and Wang 2018, Theorem 8)."""
    with localcontext() as context:
        context.prec = DIGITS
        return _tail(epsilon / mu - mu / 2) - epsilon.exp() * _tail(epsilon / mu + mu / 2)


def _sampled_delta(epsilon: float, s: float, q: float) -> float:
    """delta of one sampled Gaussian when a unit goes, and when it comes; the larger one."""
    from scipy.stats import norm

    x = s * s * math.log((math.expm1(epsilon) + q) / q) + 0.5  # where the loss is epsilon
    goes = (1 - q) * norm.sf(x / s) + q * norm.sf((x - 1) / s) - math.exp(epsilon) * norm.sf(x / s)
    rest = math.exp(-epsilon) - (1 - q)
    if rest <= 0:
        return float(goes)
    x = s * s * math.log(rest / q) + 0.5
    comes = norm.cdf(x / s) - math.exp(epsilon) * ((1 - q) * norm.cdf(x / s) + q * norm.cdf((x - 1) / s))
    return float(max(goes, comes))


def _divergence(s: float, q: float, order: int) -> float:
    """Mironov, Talwar and Zhang 2019, section 3.3, term by term."""
    with localcontext() as context:
        context.prec = 60
        rate, twice = Decimal(q), 2 * Decimal(s) ** 2
        total = sum(
            math.comb(order, k) * (1 - rate) ** (order - k) * rate**k * (Decimal(k * k - k) / twice).exp()
            for k in range(order + 1)
        )
        return float(Decimal(total).ln() / (order - 1))


def _rounded(s: float, q: float, steps: int) -> tuple[float, float]:
    """(by how much mass the powers of the same losses differ in 64 instead of 53 bits, what is to be counted for it).

    The second is the bound of `veilset.privacy.pld` for the transform alone, from this library's own composition.
    """
    import scipy.fft
    from dp_accounting.pld import privacy_loss_distribution as library

    one = library.from_gaussian_mechanism(s, value_discretization_interval=pld.COARSE, sampling_prob=q)
    off = counted = 0.0
    for p, got in zip(dp_library.masses(one), dp_library.masses(pld._self_compose(one, steps)), strict=True):
        n = scipy.fft.next_fast_len(max(len(p), len(got)))
        exact = scipy.fft.ifft(scipy.fft.fft(p.astype(np.longdouble), n) ** steps).real
        place = int(np.argmax(exact)) - int(np.argmax(got))
        off = max(off, float(np.abs(np.roll(exact, -place)[: len(got)] - got).sum()))
        root = float(np.square(got).sum()) ** ((1 - 1 / steps) / 2)
        counted = max(counted, steps * 2.0**-53 * (8 * math.log2(n) + 16) * math.sqrt(n) * root)
    return off, counted
