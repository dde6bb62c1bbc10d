"""What tasks cost together: in parallel, one after another, and who is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from streams import INFO, priced

from veilset.continual.plan import Task, plan
from veilset.core.errors import ConfigError
from veilset.privacy.accounting import (
    Spent,
    by_part,
    claim,
    gaussian_epsilon,
    gaussian_noise_multiplier,
    rdp_epsilon,
    together,
)

PATIENTS = replace(INFO, unit="one patient", max_images_per_unit=3)


def composed(*epsilons: float) -> float:
    """Gaussian releases of these budgets, one after another: 1 / noise multiplier adds up in squares."""
    return gaussian_epsilon(math.sqrt(sum(gaussian_noise_multiplier(e, 1e-5) ** -2 for e in epsilons)), 1e-5)


def test_tasks_on_different_classes_cost_the_dearest_of_them() -> None:
    assert priced("a", "b", "cd").claim().epsilon == pytest.approx(1.0, abs=1e-9)
    assert priced("ab", "cd", epsilon=(1.0, 3.0)).claim().epsilon == pytest.approx(3.0, abs=1e-9)
    assert priced("ab", "cd").composition.startswith("parallel")


def test_a_repeated_class_costs_exactly_its_tasks_one_after_another() -> None:
    got = priced("ab", "cd", "ac", epsilon=(1.0, 0.5, 2.0))
    assert got.claim().epsilon == pytest.approx(composed(1.0, 2.0), rel=1e-9), "class a; class c costs less"
    for words in ("a in tasks 1, 3", "c in tasks 2, 3", "sequential"):
        assert words in got.composition and words in str(got)
    assert got.claim().epsilon > priced("ab", "cd", "d", epsilon=(1.0, 0.5, 2.0)).claim().epsilon


@pytest.mark.parametrize("params", [{}, {"split": True}])
def test_units_in_several_classes_cost_all_tasks_one_after_another(params: dict[str, Any]) -> None:
    got = priced("a", "b", "cd", info=PATIENTS, params=params)
    assert got.claim().epsilon == pytest.approx(composed(1, 1, 1), rel=1e-9)
    assert got.composition.startswith("sequential composition over all tasks")
    declared = priced("a", "b", "cd", info=PATIENTS, params=params, one_class=True)
    assert declared.claim().epsilon == pytest.approx(1.0, abs=1e-9) and "one patient" in declared.composition
    images = priced("a", "b", "cd", params=params, one_class=False)
    assert images.claim().epsilon == got.claim().epsilon


def test_a_word_for_the_unit_alone_makes_tasks_add_up() -> None:
    people = replace(INFO, unit="one person")  # with one image each, perhaps; and perhaps not the same one in each task
    assert priced("a", "b", info=people).claim().epsilon == pytest.approx(composed(1, 1), rel=1e-9)


def test_parts_of_a_task_meet_the_right_units() -> None:
    """Class a is read by both tasks, in the second one alone; b pays more for a part of its own."""
    common, apart = Spent(4.0), [Spent(8.0, part=0), Spent(2.0, part=1)]
    tasks = [((0, 1), [common, *apart]), ((0,), [Spent(5.0)])]
    got = claim(together(tasks, True), 1e-5).epsilon
    each = [[Spent(4.0), Spent(8.0), Spent(5.0)], [Spent(4.0), Spent(2.0)]]
    assert got == max(claim(case, 1e-5).epsilon for case in each) == claim(each[1], 1e-5).epsilon
    mixed = claim(together(tasks, False), 1e-5).epsilon
    assert mixed == pytest.approx(claim([Spent(4.0), Spent(2.0), Spent(5.0)], 1e-5).epsilon, rel=1e-12)


def test_sampled_releases_compose_by_the_same_accountant() -> None:
    own = [Spent(2.0, 0.05, 40)]
    shared = by_part(together([((0, 1), own), ((1, 2), own)], True))
    assert [sum(s.steps for s in case) for case in shared] == [40, 80]
    assert rdp_epsilon(shared[1], 1e-5) == rdp_epsilon([Spent(2.0, 0.05, 80)], 1e-5)
    assert by_part(together([((0, 1), own), ((2,), own)], True)) == [own], "equal cases are accounted once"


def test_units_of_a_task_are_declared_never_counted() -> None:
    assert [p.info.units for p in priced("ab", "c").plans if p.info] == [40, 20]
    given = plan(INFO, [Task(classes=("a",), method="tiny", epsilon=1.0, units=7)])
    assert given.plans[0].info is not None and given.plans[0].info.units == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ()}, "one or more distinct"),
        ({"classes": ("a", "a")}, "one or more distinct"),
        ({"classes": ("a", "e")}, "class 'e' is not declared"),
        ({"epsilon": math.inf}, "must be finite"),
        ({"epsilon": 0.0}, "greater than 0"),
        ({"method": "tinny"}, "Did you mean 'tiny'"),
        ({"params": {"bound": -1}}, "bound"),
        ({"units": 5}, None),
    ],
)
def test_a_wrong_task_is_refused(change: dict[str, Any], words: str | None) -> None:
    task = Task(**{"classes": ("a",), "method": "tiny", "epsilon": 1.0} | change)
    if words is None:
        plan(INFO, [task])
        return
    with pytest.raises(ConfigError, match=words):
        plan(INFO, [task])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"per_class": 0}, "per_class = 0"), ({"format": "gif"}, "format = 'gif'"), ({"delta": 0.5}, "must be below 1/N")],
)
def test_a_wrong_stream_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        priced("a", **options)
    with pytest.raises(ConfigError, match="at least one"):
        priced()
