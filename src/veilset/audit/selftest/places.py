"""A record's share of an answer depends neither on its place in the set nor on the records beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from veilset.audit.selftest.base import Array, Check, facts, gate_for, hidden, pictures, with_user_seeds, wrong
from veilset.core.types import PublicInfo
from veilset.privacy.draws import Draws, Uniform
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Release

BOUND, OTHERS, WIDE = 1.5, 600, 8  # more units than a chunk has rows
HALF = 1 - 1e-6 / 2  # contributions are clipped to twice this much below the bound, or more
DRAWS: Draws = {"code": (WIDE, 16), "level": Uniform((WIDE,))}
Sets = tuple[Array, Array, Array]  # images, labels, units


def loud(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A contribution far beyond the bound."""
    return 1e3 * (x.flatten() - 0.5)


def plain(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss without draws."""
    return 1e3 * F.linear(x.flatten()[None] - 0.5, p["w"]).square().sum() + 1e3 * (p["w"] * x.flatten()).sum()


def drawing(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One that calls torch's generator, in several ways; the draws decide where its gradient points."""
    code, level = torch.randn(WIDE, 16), torch.rand(WIDE) - 0.5
    return 1e3 * (level * (F.dropout(p["w"], 0.5) * code * x.flatten()).sum(1)).sum()


def declaring(p: Any, x: torch.Tensor, y: torch.Tensor, own: dict[str, torch.Tensor]) -> torch.Tensor:
    """One with draws of each record's own."""
    return 1e3 * ((own["level"] - 0.5) * (p["w"] * own["code"] * x.flatten()).sum(1)).sum()


def positions() -> Iterator[Check]:
    """One more unit in front, in the middle or at the end, given all draws: the sum moves by the bound at most."""
    ways: tuple[tuple[str, str, Any], ...] = (
        ("a sum", "sum", loud),
        ("a gradient", "grad", plain),
        ("a loss that draws", "grad", drawing),
        ("a loss with draws of its own", "grad", declaring),
    )
    for words, verb, f in ways:
        moved = []
        for images in (1, 3):
            whole = _crowd(facts(units=OTHERS, max_images_per_unit=images), images)
            for place in (0, OTHERS // 2, OTHERS - 1):
                with_, without = (_answer(verb, f, images, whole, gone) for gone in (None, place))
                moved.append(float((with_ - without).norm()))
        most = max(moved) if all(m == m for m in moved) else float("inf")
        yield Check(f"one unit anywhere moves {words} by its bound at most", most, HALF, "largest movement / bound")


def company() -> Iterator[Check]:
    """What a record adds is the same to the last bit whoever is beside it: its class, and so its row, is its own."""
    info = facts((1, 14, 14), units=300, classes=("mine", "other"))
    mine, _ = pictures(1, info)
    lone, crowd = pictures(7, info)[0][1:], pictures(400, info)[0][1:]
    strange = np.concatenate([lone, np.full((1, 1, 14, 14), np.nan, np.float32), np.zeros((1, 1, 14, 14), np.float32)])
    beside = (lone[:0], lone[:1], lone, strange, crowd[:280], crowd)
    for words, share in (("a sum", _share_of_a_sum), ("a gradient", _share_of_a_gradient)):
        alone, of = share(info, mine, 0), {}
        for others in beside:
            for place in {0, len(others) // 2, len(others)}:
                x = np.insert(others, place, mine[0], axis=0)
                of[f"{len(others)} others, place {place}"] = torch.equal(share(info, x, place), alone)
        yield wrong(
            f"a record adds the same to {words} in any company", "companies in which it adds another value", of=of
        )


def fresh() -> Iterator[Check]:
    """A record's own draws are new in every chunk, step, part and run, whatever is seeded: seen in exact gradients."""
    info = facts((1, 20, OTHERS // 20), units=OTHERS)
    x = np.eye(OTHERS, dtype=np.float32).reshape(OTHERS, *info.shape)
    data = hidden(info, x, np.arange(OTHERS) % len(info.classes))
    w = {"w": torch.zeros(2, OTHERS, dtype=torch.float64)}

    def loss(p: Any, x: torch.Tensor, y: torch.Tensor, own: dict[str, torch.Tensor]) -> torch.Tensor:
        return (own["code"] @ (p["w"] @ x.flatten().double()).float()).sum()

    def seen() -> list[bytes]:
        steps = Release(name="a", verb="grad", bound=100.0, steps=2)
        gate = gate_for(data, steps, Release(name="b", verb="grad", bound=100.0, partition="class"))
        got = [gate.grad("a", loss, w, draws={"code": (2,)}) for _ in range(2)]
        got += [gate.grad("b", loss, w, draws={"code": (2,)}, part=k) for k in range(len(info.classes))]
        return [v.numpy().tobytes() for g in got for v in g["w"].T if v.any()]

    runs = [with_user_seeds(seen) for _ in range(2)]
    rows = [row for run in runs for row in run]
    again = len(rows) - len(set(rows)) + abs(len(rows) - 2 * 3 * OTHERS)
    yield Check("draws of a record's own are fresh", float(again), 0.0, "draws that repeat another's, or are missing")


CHECKS = (positions, company, fresh)


def _crowd(info: PublicInfo, images: int) -> Sets:
    """OTHERS units of up to so many images."""
    unit = np.repeat(np.arange(OTHERS), np.arange(OTHERS) % images + 1)
    x, y = pictures(len(unit), info)
    return x, y, unit


def _answer(verb: str, f: Callable[..., Any], images: int, whole: Sets, gone: int | None) -> torch.Tensor:
    """The sum before its noise, in bounds, about all units but one, with the draws that they have when it is there."""
    x, y, unit = whole
    here = np.ones(len(unit), bool) if gone is None else unit != gone
    info = facts(units=OTHERS, max_images_per_unit=images)
    data = hidden(info, x[here], y[here], unit[here] if images > 1 else None)
    gate = gate_for(data, Release(name="r", verb=verb, bound=BOUND))
    if verb == "sum":
        return gate.sum("r", f) / BOUND
    _give(gate, np.flatnonzero(here))
    seen: list[torch.Tensor] = []  # a gradient is rounded to its parameters' float32 when it leaves
    real = gate._noised
    gate._noised = lambda exact, *a: seen.append(exact.value / exact.sensitivity) or real(exact, *a)  # type: ignore
    w = {"w": torch.full((WIDE, 16), 0.1)}
    draws = DRAWS if f is declaring else None
    with_user_seeds(lambda: gate.grad("r", f, w, draws=draws))
    return seen[0]


def _give(gate: Gate, records: Array) -> None:
    """Hand each record, by its number, its draws from a list that is fixed: all but one unit keep theirs."""
    lists = {k: torch.randn(3 * OTHERS, *s, generator=torch.Generator().manual_seed(7)) for k, s in _shapes().items()}

    def own(how: Any, rows: int, purpose: str) -> torch.Tensor:
        name, chunk = purpose.split("/")[1], int(purpose.rsplit("/", 1)[1])
        here = lists[name][torch.from_numpy(records[chunk * rows : (chunk + 1) * rows])]
        return torch.cat([here, torch.zeros(rows - len(here), *here.shape[1:])])

    gate._own = own  # type: ignore[method-assign]


def _shapes() -> dict[str, tuple[int, ...]]:
    return {"code": (WIDE, 16), "level": (WIDE,)}


def _labels(n: int, place: int) -> Array:
    return np.where(np.arange(n) == place, 0, 1)


def _share_of_a_sum(info: PublicInfo, x: Array, place: int) -> torch.Tensor:
    w = torch.randn(33, info.pixels, generator=torch.Generator().manual_seed(0))
    gate = gate_for(hidden(info, x, _labels(len(x), place)), Release(name="r", bound=BOUND))
    return gate.sum("r", lambda x, y: torch.cos(w @ x.flatten()), by_class=True)[0]


def _share_of_a_gradient(info: PublicInfo, x: Array, place: int) -> torch.Tensor:
    """The row of the last layer that only this record's class moves; all layers decide what it holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2), nn.GroupNorm(2, 6), nn.Tanh(), nn.Flatten(), nn.Linear(216, 33), nn.Tanh(),
            nn.Linear(33, 2),
        )  # fmt: skip

    def loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 10 * (net(x[None])[0] * (torch.arange(2) == y)).sum()

    gate = gate_for(hidden(info, x, _labels(len(x), place)), Release(name="r", verb="grad", bound=BOUND))
    return gate.grad("r", loss, net)["6.weight"][0] * info.units
