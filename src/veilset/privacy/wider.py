"""The gate's verbs whose function sees more than a record: all of a unit, a whole sample, hidden models that vote."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from veilset.core.errors import ConfigError
from veilset.privacy import mechanisms
from veilset.privacy.alone import alone, equal, steady_rows
from veilset.privacy.bounding import Bounded, ExactSum, clip, grid
from veilset.privacy.draws import shared
from veilset.privacy.enclave import TOGETHER
from veilset.privacy.poll import Poll, Vote

if TYPE_CHECKING:
    from veilset.core.types import PublicInfo
    from veilset.privacy.noise import Keys
    from veilset.privacy.plan import Release
    from veilset.privacy.reading import Reader
    from veilset.privacy.run.process_group import Team

PerUnit = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
PerBatch = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
UNIT_BYTES = 1 << 28  # of the images of the units that are mapped together, twenty times over for what f does with them


class Wider:
    """A part of `Gate`, which has what is declared here."""

    if TYPE_CHECKING:
        info: PublicInfo
        _team: Team
        _keys: Keys
        _reader: Reader
        _rows: dict[Any, int]
        _planned: Callable[[str, str, int | None], Release]
        _affordable: Callable[[Release, int | None], int]
        _charge_block: Callable[[Release, int | None, int], None]
        _chosen: Callable[[Release, int | None, int], np.ndarray[Any, Any]]
        _enclave: Callable[[Release], Any]
        _noised: Callable[[Bounded, Release, str], torch.Tensor]
        _step: Callable[[Release], float]
        _whole: Callable[[Bounded], Bounded]

    def unit(self, name: str, f: PerUnit, *, part: int | None = None) -> torch.Tensor:
        """Noisy sum over sampled units of f of all images of a unit, clipped: local training, a median, a distance.

        Args:
            name: a planned release with verb "unit".
            f: a unit's images [cap, C, H, W], their labels [cap], and which of them there are, [cap] of 1 and 0 (blanks
                stand last) -> a tensor of fixed shape. It is run under `torch.func.vmap`, so it cannot see another
                unit; gradients are taken with `torch.func`. What it draws is the same for all units of the step.
            part: as in `Gate.grad`.

        Returns:
            float64 tensor of f's shape.

        Raises:
            PlanError, BudgetExceeded: as `Gate.grad`. ConfigError: f keeps a state.
        """
        release = self._planned(name, "unit", part)
        done = self._affordable(release, part)
        drawn_here = int(torch.randint(2**62, ()))  # one draw a call, in every process, whatever is sampled
        seed = self._team.share(lambda: drawn_here)
        self._charge_block(release, part, done)
        x, y = self._reader.blank()
        cap = self.info.max_images_per_unit
        like = x.expand(cap, *x.shape), y.expand(cap), torch.zeros(cap, device=x.device)
        mapped = torch.no_grad()(torch.func.vmap(lambda *unit: [f(*unit)], randomness="same"))
        with shared(seed, x.device):
            shape = tuple(mapped(*(v[None] for v in like))[0].shape[1:])
        rows = self._units_together(release, mapped, like, math.prod(shape))
        step, size = self._step(release), math.prod(shape)
        exact = ExactSum(1, size, release.bound, step)
        for n, images in self._units(self._chosen(release, part, done), rows):
            (value,) = alone(mapped, seed, *images)
            exact.add(value.reshape(rows, size)[:n].cpu(), torch.ones(n), torch.zeros(n, dtype=torch.int64))
        total = self._whole(exact.total())
        return self._team.share(lambda: self._noised(total, release, f"{name}/{part}/{done}") * step).reshape(shape)

    def batch(self, name: str, f: PerBatch, *, part: int | None = None) -> torch.Tensor:
        """The answer of any function of a Poisson sample of units, clipped as a whole, plus noise for twice the bound.

        Of several processes the first one does this work.

        Args:
            name: a planned release with verb "batch" and mechanism "whole-batch", which states how many numbers answer.
            f: all images [n, C, H, W] of the units that were sampled, with labels [n] -> [columns]. It may draw from
                torch's generator, which is the step's own. It runs without autograd; gradients are taken with
                `torch.func`. It keeps nothing between calls: it is asked twice about made-up images first. An answer
                that is not finite counts as zeros, and nobody in the sample answers with zeros.
            part: as in `Gate.grad`.

        Returns:
            float64 [columns].

        Raises:
            PlanError, BudgetExceeded: as `Gate.grad`.
            ConfigError: f gives another shape, or keeps a state. What was charged stays charged.
        """
        release = self._planned(name, "batch", part)
        done = self._affordable(release, part)
        self._charge_block(release, part, done)  # first: not even an error of f on private records comes for nothing

        def answer() -> torch.Tensor:
            if (name, "batch") not in self._rows:
                self._look(release, f)
            how = mechanisms.of(release)
            chosen = how.chosen(
                release, self._reader.units, part, done, lambda n: self._keys.stream(f"sample/{name}/{part}/{n}")
            )
            own, step = self._keys.stream(f"batch/{name}/{part}/{done}"), self._step(release)
            value = torch.zeros(dict(release.facts)["columns"])
            for _, (x, y, there) in self._units(chosen, max(1, len(chosen))):
                kept = (there > 0).flatten()
                seed = int(own.uint64(1)[0] >> 2)
                value = self._asked(release, f, x.flatten(0, 1)[kept], y.flatten()[kept], seed)
            row = clip(value[None], release.bound, 1 / step).trunc_()[0]
            return self._noised(Bounded(row, release.bound / step), release, f"{name}/{part}/{done}") * step

        return self._team.share(answer)

    def vote(self, name: str, f: Vote, *, together: int = TOGETHER) -> torch.Tensor:
        """The votes of all hidden models of a release, counted, plus noise.

        Of several processes the first one does this work. Models that learned keep it for the next step.

        Args:
            name: a planned release with verb "vote" and mechanism "teacher-votes", whose facts say how many queries
                (rows) a step asks, how many numbers (columns) answer one, and of which kind a vote is.
            f: a model's state, as `train_hidden` or the last call left it, which it may change -> scores
                [rows, columns]. The gate makes votes of them (`ballots.votes`); a row that is not finite casts none.
                It is run under `torch.func.vmap`, many models in one pass, so it cannot see another one; gradients are
                taken with `torch.func`. What it draws is each model's own. It keeps nothing elsewhere.
            together: models in one pass.

        Returns:
            float64 [rows, columns]: counts, each vote worth the planned bound.

        Raises:
            PlanError, BudgetExceeded: as `Gate.grad`.
            ConfigError: the models are not trained, f gives another shape, or keeps a state.
        """
        release = self._planned(name, "vote", None)
        done = self._affordable(release, None)
        self._charge_block(release, None, done)  # first, as in `pull`

        def answer() -> torch.Tensor:
            poll, noise = self._enclave(release), release.noise_multiplier * mechanisms.of(release).factor(release)
            assert isinstance(poll, Poll)
            step = grid(release.bound, noise * release.bound, max(self.info.units, poll.shards))
            counts = poll.vote(done, f, together, math.floor(release.bound / step))
            return self._noised(Bounded(counts, release.bound / step), release, f"{name}/None/{done}") * step

        return self._team.share(answer)

    # ------------------------------------------------------------------ helpers

    def _units(self, chosen: np.ndarray[Any, Any], rows: int) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
        """Chosen units, so many at a time: (how many, (images [rows, cap, C, H, W], labels, marks)); blanks last."""
        cap = self.info.max_images_per_unit
        for start in range(0, len(chosen), rows):
            some = chosen[start : start + rows]
            for c in self._reader.chunks(some, rows * cap):  # one: there is room for all of their images
                n = len(c.unit)
                place = c.unit * cap + torch.arange(n) - torch.searchsorted(c.unit, c.unit)
                x, y = torch.zeros_like(c.x), torch.zeros_like(c.y)
                x[place], y[place] = c.x[:n], c.y[:n]
                there = torch.zeros(rows * cap, device=x.device)
                there[place] = 1
                yield len(some), tuple(v.unflatten(0, (rows, cap)) for v in (x, y, there))

    def _units_together(self, release: Release, mapped: Any, like: Any, size: int) -> int:
        """Units that are mapped at a time, each alone to the last bit; decided when a release is first asked."""
        if (release.name, "unit") not in self._rows:
            each = 4 * (20 * self.info.max_images_per_unit * self.info.pixels + 4 * size)
            rows = self._reader.rows(self.info.units / self._team.size, release.sample_rate, max(1, UNIT_BYTES // each))
            classes = len(self.info.classes)
            self._rows[release.name, "unit"] = steady_rows(release.name, mapped, like, classes, rows)
        return self._rows[release.name, "unit"]

    def _asked(self, release: Release, f: PerBatch, x: torch.Tensor, y: torch.Tensor, seed: int) -> torch.Tensor:
        columns = dict(release.facts)["columns"]
        with shared(seed, x.device), torch.no_grad():  # a `backward` would reach public networks
            value = f(x, y)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != (columns,) or not value.is_floating_point():
            said = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ConfigError(
                f"release {release.name!r}: its answer is {said}, planned were {columns} floating-point numbers; "
                "return what was planned, or plan what is returned"
            )
        return value.detach().to("cpu", torch.float64)

    def _look(self, release: Release, f: PerBatch) -> None:
        """Ask f about made-up images, of others, and again: it must say the same."""
        g, (x, _) = torch.Generator().manual_seed(0), self._reader.blank()
        many = (
            torch.rand(8, *x.shape, generator=g).to(x),
            torch.randint(len(self.info.classes), (8,), generator=g).to(x.device),
        )
        once = self._asked(release, f, *many, 0)
        self._asked(release, f, many[0][:5].flip(0), many[1][:5], 1)
        again = self._asked(release, f, *many, 0)
        if not equal(once, again):
            raise ConfigError(
                f"release {release.name!r}: asked twice about one sample, f gives two answers; it keeps a state, or a "
                "generator, of its own"
            )
        self._rows[release.name, "batch"] = 1
