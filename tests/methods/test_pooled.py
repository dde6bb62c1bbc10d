"""The pooled rival: two sums whatever the classes, means and a common covariance found, nothing finer than its grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import veilset as vs
from veilset.methods.moments.pooled import grid

INFO = vs.PublicInfo(name="bars", classes=("left", "right"), shape=(1, 16, 16), units=400)


def _bars() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(400) % 2
    light = torch.randint(-40, 40, (400, 1, 1, 1), generator=torch.Generator().manual_seed(0))
    x = torch.full((400, 1, 16, 16), 100) + light
    x[y == 0, :, :, :8] += 60
    return x.to(torch.uint8), y


def test_it_finds_means_and_the_common_spread_on_its_grid(tmp_path: Path) -> None:
    x, y = _bars()
    np.savez(tmp_path / "bars.npz", x=x.numpy(), y=np.array(INFO.classes)[y.numpy()])
    facts = 'name = "bars"\nclasses = ["left", "right"]\nshape = [1, 16, 16]\nvalue_range = [0.0, 255.0]\nunits = 400\n'
    (tmp_path / "bars.veilset.toml").write_text(facts + "confirmed = true\n")
    method = vs.make("dp-moments", recipe="pooled")
    model = method.fit(vs.load(tmp_path / "bars.npz").train, vs.Privacy(float("inf")), seed=0)
    assert [r.name for r in method.plan(INFO, vs.Privacy(1.0)).releases] == ["mean", "within"]
    drawn = model.sample(400, seed=0).x.float()
    assert abs(drawn[::2].mean((0, 1)) - x[y == 0].float().mean((0, 1))).max() < 12
    assert abs(drawn[::2].mean((1, 2, 3)).std() - x[y == 0].float().mean((1, 2, 3)).std()) < 4
    assert torch.equal(drawn[..., ::2, ::2], drawn[..., 1::2, 1::2]), "nothing is finer than the grid"


def test_rows_of_the_grid_are_orthonormal_for_any_size() -> None:
    for shape in ((1, 8, 8), (3, 20, 25), (1, 1, 1)):
        rows = grid(shape)
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
