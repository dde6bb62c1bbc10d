"""The coupling of docs/proof.md, made real: two worlds, D and D with one unit more, in which each common unit has the
same coin and each common record the same draws, and in which D's noisy answers are handed to both. What is left to
differ is the exact sums, by at most the sensitivity that the noise is scaled for: in every release of a whole fit. And
what a fit learns, which knows the answers alone, is the same to the bit, in any world.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from veilset.core import facts
from veilset.core.types import PublicInfo
from veilset.methods import base
from veilset.privacy import accounting
from veilset.privacy import gate as gates
from veilset.privacy import plan as plans
from veilset.privacy import receipt as receipts
from veilset.privacy.draws import Uniform, shape_of
from veilset.privacy.gradients import Clipped
from veilset.privacy.mechanisms import of
from veilset.privacy.noise import Keys
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.sampling import Units

Array = np.ndarray[Any, Any]
INFO = PublicInfo(name="shapes", classes=tuple("abcde"), shape=(1, 8, 8), value_range=(0.0, 1.0), units=60)
PLACES = ("front", "middle", "end")
FEW = 16  # rows of a chunk: small sets then have several


# ---------------------------------------------------------------------- sets, and worlds


@dataclasses.dataclass(frozen=True)
class Set:
    """Records before they are hidden: x float32 [n, C, H, W], y [n], units [n] or None."""

    x: Array
    y: Array
    units: Array | None = None
    info: PublicInfo = INFO

    def hide(self) -> PrivateImages:
        """As private images."""
        return from_arrays(self.info, self.x, self.y, self.units)

    def plus(self, images: Array, label: int) -> Set:
        """A neighbour: one unit more, at the end."""
        new = np.asarray(images, np.float32).reshape(-1, *self.info.shape)
        units = None if self.units is None else np.r_[self.units, np.full(len(new), self.units.max() + 1)]
        return dataclasses.replace(
            self, x=np.concatenate([self.x, new]), y=np.r_[self.y, [label] * len(new)], units=units
        )


def shapes(n: int, info: PublicInfo = INFO) -> Set:
    """Images that look a little like digits: a bright bar per class, at a place that varies. The last class is rare."""
    g = np.random.default_rng(0)
    y = np.minimum(g.integers(0, len(info.classes) * 4, n) // 4, len(info.classes) - 1)
    y[y == len(info.classes) - 1] = 0
    y[: min(n, 2)] = len(info.classes) - 1
    x = g.random((n, *info.shape)) * 0.1
    for i, k in enumerate(y):
        x[i, :, k + g.integers(0, 2), g.integers(0, 3) : 6] += 0.8
    return Set(x.astype(np.float32), y.astype(np.int64), None, info)


@dataclasses.dataclass(frozen=True)
class World:
    """A set, and a name for each unit and each record that is the same in all worlds that hold it."""

    data: Set
    units: tuple[str, ...]
    records: tuple[str, ...]


def worlds(images: int, new: Array, label: int, n: int = 60) -> tuple[World, dict[str, World]]:
    """(D, where the unit stands -> D with it): units of so many images each, of which the new one has three times as
    many as are used, or one.
    """
    d = shapes(n)
    names = tuple(f"record {i}" for i in range(n))
    if images == 1:
        plain = World(d, tuple(f"unit {i}" for i in range(n)), names)
        return plain, {p: _inserted(plain, at, 1, new, label) for p, at in zip(PLACES, (0, n // 2, n), strict=True)}
    info = dataclasses.replace(d.info, unit="one person", max_images_per_unit=images)
    many = World(
        dataclasses.replace(d, units=np.arange(n) // images, info=info),
        tuple(f"unit {i}" for i in range(-(-n // images))),
        names,
    )
    ends = (0, n // images // 2 * images, n)
    return many, {p: _inserted(many, at, 3 * images, new, label) for p, at in zip(PLACES, ends, strict=True)}


def strangers(n: int = 97) -> World:
    """A world that has nothing in common with the others but what is declared: other images, shares and numbers."""
    g = np.random.default_rng(1)
    x = g.random((n, *INFO.shape), dtype=np.float32)
    names = [tuple(f"{what} {i} of strangers" for i in range(n)) for what in ("unit", "record")]
    return World(Set(x, np.minimum(g.geometric(0.3, n), 4)), *names)


def _inserted(world: World, at: int, images: int, new: Array, label: int) -> World:
    d = world.data
    shape = (images, *d.info.shape)
    x = np.insert(d.x, [at] * images, np.broadcast_to(new.reshape(d.info.shape), shape), axis=0)
    y = np.insert(d.y, [at] * images, label)
    records = (*world.records[:at], *(f"new {i}" for i in range(images)), *world.records[at:])
    first = at if d.units is None else (int(d.units[at]) if at < len(d.units) else len(world.units))
    units = None
    if d.units is not None:
        units = np.insert(d.units + (d.units >= first), [at] * images, first)
    return World(
        dataclasses.replace(d, x=x, y=y, units=units), (*world.units[:first], "new", *world.units[first:]), records
    )


# ---------------------------------------------------------------------- fits in them


def number(*names: object) -> np.random.Generator:
    """Random numbers that belong to these names."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:8], "big"))


class Tape:
    """What the gate computed before noise, in units of the grid, and what it answered."""

    def __init__(self) -> None:
        self.exact: list[tuple[str, torch.Tensor, float]] = []
        self.answers: list[torch.Tensor] = []

    def asked(self) -> list[tuple[str, float, torch.Size]]:
        """What was asked, to what sensitivity, in what shape: nothing of it may follow from records."""
        return [(purpose, s, a.shape) for purpose, a, s in self.exact]


@contextmanager
def coupled(world: World, replay: Tape | None = None) -> Iterator[Tape]:
    """Fits inside it take coins and draws by name; with `replay` they are handed that tape's noisy answers."""
    tape = Tape()
    real = gates.Gate._noised
    chunks: list[Any] = []

    def sample(self: Units, rate: float, stream: Any, part: int | None = None) -> Array:
        purpose = stream.purpose
        coins = np.array([number("coin", purpose, name).random() for name in world.units])
        chosen = np.flatnonzero(coins < rate) if rate < 1 else np.arange(self.count)
        return chosen if part is None else chosen[self.part[chosen] == part]

    def cut(self: Units, chosen: Array, size: int) -> Iterator[Any]:
        for piece in real_chunks(self, chosen, size):
            chunks[:] = [piece[0]]
            yield piece

    def own(self: gates.Gate, how: Any, rows: int, purpose: str) -> torch.Tensor:
        step = purpose.rsplit("/", 2)[0]  # without rank and chunk: those follow the place
        out = torch.zeros(rows, *shape_of(how))
        for i, r in enumerate(chunks[0]):
            lot = number("draw", step, world.records[r])
            drawn = lot.random(shape_of(how)) if isinstance(how, Uniform) else lot.standard_normal(shape_of(how))
            out[i] = torch.from_numpy(np.asarray(drawn))
        return out

    def noised(self: gates.Gate, exact: Any, release: Any, purpose: str) -> torch.Tensor:
        i = len(tape.exact)
        tape.exact.append((purpose, exact.value.clone(), exact.sensitivity * of(release).factor(release)))
        told = replay and i < len(replay.answers) and replay.answers[i].shape == exact.value.shape
        answer = replay.answers[i].clone() if replay and told else real(self, exact, release, purpose)
        tape.answers.append(answer.clone())
        return answer

    real_chunks = Units.chunks
    with ExitStack() as stack:
        for thing, name, how in (
            (Units, "sample", sample),
            (Units, "chunks", cut),
            (gates.Gate, "_own", own),
            (gates.Gate, "_noised", noised),
            (Keys, "stream", _named(Keys.stream)),
            (gates, "MANY", FEW),
            (Clipped, "most", lambda self, memory: FEW),
            (base, "_public_seed", lambda folder: 11),
        ):
            stack.enter_context(mock.patch.object(thing, name, how))
        yield tape


def _named(real: Callable[..., Any]) -> Callable[..., Any]:
    def stream(self: Any, purpose: str) -> Any:
        made = real(self, purpose)
        made.purpose = purpose
        return made

    return stream


def moved(first: Tape, second: Tape) -> float:
    """The largest change of an exact sum, over its sensitivity; infinite if other questions were asked, or none."""
    if not first.exact or first.asked() != second.asked():
        return math.inf
    return max(float((a - b).norm()) / s for (_, a, s), (_, b, _) in zip(first.exact, second.exact, strict=True))


def realised(fit: Callable[[World], Any], d: World, others: dict[str, World]) -> dict[str, float]:
    """Place of the new unit -> `moved`, of all releases of a fit."""
    with coupled(d) as first:
        fit(d)
    out = {}
    for place, other in others.items():
        with coupled(other, first) as second:
            fit(other)
        out[place] = moved(first, second)
    return out


@contextmanager
def remembered() -> Iterator[None]:
    """The same plan at the same budget costs the same: prices, which take a second each, are made once. And fits go on
    though the last self-test failed, or a failure could never be looked into again.
    """
    real = accounting.claim
    kept = functools.cache(lambda spent, delta: real(list(spent), delta))

    def claim(spent: Any, delta: float) -> Any:
        return kept(tuple(spent), delta) if isinstance(spent, list | tuple) else real(spent, delta)

    with ExitStack() as stack:
        for thing, name, how in (
            (plans, "claim", claim),
            (receipts, "claim", claim),
            (plans.Plan, "price", functools.cache(plans.Plan.price)),
            (facts, "selftest", lambda: None),
        ):
            stack.enter_context(mock.patch.object(thing, name, how))
        yield
