"""Features in front of the gate: one record each, computed once, in memory only, and gone with the gate."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from sets import facts, gate_for, pictures, private
from torch import nn

from veilset.privacy import features
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays

STEP = Release(name="step", verb="grad", sample_rate=0.5, steps=4)


def doubled(x: torch.Tensor) -> torch.Tensor:
    """A map whose value has another shape and a smaller type."""
    return torch.cat([x.flatten(), x.flatten().square()]).half()


def loss(net, z, y):
    return nn.functional.cross_entropy(net(z[None]), y[None])


def loss_of_the_map(net, x, y):
    return loss(net, doubled(x).float(), y)


def linear() -> nn.Linear:
    net = nn.Linear(32, 3)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    return net


def answers(gate, loss, **how) -> torch.Tensor:
    net = linear()
    return torch.stack([gate.grad("step", loss, net, **how)["weight"] for _ in range(4)])


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "computed anew"])
def test_a_map_in_front_gives_what_the_same_map_inside_the_loss_gives(kept, monkeypatch) -> None:
    if not kept:
        monkeypatch.setattr(features, "MOST", 0)
    got = answers(gate_for(private(), STEP), loss, features=doubled)
    inside = answers(gate_for(private(), STEP), loss_of_the_map)
    assert float((got - inside).norm()) < 1e-6 * float(inside.norm())


def test_images_of_one_unit_are_averaged_and_clipped_once() -> None:
    info = facts(unit="one person", max_images_per_unit=3)
    x, y = pictures(50, info)
    data = from_arrays(info, x, y, np.arange(50) // 2)
    got = answers(gate_for(data, STEP), loss, features=doubled)
    inside = answers(gate_for(data, STEP), loss_of_the_map)
    assert float((got - inside).norm()) < 1e-6 * float(inside.norm())


class Counting(torch.autograd.Function):
    """x as a row; notes how many are mapped together."""

    together: ClassVar[list[int]] = []

    @staticmethod
    def forward(x):
        return x.flatten()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, x):
        Counting.together.append(info.batch_size)
        return x.flatten(1), 0


def test_each_record_is_mapped_once_and_never_beside_a_varying_number_of_others() -> None:
    Counting.together.clear()
    gate, net = gate_for(private(), dataclasses.replace(STEP, sample_rate=1.0)), nn.Linear(16, 3)
    gate.grad("step", loss, net, features=Counting.apply)
    first = list(Counting.together)
    assert first[:2] == [2, 2] and set(first[2:]) == {
        32
    }  # random images, looked at beforehand; 50 records and 14 blanks
    for _ in range(3):
        gate.grad("step", loss, net, features=Counting.apply)
    assert Counting.together == first


def test_one_more_record_moves_the_sum_by_at_most_the_bound() -> None:
    x, y = pictures(50)
    for new in (np.full((1, 1, 4, 4), 255), np.full((1, 1, 4, 4), np.nan), np.full((1, 1, 4, 4), 1e30)):
        more = np.concatenate([x.astype(np.float64), new]), np.r_[y, 1]
        release = dataclasses.replace(STEP, sample_rate=1.0, steps=1, bound=0.1)
        a, b = (
            _flat(gate_for(from_arrays(facts(), *d), release).grad("step", loss, linear(), features=doubled))
            for d in ((x.astype(np.float64), y), more)
        )
        assert float((a - b).norm()) * 50 <= 0.1 * (1 + 1e-5)


def _flat(grads: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.double().flatten() for g in grads.values()])


def test_a_map_that_looks_at_values_or_draws_is_refused() -> None:
    for bad in (lambda x: x.flatten() if x.sum() > 3 else -x.flatten(), lambda x: x.flatten() + torch.rand(16)):
        gate = gate_for(private(), STEP)
        with pytest.raises(RuntimeError, match="vmap"):
            gate.grad("step", loss, nn.Linear(16, 3), features=bad)


def test_features_end_with_the_gate_and_are_never_written(tmp_path) -> None:
    release = dataclasses.replace(STEP, steps=1)
    gate = gate_for(private(), release, folder=tmp_path / "run")
    gate.grad("step", loss, linear(), features=doubled)
    kept = weakref.ref(gate._reader._features[doubled])
    x = (private()._open().records._x[:50].astype(np.float32) / 255).reshape(50, -1)
    rows = {row.tobytes() for row in np.concatenate([x, x**2], 1).astype(np.float16)}
    written = [p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert written and not any(row in text for row in rows for text in written)
    gate.close()
    gc.collect()
    assert kept() is None
