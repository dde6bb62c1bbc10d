"""`veilset selftest`: sound code passes, faults show, errors are findings, and receipts tell the last result."""

from __future__ import annotations

import json
import math
from importlib import import_module

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.audit.selftest import base, noise, places, sampling
from veilset.audit.selftest import bounding as bounds
from veilset.audit.selftest import run as module
from veilset.audit.selftest.base import ALARM, MOST, Check, random_check, wrong
from veilset.audit.selftest.run import FAMILY_ERROR, HOMES, THEMES, Selftest, measured, selftest
from veilset.cli.main import main
from veilset.core import facts
from veilset.core.errors import RunError
from veilset.privacy import bounding, normal
from veilset.privacy import sampling as private_sampling
from veilset.privacy.gate import Gate
from veilset.privacy.gradients import clipped
from veilset.privacy.gradients.sheet import Sheet
from veilset.privacy.noise import Keys, Stream
from veilset.runs import RunSpec, execute


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """Results of tests are not this user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def only(monkeypatch, *themes: str) -> None:
    monkeypatch.setattr(module, "THEMES", dict.fromkeys(themes, "what is looked at"))


def failing(checks) -> list[str]:
    return [c.name for c in checks if not c.ok]


# Of these themes the short tests run the quick checks only.
QUICK = {
    "accounting": ("refusals",),
    "chunks": ("neighbours", "shapes", "spoilt", "blanks", "alike"),
    "formulas": ("closed_form", "divergences", "compositions"),
    "methods": ("dp-moments", "dp-merf", "dp-scatter"),
    "places": ("company", "fresh"),
    "noise": ("parts", "independence", "everyone"),
    "sampling": ("whole_units",),
    "searches": ("trials",),
    "words": ("bits",),
}


@pytest.mark.parametrize("theme", QUICK)
def test_the_quick_checks_of_sound_code_pass(theme):
    home = import_module(f"{HOMES.get(theme, 'veilset.audit.selftest')}.{theme}")
    quick = [measure for measure in home.CHECKS if measure.__name__ in QUICK[theme]]
    assert len(quick) == len(QUICK[theme])
    assert not failing(check for measure in quick for check in measure())


# The mechanism audit has tests of its own, and takes as long as all others together.
@pytest.mark.parametrize(
    "theme", [pytest.param(t, marks=pytest.mark.long if t in QUICK else ()) for t in THEMES if t != "mechanism"]
)
def test_sound_code_passes(theme, monkeypatch):
    only(monkeypatch, theme)
    checks = list(measured())
    assert len(checks) >= 5
    assert not failing(checks), [c.to_json() for c in checks if not c.ok]
    assert len({c.name for c in checks}) == len(checks)
    assert all(c.about and math.isfinite(c.statistic) for c in checks)


def test_the_family_error_covers_every_random_check():
    assert MOST * 10**-ALARM <= FAMILY_ERROR
    assert random_check("x", "y", 1.0, 0.5e-8).ok
    assert not random_check("x", "y", 1.0, 0.4e-8).ok  # two p-values share the error
    assert not random_check("x", "y", 1.0, float("nan")).ok
    assert not random_check("x", "y", 0.0).ok


def test_p_values_are_those_of_the_distributions():
    g = torch.Generator().manual_seed(0)
    p = [base.two_sided(float(z)) for z in torch.randn(2000, generator=g)]
    q = [base.chi_square(float(z.square().sum()), 30) for z in torch.randn(2000, 30, generator=g)]
    r = [base.uncorrelated(*z.numpy()) for z in torch.randn(2000, 2, 200, generator=g)]
    for found in (p, q, r):
        assert abs(sum(v < 0.05 for v in found) - 100) < 50
    x = torch.randn(200, generator=g).numpy()
    assert base.uncorrelated(x, x) < 1e-100
    assert base.uncorrelated(x, 0 * x) == 0.0  # a constant is no random sample


def test_what_is_not_a_number_is_no_pass():
    assert not Check("x", float("nan"), 1.0, "").ok
    assert json.loads(json.dumps(Check("x", math.inf, 1.0, "").to_json(), allow_nan=False))["ok"] is False
    assert wrong("x", "y", of={"a": True, "b": False}).to_json() == {
        "name": "x", "statistic": 1.0, "threshold": 0.0, "ok": False, "about": "count: y (wrong: b)"
    }  # fmt: skip


# ---------------------------------------------------------------------- faults in this process


@pytest.mark.long
def test_halved_noise_fails(monkeypatch):
    real = Gate._noised
    quiet = lambda self, exact, release, *a, **k: (real(self, exact, release, *a, **k) + exact.value) / 2  # noqa: E731
    monkeypatch.setattr(Gate, "_noised", quiet)
    assert {"noise scale, sum", "noise scale, grad"} <= set(failing(noise.scale_and_shape()))


@pytest.mark.long
def test_noise_off_by_one_percent_fails(monkeypatch):
    real = Gate._noised
    less = lambda self, exact, *a, **k: exact.value + 0.99 * (real(self, exact, *a, **k) - exact.value)  # noqa: E731
    monkeypatch.setattr(Gate, "_noised", less)
    assert "noise scale, grad" in failing(noise.scale_and_shape())


def test_fixed_batches_fail(monkeypatch):
    def fixed(self, rate, stream, part=None):
        return stream.uint64(self.count).argsort()[: round(rate * self.count)]

    monkeypatch.setattr(private_sampling.Units, "sample", fixed)
    assert any("batch sizes" in name for name in failing(sampling.poisson()))


def test_draws_that_follow_a_records_chunk_fail(monkeypatch):
    real, calls = clipped.shared, [0]

    def other_in_each_chunk(seed, device):
        calls[0] += 1
        return real(seed + calls[0], device)

    monkeypatch.setattr(clipped, "shared", other_in_each_chunk)
    assert failing(places.positions()) == ["one unit anywhere moves a loss that draws by its bound at most"]


def test_shares_that_follow_the_company_fail(monkeypatch):
    real = bounding.clip
    less = lambda v, bound, weight=1.0: real(v, bound, weight) * (1 - 1e-9 * (len(v) % 3))  # noqa: E731
    monkeypatch.setattr(bounding, "clip", less)
    assert failing(places.company()) == ["a record adds the same to a sum in any company"]
    monkeypatch.undo()
    add = Sheet.add_clipped  # behind what is looked at beforehand

    def by_company(self, total, used, bound):  # by more than the float32 of an answer hides
        return add(self, total, used, bound * (1 - 1e-6 * (int(used.sum()) % 3)))

    monkeypatch.setattr(Sheet, "add_clipped", by_company)
    assert failing(places.company()) == ["a record adds the same to a gradient in any company"]


def test_rates_rounded_up_to_a_coarse_grid_fail(monkeypatch):
    real = private_sampling.Units.sample
    coarse = lambda self, rate, stream, part=None: real(self, math.ceil(rate * 2**16) / 2**16, stream, part)  # noqa: E731
    monkeypatch.setattr(private_sampling.Units, "sample", coarse)
    assert failing(sampling.small_rates()) == ["small rates are not rounded"]


def test_noise_divided_among_parts_fails(monkeypatch):
    real = Gate._noised

    def shared_out(self, exact, release, purpose):
        less = exact.sensitivity / (math.sqrt(self.plan.parts) if release.partition else 1.0)
        return real(self, bounding.Bounded(exact.value, less), release, purpose)

    monkeypatch.setattr(Gate, "_noised", shared_out)
    assert failing(noise.parts()) == ["every part has all of the noise, sum", "every part has all of the noise, grad"]


def test_keys_from_torchs_seed_on_another_device_fail(monkeypatch):
    real = Gate.__init__

    def seeded(self, *a, device="cpu", **k):
        real(self, *a, device=device, **k)
        if device != "cpu" and self.mode == "release":
            self._keys = Keys(int(torch.randint(2**62, ())))

    monkeypatch.setattr(Gate, "__init__", seeded)
    assert failing(noise.keys()) == ["keys are the system's on every device"]


@pytest.mark.long
def test_noise_that_ends_somewhere_or_leaves_the_grid_fails(monkeypatch):
    def box_and_muller(self, n, std):
        u = (self.uint64(2 * n) >> np.uint64(11)).astype(float) if n else np.zeros(0)
        z = np.sqrt(-2 * np.log((u[:n] + 1) * 2.0**-53)) * np.cos(2 * np.pi * 2.0**-53 * u[n:])
        return np.round(std * z).astype(np.int64)

    only(monkeypatch, "noise")
    assert failing(noise.tails()) == []
    with monkeypatch.context() as m:
        m.setattr(Stream, "noise", box_and_muller)
        m.setattr(noise, "CHECKS", (noise.tails,))
        assert len(failing(measured())) == 1
    real = Gate._noised
    monkeypatch.setattr(Gate, "_noised", lambda self, *a: real(self, *a) + 0.25)
    assert {"answers lie on the declared grid, sum", "answers lie on the declared grid, grad"} <= set(
        failing(noise.grid_rounding())
    )


def test_draws_that_are_not_fresh_fail(monkeypatch):
    assert failing(places.fresh()) == []
    real = Gate._own
    for shorter in (lambda p: p.rsplit("/", 1)[0], lambda p: "/".join(k for i, k in enumerate(p.split("/")) if i != 4)):
        monkeypatch.setattr(Gate, "_own", lambda self, how, n, p, cut=shorter: real(self, how, n, cut(p)))
        assert failing(places.fresh()) == ["draws of a record's own are fresh"]
    monkeypatch.setattr(Gate, "_own", lambda self, how, n, p: torch.randn(n, *how))
    assert failing(places.fresh()) == ["draws of a record's own are fresh"]


def test_noise_whose_cells_or_signs_are_wrong_fails(monkeypatch):
    assert failing(noise.cells()) == []
    monkeypatch.setattr(normal.Law, "_below", lambda self, bits, cell, *rest: np.ones(len(cell), bool))
    assert failing(noise.cells()) == ["noise is right within cells"]
    monkeypatch.undo()
    monkeypatch.setattr(normal, "PLACE", 41)
    assert failing(noise.cells()) == ["signs tell nothing of the rest"]


def test_an_error_is_a_finding_and_the_other_checks_go_on(monkeypatch):
    only(monkeypatch, "bounding")
    monkeypatch.setattr(bounding.ExactSum, "total", lambda self: 1 / 0)
    found = list(measured())
    assert failing(found) == [c.name for c in found]
    assert len(found) == 4 and all("ZeroDivisionError" in c.about for c in found)
    only(monkeypatch, "no_such_theme")
    assert failing(measured()) == ["no_such_theme"]


def test_the_users_settings_are_put_back(monkeypatch):
    only(monkeypatch, "gradients")
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    list(measured())
    assert torch.get_num_threads() == threads
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------- what is shown


def test_a_part_is_a_quick_look_of_which_only_a_fault_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(bounds, "CHECKS", (bounds.sums,))
    assert main(["selftest", "--theme", "bounding", "--theme", "books", "--theme", "books"]) == 0
    out, err = capsys.readouterr()
    assert "NO FAULT in bounding, books, a part of the self-test: 7 checks hold." in out
    assert err.split(" ...\n") == ["bounding", "books", ""] and facts.selftest() is None
    monkeypatch.setattr(bounding, "MARGIN", -0.5)
    assert main(["selftest", "--theme", "bounding"]) == 1
    assert "NOT SOUND: " in capsys.readouterr().out
    assert facts.selftest()["ok"] is False
    assert main(["selftest", "--theme", "bookz"]) == 2
    assert "theme 'bookz' is unknown. Did you mean 'books'?" in capsys.readouterr().err


def test_help_says_what_each_theme_checks(capsys):
    with pytest.raises(SystemExit):
        main(["selftest", "--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.partition("themes:\n")[2].splitlines()]
    assert [name for name, _ in lines] == list(THEMES)
    assert all(12 < len(what) < 90 for _, what in lines)


def test_the_command(monkeypatch, capsys):
    only(monkeypatch, "bounding")
    monkeypatch.setattr(bounds, "CHECKS", (bounds.sums,))  # the quickest that the fault below shows in
    assert main(["selftest", "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["ok"] is True and said["kept"] is True and not err
    assert {"name", "statistic", "threshold", "ok"} <= set(said["checks"][0])
    assert main(["selftest"]) == 0
    out, err = capsys.readouterr()
    assert "SOUND: " in out and "bounding" in err
    monkeypatch.setattr(bounding, "MARGIN", -0.5)
    assert main(["selftest"]) == 1
    assert "NOT SOUND: " in capsys.readouterr().out
    assert main(["selftest", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_nothing_measured_is_no_pass():
    assert not Selftest([], 0.0).ok


def test_receipts_show_the_last_result_of_this_code(monkeypatch, tmp_path):
    only(monkeypatch, "folders")
    assert facts.selftest() is None
    count = len(selftest().checks)
    assert facts.selftest() == {"ok": True, "checks": count, "code": facts.code()}
    facts.keep_selftest(False, count)
    assert facts.selftest() == {"ok": False, "checks": count, "code": facts.code()}
    with monkeypatch.context() as m:
        m.setattr(facts, "code", lambda: "other code")
        assert facts.selftest() is None
    for raw in ("{}", "not JSON", "[1]"):
        facts._selftest_file().write_text(raw)
        assert facts.selftest() is None
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert facts.selftest() is None
    done = selftest()
    assert done.ok and not done.kept
    assert "could not be kept" in str(done)


@pytest.mark.parametrize("ok", [True, False])
def test_a_receipt_carries_the_result_and_verifies_with_and_without_it(ok, tmp_path):
    from veilset.audit.selftest.books import _read, _release, _say
    from veilset.privacy.receipt import read_receipt, verify

    bare = _release(tmp_path / "bare")
    facts.keep_selftest(ok, 72)
    told = _release(tmp_path / "told")
    assert _read(bare)["selftest"] is None and "checks hold" not in str(read_receipt(bare))
    assert _read(told)["selftest"] == {"ok": ok, "checks": 72, "code": facts.code()}
    assert ("72 checks hold" if ok else "FAILED") in str(read_receipt(told))
    assert verify(bare).ok and verify(told).ok
    said = _read(bare)
    del said["selftest"]  # as an earlier version wrote it
    (bare / "receipt.json").write_text(json.dumps(said))
    _say(bare)
    assert "selftest" not in _read(bare) and verify(bare).ok and verify(bare).release


def test_after_a_failure_nothing_is_released(monkeypatch, tmp_path):
    only(monkeypatch, "folders")
    fit = ["fit", "dp-merf", "--data", "digits", "--epsilon", "1", "--steps", "2", "--frequencies", "20"]
    facts.keep_selftest(False, 3)
    with pytest.raises(RunError, match="self-test = FAILED"):
        execute(RunSpec(method="dp-merf", data="digits", epsilon=1.0, params={"frequencies": 20}), tmp_path / "run")
    assert main([*fit, "--out", str(tmp_path / "run")]) != 0
    assert main(["tune", *fit[1:-1], "20,40", "--out", str(tmp_path / "run")]) != 0
    with pytest.raises(RunError, match="self-test = FAILED"):
        vs.make("dp-moments").fit(vs.load("digits").train, vs.Privacy(1.0))
    assert not (tmp_path / "run").exists()
    assert main([*fit, "--out", str(tmp_path / "seeded"), "--seed", "0"]) == 0, "no release"
    assert selftest().ok
    assert main([*fit, "--out", str(tmp_path / "run")]) == 0
