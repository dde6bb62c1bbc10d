"""Areas, rates and their intervals, against scikit-learn, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from veilset.audit.membership.attack import DOUBT, Membership, _result, _verdict
from veilset.audit.membership.figures import area, curve, figures, needed, rate, roc
from veilset.audit.membership.rendering import as_table


@pytest.mark.parametrize("digits", [0, 6])
def test_area_counts_ties_half(digits: int) -> None:
    lot = np.random.default_rng(0)
    member, outsider = lot.normal(0.5, 1, 300).round(digits), lot.normal(0, 1, 200).round(digits)
    said = np.concatenate([member, outsider])
    truth = [True] * 300 + [False] * 200
    assert area(member, outsider, 0.05)[0] == pytest.approx(roc_auc_score(truth, said), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_areas_interval_misses_as_often_as_it_says(shift: float) -> None:
    lot, true, missed = np.random.default_rng(1), norm.cdf(shift / np.sqrt(2)), 0
    for _ in range(400):
        _, low, high = area(lot.normal(shift, 1, 120), lot.normal(0, 1, 80), 0.05)
        missed += not low <= true <= high
    assert 7 <= missed <= 35  # binomial(400, 0.05) lies in 7..35 but for 1 in 1,000


def test_the_area_of_perfect_separation_has_an_interval() -> None:
    up, down = np.arange(100) + 1.0, -np.arange(80) - 1.0
    assert area(up, down, 0.05) == pytest.approx((1.0, 0.025 ** (1 / 80), 1.0))
    assert area(down, up, 0.05) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 80)))


def test_a_score_that_is_the_same_for_all_says_nothing() -> None:
    f = figures(np.zeros(400), np.zeros(400))
    assert (f.auc, f.low, f.high, f.advantage) == (0.5, 0.5, 0.5, 0.0)
    assert f.rates[1].tpr == 0.0 and f.rates[1].low == 0.0


def test_advantage_is_the_largest_gap() -> None:
    # Above 1: two of three members and no outsider; above -1: all members, but half of the outsiders.
    assert figures(np.array([2.0, 3.0, 0.0]), np.array([1.0, 0.5, -1.0, -2.0])).advantage == pytest.approx(2 / 3)


def test_too_few_outsiders_get_no_number() -> None:
    assert needed(0.001) == 2995 and needed(0.01) == 299
    assert (1 - 0.001) ** 2995 <= 0.05 < (1 - 0.001) ** 2994
    lot = np.random.default_rng(2)
    few = rate(lot.normal(3, 1, 500), lot.normal(0, 1, 2994), 0.001, 0.05)
    assert few.tpr is None and few.low is None and few.high is None and "2,995" in few.why
    assert rate(lot.normal(3, 1, 500), lot.normal(0, 1, 2995), 0.001, 0.05).tpr is not None


@pytest.mark.parametrize(("fpr", "n"), [(0.01, 300), (0.01, 3000), (0.001, 5000)])
def test_the_rates_interval_holds_the_true_rate(fpr: float, n: int) -> None:
    lot, missed, inside = np.random.default_rng(3), 0, 0
    true = norm.sf(norm.isf(fpr) - 1.5)
    for _ in range(200):
        r = rate(lot.normal(1.5, 1, 400), lot.normal(0, 1, n), fpr, 0.05)
        assert r.tpr is not None and r.low is not None and r.high is not None
        missed += not r.low <= true <= r.high
        inside += r.low <= r.tpr <= r.high
    assert missed <= 20  # binomial(200, 0.05) passes 20 once in 1,000; the interval is on the safe side
    assert inside == 200


@pytest.mark.parametrize("digits", [0, 1])
def test_the_rates_interval_is_one_with_ties_too(digits: int) -> None:
    lot = np.random.default_rng(6)
    for _ in range(20):
        r = rate(
            lot.normal(0.3, 1, 500).clip(-9, 1).round(digits),
            lot.normal(0, 1, 500).clip(-9, 1).round(digits),
            0.01,
            0.05,
        )
        assert r.tpr is not None and r.low is not None and r.high is not None and r.low <= r.tpr <= r.high


def test_a_wide_interval_contains_a_narrow_one() -> None:
    lot = np.random.default_rng(4)
    member, outsider = lot.normal(1, 1, 400), lot.normal(0, 1, 400)
    for kind in (lambda e: area(member, outsider, e)[1:], lambda e: _ends(rate(member, outsider, 0.01, e))):
        wide, narrow = kind(1e-4), kind(0.05)
        assert wide[0] <= narrow[0] and narrow[1] <= wide[1]


def _ends(r):  # type: ignore[no-untyped-def]
    return r.low, r.high


def test_the_curve_rises_from_one_outsider_to_all() -> None:
    lot = np.random.default_rng(5)
    member, outsider = lot.normal(1, 1, 700), lot.normal(0, 1, 1000)
    points = np.array(curve(member, outsider))
    assert points[0, 0] == pytest.approx(0.001) and tuple(points[-1]) == (1.0, 1.0)
    assert (np.diff(points, axis=0) >= 0).all()
    threshold = np.sort(outsider)[::-1][10]  # ten of a thousand outsiders lie above
    at = points[np.isclose(points[:, 0], 0.01)][0, 1]
    assert at == pytest.approx((member > threshold).mean(), abs=2e-3)
    f, t = roc(member, outsider)
    assert np.trapezoid(t, f) == pytest.approx(area(member, outsider, 0.05)[0], abs=1e-9)


def _judged(control: float):  # type: ignore[no-untyped-def]
    """A result whose control has about this AUC, by evenly spread scores of 150 members and 150 outsiders."""
    even = norm.ppf((np.arange(150) + 0.5) / 150)
    apart = {"run": 0.0, "never_trained": norm.ppf(control) * np.sqrt(2), "leaky": 9.0}
    return _result("any", {k: (even + shift, even) for k, shift in apart.items()}, DOUBT / 5)


@pytest.mark.parametrize(
    ("control", "said"), [(0.5, "yes"), (0.53, "yes"), (0.573, "in doubt"), (0.43, "in doubt"), (0.7, "NO")]
)
def test_a_control_that_is_not_even_is_said(control: float, said: str) -> None:
    """In doubt where its 95 % interval is without 0.5, not valid where that is beyond doubt."""
    r = _judged(control)
    assert r.never_trained.auc == pytest.approx(control, abs=0.01)
    ok, verdict = _verdict(r, [])
    assert (r.valid, r.doubtful, ok) == (said != "NO", said == "in doubt", said != "NO")
    low, high = r.never_trained.low, r.never_trained.high
    assert (low <= 0.5 <= high) is (said == "yes")
    assert ("IN DOUBT" in verdict and f"({low:.3f} to {high:.3f}), without 0.5" in verdict) is r.doubtful
    facts = {"method": "m", "data": "d", "outsiders_from": "o", "trained_on": 9, "candidates": 9, "near_duplicates": 0}
    shown = Membership(facts | {"shadows": 4}, (r,), (), ok, verdict, {"epsilon": None})
    assert next(line for line in as_table(shown).splitlines() if line.startswith("any")).endswith(said)
