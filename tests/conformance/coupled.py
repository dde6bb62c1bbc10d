"""The coupling of docs/proof.md, made real: two worlds, D and D with one unit more, in which each common unit has the
same coin and each common record the same draws, and in which D's noisy answers are handed to both. What is left to
differ is the exact sums, by at most the sensitivity that the noise is scaled for: in every release of a whole fit.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import kit
import numpy as np
import torch

from veilset.methods import base
from veilset.privacy import gate as gates
from veilset.privacy import reading
from veilset.privacy.draws import Uniform, shape_of
from veilset.privacy.gradients import Clipped
from veilset.privacy.sampling import Units
from veilset.privacy.spec import Privacy

PLACES = ("front", "middle", "end")
FEW = 16  # rows of a chunk: small sets then have several


@dataclasses.dataclass(frozen=True)
class World:
    """A set, and a name for each unit and each record that is the same in both worlds."""

    data: kit.Set
    units: tuple[str, ...]
    records: tuple[str, ...]


def worlds(images: int, new: np.ndarray, label: int, n: int = 60) -> tuple[World, dict[str, World]]:
    """(D, where the unit stands -> D with it): units of so many images each, of which the new one has three times as
    many as are used, or one.
    """
    d = kit.shapes(n)
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


def _inserted(world: World, at: int, images: int, new: np.ndarray, label: int) -> World:
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


def number(*names: object) -> np.random.Generator:
    """Random numbers that belong to these names."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:8], "big"))


class Tape:
    """What the gate computed before noise, and what it answered."""

    def __init__(self) -> None:
        self.exact: list[tuple[str, torch.Tensor, float]] = []
        self.answers: list[torch.Tensor] = []


@contextmanager
def coupled(world: World, replay: Tape | None = None) -> Iterator[Tape]:
    """Fits inside it take coins and draws by name; with `replay` they are handed that tape's noisy answers."""
    tape = Tape()
    real = gates.Gate._noised
    chunks: list[Any] = []

    def sample(self: Units, rate: float, stream: Any, part: int | None = None) -> np.ndarray:
        purpose = stream.purpose
        coins = np.array([number("coin", purpose, name).random() for name in world.units])
        chosen = np.flatnonzero(coins < rate) if rate < 1 else np.arange(self.count)
        return chosen if part is None else chosen[self.part[chosen] == part]

    def cut(self: Units, chosen: np.ndarray, size: int) -> Iterator[Any]:
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
        tape.exact.append((purpose, exact.value.clone(), exact.sensitivity))
        answer = replay.answers[i].clone() if replay else real(self, exact, release, purpose)
        tape.answers.append(answer.clone())
        return answer

    real_chunks = Units.chunks
    with ExitStack() as stack:
        for thing, name, how in (
            (Units, "sample", sample),
            (Units, "chunks", cut),
            (gates.Gate, "_own", own),
            (gates.Gate, "_noised", noised),
            (gates.Keys, "stream", _named(gates.Keys.stream)),
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


def realised(fit: Callable[[World], Any], d: World, others: dict[str, World]) -> dict[str, float]:
    """Place of the new unit -> the largest change of an exact sum, over its sensitivity, of all releases of a fit."""
    with coupled(d) as first:
        fit(d)
    assert first.exact, "nothing was asked"
    out = {}
    for place, other in others.items():
        with coupled(other, first) as second:
            fit(other)
        assert [p for p, _, _ in first.exact] == [p for p, _, _ in second.exact], "other questions were asked"
        assert [s for _, _, s in first.exact] == [s for _, _, s in second.exact], "other noise was asked for"
        moved = [(a - b).norm() / s for (_, a, s), (_, b, _) in zip(first.exact, second.exact, strict=True)]
        out[place] = float(max(moved))
    return out


def fitter(make: Callable[[], Any], seed: int | None, budget: Privacy = kit.BUDGET) -> Callable[[World], Any]:
    """A fit of a method or teacher in release mode, or with a seed."""
    return lambda world: make().fit(world.data.hide(), budget, seed=seed)


__all__ = ["PLACES", "World", "coupled", "fitter", "number", "realised", "reading", "worlds"]
