"""The whole attack, on digits: it finds members where there is something to find, and says when it is not valid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.audit.membership import attack
from veilset.audit.membership.attack import Membership, against, by_lot, control, halves, with_members
from veilset.audit.membership.attacks import HEADLINE, Shadows, attacks
from veilset.audit.membership.records import Pool, duplicates, inspect, make_pool, near_duplicates, private_images
from veilset.audit.membership.rendering import picture
from veilset.core.errors import ConfigError, DataError
from veilset.core.types import Images
from veilset.privacy.gate import Gate

K = 320
SLOTS = 64


class Slots(vs.Synthesizer):
    """Sums of the images in each of many slots, chosen by a hash, most of which hold one image: copies, or noise."""

    name = "slots"

    def _plan(self, info: Any, privacy: Any) -> Any:
        return vs.Plan((vs.Release(name="slots", bound=8.0),), seconds=0.1, memory_mb=200.0)

    def _fit(self, gate: Any, info: Any, plan: Any) -> Any:
        w = 1e4 * torch.randn(info.pixels)

        def slot(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (w @ x.flatten()).long() % SLOTS, x.flatten()

        return {"slots": gate.sum("slots", slot, by_class=True, cells=SLOTS).float()}

    def _sample(self, state: Any, info: Any, labels: torch.Tensor) -> torch.Tensor:
        weight = state["slots"].sum(-1).clamp_min(1e-3)
        at = torch.multinomial(weight[labels], 1)[:, 0]
        return state["slots"][labels, at].clamp(0, 1).unflatten(1, info.shape)


@pytest.fixture(scope="module")
def digits() -> Images:
    """The training split, in random order."""
    records = inspect(vs.load("digits").train, 0)
    return records[torch.randperm(len(records), generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="module")
def pool(digits: Images) -> Pool:
    return make_pool(digits[:K], digits[K : 2 * K], "by lot", targets=K, seed=0, drop_duplicates=True)


def run(pool: Pool, folder: Path, epsilon: float, *, shadows: int = 6, method: Any = Slots) -> Membership:
    """Fit on the members of a pool and attack."""
    info = replace(vs.load("digits").info, units=pool.each)
    ours = private_images(pool.candidates[: pool.each], info)
    model = method().fit(ours, vs.Privacy(epsilon), seed=0, folder=folder)
    return against(model, folder, pool, shadows=shadows, images=500, seed=0)


@pytest.fixture(scope="module")
def open_result(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Membership:
    """A fit without noise."""
    return run(pool, tmp_path_factory.mktemp("open"), float("inf"))


@pytest.fixture(scope="module")
def private_result(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Membership:
    """A fit at epsilon 0.5."""
    return run(pool, tmp_path_factory.mktemp("private"), 0.5)


# ---------------------------------------------------------------------- the result and its controls


def test_members_of_a_fit_without_noise_are_found(open_result: Membership) -> None:
    best = open_result.headline
    assert open_result.ok and best.run.low > 0.7 and "MEMBERS ARE FOUND" in open_result.verdict
    assert best.never_trained.low < 0.5 < best.never_trained.high and best.valid
    assert best.leaky.auc > 0.98
    assert best.run.rates[1].tpr > 0.05  # far above the 1 % of guessing
    assert open_result.claim["epsilon"] is None and open_result.claim["tpr"] is None
    assert np.mean(open_result.repeats) > 0.7 and len(open_result.repeats) == 6


def test_noise_hides_members(open_result: Membership, private_result: Membership) -> None:
    private = private_result.headline
    assert private_result.ok and private.run.auc < 0.6 < open_result.headline.run.auc
    assert private.leaky.auc > 0.98, "what the attack could see is the same"
    assert 0.5 < private_result.claim["auc"] < 0.75 and 0.01 < private_result.claim["tpr"][1] < 0.03


def test_every_attack_is_reported_with_both_controls(open_result: Membership) -> None:
    names = [r.name for r in open_result.results]
    assert {"nearest", "classifier", "shadow-logistic", "lira", HEADLINE} <= set(names)
    blind = [r.name for r in open_result.results if not r.valid]
    assert not blind, "members and outsiders were chosen by lot"
    by_name = {r.name: r for r in open_result.results}
    assert by_name["nearest"].leaky.auc > 0.99
    assert by_name["lira"].run.low > 0.6 and by_name["shadow-logistic"].run.low > 0.6


def test_machines_and_people_get_the_same(open_result: Membership, private_result: Membership) -> None:
    import json

    facts = json.loads(json.dumps(private_result.to_json(), allow_nan=False))
    assert facts["stamp"].startswith("NOT A RELEASE") and facts["outsiders_from"] == "by lot"
    (headline,) = [a for a in facts["attacks"] if a["name"] == facts["headline"]]
    assert headline["run"]["rates"][0]["tpr"] is None and "too few" in headline["run"]["rates"][0]["why"]
    assert facts["claim"]["epsilon"] <= 0.5
    text = str(private_result)
    assert "too few" in text and f"{headline['run']['auc']:.3f}" in text and "the claim allows" in text
    assert "no proof of privacy" in text or "MEMBERS ARE FOUND" in text
    svg = picture(private_result)
    assert svg.startswith("<svg") and svg.count('stroke-dasharray="5 4"') == 4 and "what the claim excludes" in svg
    assert "what the claim excludes" not in picture(open_result)


def test_what_a_model_shows_is_attacked_too(pool: Pool, tmp_path: Path) -> None:
    def moments() -> Any:
        return vs.make("dp-moments", n_components=4, basis_size=30, mc_samples=0)

    result = run(pool, tmp_path, float("inf"), shadows=4, method=moments)
    likelihood = next(r for r in result.results if r.name == "likelihood")
    assert likelihood.valid and result.ok and result.headline.run.low > 0.5


def test_outsiders_of_another_distribution_are_noticed(digits: Images, tmp_path: Path) -> None:
    strange = digits[K : 2 * K]
    mixed = make_pool(digits[:K], replace(strange, x=255 - strange.x), "negatives", targets=K, seed=0)
    result = run(mixed, tmp_path, float("inf"), shadows=4)
    assert not result.ok and result.verdict.startswith("NOT VALID")
    assert not result.headline.valid and not next(r for r in result.results if r.name == "nearest").valid


def test_an_attack_that_cannot_see_a_leak_says_so(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "with_members", lambda released, pool, inside: released)
    result = run(pool, tmp_path, 0.5, shadows=4)
    assert not result.ok and result.verdict.startswith("BLIND")


def test_a_fit_that_forgets_its_noise_is_above_its_claim(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Gate._noised

    def quiet(self: Any, exact: Any, release: Any, purpose: str) -> torch.Tensor:
        return real(self, exact, replace(release, noise_multiplier=1e-9), purpose)

    monkeypatch.setattr(Gate, "_noised", quiet)
    result = run(pool, tmp_path, 0.5)
    assert not result.ok and result.verdict.startswith("ABOVE THE CLAIM") and HEADLINE in result.verdict


def test_generated_outsiders_are_noticed(pool: Pool, tmp_path: Path) -> None:
    """The mistake of Gandhi and Viradiya: its non-members were generated images."""
    info = replace(vs.load("digits").info, units=pool.each)
    model = Slots().fit(private_images(pool.candidates[pool.each :], info), vs.Privacy(10.0), seed=0)
    made = model.sample(K, seed=5)
    mixed = make_pool(pool.candidates[: pool.each], made, "generated", targets=K, seed=0, drop_duplicates=True)
    result = run(mixed, tmp_path, 10.0, shadows=4)
    assert not result.ok and result.verdict.startswith("NOT VALID")


# ---------------------------------------------------------------------- pieces


@pytest.mark.parametrize("each", [10, 11])
def test_shadow_models_share_candidates_in_pairs(each: int) -> None:
    inside = halves(each, 6, np.random.default_rng(0))
    assert (inside.sum(1) == each).all() and (inside.sum(0) == 3).all()
    assert (inside[::2] ^ inside[1::2]).all(), "exactly one of a pair has seen a candidate"
    assert (inside[:, :each].sum(1) >= each // 2).all() and (inside[0] != inside[2]).any()


def test_the_control_model_is_trained_on_half_of_the_members_only() -> None:
    inside = control(11, np.random.default_rng(0))
    assert inside[:11].sum() == 5 and not inside[11:].any()


def test_the_leaky_release_holds_the_members_and_no_outsider(pool: Pool) -> None:
    asked = np.arange(2 * pool.each) < pool.each
    released = pool.candidates[:5]
    leaked = with_members(released, pool, asked)
    assert torch.equal(leaked.x[5:], pool.candidates.x[: pool.each]) and leaked.reads_private


def test_calibration_compares_a_record_with_itself() -> None:
    """Records of very different difficulty, all moved a little by training: only calibration sees it."""
    lot = np.random.default_rng(0)
    hard, inside = lot.normal(0, 100, 400), halves(200, 8, lot)
    x = (hard + inside * 1.0 + lot.normal(0, 0.3, inside.shape))[..., None]
    target = (hard + (np.arange(400) < 200) * 1.0 + lot.normal(0, 0.3, 400))[:, None]
    got = attacks(target, Shadows(("feature",), x, inside))
    from veilset.audit.membership.figures import figures

    auc = {k: figures(v[:200], v[200:]).auc for k, v in got.items()}
    assert auc["feature"] < 0.6 and auc["shadow-logistic"] < 0.6
    assert auc["lira"] > 0.95 and auc[HEADLINE] > 0.95


def test_every_candidate_keeps_a_model_that_never_saw_it() -> None:
    lot = np.random.default_rng(0)
    few, enough = halves(200, 4, lot), halves(200, 6, lot)
    x = lot.normal(0, 1, (6, 400, 1)) + 3.0 * enough[..., None]
    assert by_lot(Shadows(("f",), x[:4], few)) == ()
    found = by_lot(Shadows(("f",), x, enough))
    assert len(found) == 6 and min(found) > 0.95
    with pytest.raises(AssertionError, match="nothing to compare with"):
        Shadows(("f",), x[:2], few[:2]).outside_mean(but=0)


def test_the_mean_outside_leaves_out_models_that_saw_the_record() -> None:
    x = np.array([[[1.0]], [[5.0]], [[9.0]], [[2.0]]])
    s = Shadows(("f",), x, np.array([[False], [True], [True], [False]]))
    assert s.outside_mean()[0, 0] == 1.5 and s.outside_mean(but=0)[0, 0] == 2.0
    assert s.without(0, 1).x[:, 0, 0].tolist() == [9.0, 2.0]


# ---------------------------------------------------------------------- who is asked about


def test_an_outsider_that_equals_a_member_is_refused(digits: Images) -> None:
    outsiders = digits[K : 2 * K]
    both = replace(outsiders, x=torch.cat([outsiders.x, digits.x[:2]]), y=torch.cat([outsiders.y, digits.y[:2]]))
    assert duplicates(digits[:K], both).nonzero()[:, 0].tolist() == [K, K + 1]
    with pytest.raises(DataError, match=r"2 of 322 .* equal a member.*--drop-duplicates"):
        make_pool(digits[:K], both, "x", targets=K, seed=0)
    dropped = make_pool(digits[:K], both, "x", targets=K, seed=0, drop_duplicates=True)
    assert dropped.dropped == 2 and not duplicates(digits[:K], dropped.candidates[dropped.each :]).any()


def test_near_duplicates_are_counted_and_kept(digits: Images) -> None:
    outsiders = digits[K : 2 * K]
    before = near_duplicates(digits[:K], outsiders)
    x = outsiders.x.clone()
    x[:3] = (digits.x[:3].int() + 2).clamp(0, 255).to(torch.uint8)
    assert near_duplicates(digits[:K], replace(outsiders, x=x)) == before + 3
    assert make_pool(digits[:K], replace(outsiders, x=x), "x", targets=K, seed=0).near == before + 3


def test_too_few_candidates_are_refused(digits: Images) -> None:
    with pytest.raises(DataError, match=r"candidates = 50 of each kind.*at least 100"):
        make_pool(digits[:K], digits[K : K + 50], "x", targets=K, seed=0)


def test_other_classes_or_shapes_are_refused(digits: Images) -> None:
    other = Images(torch.zeros(200, 1, 9, 9, dtype=torch.uint8), torch.zeros(200, dtype=torch.int64), digits.classes)
    with pytest.raises(DataError, match="outsiders have classes .* members .* must be equal"):
        make_pool(digits[:K], other, "x", targets=K, seed=0)


def test_candidates_are_members_then_outsiders_and_the_rest_is_kept(digits: Images) -> None:
    pool = make_pool(digits[:K], digits[K : 2 * K], "x", targets=200, seed=3, drop_duplicates=True)
    assert pool.each == 200 and len(pool.rest) == K - 200
    assert duplicates(digits[:K], pool.candidates).tolist() == [True] * 200 + [False] * 200
    assert not duplicates(pool.candidates, pool.rest).any()


@pytest.mark.parametrize("shadows", [2, 5])
def test_shadows_come_in_pairs(shadows: int, pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"shadows = {shadows}: must be even and at least 4"):
        against(vs.make("dp-moments"), tmp_path, pool, shadows=shadows, images=10, seed=0)
