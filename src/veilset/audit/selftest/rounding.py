"""Floating point takes from nobody's bound: clipped rows, norms, sums and the grid, against exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional as F

from veilset.audit.selftest.base import Check, facts, flat, gate_for, hidden, pictures, wrong
from veilset.privacy.bounding import Bounded, ExactSum, clip, grid
from veilset.privacy.gate import Gate
from veilset.privacy.gradients import Clipped, Total
from veilset.privacy.gradients.sheet import Sheet
from veilset.privacy.plan import Release

SUMS, GRADIENTS = 1e-6, 1e-3  # contributions are clipped to so much below the bound
MANY = 300


def rows() -> Iterator[Check]:
    """Rows of every size and length, exactly: never longer than the bound less half of its spare, nor much shorter."""
    dice = np.random.default_rng(0)
    most, least = Fraction(0), Fraction(1)
    for length in (1, 2, 17, 1000):
        for size in (1e-250, 1e-8, 1.0, 1e8, 1e200, 1e308):
            for bound in (1.0, 0.3, 7e5):
                v = dice.standard_normal((2, length)).clip(-1.7, 1.7) * size
                v[1] *= bound / np.linalg.norm(v[1] / size) / size * (1 + 1e-15)  # as long as the bound, about
                for i, row in enumerate(clip(torch.from_numpy(v), bound).numpy()):
                    share = sum(Fraction(float(k)) ** 2 for k in row) / Fraction(bound) ** 2
                    most = max(most, share)
                    least = min(least, share) if i == 1 or size > 1e6 else least
    yield Check("clipped rows are not longer than their bound", math.sqrt(most), 1 - SUMS / 2, "largest norm / bound")
    yield Check(
        "clipped rows are not shorter than need be", 1 - math.sqrt(least), 2 * SUMS, "largest shortfall / bound"
    )


def whole_numbers() -> Iterator[Check]:
    """Sums of contributions are whole numbers of the grid, cut off toward 0; the largest, and noise, fit in 2^53."""
    dice, of = np.random.default_rng(1), {}
    for bound, noise, units in ((1.0, 3.7, 50), (0.3, 1e9, 3), (7e5, 0.0, 60_000), (1e-9, 1e-9, 1)):
        step = grid(bound, noise, units)
        largest = max(8 * units * Fraction(bound), 64 * Fraction(noise)) / Fraction(step)
        of[f"grid of {bound:g}, {noise:g}, {units}"] = math.frexp(step)[0] == 0.5 and 2**52 <= largest < 2**53
        sums = ExactSum(2, 9, bound, step)
        v, weight = (
            torch.from_numpy(dice.standard_normal((7, 9)) * bound),
            torch.tensor([1.0, 0.5, 1 / 3, 1, 1, 0.2, 1]),
        )
        row = torch.tensor([0, 0, 1, 1, 1, 0, 1])
        sums.add(v, weight.double(), row)
        exact = (clip(v, bound) * (weight.double()[:, None] / step)).numpy()
        got, wanted = sums.total(), np.zeros((2, 9))
        np.add.at(wanted, row.numpy(), np.trunc(exact))
        near = float(np.abs(got.value.numpy() - wanted).max()) <= 2  # one may round across a whole number
        of[f"sums at {bound:g}"] = near and bool((got.value == got.value.round()).all())
        of[f"their bound at {bound:g}"] = got.sensitivity == bound / step
        one = ExactSum(1, 9, bound, step)
        one.add(v[:1], weight[:1].double(), row[:1])
        of[f"one at {bound:g}"] = bool((one.total().value.abs() <= clip(v[:1], bound).abs() / step * (1 + 1e-12)).all())
    yield wrong("sums are exact on the grid", "what is not", of=of)


def added() -> Iterator[Check]:
    """Gradients of all three forms, below the bound, are added up in float64: float32 would be off by 1e-7 and more."""
    for words, loss, w, wanted in _forms():
        release, far = Release(name="r", verb="grad", bound=1e4), 0.0
        seen: list[Bounded] = []
        for images in (1, 2) if words != "gram" else (1,):  # two positions' products are not exact in float32
            info = facts((1, 3, 40), units=MANY // images, max_images_per_unit=images)
            units = np.arange(MANY) // images if images > 1 else None
            with patch.object(Gate, "_noised", _kept(seen)):
                gate_for(hidden(info, *pictures(MANY, info), units), release).grad("r", loss, {"w": w})
            exact = wanted(torch.from_numpy(pictures(MANY, info)[0]).double()).flatten()
            got = seen.pop()
            far = max(far, float((got.value / got.sensitivity * 1e4 * images - exact).norm() / exact.norm()))
        yield Check(f"gradients are added in float64, {words}", far, 1e-11, "largest relative difference")


def weighted() -> Iterator[Check]:
    """The same for shares that scale each record, and norms that are those of float64, in every form."""
    dice, far, short = torch.Generator().manual_seed(0), 0.0, 0.0
    share = torch.linspace(0.1, 1, MANY, dtype=torch.float64) / 3
    for form, length in (("explicit", 3), ("outer", 1), ("gram", 3)):
        a, g = torch.rand(MANY, length, 40, generator=dice), torch.rand(MANY, length, 50, generator=dice)
        sheet, exact = Sheet(MANY, {"w": torch.Size([50, 40])}), torch.bmm(g.double().transpose(1, 2), a.double())
        if form == "explicit":
            sheet.add("w", exact.float())
            exact = exact.float().double()
        else:
            sheet.product("w", a, g)
        bound = float(exact.flatten(1).norm(dim=1).median())
        total = torch.zeros(2000, dtype=torch.float64)
        far = max(far, float((sheet._weighted("w", share).flatten() - share @ exact.flatten(1)).norm()))
        for used in range(0, MANY, 37):
            total.zero_()
            sheet.add_clipped(total, torch.arange(MANY) == used, bound)
            short = max(short, float(total.norm()) / bound)
    yield Check("weighted gradients are added in float64", far, 1e-8, "largest difference; norms are about 1e4")
    yield Check("a record of a sheet stays in its bound", short, 1 - GRADIENTS / 2, "largest norm / bound")


def cancelling() -> Iterator[Check]:
    """Norms of gradients whose positions cancel hold what float32 may hide, which grows with the terms of a product."""
    least, dice = math.inf, torch.Generator().manual_seed(1)
    for i, o in ((30, 40), (300, 900), (3000, 2500)):
        a, g = torch.rand(2, 2, i, generator=dice), torch.rand(2, 2, o, generator=dice)
        a[:, 1], g[:, 1] = a[:, 0], -g[:, 0]
        sheet = Sheet(2, {"w": torch.Size([o, i])})
        sheet.product("w", a, g)
        size = (a.double().norm(dim=2) * g.double().norm(dim=2)).sum(1)
        hidden_ = math.sqrt(max(1e-4, (i + o) * 2.0**-24)) * size
        least = min(least, float((sheet.norms() / hidden_).min()))
    yield Check("norms hold what rounding may hide", 1 - least, 1e-3, "largest shortfall / what may be hidden")


def low_precision() -> Iterator[Check]:
    """Under bfloat16 autocast norms are still float32, whatever form a gradient has, and the slow path too."""
    x = torch.rand(32, 1, 40, generator=torch.Generator().manual_seed(0)).expand(32, 4, 40)
    for words, loss, w in _low():
        norms = []
        with torch.autocast("cpu", torch.bfloat16):
            clipped = Clipped(loss, w, (x[0], torch.tensor(0)))
            for k in range(32):
                total = Total(clipped.size, 1.0, several=False)
                one = torch.zeros(1, dtype=torch.int64)
                clipped.add(total, loss, w, (x[k : k + 1], torch.tensor([k])), one, torch.ones(1))
                norms.append(float(total.sum.norm()))
        yield Check(f"norms are not bfloat16, {words}", max(norms), 1 - GRADIENTS / 2, "largest norm / bound")


def crowds() -> Iterator[Check]:
    """Rows, grids and deviations follow from declared facts: the same for nobody, one, and eight times as many."""
    of = {}
    for verb in ("sum", "grad"):
        seen = set()
        for n in (0, 1, 7, 49, 400):
            info = facts()
            gate = gate_for(hidden(info, *pictures(n, info)), Release(name="r", verb=verb, sample_rate=0.5), seed=0)
            exact: list[Bounded] = []
            with patch.object(Gate, "_noised", _kept(exact)):
                if verb == "sum":
                    gate.sum("r", flat)
                else:
                    gate.grad("r", lambda p, x, y: (p["w"] * x).sum(), {"w": torch.zeros(info.shape)})
            value = exact[0].value
            of[f"{verb} of {n} is whole"] = bool((value == value.round()).all())
            seen.add((tuple(gate._rows.values()), gate._step(gate.plan["r"]), exact[0].sensitivity, value.dtype))
        of[f"{verb} follows declared facts"] = len(seen) == 1
    yield wrong("chunks and grid follow from declared facts", "what does not", of=of)


CHECKS = (rows, whole_numbers, added, weighted, cancelling, low_precision, crowds)

Form = tuple[str, Callable[..., torch.Tensor], torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]


def _forms() -> list[Form]:
    """(name, loss, parameter, the sum of its gradients over images) of images [n, 1, 3, 40], exact in float32."""
    scale = 2.0 ** (torch.arange(50) % 5 - 2)  # powers of 2: products are exact
    wide = scale.double()
    return [
        ("explicit", lambda p, x, y: (p["w"] * x[0]).sum(), torch.zeros(3, 40), lambda x: x.sum(0)),
        (
            "outer",
            lambda p, x, y: (F.linear(x[0, 0], p["w"]) * scale).sum(),
            torch.zeros(50, 40),
            lambda x: torch.outer(wide, x[:, 0, 0].sum(0)),
        ),
        (
            "gram",
            lambda p, x, y: (F.linear(x[0, :2], p["w"]) * torch.stack([scale, scale.flip(0)])).sum(),
            torch.zeros(50, 40),
            lambda x: (
                torch.outer(scale.double(), x[:, 0, 0].sum(0)) + torch.outer(scale.flip(0).double(), x[:, 0, 1].sum(0))
            ),
        ),
    ]


def _low() -> list[tuple[str, Callable[..., torch.Tensor], dict[str, torch.Tensor]]]:
    """(name, loss with a long gradient, parameters) for images [4, 40] of equal rows."""
    gram = lambda p, x, y: 1e4 * (1 + y / 64) * F.linear(x, p["w"]).sum()  # noqa: E731
    outer = lambda p, x, y: 1e4 * (1 + y / 64) * F.linear(x[0], p["w"]).sum()  # noqa: E731
    explicit = lambda p, x, y: 1e4 * (1 + y / 64) * (p["w"] * x[0]).sum()  # noqa: E731
    return [
        ("gram", gram, {"w": torch.zeros(40, 40)}),
        ("outer", outer, {"w": torch.zeros(40, 40)}),
        ("explicit", explicit, {"w": torch.zeros(40)}),
    ]


def _kept(exact: list[Bounded]) -> Callable[..., torch.Tensor]:
    real = Gate._noised

    def noised(self: Gate, value: Bounded, *a: Any) -> torch.Tensor:
        exact.append(value)
        return real(self, value, *a)

    return noised
