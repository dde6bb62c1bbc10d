"""The gate: what one unit can do to an answer, what it refuses, and the failures that other systems had.

Bounds are found by experiment: in research mode two gates with one seed draw the same noise and the same coins, so the
difference of their answers on neighbouring sets is exactly what one unit contributed.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sets import facts, gate_for, linear_loss, linear_params, pictures, pixels, private

from veilset.core.errors import BudgetExceeded, DataError, ModeError, PlanError, RunError
from veilset.core.types import PublicInfo
from veilset.privacy import gate as gate_module
from veilset.privacy import noise as noise_module
from veilset.privacy.bounding import grid
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import Opened, PrivateImages, from_arrays
from veilset.privacy.spec import Privacy

BOUND = 1.5
FLOATS = {"shape": (1, 4, 4), "value_range": (0.0, 1.0)}
RECORDS = {
    "ordinary": np.linspace(0, 1, 16),
    "white": np.ones(16),
    "black": np.zeros(16),
    "1e30": np.full(16, 1e30),
    "-1e30": np.full(16, -1e30),
    "nan": np.full(16, np.nan),
    "one nan": np.r_[np.ones(15), np.nan],
    "inf": np.full(16, np.inf),
}


def float_images(n: int, info: PublicInfo) -> tuple[np.ndarray, np.ndarray]:
    x, y = pictures(n, info)
    return (x / 255).astype(np.float32), y


def answers(x, y, units, info, verb: str, f, **options) -> torch.Tensor:
    """One answer of a fresh research gate, in units of the sum that was noised."""
    rate = options.pop("sample_rate", 1.0)
    gate = gate_for(from_arrays(info, x, y, units), Release(name="r", verb=verb, bound=BOUND, sample_rate=rate))
    if verb == "sum":
        return gate.sum("r", f, **options)
    params = {k: v.double() for k, v in linear_params(info).items()}
    got = gate.grad("r", f, params, **options)
    return torch.cat([g.flatten() for g in got.values()]) * rate * info.units


def scaled(x, y):
    return x.flatten() * 1e6


def scaled_loss(p, x, y):
    return 1e6 * torch.nn.functional.cross_entropy((p["w"] @ x.flatten().double() + p["b"])[None], y[None])


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize(
    ("verb", "f", "options"),
    [
        ("sum", pixels, {}),
        ("sum", scaled, {}),
        ("sum", scaled, {"by_class": True}),
        ("sum", lambda x, y: (y % 2, x.flatten() * 1e6), {"cells": 2}),
        ("sum", lambda x, y: (y * 100 - 50, x.flatten() * 1e6), {"cells": 2, "by_class": True}),
        ("sum", lambda x, y: x.flatten() * float("nan"), {}),
        ("sum", lambda x, y: x.flatten().double() * 1e306, {}),
        ("sum", scaled, {"sample_rate": 0.9}),
        ("grad", scaled_loss, {}),
        ("grad", scaled_loss, {"sample_rate": 0.9}),
    ],
)
@pytest.mark.parametrize("n", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 50)), 31])
def test_one_record_moves_an_answer_by_at_most_the_bound(record, verb, f, options, n):
    info = facts(**FLOATS)
    x, y = float_images(n, info)
    more = np.concatenate([x, record.reshape(1, 1, 4, 4).astype(np.float32)]), np.r_[y, 2]
    a = answers(x, y, None, info, verb, f, **options)
    b = answers(*more, None, info, verb, f, **options)
    assert bool(torch.isfinite(b).all())
    moved = float((a - b).norm())
    assert moved <= BOUND
    if np.isnan(record).any():
        assert moved <= 1e-9  # NaN contributes nothing, and changes nobody else's contribution


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize(("images", "cap"), [(1, 3), (3, 3), (7, 3), (40, 3)])
def test_a_whole_unit_moves_an_answer_by_at_most_the_bound(verb, images, cap):
    """A unit of several images in different classes, also with more images than the cap, and mixed among others."""
    info = facts(**FLOATS, max_images_per_unit=cap)
    x, y = float_images(60, info)
    units = np.repeat(np.arange(20), 3)
    # The new unit's images lie between the others, its id is the last: the coins of the others stay as they were.
    at = np.linspace(0, 60, images).astype(int)
    new = np.linspace(0, 1, images * 16, dtype=np.float32).reshape(images, 1, 4, 4)
    more = np.insert(x, at, new, 0), np.insert(y, at, np.arange(images) % 3), np.insert(units, at, 20)
    f = scaled if verb == "sum" else scaled_loss
    for options in ({}, {"by_class": True}) if verb == "sum" else ({},):
        a = answers(x, y, units, info, verb, f, **options)
        b = answers(*more, info, verb, f, **options)
        assert 0 < float((a - b).norm()) <= BOUND


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("images", [2, 3, 7])
def test_images_of_a_unit_that_agree_move_an_answer_by_at_most_the_bound(verb, images):
    """Images of one class pull the same way; those of all classes, above, nearly cancel in a gradient."""
    info = facts(**FLOATS, max_images_per_unit=3)
    x, y = float_images(60, info)
    units = np.repeat(np.arange(20), 3)
    new = np.ones((images, 1, 4, 4), np.float32)
    more = np.concatenate([x, new]), np.r_[y, [1] * images], np.r_[units, [20] * images]
    f = scaled if verb == "sum" else scaled_loss
    moved = float((answers(x, y, units, info, verb, f) - answers(*more, info, verb, f)).norm())
    assert 0.99 * BOUND < moved <= BOUND


def test_a_cap_bounds_what_images_beyond_it_can_do():
    info = facts(**FLOATS, max_images_per_unit=2)
    x, y = float_images(30, info)
    units = np.repeat(np.arange(10), 3)
    a = answers(x, y, units, info, "sum", pixels)
    x[2::3] = 0.123  # the third image of every unit is never looked at
    assert torch.equal(answers(x, y, units, info, "sum", pixels), a)
    x[1::3] = 0.123
    assert not torch.equal(answers(x, y, units, info, "sum", pixels), a)


def test_a_units_images_share_its_bound_evenly():
    """The sum over a unit of several equal images is that of one image."""
    info = facts(**FLOATS, max_images_per_unit=4)
    x, y = float_images(1, info)
    one = answers(x, y, np.zeros(1, np.int64), info, "sum", pixels)
    four = answers(np.repeat(x, 4, 0), np.repeat(y, 4), np.zeros(4, np.int64), info, "sum", pixels)
    assert torch.allclose(one, four, atol=1e-9)


# ---------------------------------------------------------------------- exactness


@pytest.mark.parametrize("by_class", [False, True])
def test_permuting_records_or_chunks_does_not_change_a_bit(monkeypatch, by_class):
    info = facts(units=200)
    x, y = pictures(200, info)
    wave = lambda x, y: torch.cos(x.flatten() * 7.0) + x.sum()  # noqa: E731
    first = answers(x, y, None, info, "sum", wave, by_class=by_class)
    order = np.random.default_rng(0).permutation(200)
    assert torch.equal(answers(x[order], y[order], None, info, "sum", wave, by_class=by_class), first)
    for size in (1, 5 * 16 * 16, 64 * 16 * 16):
        monkeypatch.setattr(gate_module, "CHUNK_BYTES", size)
        assert torch.equal(answers(x, y, None, info, "sum", wave, by_class=by_class), first)


@pytest.mark.parametrize("common", [1, 2, 5, 8, 11, 12, 31, 32, 33, 63, 64, 100])
def test_a_matrix_product_does_not_depend_on_who_else_is_there(common):
    """Small products take another path through the linear algebra and round otherwise; the gate pads its chunks.

    Without that, every common record's map moves when one record joins, and a discrete map (nearest centre, vote) flips
    whole contributions.
    """
    info = facts(shape=(1, 28, 28), units=100)
    x, y = pictures(common, info)
    w = torch.randn(300, 784, generator=torch.Generator().manual_seed(0))
    f = lambda x, y: torch.cos(w @ x.flatten())  # noqa: E731
    a = answers(x, y, None, info, "sum", f)
    b = answers(np.concatenate([x, np.full((1, 1, 28, 28), 255, np.uint8)]), np.r_[y, 0], None, info, "sum", f)
    only = answers(np.full((1, 1, 28, 28), 255, np.uint8), np.zeros(1, np.int64), None, info, "sum", f)
    none = answers(x[:0], y[:0], None, info, "sum", f)
    assert float((a - b).norm()) <= BOUND
    assert float(((b - a) - (only - none)).norm()) <= 1e-12  # exactly what the record contributes when alone


def test_row_18_answers_of_neighbours_lie_on_one_grid():
    info = facts()
    step = grid(BOUND, 0.0, info.units)
    for n in (49, 50):
        got = answers(*pictures(n, info), None, info, "sum", pixels)
        assert torch.equal(got / step, (got / step).round())
    # The lowest bits of what leaves are those of a fresh coin, for both neighbours.
    info = facts(shape=(1, 32, 32))
    for n in (0, 1):
        got = answers(*pictures(n, info), None, info, "sum", pixels)
        parity = (got / step).remainder(2)
        assert abs(float(parity.mean()) - 0.5) < 5 * 0.5 / 32


@pytest.mark.parametrize("n", [0, 1, 400])
def test_the_grid_of_an_answer_is_the_declared_one(n):
    """A grid made from the number of records that are there would tell it in the lowest bits of every answer."""
    info = facts(shape=(1, 32, 32))
    step = 2.0 ** (math.ceil(math.log2(info.units * BOUND)) - 50)
    got = answers(*pictures(n, info), None, info, "sum", pixels) / step
    assert torch.equal(got, got.round())
    assert abs(float(got.remainder(2).mean()) - 0.5) < 5 * 0.5 / 32


# ---------------------------------------------------------------------- noise


def empty_answer(
    verb: str = "sum", seed: int | None = 0, side: int = 120, name: str = "r"
) -> tuple[torch.Tensor, float]:
    """(an answer about nobody, the deviation it should have)."""
    info = facts(shape=(1, side, side))
    gate = gate_for(
        from_arrays(info, *(a[:0] for a in pictures(1, info))), Release(name=name, verb=verb, bound=BOUND), seed=seed
    )
    if verb == "sum":
        got = gate.sum(name, pixels)
    else:
        got = gate.grad(name, linear_loss, linear_params(info))["w"].flatten() * info.units
    return got.double(), gate.plan[name].noise_multiplier * BOUND


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("seed", [0, None])
def test_the_noise_has_the_planned_scale_and_shape(verb, seed):
    from scipy.stats import kstest

    got, std = empty_answer(verb, seed, side=150)
    assert float(got.std()) == pytest.approx(std, rel=0.02 if verb == "sum" else 0.015)
    assert abs(float(got.mean())) < 5 * std / math.sqrt(len(got))
    assert kstest((got / std).numpy(), "norm").pvalue > 1e-4


def test_the_noise_has_the_planned_scale_within_one_percent():
    draws = torch.cat([empty_answer(seed=s, side=200)[0] for s in range(3)])
    assert float(draws.std()) == pytest.approx(empty_answer()[1], rel=0.01)


def test_row_15_two_releases_with_equal_user_seeds_have_different_noise():
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        draws.append(empty_answer(seed=None)[0])
    a, b = draws
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.05


def test_research_noise_repeats_and_ignores_torch():
    torch.manual_seed(1)
    a = empty_answer(seed=3)[0]
    torch.manual_seed(2)
    assert torch.equal(empty_answer(seed=3)[0], a)
    assert not torch.equal(empty_answer(seed=4)[0], a)


def test_noise_that_is_drawn_ahead_has_the_same_bits(monkeypatch):
    monkeypatch.setattr(noise_module, "WORTH", 1)

    def steps(having: int) -> list[torch.Tensor]:
        monkeypatch.setattr(noise_module, "cores", lambda: having)
        info = facts()
        gate = gate_for(private(20, info), *(Release(name=n, verb="grad", sample_rate=0.5, steps=3) for n in "gh"))
        return [gate.grad(n, linear_loss, linear_params(info))["w"].flatten() for n in "gghghh"]

    plain, begun, real = steps(1), [], noise_module.Keys.begin
    monkeypatch.setattr(noise_module.Keys, "begin", lambda *a: begun.append(a[3]) or real(*a))
    assert all(map(torch.equal, steps(2), plain))
    assert sum(map(bool, begun)) == 4  # all but the first of each release
    assert len({float(v[0]) for v in plain}) == 6


def test_steps_parts_and_releases_have_noise_of_their_own():
    info = facts()
    data = from_arrays(info, *(a[:0] for a in pictures(1, info)))
    releases = (Release(name="a", steps=2), Release(name="b"), Release(name="c", partition="class"))
    gate = gate_for(data, *releases)
    draws = [gate.sum("a", pixels), gate.sum("a", pixels), gate.sum("b", pixels)]
    draws += [gate.sum("c", pixels, part=k) for k in range(3)]
    for i in range(len(draws)):
        for j in range(i):
            assert not torch.equal(draws[i], draws[j])
    ratio = {round(float((draws[i] / draws[j])[0]), 6) for i in range(6) for j in range(i)}
    assert len(ratio) > 10  # nor is one a multiple of another


def test_steps_of_a_loop_have_noise_of_their_own():
    info = facts()
    data = from_arrays(info, *(a[:0] for a in pictures(1, info)))
    gate = gate_for(data, Release(name="g", verb="grad", steps=4), Release(name="h", verb="grad", steps=2))
    steps = [gate.grad(name, linear_loss, linear_params(info))["w"].flatten() for name in "gggghh"]
    correlation = torch.corrcoef(torch.stack(steps)).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 0.6  # 48 coordinates: 0.6 is more than four deviations


def test_steps_of_a_loop_throw_coins_of_their_own():
    """Seen in exact answers about records that contribute in one direction each."""
    info = facts(shape=(1, 8, 8), units=64)
    x, rate = np.eye(64, dtype=np.uint8).reshape(64, 1, 8, 8) * 255, 0.5
    plan = Plan(
        (Release(name="s", sample_rate=rate, steps=9), Release(name="g", verb="grad", sample_rate=rate, steps=9))
    )
    for seed in (0, None):
        data = from_arrays(info, x, np.zeros(64, np.int64))
        gate = Gate(data, plan.price(Privacy(math.inf), info), seed=seed)
        w = {"w": torch.zeros(1, 8, 8)}
        sums = [gate.sum("s", pixels) > 0.5 for _ in range(9)]
        steps = [gate.grad("g", lambda p, x, y: (p["w"] * x).sum(), w)["w"].flatten() * 32 > 0.5 for _ in range(9)]
        coins = torch.stack(sums + steps).float()
        assert len({row.numpy().tobytes() for row in coins}) == 18
        assert float(torch.corrcoef(coins).fill_diagonal_(0).abs().max()) < 0.7  # more than five deviations of 64 coins


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_noise_does_not_depend_on_the_coins(verb):
    """With one seed: coins without noise, and noise about nobody."""
    info = facts(shape=(1, 40, 50), units=2000)
    one_hot = np.eye(2000, dtype=np.uint8).reshape(2000, 1, 40, 50) * 255

    def ask(x, epsilon, rate):
        release = Release(name="r", verb=verb, sample_rate=rate)
        data = from_arrays(info, x, np.zeros(len(x), np.int64))
        gate = Gate(data, Plan((release,)).price(Privacy(epsilon), info), seed=1)
        if verb == "sum":
            return gate.sum("r", pixels)
        w = {"w": torch.zeros(1, 40, 50)}
        return gate.grad("r", lambda p, x, y: (p["w"] * x).sum(), w)["w"].flatten().double() * rate * 2000

    coins, noise = (ask(one_hot, math.inf, 0.5) > 0.5).double(), ask(one_hot[:0], 1.0, 1.0)
    assert 800 < float(coins.sum()) < 1200
    for seen in (noise, noise.abs()):
        assert abs(float(torch.corrcoef(torch.stack([coins, seen]))[0, 1])) < 5 / math.sqrt(2000)


# ---------------------------------------------------------------------- refusals


def test_what_was_not_planned_is_refused_before_any_record_is_read():
    info, reads = facts(), []
    x, y = pictures(50, info)

    class Spy:
        count, dtype = 50, x.dtype

        def read(self, index, out):
            reads.append(len(index))
            np.take(x, index, 0, out)

    data = PrivateImages(info, lambda: Opened(Spy(), y))
    gate = gate_for(data, Release(name="a"), Release(name="g", verb="grad"), Release(name="c", partition="class"))
    refused = [
        (PlanError, "was not planned", lambda: gate.sum("b", pixels)),
        (PlanError, "was planned as 'grad'", lambda: gate.sum("g", pixels)),
        (PlanError, "was planned as 'sum'", lambda: gate.grad("a", linear_loss, linear_params(info))),
        (PlanError, "part = 0", lambda: gate.sum("a", pixels, part=0)),
        (PlanError, "part = None", lambda: gate.sum("c", pixels)),
        (PlanError, "part = 3", lambda: gate.sum("c", pixels, part=3)),
        (PlanError, "part = -1", lambda: gate.sum("c", pixels, part=-1)),
    ]
    for error, message, ask in refused:
        with pytest.raises(error, match=message):
            ask()
    assert reads == []
    gate.sum("a", pixels)
    gate.sum("c", pixels, part=1)
    before = list(reads)
    assert sum(before) > 50
    for ask in (lambda: gate.sum("a", pixels), lambda: gate.sum("c", pixels, part=1)):
        with pytest.raises(BudgetExceeded, match="refused before any"):
            ask()
    gate.close()
    for ask in (lambda: gate.sum("a", pixels), lambda: gate.grad("g", linear_loss, linear_params(info))):
        with pytest.raises(PlanError, match="closed"):
            ask()
    with pytest.raises(PlanError, match="closed"):
        gate.inspect("late")
    assert reads == before


def test_a_closed_gate_holds_neither_records_nor_keys():
    gate = gate_for(private(), Release(name="a"))
    gate.sum("a", pixels)
    gate.close()
    assert gate.close() is gate.ledger  # closing twice changes nothing
    assert len(list(gate.ledger.bodies("close"))) == 1
    for attribute in ("_reader", "_keys", "_clipped", "_rows"):
        assert not hasattr(gate, attribute)


def test_an_unpriced_plan_or_another_sets_plan_is_refused():
    with pytest.raises(PlanError, match="price it first"):
        Gate(private(), Plan((Release(name="a"),)), seed=0)
    priced = Plan((Release(name="a"),)).price(Privacy(1.0), facts(units=51))
    with pytest.raises(PlanError, match="other declared facts"):
        Gate(private(), priced, seed=0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1 - 1e-6])
def test_a_plan_edited_after_pricing_is_refused(share):
    priced = Plan((Release(name="a"),)).price(Privacy(1.0), facts())
    quiet = dataclasses.replace(priced["a"], noise_multiplier=priced["a"].noise_multiplier * share)
    with pytest.raises(BudgetExceeded, match="allowed"):
        Gate(private(), dataclasses.replace(priced, releases=(quiet,)), seed=0)


def test_far_more_units_than_declared_are_refused():
    gate_for(private(400), Release(name="a"))
    with pytest.raises(DataError, match="declare the number of units"):
        gate_for(private(401), Release(name="a"))


def test_a_map_cannot_look_at_a_value():
    """Branches on data fail loudly under vmap, and cost nothing."""
    gate = gate_for(private(), Release(name="a"))
    with pytest.raises(RuntimeError, match="vmap"):
        gate.sum("a", lambda x, y: x.flatten() if x.sum() > 3 else -x.flatten())
    with pytest.raises(RuntimeError, match="vmap"):
        gate.sum("a", lambda x, y: x.flatten() * x.mean().item())
    assert list(gate.ledger.bodies("charge")) == []


def test_raw_records_only_in_research_mode_and_on_the_record():
    gate = gate_for(private(40), Release(name="a"), seed=None)
    with pytest.raises(ModeError, match="research"):
        gate.inspect("curiosity")
    gate = gate_for(private(40), Release(name="a"))
    seen = gate.inspect("memorisation check")
    x, y = pictures(40)
    assert np.array_equal(seen.x.numpy(), x) and seen.y.tolist() == y.tolist()
    assert seen.reads_private and "NOT A RELEASE" in seen.label
    assert [b["purpose"] for b in gate.ledger.bodies("inspect")] == ["memorisation check"]


# ---------------------------------------------------------------------- failures of other systems, by number


@pytest.mark.parametrize("rate", [0.02, 0.14, 1.0])
def test_row_01_scaling_one_record_moves_the_update_by_at_most_bound_over_expected_batch(rate):
    info = facts(**FLOATS)
    x, y = float_images(50, info)

    def update(factor):
        marked = x.copy()
        marked[3, 0, 0, 0] = 1.0
        loss = lambda p, x, y: linear_loss(p, x, y) * torch.where(x[0, 0, 0] >= 1.0, factor, 1.0)  # noqa: E731
        release = Release(name="g", verb="grad", bound=BOUND, sample_rate=rate, steps=30)
        gate = gate_for(from_arrays(info, marked, y), release)
        return [torch.cat([v.flatten() for v in gate.grad("g", loss, linear_params(info)).values()]) for _ in range(30)]

    moved = [float((a - b).norm()) for a, b in zip(update(0.0), update(1e6), strict=True)]
    assert max(moved) <= BOUND / (rate * info.units) * (1 + 1e-4)
    assert max(moved) > 0 or rate < 0.1


def test_row_02_the_denominator_is_public():
    """Whatever was sampled, an update is the noised sum over q N: with nobody there the noise tells the divisor."""
    info = facts()
    x, y = pictures(50, info)
    loss = lambda p, x, y: (p["w"] * 0).sum() + 1e9 * p["b"][0]  # noqa: E731  everybody contributes exactly the bound
    release = Release(name="g", verb="grad", sample_rate=0.5)
    got = {}
    for n in (0, 3, 50):
        gate = gate_for(from_arrays(info, x[:n], y[:n]), release)
        coins = len(gate._reader.units.sample(0.5, gate._keys.stream("sample/g/None/0")))
        got[n] = (coins, float(gate.grad("g", loss, linear_params(info))["b"][0]))
    for n in (3, 50):
        assert got[n][1] - got[0][1] == pytest.approx(got[n][0] / (0.5 * info.units), rel=1e-3)


def test_row_04_an_empty_batch_is_noise_and_a_step():
    info = facts()
    release = Release(name="g", verb="grad", sample_rate=1e-3, steps=5)
    gate = gate_for(private(), release, epsilon=3.0)
    assert sum(len(gate._reader.units.sample(1e-3, gate._keys.stream(f"sample/g/None/{t}"))) for t in range(5)) == 0
    for _ in range(5):
        got = gate.grad("g", linear_loss, linear_params(info))
        assert all(bool(torch.isfinite(v).all()) and bool((v != 0).any()) for v in got.values())
    assert gate.ledger.steps("g", None) == 5
    with pytest.raises(BudgetExceeded):
        gate.grad("g", linear_loss, linear_params(info))


@pytest.mark.parametrize("steps", [1, 7, 100, 101, 250])
def test_row_05_draws_ledger_and_accountant_count_the_same_steps(steps, monkeypatch):
    draws = []
    real = Gate._noised
    monkeypatch.setattr(Gate, "_noised", lambda self, *a, **k: draws.append(1) or real(self, *a, **k))
    info = facts(shape=(1, 1, 1), units=20)
    priced = dataclasses.replace(
        Plan((Release(name="g", verb="grad", sample_rate=0.3, steps=steps, noise_multiplier=2.0),)),
        info=info,
        privacy=Privacy(100.0),
    )  # priced by hand, to keep the test quick
    gate = Gate(private(20, info), priced, seed=0)
    for done in range(steps):
        gate.grad("g", linear_loss, linear_params(info))
        assert gate.ledger.steps("g", None) >= done + 1  # charged before it left
    assert len(draws) == gate.ledger.steps("g", None) == sum(s.steps for s in gate.ledger.spent()) == steps
    assert len(list(gate.ledger.bodies("charge"))) <= 100


def test_row_08_class_counts_change_only_what_was_charged():
    """All records in one class, or spread: the other answers, the plan and the ledger stay as they are."""
    info = facts()
    x, y = pictures(50, info)
    seen = []
    for labels in (y, np.zeros_like(y)):
        gate = gate_for(from_arrays(info, x, labels), Release(name="pixels"), Release(name="count"))
        a = gate.sum("pixels", pixels)
        b = gate.sum("count", lambda x, y: torch.ones(1), by_class=True)
        gate.close()
        seen.append((a, b, gate.ledger.to_bytes()))
    assert torch.equal(seen[0][0], seen[1][0])
    assert seen[0][2] == seen[1][2]
    assert not torch.equal(seen[0][1], seen[1][1])


def test_row_09_an_outlier_is_clipped_to_the_declared_range():
    info = facts(**FLOATS)
    x, y = float_images(20, info)
    wild = x.copy()
    wild[4] = 300.0
    tame = x.copy()
    tame[4] = 1.0
    assert torch.equal(answers(wild, y, None, info, "sum", pixels), answers(tame, y, None, info, "sum", pixels))
    assert info == from_arrays(info, wild, y).info


def test_row_10_values_are_scaled_by_declared_facts_only():
    """Adding a record leaves every other record's contribution as it was: no mean, range or whitening is fitted."""
    info = facts(**FLOATS)
    x, y = float_images(30, info)
    more = np.concatenate([x, np.full((1, 1, 4, 4), 0.7, np.float32)]), np.r_[y, 0]
    none = answers(x[:0], y[:0], None, info, "sum", pixels)
    moved = answers(*more, None, info, "sum", pixels) - answers(x, y, None, info, "sum", pixels)
    alone = answers(more[0][30:], more[1][30:], None, info, "sum", pixels) - none
    assert float((moved - alone).abs().max()) <= 1e-12
    assert float(alone.mean()) == pytest.approx(BOUND / 4, rel=1e-5)  # 16 pixels of 0.7: clipped to the bound


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_row_20_nan_or_infinity_in_one_record(verb, bad):
    info = facts(**FLOATS)
    x, y = float_images(30, info)
    x[7, 0, 1, 2] = bad
    f = pixels if verb == "sum" else scaled_loss
    got = answers(x, y, None, info, verb, f)
    assert bool(torch.isfinite(got).all())
    if np.isnan(bad):  # infinity is a value above the declared range: it counts as white
        without = answers(np.delete(x, 7, 0), np.delete(y, 7), None, info, verb, f)
        assert float((got - without).abs().max()) <= 1e-9


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_row_23_physical_batches_give_one_update(verb, monkeypatch):
    info = facts(**FLOATS)
    x, y = float_images(50, info)
    f = pixels if verb == "sum" else scaled_loss
    got = []
    for batch in (1, 4, 64):
        size = 16 if verb == "sum" else 3 * 16 + 3
        monkeypatch.setattr(gate_module, "CHUNK_BYTES", batch * 16 * size)
        got.append(answers(x, y, None, info, verb, f, sample_rate=0.8))
    for other in got[1:]:
        assert float((other - got[0]).abs().max()) <= 1e-6
    if verb == "sum":
        assert torch.equal(got[0], got[1]) and torch.equal(got[0], got[2])


def test_row_25_every_read_is_inside_a_planned_question():
    """An instrumented set: reads happen inside gate verbs, each is followed by its charge, and by nothing else."""
    info, log = facts(), []
    x, y = pictures(50, info)

    class Spy:
        count, dtype = 50, x.dtype

        def read(self, index, out):
            log.append("read")
            np.take(x, index, 0, out)

    gate = gate_for(PrivateImages(info, lambda: Opened(Spy(), y)), Release(name="a"), Release(name="g", verb="grad"))
    append = gate.ledger.append
    gate.ledger.append = lambda kind, **body: log.append(kind) or append(kind, **body)
    noised = gate._noised
    gate._noised = lambda *a, **k: log.append("noise") or noised(*a, **k)
    gate.sum("a", pixels)
    gate.grad("g", linear_loss, linear_params(info))
    gate.close()
    assert log == ["read", "charge", "noise", "read", "charge", "noise", "close"]


# ---------------------------------------------------------------------- noise and keys


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("seed", [0, None])
def test_every_part_of_a_partition_has_all_of_the_noise(verb, seed):
    """A unit is in one part, whose answer must hide it alone: nothing is divided among the parts."""
    info = facts(shape=(1, 100, 100), classes=("a", "b", "c", "d"))
    nobody = from_arrays(info, *(a[:0] for a in pictures(1, info)))
    whole, parts = (
        Release(name="w", verb=verb, bound=BOUND),
        Release(name="p", verb=verb, bound=BOUND, partition="class"),
    )
    alone = Plan((whole,)).price(Privacy(1.0), info)["w"].noise_multiplier  # a partition costs what one part does
    gate = gate_for(nobody, parts, seed=seed)
    assert gate.plan["p"].noise_multiplier == pytest.approx(alone, rel=1e-9)
    for part in range(4):
        if verb == "sum":
            got = gate.sum("p", pixels, part=part)
        else:
            w = {"w": torch.zeros(info.shape)}
            got = gate.grad("p", lambda p, x, y: (p["w"] * x).sum(), w, part=part)["w"].flatten() * info.units
        assert float(got.double().std()) == pytest.approx(alone * BOUND, rel=5 / math.sqrt(2 * got.numel()))


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "xpu", "meta"])
def test_release_keys_are_the_systems_whatever_the_device(device, monkeypatch):
    """No device's generator and no seed of the user's has a part in them; no device is needed until a gate is asked."""
    fresh, given = [], noise_module.secrets.token_bytes
    monkeypatch.setattr(noise_module.secrets, "token_bytes", lambda n: fresh.append(given(n)) or fresh[-1])

    def root(seed):
        torch.manual_seed(0)
        np.random.seed(0)
        return gate_for(private(), Release(name="a"), seed=seed, device=device)._keys._root

    a, b = root(None), root(None)
    assert a in fresh and b in fresh and a != b and len(a) == len(b) == 32
    assert root(0) == gate_for(private(), Release(name="a"), seed=0)._keys._root  # research follows its seed anywhere


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_coins_and_noise_do_not_follow_the_users_seed_when_another_device_computes(verb, monkeypatch):
    """The same through a whole answer: only what moves records to the device is left out."""
    release, answers = Release(name="r", verb=verb, sample_rate=0.5), []
    real = torch.device
    for _ in range(2):
        gate = gate_for(private(), release, seed=None, device="meta")
        assert gate._device == "meta"
        gate._reader._device, gate._device = real("cpu"), "cpu"
        torch.manual_seed(0)
        got = gate.sum("r", pixels) if verb == "sum" else gate.grad("r", linear_loss, linear_params(gate.info))["b"]
        answers.append(got)
    assert not torch.equal(*answers)


# ---------------------------------------------------------------------- folders


def test_a_charge_is_on_disk_before_the_answer_leaves(tmp_path, monkeypatch):
    gate = gate_for(private(), Release(name="a"), folder=tmp_path)

    def crash(*a, **k):
        assert b'"charge"' in (tmp_path / "ledger.jsonl").read_bytes()
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "_noised", crash)
    with pytest.raises(KeyboardInterrupt):
        gate.sum("a", pixels)


def test_a_full_disk_stops_the_answer(tmp_path, monkeypatch):
    import errno
    import os

    gate = gate_for(private(), Release(name="a"), folder=tmp_path)
    whole = (tmp_path / "ledger.jsonl").read_bytes()

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device; nothing was released"):
        gate.sum("a", pixels)
    monkeypatch.undo()
    assert (tmp_path / "ledger.jsonl").read_bytes() == whole  # no part of a line is left
    gate.sum("a", pixels)


def test_a_kept_answer_without_its_charge_is_refused(tmp_path):
    """Deleting the ledger must not turn paid answers into free ones."""
    gate_for(private(), Release(name="a"), folder=tmp_path).sum("a", pixels)
    (tmp_path / "ledger.jsonl").unlink()
    gate = gate_for(private(), Release(name="a"), folder=tmp_path)
    with pytest.raises(RunError, match="not in the ledger"):
        gate.sum("a", pixels)


def test_a_run_goes_on_with_its_own_data_units_seed_and_plan_only(tmp_path):
    info = facts(max_images_per_unit=3)
    x, y = pictures(50, info)
    units = np.arange(50) // 2

    def ask(x=x, y=y, units=units, **options):
        gate_for(from_arrays(info, x, y, units), Release(name="a"), folder=tmp_path, **options)

    ask()
    ask()
    other = x.copy()
    other[3, 0, 0, 0] ^= 1
    for changed in ({"x": other}, {"y": (y + 1) % 3}, {"units": np.arange(50) // 3}):
        with pytest.raises(RunError, match="data changed"):
            ask(**changed)
    with pytest.raises(RunError, match="another seed"):
        ask(seed=1)
    with pytest.raises(RunError, match="another plan"):
        ask(epsilon=2.0)
    (tmp_path / "private" / "data.json").unlink()
    with pytest.raises(RunError, match="is gone"):
        ask()


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_release_mode_never_draws_a_charged_step_twice(tmp_path, kept):
    """Three steps were charged and `kept` answers were saved before the crash: only those can be had again."""
    release = Release(name="a", steps=4)
    gate = gate_for(private(), release, folder=tmp_path, seed=None)
    first = [gate.sum("a", pixels) for _ in range(3)]
    for lost in range(kept, 3):
        (tmp_path / "private" / "answers" / f"a.{lost}.safetensors").unlink()
    gate = gate_for(private(), release, folder=tmp_path, seed=None)
    for answer in first[:kept]:
        assert torch.equal(gate.sum("a", pixels), answer)
    with pytest.raises(BudgetExceeded, match="its answer is lost"):
        gate.sum("a", pixels)


def test_a_resumed_research_run_is_bit_identical_and_charged_once(tmp_path):
    releases = (Release(name="a", steps=3), Release(name="c", partition="class"))

    def run(folder):
        gate = gate_for(private(), *releases, folder=folder)
        return gate, [gate.sum("a", pixels) for _ in range(3)] + [gate.sum("c", pixels, part=k) for k in range(3)]

    _, whole = run(tmp_path)
    for name in ("a.1", "c.class2.0"):
        (tmp_path / "private" / "answers" / f"{name}.safetensors").unlink()
    gate, again = run(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert gate.ledger.steps("a", None) == 3
    assert [gate.ledger.steps("c", k) for k in range(3)] == [1, 1, 1]


def test_private_files_are_for_the_owner_only(tmp_path):
    gate_for(private(), Release(name="a"), folder=tmp_path).sum("a", pixels)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    files = [p for p in (tmp_path / "private").rglob("*") if p.is_file()]
    assert len(files) == 2
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in files)
