"""Worst-case neighbouring sets for every verb of the gate: tiny images whose contribution is known and far too large.

An image has four pixels; one white pixel says in which of four directions it contributes, its label with which sign. f
and the loss return it `LOUD` times the bound, so the gate must clip, and what is left of the record has norm `bound`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from veilset.core.types import PublicInfo
from veilset.privacy.plan import Release

if TYPE_CHECKING:
    import torch

    from veilset.privacy.gate import Gate
    from veilset.privacy.private import PrivateImages

PIXELS, LOUD = 4, 100.0
CANARY = 0  # the direction in which the record in question contributes; the others are bystanders
PLUS, MINUS = 0, 1  # the two classes
Image = tuple[int, int, int]  # (direction, class, unit)
Ask = Callable[["Gate", Release, "int | None"], "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Two sets that differ by one unit, and how the gate is asked about them.

    Attributes:
        words: how the sets differ, for people.
        record: the unit in question; its images.
        others: the rest of the set.
        release: what one draw asks for, without noise; a bound that is not 1 shows a bound that is left out.
        ask: one call of the gate -> its answer as a sum, the record's own direction first.
        cap: images a unit may hold.
        sign: the record moves direction CANARY up (1) or down (-1).
        rest: what the others add to the answer, in bounds; empty for nothing.
        signal: whether a sound gate lets the record show at all.
        copies: independent copies of the pair, each in a cell of its own: one answer then holds that many draws.
        first: the record lies in front of the others, which it moves to other places; otherwise behind them.
    """

    words: str
    record: tuple[Image, ...]
    others: tuple[Image, ...] = ()
    release: Release
    ask: Ask
    cap: int = 1
    sign: int = 1
    rest: tuple[float, ...] = ()
    signal: bool = True
    copies: int = 1
    first: bool = False

    @property
    def info(self) -> PublicInfo:
        """The declared facts: ten units for each copy, whatever the set holds."""
        return PublicInfo(
            name="audit",
            classes=("plus", "minus"),
            shape=(1, 2, 2),
            units=10 * self.copies,
            max_images_per_unit=self.cap,
            unit="one image" if self.cap == 1 else "one patient",
        )

    @property
    def parts(self) -> Sequence[int | None]:
        """The parts that a draw asks for."""
        return (PLUS, MINUS) if self.release.partition else (None,)

    def data(self, present: bool) -> PrivateImages:
        """The set with or without the record."""
        import numpy as np

        from veilset.privacy.private import from_arrays

        whole = (*self.record, *self.others) if self.first else (*self.others, *self.record)
        images = (whole if present else self.others) * self.copies
        x = np.zeros((len(images), PIXELS), np.uint8)
        for i, (direction, _, _) in enumerate(images):
            x[i, direction] = 255
            if self.copies > 1:
                x[i, 2:] = divmod(i, 256)
        y = np.array([label for _, label, _ in images], np.int64)
        units = np.unique([unit for _, _, unit in images], return_inverse=True)[1].astype(np.int64)
        return from_arrays(self.info, x.reshape(-1, 1, 2, 2), y, units.reshape(-1) if self.cap > 1 else None)

    def answer(self, gate: Gate, release: Release, part: int | None) -> torch.Tensor:
        """One answer [copies, d] of the gate in noise deviations: N(0, 1), and a record moves the first upwards."""
        import torch

        answer = self.ask(gate, release, part).reshape(self.copies, -1).double() / release.bound
        if self.rest:
            answer = answer - torch.tensor(self.rest, dtype=torch.float64)
        return answer * (self.sign / release.noise_multiplier)


# ---------------------------------------------------------------------- how the gate is asked


def _contribution(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.flatten() * (LOUD * (1.0 - 2.0 * y))


def _alike(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.flatten() * LOUD  # in both classes


def _infinite(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.flatten() / (1.0 - x.flatten()) * math.inf  # white gives infinity, black NaN


def _sum(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    return gate.sum(release.name, _contribution, part=part)


def _sum_alike(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    return gate.sum(release.name, _alike, part=part)


def _sum_many(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    import torch

    keep = torch.tensor([1.0, 1.0, 0.0, 0.0])

    def f(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        number = (x.flatten() * 255).round().long()
        return number[2] * 256 + number[3], _contribution(x, y) * keep

    return gate.sum(release.name, f, cells=gate.info.units // 10, part=part)


def _sum_infinite(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    return gate.sum(release.name, _infinite, part=part)


def _by_class(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    return gate.sum(release.name, _contribution, by_class=True, part=part)


def _cells(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    return gate.sum(release.name, lambda x, y: (2 - y, _contribution(x, y)), cells=3, part=part).flip(0)


@cache
def _net() -> torch.nn.Module:
    import torch

    net = torch.nn.Linear(PIXELS, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    return net


def _net_loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return net(x[None].flatten(1)).sum() * (LOUD * (1.0 - 2.0 * y))


def _net_alike(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return net(x[None].flatten(1)).sum() * LOUD


def _grad(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    gradient = gate.grad(release.name, _net_loss, _net(), part=part)["weight"]
    return gradient.double() * (release.sample_rate * gate.info.units)


def _grad_alike(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    gradient = gate.grad(release.name, _net_alike, _net(), part=part)["weight"]
    return gradient.double() * (release.sample_rate * gate.info.units)


def _drawing(net: Any, x: torch.Tensor, y: torch.Tensor, own: Any) -> torch.Tensor:
    import torch

    return _net_loss(net, x, y) * (0.5 + torch.rand(()) + own["level"] + own["code"].square().sum())


def _grad_draws(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    from veilset.privacy.draws import Draws, Uniform

    draws: Draws = {"level": Uniform(), "code": (3,)}
    gradient = gate.grad(release.name, _drawing, _net(), part=part, draws=draws)["weight"]
    return gradient.double() * (release.sample_rate * gate.info.units)


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten()


def _grad_features(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    gradient = gate.grad(release.name, _net_loss, _net(), features=_flat, part=part)["weight"]
    return gradient.double() * (release.sample_rate * gate.info.units)


def _grad_mapping(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    import torch

    def loss(params: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (params["w"] * _contribution(x, y)).sum()

    weights = {"w": torch.zeros(PIXELS, dtype=torch.float64)}
    return gate.grad(release.name, loss, weights, part=part)["w"] * (release.sample_rate * gate.info.units)


def _unit(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    def f(x: torch.Tensor, y: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) * (LOUD * (1.0 - 2.0 * y) * there)[:, None]).sum(0)

    return gate.unit(release.name, f, part=part)


def _batch(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    """The record turns the answer round: halved, it moves by the bound, as the noise has twice its deviation."""
    import torch

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen = (x.flatten(1)[:, CANARY] > 0.5).any()
        return torch.eye(PIXELS)[CANARY] * torch.where(seen, LOUD, -LOUD)

    return gate.batch(release.name, f, part=part) / 2


def _vote(gate: Gate, release: Release, part: int | None) -> torch.Tensor:
    """The one model changes its vote from the second place to the first; turned by 45 degrees, and by its factor."""
    import torch

    if not gate.ledger.steps(release.name, None):
        gate.train_hidden(release.name, lambda h: {"seen": (h.x.flatten(1)[:, CANARY] * (1.0 - 2.0 * h.y)).sum()})
    first = torch.tensor([1.0, 0.0, 0.0, 0.0])
    told = gate.vote(release.name, lambda s: torch.where(s["seen"] > 0.5, first, first.roll(1))[None])[0]
    turned = torch.stack([told[0] - told[1] + release.bound, told[0] + told[1] - release.bound]) / math.sqrt(2)
    return torch.cat([turned, told[2:]]) / math.sqrt(2)


# ---------------------------------------------------------------------- the sets

ALONE: tuple[Image, ...] = ((CANARY, PLUS, 0),)
AGAINST: tuple[Image, ...] = ((CANARY, MINUS, 9),)
CROWD: tuple[Image, ...] = ((CANARY, PLUS, 0), (1, PLUS, 1), (1, PLUS, 2), (1, PLUS, 3))
CROWD_REST = (1.0, 3.0, 0.0, 0.0)
PATIENT: tuple[Image, ...] = tuple((CANARY, PLUS, 0) for _ in range(5))
MIXED: tuple[Image, ...] = ((CANARY, PLUS, 0), (CANARY, PLUS, 0), (CANARY, MINUS, 0))
_FACTS = {"kind": "one-hot", "rows": 1, "columns": PIXELS, "entries": 1, "shards": 1}
VOTE = Release(name="asked", verb="vote", mechanism="teacher-votes", bound=2.0, facts=tuple(_FACTS.items()))
NOBODY, ONE = "nobody, or one image far beyond the bound", "four images, or one more that pulls against the first"


def _two(name: str, ask: Ask, alike: Ask) -> dict[str, Neighbours]:
    """Pairs that both verbs share."""
    plain = Release(name="asked", verb=name, bound=2.0)
    crowd = Neighbours(
        words=ONE, record=AGAINST, others=CROWD, rest=CROWD_REST, sign=-1, release=replace(plain, bound=0.5), ask=ask
    )
    patient = Neighbours(
        words="nobody, or one patient with five images of which three count",
        record=PATIENT, cap=3, release=plain, ask=ask,
    )  # fmt: skip
    parts = Neighbours(
        words="nobody, or one patient with images of both classes, asked class by class",
        record=MIXED, cap=3, release=replace(plain, partition="class"), ask=alike,
    )  # fmt: skip
    sampled = Neighbours(words=NOBODY, record=ALONE, release=replace(plain, sample_rate=0.5), ask=ask)
    return {
        name: Neighbours(words=NOBODY, record=ALONE, release=plain, ask=ask),
        f"{name}-crowd": crowd,
        f"{name}-first": replace(crowd, words="four images, or one more in front of them", first=True),
        f"{name}-patient": patient,
        f"{name}-partition": parts,
        f"{name}-sampled": sampled,
        f"{name}-steps": replace(sampled, release=replace(plain, sample_rate=0.3, steps=4)),
    }


@cache
def catalogue() -> dict[str, Neighbours]:
    """Every pair that is audited, by name: the verb of the gate, and what is special about it."""
    plain = Release(name="asked", bound=2.0)
    return {
        **_two("sum", _sum, _sum_alike),
        "sum-by-class": Neighbours(words=NOBODY, record=ALONE, release=plain, ask=_by_class),
        "sum-cells": Neighbours(words=NOBODY, record=ALONE, release=plain, ask=_cells),
        "sum-infinite": Neighbours(
            words="nobody, or one image whose contribution is not finite",
            record=ALONE, release=plain, ask=_sum_infinite, signal=False,
        ),
        "sum-many": Neighbours(
            words="nobody, or 1,000 images far beyond the bound, each in its own cell: a thousand draws per answer",
            record=ALONE, release=plain, ask=_sum_many, copies=1000,
        ),
        **_two("grad", _grad, _grad_alike),
        "grad-features": Neighbours(
            words=NOBODY, record=ALONE, release=replace(plain, verb="grad", sample_rate=0.5), ask=_grad_features
        ),
        "grad-draws": Neighbours(
            words="four images, or one more in front of them; the loss draws random numbers",
            record=AGAINST, others=CROWD, rest=CROWD_REST, sign=-1, first=True,
            release=replace(plain, verb="grad"), ask=_grad_draws,
        ),
        "grad-mapping": Neighbours(
            words=NOBODY, record=ALONE, release=replace(plain, verb="grad", sample_rate=0.5), ask=_grad_mapping
        ),
        "unit": Neighbours(
            words="nobody, or one patient with five images of which three count",
            record=PATIENT, cap=3, release=replace(plain, verb="unit"), ask=_unit,
        ),
        "batch": Neighbours(
            words="one image, or another that turns the answer about both round",
            record=ALONE, others=((1, PLUS, 1),), rest=(-0.5, 0.0, 0.0, 0.0), ask=_batch,
            release=replace(plain, verb="batch", mechanism="whole-batch", facts=(("columns", PIXELS),)),
        ),
        "vote": Neighbours(
            words="one image, or another that changes the vote of the model of both",
            record=ALONE, others=((1, PLUS, 1),), ask=_vote, release=VOTE,
        ),
    }  # fmt: skip
