"""detail: bands that add up, histograms of bounded influence, and curves that bring drawn images to them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.methods.moments import texture
from veilset.privacy.private import from_arrays

INFO = vs.PublicInfo(name="x", classes=("a", "b"), shape=(1, 16, 16), units=40_000)


def _blocks(n: int) -> torch.Tensor:
    """Images of sharp edges on black ground."""
    x = torch.zeros(n, 1, 16, 16)
    for i, (top, left, size) in enumerate(torch.randint(1, 8, (n, 3)).tolist()):
        x[i, :, top : top + size, left : left + size] = 0.4 + 0.6 * torch.rand(())
    return x


def test_rest_and_bands_add_up_and_bands_stay_in_their_range() -> None:
    x = (torch.rand(5, 3, 16, 20) > 0.5).float()
    rest, bands = texture.split(x, texture.SCALES)
    assert torch.allclose(rest + sum(bands), x, atol=1e-6)
    assert len(bands) == 9 and max(float(b.abs().max()) for b in bands) <= 0.5
    assert all(float(b.abs().max()) < 1e-6 for b in texture.split(torch.full((1, 1, 9, 9), 0.3), (1, 2))[1])


@pytest.mark.parametrize("band", [False, True])
def test_a_table_of_no_change_changes_nothing(band: bool) -> None:
    own = torch.rand(texture.CELLS) + 0.01
    curve = texture._curve(own / own.sum(), own / own.sum())
    v = torch.linspace(0, 1, 500) - (0.5 if band else 0)
    assert float((texture._through(v, texture._table(curve, band), band) - v).abs().max()) < 1e-3


def test_one_image_changes_the_histograms_by_no_more_than_their_bound() -> None:
    """Of any image, the sum of squares is at most one a histogram; an empty image reaches it."""
    asked = {}

    class Gate:
        @staticmethod
        def deviation(name):
            return texture.release(INFO).bound

        def sum(self, name, f):
            asked[name] = f
            return torch.zeros(11, texture.CELLS, dtype=torch.float64)

    texture.measure(Gate(), INFO)
    for x in (torch.zeros(1, 16, 16), torch.rand(1, 16, 16), torch.ones(1, 16, 16)):
        value = asked["detail"](x, torch.tensor(0))
        assert torch.allclose(value.sum(1), torch.ones(11), atol=1e-5)
        assert float(value.norm()) <= texture.release(INFO).bound + 1e-5
    assert float(asked["detail"](torch.zeros(1, 16, 16), torch.tensor(0)).norm()) == pytest.approx(math.sqrt(11))


def test_how_many_images_are_changed_at_a_time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, curves = torch.rand(7, 1, 16, 16), texture.learn(_histograms(_blocks(50)), torch.rand(50, 1, 16, 16), INFO)
    together = texture.apply(curves, soft, INFO)
    for images in (0, 1, 3):
        monkeypatch.setattr(texture, "PART", images * INFO.pixels)
        assert torch.equal(texture.apply(curves, soft, INFO), together)


def test_drawn_images_get_the_histograms_of_private_ones() -> None:
    torch.manual_seed(0)
    real, other = _blocks(400), _blocks(400)
    soft = torch.nn.functional.avg_pool2d(other, 3, 1, 1) + 0.05 * torch.rand(400, 1, 16, 16)
    wanted = _histograms(real)
    curves = texture.learn(wanted, soft[:300], INFO)
    after = texture.apply(curves, soft[300:], INFO)
    assert curves.shape == (texture.ROUNDS, 11, texture.CELLS)
    assert float(after.min()) >= 0 and float(after.max()) <= 1
    apart = [(_histograms(x) - _histograms(real[:100])).abs().sum(1) / 2 for x in (soft[300:], after)]
    assert float(apart[0].mean()) > 0.4 and float(apart[1].mean()) < 0.5 * float(apart[0].mean())
    assert float((after * 255 < 0.5).float().mean()) > 0.5, "the ground is black again"


def _histograms(x: torch.Tensor) -> torch.Tensor:
    signed = [texture._relative(x)[0], *texture.split(x, texture.SCALES)[1]]
    return torch.stack([texture._histogram(x, False), *(texture._histogram(v, True) for v in signed)])


def test_ink_and_paper_of_other_greys_in_each_image_stay_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """One curve for all images cannot tell ink from paper where both vary; relative pixels can."""
    torch.manual_seed(0)
    paper, ink = 0.4 * torch.rand(800, 1, 1, 1), 0.6 + 0.4 * torch.rand(800, 1, 1, 1)
    real = paper + (_blocks(800) > 0) * (ink - paper)
    soft = torch.nn.functional.avg_pool2d(real[400:], 5, 1, 2)
    wanted = _histograms(real[:400])
    after = texture.apply(texture.learn(wanted, soft[:300], INFO), soft[300:], INFO)
    monkeypatch.setattr(texture, "_redrawn", lambda x, curve: x)
    without = texture.apply(texture.learn(wanted, soft[:300], INFO), soft[300:], INFO)

    def two(x: torch.Tensor) -> float:
        """The share of pixels that are nearly their image's darkest or lightest."""
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        place = (x - low) / (high - low)
        return float(((place < 0.15) | (place > 0.85)).float().mean())

    assert two(real) == 1 and two(soft[300:]) < 0.5
    assert two(after) > 0.8 > two(without) + 0.1, (two(after), two(without))


def test_it_is_left_out_where_noise_would_drown_it_and_the_plan_says_so() -> None:
    few, many = (vs.PublicInfo(name="x", classes=("a", "b"), shape=(1, 16, 16), units=n) for n in (2000, 60_000))
    for info, there in ((few, False), (many, True)):
        plan = vs.make("taught-moments", selection=False).plan(info, vs.Privacy(1.0))
        assert ("detail" in [r.name for r in plan.releases]) is there
        assert [w.startswith("release 'detail' is left out") for w in plan.warnings] == ([] if there else [True])
    need = int(re.search(r"needs about (\d+) units, and 2000", said(few)).group(1))
    for units, there in ((need - 100, False), (need, True)):
        assert ("left out" in said(replace(few, units=units))) is not there, "the number that is said is the rule"
    plan = vs.make("taught-moments", recipe="plain").plan(few, vs.Privacy(1.0))
    assert "detail" not in [r.name for r in plan.releases] and not plan.warnings
    tiny = vs.PublicInfo(name="x", classes=("a", "b"), shape=(1, 2, 9), units=60_000)
    assert texture.least(tiny, vs.Privacy(10.0), 0.5) == math.inf


def said(info: vs.PublicInfo) -> str:
    """The warnings of a plan at epsilon 1."""
    return " ".join(vs.make("taught-moments", selection=False).plan(info, vs.Privacy(1.0)).warnings)


@pytest.mark.long
def test_a_run_with_detail_releases_sharp_images_on_black() -> None:
    torch.manual_seed(0)
    x, y = (_blocks(1200)[:, :, :16] * 255).to(torch.uint8).numpy(), np.arange(1200) % 2
    info = vs.PublicInfo(name="blocks", classes=("a", "b"), shape=(1, 16, 16), units=1200)
    sharp, soft = (
        vs.make("taught-moments", texture=on, selection=False, steps=5).fit(  # labels play no part
            from_arrays(info, x, y), vs.Privacy(float("inf")), seed=0
        )
        for on in (True, False)
    )
    black = [float((m.sample(200, seed=0).x == 0).float().mean()) for m in (sharp, soft)]
    assert black[0] == pytest.approx((x == 0).mean(), abs=0.03) and black[1] < black[0] - 0.1
