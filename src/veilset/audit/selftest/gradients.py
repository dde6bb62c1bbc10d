"""Clipped gradient sums by the fast path against a loop of single-record autograd, for networks of every layer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from veilset.audit.selftest.base import Array, Check, facts, gate_for, hidden, pictures, wrong
from veilset.core.errors import ConfigError
from veilset.privacy.plan import Release

SHAPE, RECORDS, CLASSES = (1, 8, 8), 12, 3
SPARE = 1e-3  # gradients are clipped to this much below the bound, to cover float32
CLOSE = 2e-3  # of the bound and record: what float32 and that margin may differ by
BROAD = 2e-2  # bfloat16 rounds each factor by up to 2^-9
Loss = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


class Classifier(nn.Module):
    """Convolutions, group and layer normalisation, linear layers at one place and at many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, stride=2), nn.GroupNorm(2, 4)
        self.mix, self.level = nn.Linear(9, 16), nn.LayerNorm(16)
        self.out = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, 1, 8, 8] -> [n, CLASSES]."""
        h = torch.relu(self.norm(self.first(x))).flatten(2)
        return self.out(torch.tanh(self.level(self.mix(h))).flatten(1))


class Decoder(nn.Module):
    """A table of labels, a linear layer, instance normalisation and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.wide = nn.Embedding(CLASSES, 6), nn.Linear(6, 32)
        self.norm, self.up = nn.InstanceNorm2d(2, affine=True), nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """y [n] -> [n, 1, 8, 8]."""
        return self.up(self.norm(self.wide(self.table(y)).view(-1, 2, 4, 4)))


def classify(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy."""
    return F.cross_entropy(net(x[None]), y[None])


def redraw(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared error of the image that the label gives, by far too large."""
    return 1e3 * (net(y[None])[0] - x).square().sum()


def against_a_loop() -> Iterator[Check]:
    """Half the records are clipped, half are not; also for people of three images, whose mean is clipped."""
    far, slow = 0.0, 0
    for images in (1, 3):
        for net, loss in _networks():
            info = facts(SHAPE, max_images_per_unit=images)
            x, y = pictures(RECORDS, info)
            units = np.arange(RECORDS) // images
            rows = _means(_rows(net, loss, x, y), units)
            bound = float(rows.norm(dim=1).median())
            got, warned = _asked(net, loss, x, y, bound, units if images > 1 else None, images)
            far, slow = max(far, float((got - _clipped(rows, bound)).norm()) / (bound * len(rows))), slow + warned
    yield Check("clipped gradients equal a loop", far, CLOSE, "largest difference / (bound x units)")
    yield Check("networks of every layer take the fast path", float(slow), 0.0, "networks that do not")


def single_records() -> Iterator[Check]:
    """One record alone, with a gradient far beyond the bound, in float32 and under bfloat16 autocast."""
    for words, low in (("float32", False), ("bfloat16", True)):
        most, far = 0.0, 0.0
        for net, loss in _networks():
            x, y = pictures(RECORDS, facts(SHAPE))
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                for i in range(3):
                    got, _ = _asked(net, loss, x[i : i + 1], y[i : i + 1], 1e-3, None, 1)
                    most = max(most, float(got.norm()) / 1e-3)
                    far = max(far, 1 - float(got.norm()) / 1e-3)
        yield Check(f"one record's gradient stays in its bound, {words}", most, 1 - SPARE / 2, "largest norm / bound")
        yield Check(f"a clipped gradient is not shrunk further, {words}", far, BROAD, "largest shortfall / bound")


def many_norms() -> Iterator[Check]:
    """256 records in one batch, each with parameters of its own, so that each contribution can be seen apart."""
    n, info = 256, facts((1, 4, 4), units=256, classes=tuple(f"class {k}" for k in range(256)))
    x, _ = pictures(n, info)
    x *= np.geomspace(1e-3, 1.0, n, dtype=np.float32)[:, None, None, None]
    data = hidden(info, x, np.arange(n))

    def loss(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1e4 * ((torch.arange(n) == y).float() * F.linear(x.flatten(), p["w"])).sum()

    w = {"w": torch.zeros(n, 16)}
    for words, low in (("float32", False), ("bfloat16", True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            gate = gate_for(data, Release(name="r", verb="grad", bound=1.0))
            got = gate.grad("r", loss, w)["w"].double() * info.units
        norm = got.norm(dim=1)
        yield Check(
            f"every record of a batch stays in its bound, {words}", float(norm.max()), 1 - SPARE / 2, "largest norm"
        )


def cancelling() -> Iterator[Check]:
    """Positions whose products cancel: the exact gradient is tiny, what float32 sums of it is not."""
    info, most = facts((1, 16, 64), units=1), 0.0
    for size in (1e2, 1e6):
        for seed in range(4):
            g = torch.Generator().manual_seed(seed)
            half = torch.rand(1, 8, 64, generator=g)
            x = torch.cat([half, half * (1 + 1e-6)], 1).numpy()[None]
            out = torch.randn(8, 48, generator=g) * size
            signs = torch.cat([out, -out])

            def loss(p: Any, x: torch.Tensor, y: torch.Tensor, signs: torch.Tensor = signs) -> torch.Tensor:
                return (F.linear(x[0], p["w"]) * signs).sum()

            data = hidden(info, x, np.zeros(1, np.int64))
            gate = gate_for(data, Release(name="r", verb="grad", bound=1.0))
            got = gate.grad("r", loss, {"w": torch.zeros(48, 64)})["w"]
            most = max(most, float(got.double().norm()))
    yield Check("cancelling positions hide nothing", most, 1 - SPARE / 2, "largest norm / bound")


def not_finite() -> Iterator[Check]:
    """A record whose gradient is NaN or infinite contributes nothing, and the others what they do without it."""
    net, loss = _networks()[0]
    info, far = facts(SHAPE), 0.0
    x, y = pictures(RECORDS, info)

    def poisoned(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(net, x, y) * torch.where(x[0, 0, 0] == 1.0, float("nan"), 1.0)

    x = np.minimum(x, 0.99)
    bad = np.concatenate([x, np.ones((1, *SHAPE), np.float32)]), np.r_[y, 0]
    without, _ = _asked(net, poisoned, x, y, 1.0, None, 1)
    beside, _ = _asked(net, poisoned, *bad, 1.0, None, 1)
    far = float((without - beside).norm()) if bool(torch.isfinite(beside).all()) else math.inf
    yield Check("a gradient that is not finite contributes nothing", far, 1e-5, "movement / bound")


def mixing() -> Iterator[Check]:
    """Layers through which one record reaches another are refused."""
    x, y = pictures(4, facts(SHAPE))
    nets = {"BatchNorm2d": nn.BatchNorm2d(1), "InstanceNorm2d": nn.InstanceNorm2d(1, track_running_stats=True)}

    def held(layer: nn.Module) -> bool:
        net = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, CLASSES))
        try:
            _asked(net, classify, x, y, 1.0, None, 1)
        except ConfigError:
            return True
        return False

    of = {name: held(layer) for name, layer in nets.items()}
    yield wrong("layers that mix records are refused", "layers that are accepted", of=of)


def mapped() -> Iterator[Check]:
    """A public map in front of the loss: one more record moves the sum by its own clipped gradient and no more."""
    x, y = pictures(RECORDS + 1, facts(SHAPE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Linear(64, CLASSES)
    without, beside = (
        _asked(net, classify, x[:n], y[:n], 1e-2, None, 1, features=lambda image: 2 * image.flatten())[0]
        for n in (RECORDS, RECORDS + 1)
    )
    moved = float((beside - without).norm()) / 1e-2
    yield Check("a map in front of a loss sees one record", moved, 1 - SPARE / 2, "movement / bound")


CHECKS = (against_a_loop, single_records, many_norms, cancelling, not_finite, mixing, mapped)


def _networks() -> list[tuple[nn.Module, Loss]]:
    """The same weights each time; the user's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [(Classifier(), classify), (Decoder(), redraw)]


def _rows(net: nn.Module, loss: Loss, x: Array, y: Array) -> torch.Tensor:
    """[n, size] gradients, one record at a time."""
    params, rows = list(net.parameters()), []
    for i in range(len(x)):
        one = loss(net, torch.from_numpy(x[i]), torch.tensor(int(y[i])))
        grads = torch.autograd.grad(one, params, allow_unused=True)
        rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                               for p, g in zip(params, grads, strict=True)]))  # fmt: skip
    return torch.stack(rows).double()


def _means(rows: torch.Tensor, units: Array) -> torch.Tensor:
    return torch.stack([rows[torch.from_numpy(units == u)].mean(0) for u in range(units.max() + 1)])


def _clipped(rows: torch.Tensor, bound: float) -> torch.Tensor:
    norm = rows.norm(dim=1, keepdim=True)
    return (rows * (bound * (1 - SPARE) / norm).clamp(max=1.0)).sum(0)


def _asked(
    net: nn.Module, loss: Loss, x: Array, y: Array, bound: float, units: Array | None, images: int, **how: Any
) -> tuple[torch.Tensor, bool]:
    """(the gate's clipped sum without noise, whether it fell back to the slow path)."""
    info = facts(SHAPE, max_images_per_unit=images)
    gate = gate_for(hidden(info, x, y, units), Release(name="r", verb="grad", bound=bound))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = gate.grad("r", loss, net, **how)
    slow = any("slower general path" in str(w.message) for w in told)
    return torch.cat([g.flatten() for g in got.values()]).double() * info.units, slow
