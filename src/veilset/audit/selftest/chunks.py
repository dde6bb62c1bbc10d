"""Records in small chunks: where one ends, what fills it up, and what spoils a row make no difference to anybody."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from veilset.audit.selftest.base import Array, Check, facts, gate_for, hidden, pictures, with_user_seeds, wrong
from veilset.privacy import gate as gates
from veilset.privacy.draws import shared
from veilset.privacy.gradients import Clipped
from veilset.privacy.gradients.reference import per_record
from veilset.privacy.gradients.taps import tapped
from veilset.privacy.plan import Release
from veilset.privacy.private import PrivateImages

CLOSE = 2e-3  # of the bound and unit: the spare below the bound of gradients, and a little
DULL = np.float32(0.3)


class Watched(torch.autograd.Function):
    """Hands a record on, tells how many rows a chunk has, and lets NaN of the next row in, as products of tiles do."""

    leaks = False
    seen: set[int] = set()  # noqa: RUF012 - of all calls that have a record with a corner of 1

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        """x as it is."""
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        """Its slope is 1."""
        return g

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """All rows at once."""
        if in_dims[0] != 0:
            return x.clone(), in_dims[0]
        if bool((x.flatten(1)[:, 0] == 1).any()):
            Watched.seen.add(info.batch_size)
        return (x + 0.0 * x.roll(-1, 0) if Watched.leaks else x.clone()), 0


def cuts() -> Iterator[Check]:
    """Units of one image and of several, of more than count, in chunks of 1 to 64 rows, against plain NumPy."""
    for words, verb, fast in (
        ("sums", "sum", True),
        ("gradients", "grad", True),
        ("gradients, slow path", "grad", False),
    ):
        far = 0.0
        for cap in (1, 3, 7):
            n = [1, 2, cap, 3, cap + 2, 1, cap] if cap > 1 else [1] * 17
            units = np.random.default_rng(cap).permutation(np.repeat(np.arange(len(n)), n))
            info = facts(units=len(n), max_images_per_unit=cap)
            x, y = pictures(len(units), info)
            for bound in (0.2, 1.4):  # all are longer; some are
                wanted = _plain(x, units, bound, cap, verb)
                for rows in (1, 2, 3, 5, 64):
                    with _rows(rows, fast):
                        got = _answer(hidden(info, x, y, units if cap > 1 else None), verb, bound)
                    spare = CLOSE if verb == "grad" and cap == 1 else 2e-6
                    far = max(far, _distance(got, wanted) / (bound * len(n) * spare))
        yield Check(f"{words} do not show where a chunk ends", far, 1.0, "largest difference / (spare x bound x units)")


def neighbours() -> Iterator[Check]:
    """Units whose images agree, over several chunks: without one of them the answer moves by the bound, not further."""
    n = np.array([1, 2, 5, 3, 4, 5])
    units, info = np.repeat(np.arange(6), n), facts(units=6, max_images_per_unit=5)
    x, y, most, least = np.ones((len(units), *info.shape), np.float32), np.zeros(len(units), np.int64), 0.0, 1.0
    for verb in ("sum", "grad"):
        for rows in (1, 2, 3, 8):
            with _rows(rows):
                everybody = _answer(hidden(info, x, y, units), verb, 0.5)
                for u in range(6):
                    kept = units != u
                    rest = _answer(hidden(info, x[kept], y[kept], units[kept]), verb, 0.5)
                    moved = float((everybody - rest).norm()) / 0.5
                    most, least = max(most, moved), min(least, moved)
    yield Check("a unit over several chunks moves an answer by its bound", most, 1 - 1e-7, "largest movement / bound")
    yield Check("such a unit counts as much as others", 1 - least, 1e-2, "largest shortfall / bound")


def shapes() -> Iterator[Check]:
    """Maps, losses and features are run on chunks of one size, however many records there are or are drawn."""
    info = facts(units=300)
    ways: dict[str, Callable[[Any], Any]] = {
        "a sum": lambda gate: gate.sum("r", lambda x, y: Watched.apply(x).flatten()),
        "a gradient": lambda gate: gate.grad("r", _watched_loss, {"w": torch.zeros(info.shape)}),
        "features": lambda gate: gate.grad("r", _loss, {"w": torch.zeros(info.shape)}, features=Watched.apply),
    }
    of = {}
    for words, ask in ways.items():
        sizes, seeds = set[int](), (0, 1)
        for count in (1, 2, 33, 300, 1500):
            x, y = pictures(count, info)
            x[:, 0, 0, 0] = 1
            for seed in seeds:
                verb = "sum" if words == "a sum" else "grad"
                gate = gate_for(hidden(info, x, y), Release(name="r", verb=verb, sample_rate=0.5), seed=seed)
                Watched.seen.clear()
                ask(gate)
                sizes |= Watched.seen
        of[words] = len(sizes) == 1
    yield wrong("chunks have one size whoever is there", "verbs whose chunks tell who is there", of=of)


def spoilt() -> Iterator[Check]:
    """NaN or infinity of one record that gets into its neighbour's row is taken out again: all others count once."""
    far, bound = 0.0, 0.5
    with patch.object(Watched, "leaks", True):
        for images in (1, 2):
            info, units = facts(units=20 // images, max_images_per_unit=images), np.arange(20) // images
            for bad, value in (((0,), np.nan), ((7,), np.nan), ((3, 4, 10, 19), np.nan), ((5, 6), np.inf)):
                x, y = pictures(20, info)
                x[list(bad)] = value
                data = hidden(info, x, y, units if images > 1 else None)
                for verb in ("sum", "grad"):
                    wanted = _plain(x if value != np.inf else np.minimum(x, 1), units, bound, images, verb, DULL * 0)
                    for rows in (2, 8, 64):
                        with _rows(rows):
                            got = _answer(data, verb, bound, watched=True)
                        far = max(far, _distance(got, wanted) / bound)
    yield Check("a spoilt record spoils no neighbour", far, 20 * CLOSE, "largest difference / bound, 20 records")


def blanks() -> Iterator[Check]:
    """What fills up a chunk adds nothing, though a blank image has a value and a gradient of its own."""
    info, far = facts(), 0.0
    for n in (1, 2, 31, 33):
        data = hidden(info, *pictures(n, info))
        by_sum = gate_for(data, Release(name="r", bound=0.5)).sum("r", lambda x, y: torch.ones(5) + 0 * x.sum())
        gate = gate_for(data, Release(name="r", verb="grad", bound=0.5))
        by_grad = gate.grad("r", lambda p, x, y: 1e3 * p["w"].sum() + 0 * x.sum(), {"w": torch.zeros(5)})["w"]
        far = max(far, *(abs(float(v.norm()) / (0.5 * n) - 1) for v in (by_sum, by_grad * info.units)))
    yield Check("blank rows add nothing", far, CLOSE, "largest relative difference from n times the bound")


def alike() -> Iterator[Check]:
    """A loss that draws, by any generator, draws alike for all records of a step: equal records add up to n bounds."""
    n, short = 30, {}
    takers: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch.randn(8),
        "dropout": lambda: F.dropout(torch.ones(8)) + torch.rand(8),
        "NumPy": lambda: torch.from_numpy(np.random.standard_normal(8).astype(np.float32)),
        "Python": lambda: torch.tensor([random.gauss(0, 1) for _ in range(8)]),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Linear(16, 8)
    for name, take in takers.items():
        for images in (1, 3):
            info = facts(units=n, max_images_per_unit=images)
            units = np.arange(n) // images if images > 1 else None
            data = hidden(info, np.ones((n, *info.shape), np.float32), np.zeros(n, np.int64), units)

            def loss(net: Any, x: torch.Tensor, y: torch.Tensor, take: Callable[[], Any] = take) -> torch.Tensor:
                return 1e3 * (net(x.flatten()[None])[0] * take()).sum()

            for fast in (True, False):
                gate = gate_for(data, Release(name="r", verb="grad", bound=1.5))
                with _rows(8, fast):
                    got = with_user_seeds(functools.partial(gate.grad, "r", loss, net))
                norm = float(torch.cat([g.flatten() for g in got.values()]).double().norm()) * n * images / (1.5 * n)
                short[f"{name}, {images} images, {'fast' if fast else 'slow'}"] = abs(norm - 1) < CLOSE
    yield wrong("a loss draws alike in all chunks", "ways in which it does not", of=short)
    x, y, of = torch.ones(6, *facts().shape), torch.zeros(6, dtype=torch.int64), {}

    def dropping(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (net(F.dropout(x.flatten())[None])[0] * torch.randn(8)).sum()

    for name, look in (("slow", per_record), ("fast", lambda *a: {"all": tapped(*a).rows()})):
        with shared(5, torch.device("cpu")):
            rows = look(dropping, net, [x, y])
        of[name] = all(bool(v.any()) and torch.equal(v, v[:1].expand_as(v)) for v in rows.values())
    yield wrong("a loss draws alike in all rows", "paths on which it does not", of=of)


CHECKS = (cuts, neighbours, shapes, spoilt, blanks, alike)


@contextmanager
def _rows(rows: int, fast: bool = True) -> Iterator[None]:
    """Within it a chunk has so few rows that a small set has several; gradients take the fast path or the slow one."""
    probe = Clipped._probe if fast else lambda self, loss, params: False
    with (
        patch.object(gates, "MANY", rows),
        patch.object(Clipped, "most", lambda self, memory: rows),
        patch.object(Clipped, "_probe", probe),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _loss(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (p["w"] * x).sum()


def _watched_loss(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (p["w"] * Watched.apply(x)).sum()


def _answer(data: PrivateImages, verb: str, bound: float, watched: bool = False) -> torch.Tensor:
    """The exact sum over units of what `_plain` says."""
    gate = gate_for(data, Release(name="r", verb=verb, bound=bound))
    see, less = (Watched.apply, 0.0) if watched else (lambda x: x, float(DULL))
    if verb == "sum":
        return gate.sum("r", lambda x, y: see(x).flatten() - less)
    w = {"w": torch.zeros(16, dtype=torch.float64)}
    return gate.grad("r", lambda p, x, y: (p["w"] * (see(x).flatten() - less)).sum(), w)["w"] * data.info.units


def _plain(x: Array, units: Array, bound: float, cap: int, verb: str, less: Any = DULL) -> torch.Tensor:
    """The sum over units: of images clipped one by one that share a bound, or of clipped means of gradients."""
    out, v = np.zeros(16), x.reshape(len(x), 16).astype(np.float64) - less

    def clipped(row: Array) -> Array:
        return row * min(1.0, bound / max(float(np.linalg.norm(row)), 1e-300)) if np.isfinite(row).all() else 0 * out

    for u in range(units.max() + 1):
        mine = v[np.flatnonzero(units == u)[:cap]]
        out += sum(clipped(row) for row in mine) / len(mine) if verb == "sum" else clipped(mine.mean(0))
    return torch.from_numpy(out)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm()) if bool(torch.isfinite(a).all()) else float("inf")
