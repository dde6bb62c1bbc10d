"""The private reference: what it costs, that its noise is what it says, that figures and error bars are right."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from veilset.core.errors import BudgetExceeded, ConfigError, DataError, ModeError, RunError
from veilset.core.types import Images, PublicInfo
from veilset.evaluation.against_reference import compare, figures
from veilset.evaluation.reference import (
    PLAN,
    Reference,
    describe,
    make_reference,
    open_reference,
    reference_plan,
    with_products,
)
from veilset.privacy import accounting, session
from veilset.privacy import plan as plan_module
from veilset.privacy.account import Account
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy


def private(images: Images, units: int | None = None) -> PrivateImages:
    shape = (int(images.x.shape[1]), int(images.x.shape[2]), int(images.x.shape[3]))
    info = PublicInfo(name="digits", classes=images.classes, shape=shape, units=units or len(images))
    return from_arrays(info, images.x.numpy(), images.y.numpy().astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Images) -> Path:
    out = tmp_path_factory.mktemp("reference") / "ref"
    make_reference(private(digits[:1000]), Privacy(4.0), out)
    return out


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return open_reference(folder)


def exact(digits: Images, out: Path) -> Reference:
    """Hardly any noise, less than may be planned: what the figures are in the limit."""
    with ExitStack() as stack:
        for module, name, value in (
            (accounting, "LARGEST", 1e7),
            (plan_module, "LARGEST", 1e7),
            (accounting, "SAMPLER_BITS", 1e8),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        return make_reference(private(digits), Privacy(1e6), out, seed=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (1, 64, 64)])
def test_no_record_can_exceed_its_bound(shape: tuple[int, int, int]) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, *shape), generator=rng).float()
    x[0], x[1] = 0, 255
    x[2, :, ::2] = 255  # stripes: the largest energies
    embedded, z = describe(x)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(40, dtype=torch.float64), atol=1e-9)
    assert float(with_products(z).norm(dim=1).max()) <= 1 + 1e-12
    assert z.shape[1] == 4 * shape[0] + 12


def test_products_have_the_norm_of_the_whole_matrix() -> None:
    z = torch.rand(5, 4, dtype=torch.float64)
    v = with_products(z) * math.sqrt(2)
    expected = z.square().sum(1) + torch.einsum("ni,nj->nij", z, z).square().sum((1, 2))
    assert torch.allclose(v.square().sum(1), expected)


def test_costs_the_budget_and_verifies_as_a_release(folder: Path, reference: Reference) -> None:
    checked = verify(folder)
    assert checked.ok and checked.release
    assert checked.epsilon == pytest.approx(4.0, rel=1e-6) and checked.epsilon <= 4.0 * (1 + 1e-9)
    plan = reference_plan(reference.info, Privacy(4.0))
    assert reference.noise == {r.name: pytest.approx(plan[r.name].noise_multiplier * r.bound) for r in PLAN}
    listed = {p.name for p in folder.iterdir()}
    assert listed == {
        "reference.safetensors",
        "reference.json",
        "ledger.jsonl",
        "receipt.json",
        "SHA256SUMS",
        "private",
    }


@pytest.mark.long
def test_its_noise_is_what_it_says(digits: Images, tmp_path: Path) -> None:
    """Two references of the same records differ by their noise alone: chi-squared of 5,120, and of 152, differences."""
    a, b = (make_reference(private(digits), Privacy(2.0), tmp_path / name) for name in "ab")
    for name in ("embedding", "moments"):
        gap = getattr(a, name) - getattr(b, name)
        ratio = float(gap.square().mean()) / (2 * a.noise[name] ** 2)
        assert abs(ratio - 1) < 5 * math.sqrt(2 / gap.numel())
    assert float((a.labels - b.labels).abs().max()) < 8 * a.noise["labels"]
    counts = digits.y.bincount(minlength=10)
    assert float((a.labels - counts).abs().max()) < 6 * a.noise["labels"]


def test_exact_sums_give_the_textbook_figures(digits: Images, tmp_path: Path) -> None:
    from veilset.evaluation.distances import frechet

    ref, other = exact(digits[:900], tmp_path / "r"), digits[900:]
    found = figures(other, ref)
    e, z = describe(digits.x)
    distances = []
    for k in range(10):
        p, q = e[:900][digits.y[:900] == k], e[900:][other.y == k]
        n, m = len(p), len(q)
        # unbiased estimate, all pairs written out (Gretton et al. 2012, equation 3)
        pp, qq = (p @ p.T).sum() - n, (q @ q.T).sum() - m
        distances.append(float(pp / (n * (n - 1)) + qq / (m * (m - 1)) - 2 * (p @ q.T).mean()))
    assert found["ref-mmd"][0] == pytest.approx(1000 * np.mean(distances), abs=0.01)
    p, q = z[:900], z[900:]
    textbook = 160.0**2 * frechet(q.mean(0), q.T.cov(), p.mean(0), p.T.cov(correction=0))
    value, error = found["ref-fd"]
    assert value == pytest.approx(textbook, abs=4 * error) and error < 0.1  # the noise that is left moves it by so much
    shares = [digits.y[part].bincount(minlength=10).double() for part in (slice(900), slice(900, None))]
    total_variation = 50 * float((shares[0] / 900 - shares[1] / len(other)).abs().sum())
    assert found["ref-labels"][0] == pytest.approx(total_variation, abs=0.01)
    assert max(sd for _, sd in found.values()) < 1.0


@pytest.mark.parametrize("far", [True, pytest.param(False, marks=pytest.mark.long)])
def test_error_bars_cover_and_noise_does_not_shift(digits: Images, tmp_path: Path, far: bool) -> None:
    """8 references: the mean lies at the figure without noise, and the stated deviation is near the seen one."""
    clean = exact(digits[:1200], tmp_path / "clean")
    images = replace(digits[1200:], x=255 - digits[1200:].x, y=digits.y[1200:] // 2) if far else digits[:1200]
    truth = figures(images, clean)
    small = reference_plan(clean.info, Privacy(8.0))
    rng = torch.Generator().manual_seed(1)
    seen: dict[str, list[tuple[float, float]]] = {}
    for _ in range(8):
        sums = {}
        for r in PLAN:
            t = getattr(clean, r.name)
            sums[r.name] = t + small[r.name].noise_multiplier * torch.randn(t.shape, generator=rng, dtype=t.dtype)
        noisy = replace(clean, **sums, noise={r.name: small[r.name].noise_multiplier for r in PLAN})
        for name, figure in figures(images, noisy).items():
            seen.setdefault(name, []).append(figure)
    for name, rows in seen.items():
        values, said = np.array(rows).T
        spread = values.std(ddof=1)
        assert 0.5 < said.mean() / spread < (2 if far else 3), name
        # labels and Frechet distances are not linear in the noise: their bias is mended to within their deviation
        allowed = 4 / math.sqrt(len(values)) + (0 if name == "ref-mmd" else 0.7)
        assert abs(values.mean() - truth[name][0]) < allowed * spread, (name, far)


def test_better_images_score_better(digits: Images, reference: Reference) -> None:
    rest = digits[1000:]
    blurred = replace(rest, x=(rest.x // 64) * 64)
    wrong = replace(rest, y=(rest.y + 1) % 10)
    good, bad, swapped = (figures(i, reference) for i in (rest, blurred, wrong))
    assert abs(good["ref-mmd"][0]) < 4 * good["ref-mmd"][1] + 5
    assert bad["ref-mmd"][0] > good["ref-mmd"][0] + 5
    assert swapped["ref-mmd"][0] > 100  # labels count: each class is compared with its own
    assert swapped["ref-fd"] == good["ref-fd"]


def test_scores_say_noise_seeds_and_what_was_paid(digits: Images, reference: Reference) -> None:
    def draw(seed: int) -> Images:
        return digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))[:300]]

    scores = compare(draw, reference, seeds=3)
    assert [m.name for m in scores] == ["ref-mmd", "ref-fd", "ref-labels"]
    for m in scores:
        assert m.seeds == 3 and m.spread and m.detail["noise_sd"] > 0 and not m.reads_private
        assert m.detail["reference"]["epsilon"] == pytest.approx(4.0, rel=1e-6)
    json.dumps(scores.to_json(), allow_nan=False)
    fixed = compare(digits, reference, seeds=3)
    assert all(m.seeds == 1 and m.spread is None for m in fixed)


def test_a_research_reference_is_no_release(digits: Images, tmp_path: Path) -> None:
    made = make_reference(private(digits[:200]), Privacy(2.0), tmp_path / "r", seed=3)
    assert made.receipt.facts["stamp"].startswith("NOT A RELEASE")
    assert all(m.reads_private for m in compare(digits, made))
    again = make_reference(private(digits[:200]), Privacy(2.0), tmp_path / "again", seed=3)
    assert torch.equal(made.embedding, again.embedding) and torch.equal(made.moments, again.moments)


def test_a_patient_counts_once(digits: Images, tmp_path: Path) -> None:
    """Doubling every image of its unit changes no sum but by rounding."""
    x, y = digits.x[:200].numpy(), digits.y[:200].numpy().astype(np.uint8)
    info = PublicInfo(
        name="d", classes=digits.classes, shape=(1, 8, 8), units=200, unit="one patient", max_images_per_unit=2
    )
    one = from_arrays(info, x, y, np.arange(200))
    two = from_arrays(info, x.repeat(2, 0), y.repeat(2), np.arange(200).repeat(2))
    a, b = (make_reference(d, Privacy(3.0), tmp_path / n, seed=1) for d, n in ((one, "a"), (two, "b")))
    for name in ("embedding", "moments", "labels"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-6)


@pytest.mark.long
def test_draws_from_the_account_and_is_refused_when_it_is_spent(digits: Images, tmp_path: Path) -> None:
    data, account = private(digits), Account(tmp_path / "account")
    account.create(data.info, Privacy(1.0))
    make_reference(data, Privacy(0.3), tmp_path / "one", account=account)
    spent = account.balance().share
    assert 0 < spent < 1
    with pytest.raises(BudgetExceeded, match="nothing was drawn"):
        make_reference(data, Privacy(1.0), tmp_path / "two", account=account)
    assert account.balance().share == spent and not (tmp_path / "two").exists()


def test_what_was_paid_for_is_not_lost_when_it_is_interrupted(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(session, "write_release", dies)
        with pytest.raises(KeyboardInterrupt):
            make_reference(private(digits[:200]), Privacy(2.0), out)
    before = (out / "ledger.jsonl").read_bytes()
    assert before.count(b'"kind":"charge"') == 3
    with pytest.raises(RunError, match="--resume"):
        make_reference(private(digits[:200]), Privacy(2.0), out)
    make_reference(private(digits[:200]), Privacy(2.0), out, resume=True)
    assert (out / "ledger.jsonl").read_bytes().count(b'"kind":"charge"') == 3 and verify(out).ok


def test_a_failure_before_the_first_charge_leaves_nothing(digits: Images, tmp_path: Path) -> None:
    few = private(digits, units=100)  # seventeen times as many as declared
    with pytest.raises(DataError, match="declare the number of units"):
        make_reference(few, Privacy(2.0, 1e-5), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_refuses_what_is_no_reference_of_this_set(
    digits: Images, folder: Path, reference: Reference, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="exists"):
        make_reference(private(digits), Privacy(2.0), tmp_path)
    with pytest.raises(RunError, match="is finished"):
        make_reference(private(digits[:1000]), Privacy(4.0), folder, resume=True)
    with pytest.raises(RunError, match="nothing was begun"):
        make_reference(private(digits), Privacy(2.0), tmp_path / "new", resume=True)
    with pytest.raises(ConfigError, match="finite budget"):
        make_reference(private(digits), Privacy(math.inf), tmp_path / "new")
    with pytest.raises(RunError, match="no such file"):
        open_reference(tmp_path)
    for damage in ("reference.safetensors", "ledger.jsonl"):
        copy = Path(shutil.copytree(folder, tmp_path / damage))
        raw = (copy / damage).read_bytes()
        (copy / damage).write_bytes(raw[:-9])
        with pytest.raises(RunError, match="does not verify"):
            open_reference(copy)
    other = replace(digits, classes=tuple("abcdefghij"))
    with pytest.raises(DataError, match="must be equal"):
        compare(other, reference)
    with pytest.raises(DataError, match="at least 2"):
        compare(digits[:1], reference)
    with pytest.raises(DataError, match="fewer than two"):
        compare(digits[torch.tensor([int((digits.y == k).nonzero()[0]) for k in range(10)])], reference)
    with pytest.raises(ConfigError, match="seeds"):
        compare(digits, reference, seeds=0)
    with pytest.raises(ModeError, match="open images"):
        compare(private(digits), reference)  # type: ignore[arg-type]


def test_a_class_that_is_missing_is_left_out_of_the_kernel_distance_only(digits: Images, reference: Reference) -> None:
    some = digits[digits.y != 3]
    found = figures(some, reference)
    assert math.isfinite(found["ref-mmd"][0]) and found["ref-labels"][0] > 5


@pytest.mark.parametrize("name", ["embedding", "moments", "labels"])
def test_sums_of_another_shape_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """A stranger can make list, receipt and seal fit whatever tensors lie there."""
    import json

    from safetensors.torch import load_file, save_file

    from veilset.core.io import canonical, sha256
    from veilset.core.listing import write_list

    copy = Path(shutil.copytree(folder, tmp_path / "ref"))
    save_file(load_file(copy / "reference.safetensors") | {name: torch.ones(3, 3)}, copy / "reference.safetensors")
    count, digest = write_list(copy)
    facts = json.loads((copy / "receipt.json").read_text()) | {"files": count, "files_sha256": digest}
    facts["seal"] = sha256(canonical({k: v for k, v in facts.items() if k != "seal"}))
    (copy / "receipt.json").write_text(json.dumps(facts))
    assert verify(copy).ok
    with pytest.raises(RunError, match=f"not a whole reference .*{name} is"):
        open_reference(copy)
