"""Quiet faults of sums over chunks, and of what a release may hold: tests/faults has one patch for each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sets import facts, gate_for, pictures, pixels, private
from test_planted_draws import exact, few

from veilset.privacy.gate import Gate
from veilset.privacy.gradients.sheet import Sheet
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays
from veilset.privacy.receipt import make_receipt, verify, write_release


def of_people(images: int, people: int = 12):
    """A set of people with so many images each, and its facts."""
    info = facts(units=people, unit="one person", max_images_per_unit=images, value_range=(0.0, 1.0))
    x = pictures(images * people, info)[0].astype(np.float32) / 255
    return info, x, np.zeros(len(x), np.int64), np.repeat(np.arange(people), images)


def clipped_means(gate: Gate) -> torch.Tensor:
    w = {"w": torch.zeros(16, dtype=torch.float64)}
    return gate.grad("r", lambda p, x, y: (p["w"] * (x.flatten() - 0.3)).sum(), w)["w"] * gate.info.units


@pytest.mark.parametrize("images", [3, 7])
def test_it_makes_no_difference_where_a_chunk_ends(images, monkeypatch):
    info, x, y, units = of_people(images)
    v = (x.reshape(12, images, 16).astype(np.float64) - np.float32(0.3)).mean(1)
    for bound in (0.2, 0.8, 5.0):
        norm = np.linalg.norm(v, axis=1, keepdims=True)
        wanted = torch.from_numpy((v * np.minimum(1, bound / norm)).sum(0))
        for rows in (1, 2, 3, 5, 64):
            few(monkeypatch, rows)
            gate = exact(from_arrays(info, x, y, units), Release(name="r", verb="grad", bound=bound))
            assert float((clipped_means(gate) - wanted).norm()) < 1e-5 * 12


@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_a_unit_over_many_chunks_moves_an_answer_by_its_bound_at_most(verb, rows, monkeypatch):
    """With images that agree, so that all of them push one way."""
    few(monkeypatch, rows)
    info = facts(units=6, unit="one person", max_images_per_unit=5, value_range=(0.0, 1.0))
    n = np.array([1, 2, 5, 3, 4, 5])
    units = np.repeat(np.arange(6), n)
    x = np.ones((len(units), 1, 4, 4), np.float32)

    def answer(kept):
        data = from_arrays(info, x[kept], np.zeros(int(kept.sum()), np.int64), units[kept])
        gate = exact(data, Release(name="r", verb=verb, bound=0.5))
        if verb == "sum":
            return gate.sum("r", pixels)
        w = {"w": torch.zeros(16, dtype=torch.float64)}
        return gate.grad("r", lambda p, x, y: (p["w"] * x.flatten()).sum(), w)["w"] * info.units

    everybody = answer(units >= 0)
    for u in range(6):
        assert 0.49 < float((everybody - answer(units != u)).norm()) <= 0.5


@pytest.mark.parametrize("form", ["explicit", "outer", "gram"])
def test_clipped_rows_are_added_in_float64(form):
    """Rows of alike size that float32 would add up with errors of 1e-6."""
    n, i, o, g = 300, 40, 50, torch.Generator().manual_seed(0)
    a, b = (
        torch.rand(n, 1 if form == "outer" else 3, i, generator=g),
        torch.rand(n, 1 if form == "outer" else 3, o, generator=g),
    )
    sheet = Sheet(n, {"w": torch.Size([o, i])})
    if form == "explicit":
        sheet.add("w", torch.bmm(b.transpose(1, 2), a))
        rows = sheet.rows().double()
    else:
        sheet.product("w", a, b)
        assert "w" in sheet.factored
        rows = torch.bmm(b.double().transpose(1, 2), a.double()).flatten(1)
    share = torch.linspace(0.1, 1, n, dtype=torch.float64) / 3
    wanted = share @ rows
    got = sheet._weighted("w", share).flatten()
    assert got.dtype == torch.float64 and float((got - wanted).norm() / wanted.norm()) < 1e-13


@pytest.mark.parametrize(("i", "o"), [(30, 40), (3000, 2500)])
def test_norms_of_products_hold_what_rounding_may_hide(i, o):
    """Positions that cancel: each entry of a gram form is a sum of so many float32 terms, and may be off by them."""
    a, g = torch.rand(4, 2, i), torch.rand(4, 2, o)
    a[:, 1], g[:, 1] = a[:, 0], -g[:, 0]
    sheet = Sheet(4, {"w": torch.Size([o, i])})
    sheet.product("w", a, g)
    assert "w" in sheet.factored
    size = (a.double().norm(dim=2) * g.double().norm(dim=2)).sum(1)
    hidden = max(1e-4, (i + o) * 2.0**-24)
    assert bool((sheet.norms() >= math.sqrt(hidden) * size * (1 - 1e-3)).all())


# ---------------------------------------------------------------------- releases


@pytest.fixture
def release(tmp_path):
    """A small release that verifies."""
    gate = gate_for(private(), Release(name="a"), seed=None)
    gate.sum("a", pixels)
    ledger, home = gate.close(), tmp_path / "r"
    home.mkdir()
    (home / "labels.csv").write_text("file,label\n")
    write_release(home, make_receipt(ledger, gate.plan, "tester", {}), ledger.to_bytes())
    assert verify(home).release
    return home


def test_a_release_with_a_private_folder_is_not_verified(release):
    (release / "private").mkdir()
    (release / "private" / "raw.npy").write_bytes(b"0")
    got = verify(release)
    assert not got.ok and not got.release and "private" in got.checks[-1]["detail"]


@pytest.mark.parametrize("name", ["labels.csv", "ledger.jsonl", "receipt.json", "SHA256SUMS"])
def test_a_file_that_is_a_link_is_not_verified(release, name):
    """Though the file that it leads to is the right one, today."""
    (release / name).rename(release.parent / name)
    (release / name).symlink_to(release.parent / name)
    got = verify(release)
    assert not got.ok and not got.release and f"{name} is a link" in got.checks[-1]["detail"]


def test_a_private_folder_that_is_a_link_is_not_verified(release):
    (release.parent / "away").mkdir()
    (release / "private").symlink_to(release.parent / "away")
    got = verify(release)
    assert not got.ok and "private is a link" in got.checks[-1]["detail"]
