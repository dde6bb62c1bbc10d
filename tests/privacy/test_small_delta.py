"""Small deltas, strange numbers and large ledgers: who claims, what is refused, and what it costs to find out."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from sets import facts

from veilset.core.errors import BudgetExceeded, ConfigError, RunError
from veilset.privacy import accounting as acc
from veilset.privacy import pld, renyi
from veilset.privacy.accounting import Search, Spent, case_claim, claim
from veilset.privacy.calibration import calibrate
from veilset.privacy.gaussian import gaussian_delta, gaussian_epsilon, gaussian_noise_multiplier
from veilset.privacy.mechanisms import of
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

LOOP = [Spent(1.1, 0.0043, 14_000)]

# ---------------------------------------------------------------------- the closed form


@pytest.mark.parametrize("delta", [1e-16, 1e-30, 1e-100, 1e-300])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 10.0, 1000.0])
def test_the_closed_form_holds_at_every_delta(epsilon, delta):
    from mpmath import erfc, exp, mp, mpf, sqrt

    mp.dps = 400
    tail = lambda z: erfc(-z / sqrt(2)) / 2  # noqa: E731
    sigma = gaussian_noise_multiplier(epsilon, delta)
    e, m = mpf(epsilon), 1 / mpf(sigma)
    exact = tail(m / 2 - e / m) - exp(e) * tail(-m / 2 - e / m)
    assert float(exact / mpf(delta)) == pytest.approx(1, abs=1e-9)
    assert gaussian_delta(epsilon, 1 / sigma) == pytest.approx(float(exact), rel=1e-9)
    assert gaussian_epsilon(1 / sigma, delta) == pytest.approx(epsilon, rel=1e-9)


# ---------------------------------------------------------------------- PLD's arithmetic


@pytest.mark.parametrize(("s", "q", "t"), [(1.1, 0.0043, 14_000), (0.5, 0.01, 500), (2.0, 0.25, 200), (1.0, 0.01, 1)])
def test_rounding_of_the_transform_lies_within_its_bound(s, q, t):
    """The same powers of the same pmf, in 64 instead of 53 bits."""
    import scipy.fft
    from dp_accounting.pld import privacy_loss_distribution as library

    one = library.from_gaussian_mechanism(s, value_discretization_interval=1e-3, sampling_prob=q)
    many = pld._self_compose(one, t)
    for p, got in zip(pld.masses(one), pld.masses(many), strict=True):
        n = scipy.fft.next_fast_len(max(len(p), len(got)))
        exact = scipy.fft.ifft(scipy.fft.fft(p.astype(np.longdouble), n) ** t).real
        place = int(np.argmax(exact)) - int(np.argmax(got))
        off = float(np.abs(np.roll(exact, -place)[: len(got)] - got).sum())
        assert off <= pld._rounding(n, (t + 1) * pld._root(got) ** (1 - 1 / t))


def test_a_curve_of_one_step_lies_within_its_bound():
    """delta of one step, on which the grid is strung, against fifty digits."""
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
    from mpmath import erfc, exp, log, mp, mpf, sqrt

    mp.dps = 50
    tail = lambda z: erfc(-z / sqrt(2)) / 2  # noqa: E731
    for s, q in [(1.1, 0.0043), (0.5, 0.01), (0.3, 0.2), (4.0, 0.5)]:
        low, high = of(Spent(s, q)).span(Spent(s, q))
        loss = GaussianPrivacyLoss(s, sampling_prob=q, adjacency_type=AdjacencyType.REMOVE)
        points = [e for e in np.linspace(low, high, 40) if e > math.log1p(-q) * (1 - 1e-9)]
        for e, got in zip(points, loss.get_delta_for_epsilon(np.array(points)), strict=True):
            x = mpf(s) ** 2 * log((exp(mpf(float(e))) - 1 + mpf(q)) / mpf(q)) + mpf(1) / 2  # where the loss is e
            above = (1 - mpf(q)) * tail(-x / s) + mpf(q) * tail((1 - x) / s)
            exact = above - exp(mpf(float(e))) * tail(-x / s)
            assert abs(got - float(exact)) <= pld.ULP * (8 * max(-low, high) + 32)


@pytest.mark.parametrize("delta", [1e-5, 1e-9, 1e-13, 1e-16, 1e-40, 1e-200])
def test_pld_claims_only_where_its_errors_lie_below_a_hundredth_of_delta(delta):
    got = claim(LOOP, delta)
    _, error, _ = pld.at(tuple(LOOP), delta, pld.COARSE)
    assert (got.accountant == "PLD") == (error <= delta / 100) == (delta == 1e-5)
    assert got.accountant in ("PLD", f"RDP (PLD cannot certify delta = {delta:g})")
    assert math.isfinite(got.epsilon) and got.epsilon <= got.epsilon_rdp


def test_rdp_claims_less_where_pld_is_ruined_by_its_tails():
    got = claim(LOOP, 1e-13)
    assert got.epsilon == pytest.approx(4.63, abs=0.02) == got.epsilon_rdp
    assert pld.at(tuple(LOOP), 1e-13, pld.COARSE)[0] == pytest.approx(6.76, abs=0.01)


def test_a_grid_that_is_too_large_is_not_made():
    small = case_claim([Spent(1.0, 0.01, 1000)], 1e-5, 100_000)
    assert small.accountant == f"RDP ({pld.TOO_LARGE})" and small.epsilon == small.epsilon_rdp > 1.83
    with pytest.raises(pld.TooLarge):
        pld.grid((Spent(1e-3, 0.5, 10),), pld.COARSE)
    # One grid is affordable and the next is not: the first is a bound too, if RDP gives none that is smaller.
    first = pld.at((Spent(1.0, 0.01, 1000),), 1e-5, pld.COARSE)
    assert case_claim([Spent(1.0, 0.01, 1000)], 1e-5, first[2] * 2).epsilon == first[0]


# ---------------------------------------------------------------------- the second implementation of RDP


@pytest.mark.parametrize(("s", "q"), [(1.0, 0.01), (0.5, 0.3), (20.0, 1e-5), (1.1, 0.999999), (1e4, 1e-3)])
def test_divergences_against_fifty_digits(s, q):
    from mpmath import binomial, exp, log, mp, mpf

    mp.dps = 60
    for a in (2, 3, 17, 64, 362):
        s2, p = 2 * mpf(s) ** 2, mpf(q)
        total = sum(binomial(a, k) * (1 - p) ** (a - k) * p**k * exp((k * k - k) / s2) for k in range(a + 1))
        assert renyi.divergence(s, q, a) == pytest.approx(float(log(total) / (a - 1)), rel=1e-9)


def test_the_larger_of_two_implementations_counts_and_a_contradiction_is_refused(monkeypatch):
    honest = claim(LOOP, 1e-13).epsilon
    real = renyi.divergence
    monkeypatch.setattr(renyi, "divergence", lambda s, q, a: real(s, q, a) * (1 + 5e-7))
    assert honest < claim(LOOP, 1e-13).epsilon <= honest * (1 + 1e-6)
    monkeypatch.setattr(renyi, "divergence", lambda s, q, a: real(s, q, a) * (1 - 5e-7))
    assert claim(LOOP, 1e-13).epsilon == pytest.approx(honest, rel=1e-9), "the library's is the larger one"
    for factor in (1 - 1e-4, math.nan):
        monkeypatch.setattr(renyi, "divergence", lambda s, q, a, factor=factor: real(s, q, a) * factor)
        with pytest.raises(BudgetExceeded, match="by two implementations; nothing is certified"):
            claim(LOOP, 1e-13)


# ---------------------------------------------------------------------- plans


@pytest.mark.parametrize("epsilon", [1.0, pytest.param(10.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("delta", [1e-13, pytest.param(1e-16, marks=pytest.mark.long), 1e-60])
def test_a_plan_at_a_tiny_delta_uses_its_epsilon_and_says_who_claims(epsilon, delta):
    plan = Plan((Release(name="loop", verb="grad", sample_rate=0.01, steps=1000),))
    priced = plan.price(Privacy(epsilon, delta), facts())
    assert epsilon * (1 - 1e-3) <= priced.claim().epsilon <= epsilon
    assert priced.to_json()["accountant"] == f"RDP (PLD cannot certify delta = {delta:g})"
    assert any("RDP (PLD cannot certify" in w for w in priced.warnings)
    assert any("2^-100" in w for w in priced.warnings) == (delta < 2**-100)


def test_a_delta_that_no_order_reaches_is_refused_with_the_smallest_that_is():
    plan = Plan((Release(name="loop", verb="grad", sample_rate=0.01, steps=1000),))
    with pytest.raises(BudgetExceeded, match="smallest delta that can be certified for this plan") as error:
        plan.price(Privacy(0.1, 1e-100), facts())
    least = float(str(error.value).split(" is ")[1].split(";")[0])
    assert plan.price(Privacy(0.1, least), facts()).claim().epsilon <= 0.1
    one = Plan((Release(name="sum"),))
    assert one.price(Privacy(0.1, 1e-300), facts()).claim().epsilon <= 0.1
    with pytest.raises(BudgetExceeded, match="the smallest delta that can be certified is 1e-300"):
        one.price(Privacy(1.0, 1e-310), facts())


def test_one_rule_for_absurd_epsilons():
    for release in (Release(name="a"), Release(name="a", verb="grad", sample_rate=0.01, steps=100)):
        with pytest.raises(ConfigError, match="epsilon = 1001: protects nobody; use at most 1000, or inf"):
            Plan((release,)).price(Privacy(1001.0), facts())
    for spent in ([Spent(1e-3)], [Spent(1e-3, 0.5, 10)]):
        with pytest.raises(BudgetExceeded, match="above 1000 nothing is claimed"):
            claim(spent, 1e-5)


# ---------------------------------------------------------------------- what the sampler takes


def test_the_sampler_takes_nothing_that_a_float_can_show():
    assert all(0 <= acc.sampler_delta(e) <= 5e-324 for e in (0.0, 1.0, 10.0, acc.LARGEST))
    assert acc.sampler_delta(acc.LARGEST) > 0, "rounded up"


def test_a_coarse_sampler_is_paid_from_delta_or_refused(monkeypatch):
    make = lambda scale: [Spent(scale), Spent(5.0 * scale, 0.1, 50)]  # noqa: E731
    one = lambda scale: [Spent(scale)]  # noqa: E731
    ideal = [calibrate(m, 1.0, 1e-5) for m in (make, one)]
    monkeypatch.setattr(acc, "SAMPLER_BITS", 93)
    taken = (1 + math.e) * 2.0 ** (64 - 93)
    assert acc.sampler_delta(1.0) == pytest.approx(taken, rel=1e-6) and acc.sampler_delta(1.0) >= taken
    with pytest.raises(BudgetExceeded, match="the sampler of noise, off by 2\\^-93 a draw"):
        calibrate(one, 5.0, 1e-5)
    for m, before in zip((make, one), ideal, strict=True):
        after = calibrate(m, 1.0, 1e-5)
        assert before < after < before * 1.001
        assert 1 - 1e-3 < claim(m(after), 1e-5).epsilon <= 1
        assert claim(m(before), 1e-5).epsilon > claim(m(after), 1e-5).epsilon
    sigma = calibrate(one, 1.0, 1e-5)
    assert gaussian_delta(1.0, 1 / sigma) == pytest.approx(1e-5 - taken, rel=1e-6)
    search = Search(4, ((Spent(20.0),),))
    assert claim(search, 1e-5).epsilon > acc.search_claim(search, 1e-5).epsilon


# ---------------------------------------------------------------------- receipts


def recomputed(spent: Spent, privacy: Privacy, **said):
    """`verify`'s step on a ledger with one charge, under a receipt that says what is claimed, and `said`."""
    from veilset.privacy.ledger import Ledger
    from veilset.privacy.receipt import Verification, _epsilon

    got = claim([spent], privacy.delta)
    plan = {"privacy": {"epsilon": privacy.epsilon, "delta": privacy.delta}, "info": {"units": 50}}
    ledger = Ledger()
    ledger.append("open", plan=plan)
    planned = Release(name="r", sample_rate=spent.sample_rate, noise_multiplier=spent.noise_multiplier)
    ledger.append("charge", **of(planned).body(planned, None, spent.steps))
    facts = {"epsilon": got.epsilon, "epsilon_rdp": got.epsilon_rdp, "accountant": got.accountant}
    return _epsilon(facts | {"delta": privacy.delta} | said, ledger, Verification())


def test_a_receipt_by_rdp_recomputes_and_must_say_so():
    assert "RDP (PLD cannot certify delta = 1e-13)" in recomputed(LOOP[0], Privacy(5.0, 1e-13))
    with pytest.raises(RunError, match="epsilon is claimed by RDP .*, the receipt says 'PLD'"):
        recomputed(LOOP[0], Privacy(5.0, 1e-13), accountant="PLD")
    with pytest.raises(RunError, match="passes the budget"):
        recomputed(LOOP[0], Privacy(4.5, 1e-13))


# ---------------------------------------------------------------------- numbers of strangers


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": math.nan},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": 1e308},
        {"noise_multiplier": 1e-300},
        {"noise_multiplier": "3"},
        {"noise_multiplier": True},
        {"noise_multiplier": 10**400},
        {"sample_rate": -0.1},
        {"sample_rate": 1.1},
        {"sample_rate": math.nan},
        {"sample_rate": None},
        {"steps": -1},
        {"steps": 2**64},
        {"steps": 1.5},
        {"steps": 1e3},
        {"part": "a"},
        {"part": [1]},
    ],
)
def test_absurd_numbers_are_refused_in_a_line(wrong):
    with pytest.raises(ConfigError, match="no claim is made") as error:
        Spent(**({"noise_multiplier": 1.0} | wrong))
    assert next(iter(wrong)) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 250


HOSTILE = {
    "little noise": "[Spent(1e-3, 0.5, 10)]",
    "very little noise": "[Spent(1e-9, 1e-9, 1)]",
    "much noise, many steps": "[Spent(1e6, 0.5, 10**9)]",
    "most noise, most steps": "[Spent(1e7, 1e-300, 2**63)]",
    "many steps": "[Spent(1.0, 1e-7, 10**9)]",
    "nearly all": "[Spent(1.0, 0.999999, 10**9), Spent(5.0, 0.999999, 100)]",
    "hundreds of kinds": "[Spent(1 + i / 1000, 0.01, 10) for i in range(500)]",
    "as many kinds as there may be": "[Spent(2 + i / 1000, 0.01, 10) for i in range(acc.MOST_KINDS)]",
    "hundred thousand lines": "[Spent(1.0, 0.01, 1)] * 10**5",
    "hundred thousand kinds": "[Spent(1 + i / 10**6) for i in range(10**5)]",
    "hundred thousand parts": "[Spent(1 + i / 10**6, part=i) for i in range(10**5)]",
    "lines times parts": "[Spent(2.0)] * 10**4 + [Spent(3.0, part=i) for i in range(10**4)]",
    "as many parts as there may be": "[Spent(30 + i / 10**4, part=i) for i in range(acc.MOST_LINES)]",
    "sampled parts": "[Spent(3 + i / 100, 0.1, 100, i) for i in range(acc.MOST_KINDS)]",
    "a small grid of few points": "[Spent(1e6, 0.5, 10**6)]",
    "a large grid": "[Spent(0.2, 0.01, 100)]",
    "a search": "Search(10**9, tuple((Spent(1 + i / 10**3, 0.01, 10),) for i in range(500)))",
    "as long a search as there may be": "Search(9, tuple((Spent(9 + i, 0.5, 10),) for i in range(3 * acc.MOST_KINDS)))",
    "a long search": "Search(10**9, ((Spent(1.0, 0.01, 10),),))",
}
RUN = """
import resource, time
from veilset.core.errors import VeilsetError
from veilset.privacy import accounting as acc
from veilset.privacy.accounting import Search, Spent, claim
spent = {spent}
for delta in (1e-2, 1e-5, 1e-16):
    start = time.process_time()
    try:
        said = str(claim(spent, delta))
    except VeilsetError as e:
        said = str(e)
    print(int(1000 * (time.process_time() - start)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, said)
"""


QUICK = ("little noise", "hundred thousand lines")  # a process each, so the others are long


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in HOSTILE])
def test_a_crafted_ledger_costs_seconds_and_no_memory(name):
    # A small process between: a child's peak counts what the process that it was forked from had.
    between = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    command = [sys.executable, "-c", between, sys.executable, "-c", RUN.format(spent=HOSTILE[name])]
    got = subprocess.run(command, capture_output=True, text=True, timeout=900)  # what is judged is processor time
    assert got.returncode == 0, got.stderr[-500:]
    lines = got.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        milliseconds, megabytes, said = line.split(" ", 2)
        assert int(milliseconds) < 10_000 and int(megabytes) < 1000 and said, line
