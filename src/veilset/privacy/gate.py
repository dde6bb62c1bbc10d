"""The one object that reads private records. It samples, maps each record alone (or asks a hidden model), bounds, sums,
adds noise, and writes the ledger before a noisy value leaves. It refuses whatever was not planned or is not paid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from veilset.core.errors import BudgetExceeded, ConfigError, DataError, ModeError, PlanError, RunError
from veilset.core.progress import progress
from veilset.core.types import Images
from veilset.privacy import mechanisms
from veilset.privacy.account import Payment, check_mode
from veilset.privacy.alone import alone, steady_rows
from veilset.privacy.bounding import CROWD, Bounded, ExactSum, clip, grid
from veilset.privacy.draws import Draws, check_draws, drawn, shape_of
from veilset.privacy.enclave import TOGETHER, Answer, Enclave, Train
from veilset.privacy.features import Map
from veilset.privacy.gradients import Clipped, Loss, Parameters, Total, code_of
from veilset.privacy.ledger import FORMAT, Ledger
from veilset.privacy.noise import GENERATOR, Keys, Stream
from veilset.privacy.plan import Plan, Release, check_within
from veilset.privacy.poll import Poll
from veilset.privacy.private import PrivateImages
from veilset.privacy.reading import MANY, Reader
from veilset.privacy.run.checkpoint import thaw
from veilset.privacy.run.journal import Journal
from veilset.privacy.run.process_group import Team
from veilset.privacy.wider import Wider

PerRecord = Callable[[torch.Tensor, torch.Tensor], Any]
CHUNK_BYTES = 1 << 25  # temporary memory of one chunk of a sum
GRADIENT_BYTES = 800 << 20  # and of clipped gradients, as estimated; small chunks cost a quarter more
RESERVE = 100  # a loop is charged in about this many blocks
LOOPED = ("grad", "unit", "batch", "pull", "vote")  # verbs that are asked step by step


class Gate(Wider):
    """Answers the releases of one priced plan about one private set.

    Args:
        data: the private images.
        plan: a plan with its noise set by `Plan.price`.
        seed: None for release mode; an integer for research mode, which repeats bit for bit and is stamped.
        folder: run folder for the ledger and, under `private/`, the answers already paid for; None keeps all in memory.
            Of several processes only the first one uses it.
        device: where f and loss are run; bounding, summing and noise stay on the CPU.
        payment: a draw on the set's account; made once the files are found sound, before anything is asked.

    Raises:
        BudgetExceeded: the account does not cover the plan.
        ModeError: a payment for a run that gives no privacy.
        PlanError: the plan is not priced, or was priced for other declared facts.
        RunError: the folder belongs to another plan, seed or data set, or the processes hold different data.

    Examples:
        >>> plan = vs.Plan((vs.Release(name="mean", bound=4.0),)).price(vs.Privacy(epsilon=1.0), data.info)
        >>> gate = vs.Gate(data.train, plan, seed=0)
        >>> gate.sum("mean", lambda x, y: x - 0.5).shape  # each image bounded, all added up, noise added
        torch.Size([1, 8, 8])
        >>> round(gate.close().spent()[0].noise_multiplier, 2)
        3.73
    """

    def __init__(
        self,
        data: PrivateImages,
        plan: Plan,
        *,
        seed: int | None = None,
        folder: Path | None = None,
        device: str = "cpu",
        payment: Payment | None = None,
    ):
        if plan.privacy is None or plan.info is None:
            raise PlanError("the plan has no noise yet; price it first: plan.price(privacy, info)")
        if payment:
            check_mode(seed, plan.privacy)
        if plan.info != data.info:
            raise PlanError("the plan was priced for other declared facts than those of this data set; price it again")
        if plan.privacy.private:
            check_within(plan.spent(), plan)  # a plan may have been edited after it was priced
        self.plan, self.info = plan, plan.info
        self._team = Team()
        self._keys, self._device = Keys(seed), device  # in release mode every process has a key of its own
        self._clipped: dict[Any, Clipped] = {}
        self._deviations: dict[str, float] = {}  # of each release's noise, as it was last
        self._enclaves: dict[str, Enclave] = {}
        self._rows: dict[Any, int] = {}
        self._taken: dict[tuple[str, int | None], int] = {}
        self._closed = False
        self.mode = "release" if seed is None else "research"
        # Check and open the files before the first ledger line: file faults are told to the owner and cost nothing.
        self._reader = Reader(data._open(), self.info, device)  # noqa: SLF001 kept from all others
        if self._reader.units.count > CROWD * self.info.units:
            raise DataError(
                f"units = {self.info.units}: the set holds more than {CROWD} times as many; declare the number of units"
            )
        start = {"format": FORMAT, "mode": self.mode, "generator": GENERATOR, "plan": plan.facts()}
        pay = functools.partial(payment.make, plan) if payment else None
        self._journal = Journal(self._team, folder, seed, start, self._reader.bytes(), pay)
        self.ledger = self._journal.ledger

    # ------------------------------------------------------------------ verbs

    def sum(
        self,
        name: str,
        f: PerRecord,
        *,
        by_class: bool = False,
        cells: int | None = None,
        part: int | None = None,
        features: Map | None = None,
    ) -> torch.Tensor:
        """Noisy sum over units of the mean of f over the unit's images.

        Args:
            name: a planned release with verb "sum".
            f: one image [C, H, W] float32 in [0, 1] and its label (int64 scalar) -> a tensor of fixed shape. It is run
                under `torch.func.vmap`, so it cannot see another record. Clipped to the planned bound in L2 norm.
            by_class: keep the sums of the classes apart (still one release: the label is protected with the image).
            cells: keep this many sums apart; f then returns (cell number, value), the number an int64 scalar.
            part: which class of the partition, for a release that was planned with partition="class".
            features: a public map of one image, as in `grad`; f then gets its value for the image.

        Returns:
            float64 tensor of the value's shape, with leading axes of K classes if `by_class` and of cells if `cells`.

        Raises:
            PlanError, BudgetExceeded: not planned, or already spent; refused before any record is read.
        """
        release = self._planned(name, "sum", part)
        saved = self._saved(release, part)
        if saved is not None:
            return saved
        done = self._affordable(release, part)
        place = f if cells else lambda x, y: (torch.zeros_like(y), f(x, y))
        blank = self._reader.blank(features)
        shape = _shape(name, place(*blank)[1])
        lead = ((len(self.info.classes),) if by_class else ()) + ((cells,) if cells else ())
        size = math.prod(shape)
        mapped = torch.no_grad()(torch.func.vmap(place))  # f may hold parameters; their graph would be waste
        most = max(1, min(MANY, CHUNK_BYTES // (16 * max(size, self.info.pixels, blank[0].numel()))))
        rows = self._steady(release, (shape, code_of(f)), mapped, blank, most)
        step = self._step(release)
        exact = ExactSum(math.prod(lead), size, release.bound, step)
        for c in self._reader.chunks(self._chosen(release, part, done), rows, features):
            cell, value = alone(mapped, 0, c.x, c.y)
            row = (c.y if by_class else 0) * (cells or 1) + cell.clamp(0, (cells or 1) - 1)
            n = len(c.unit)  # the rest is blank; a unit's images share its bound
            exact.add(value.reshape(rows, size)[:n].cpu(), 1.0 / c.images.double(), row[:n].cpu())
        total = self._whole(exact.total())
        self._charge(release, part, 1)

        def answer() -> torch.Tensor:
            noisy = self._noised(total, release, f"{name}/{part}/{done}") * step
            self._journal.store.keep_answer(_tag(name, part, done), noisy.reshape(lead + shape))
            return noisy.reshape(lead + shape)

        return self._team.share(answer)

    def grad(
        self,
        name: str,
        loss: Loss,
        params: Parameters,
        *,
        features: Map | None = None,
        part: int | None = None,
        draws: Draws | None = None,
    ) -> dict[str, torch.Tensor]:
        """One DP-SGD step's gradient: Poisson sample, clip each unit's mean gradient, sum, add noise, divide by q N.

        The divisor is the public expected number of units, never the realised one. An empty sample is noise.

        Args:
            name: a planned release with verb "grad".
            loss: (params, one image [C, H, W] in [0, 1], its label) -> scalar, a function of these alone. It is run
                under `torch.func.vmap`, so it cannot see another record; for a module it calls the first argument,
                `net(x[None])`. What it draws from torch's generator (dropout, `torch.rand`) is the same for all records
                of the step. An autocast that is on around `grad` is used.
            params: a module, whose parameters that require a gradient are clipped together (flat clipping), or a
                mapping of name -> tensor.
            features: a public map of one image; the loss then gets its value for the image. Computed once per record
                and kept in memory. Give the same function object in every step.
            part: which class of the partition, if planned.
            draws: random numbers of each record's own, fresh in every step: name -> shape for standard normal ones, or
                `veilset.Uniform(shape)`. The loss then takes a fourth argument, name -> float32 tensor.

        Returns:
            name -> gradient, in the parameter's shape and type.

        Raises:
            PlanError, BudgetExceeded: as `sum`.
            ConfigError: a layer mixes records (batch normalisation) or changes a buffer; the loss keeps a state, or
                draws from a distribution that depends on the record; `draws` is no declaration.
        """
        release = self._planned(name, "grad", part)
        done = self._affordable(release, part)
        draws = draws or {}
        drawn_here = int(torch.randint(2**62, ()))  # one draw a call, in every process, whatever is sampled
        seed = self._team.share(lambda: drawn_here)
        clipped = self._clipped.get((name, part))
        if clipped is None or not clipped.fits(loss, params, draws):
            check_draws(draws)
            own = [torch.zeros(shape_of(how), device=self._device) for how in draws.values()]
            clipped = self._clipped[name, part] = Clipped(loss, params, (*self._reader.blank(features), *own), draws)
        # As in the step before. If `_noised` should want another deviation, its noise is drawn anew.
        self._keys.begin(f"noise/{name}/{part}/{done}", clipped.size, self._deviations.get(name, 0.0))
        total = Total(clipped.size, release.bound, self.info.max_images_per_unit > 1, seed)
        rows = self._whole_chunks(release, part, clipped, loss, params)
        for i, c in enumerate(self._reader.chunks(self._chosen(release, part, done), rows, features)):
            where = f"{name}/{part}/{done}/{self._team.rank}/{i}"
            own = [self._own(how, rows, f"draw/{k}/{where}") for k, how in draws.items()]
            clipped.add(total, loss, params, (c.x, c.y, *own), c.unit, c.images)
        step = self._step(release)
        whole = self._whole(Bounded(total.sum.div_(step).round_(), release.bound / step))
        self._charge_block(release, part, done)
        noisy = self._team.share(lambda: self._noised(whole, release, f"{name}/{part}/{done}"))
        return clipped.split(noisy.mul_(step / (release.sample_rate * self.info.units)), params)

    def train_hidden(self, name: str, train: Train, *, together: int = TOGETHER) -> None:
        """Make one hidden model per shard, before the first `pull`. Nothing leaves, so nothing is charged.

        Args:
            name: a planned release with verb "pull" or "vote".
            train: one shard -> its model, name -> tensor. It is run under `torch.func.vmap`, many shards in one pass,
                so it cannot see another shard; gradients are taken with `torch.func`. What it draws is each shard's
                own. An interrupted run takes up the models that it kept in `private/`.
            together: shards in one pass.

        Raises:
            PlanError: not planned. ConfigError: trained already, or asked already.
        """
        release = self._planned(name, "vote" if self.plan[name].verb == "vote" else "pull", None)
        self._team.share(lambda: self._enclave(release).train(train, together))

    def pull(self, name: str, f: Answer) -> torch.Tensor:
        """The answer of one hidden model: each row clipped, plus noise. Which model, the plan's mechanism decides.

        "secret-shards": a coin that nobody learns draws one of K shards at every step; f gets a copy of the model that
        `train_hidden` made, and what it does to it is thrown away. "round-robin": shard t mod K at step t; what f
        leaves in `hidden.state` is kept. f may train the model, and draw from torch's generator, which is the shard's
        and step's own. It may read whatever is public. Of several processes the first one does this work.

        Args:
            name: a planned release with verb "pull".
            f: a `Hidden` shard -> rows [rows, columns], as planned. Keeps nothing between calls: it is asked twice
                about made-up shards first. It runs without autograd; gradients are taken with `torch.func`. A row
                that is not finite counts as zero.

        Returns:
            float64 [rows, columns].

        Raises:
            PlanError, BudgetExceeded: as `grad`.
            ConfigError: f gives another shape, or keeps a state. What was charged stays charged.
        """
        release = self._planned(name, "pull", None)
        done = self._affordable(release, None)
        self._charge_block(release, None, done)  # first: not even an error of f on private records comes for nothing

        def answer() -> torch.Tensor:
            step = self._step(release)
            rows = clip(self._enclave(release).answer(done, f), release.bound, 1 / step).trunc_()
            return self._noised(Bounded(rows, release.bound / step), release, f"{name}/None/{done}") * step

        return self._team.share(answer)

    def loop(self, name: str, state: Mapping[str, Any], *, part: int | None = None) -> Iterator[int]:
        """The steps of a gradient loop, numbered from 0; an interrupted run goes on from its last checkpoint.

        In research mode a resumed loop repeats bit for bit. In release mode steps that were charged after the last
        checkpoint are spent: the loop jumps behind them, so it has fewer steps and never a larger charge; a schedule
        that follows the step's number ends as planned. A checkpoint is written as often as takes 1 % of the time, and
        after the last step, so that a later stage can be resumed too. A killed run loses what was done since then,
        and the rest of the block of steps that was charged, 1 % of them.

        Args:
            name: a planned release with any verb but "sum"; the body asks that, `name`, exactly once.
            state: all that the body changes, by name: things with `state_dict` and `load_state_dict` (modules,
                optimisers). torch's random state is kept beside it.
            part: as in `grad`.

        Raises:
            PlanError: as `grad`, the body did not ask once, or this loop was begun before.
            RunError: a checkpoint cannot be written, does not fit `state`, or is not paid for.
        """
        verb = self.plan[name].verb
        release, tag = self._planned(name, verb if verb in LOOPED else "grad", part), _tag(name, part)
        if (name, part) in self._taken:
            raise PlanError(f"release {name!r}: its steps were begun already; ask for all of them in one `gate.loop`")
        if mechanisms.of(release).state:
            state = {**state, "hidden models": self._enclave(release)}
        kept = self._team.share(lambda: self._journal.store.checkpoint(tag))
        begin, charged = thaw(kept, state, name) if kept else 0, self._journal.before.steps(name, part)
        if begin > charged:
            raise RunError(f"release {name!r} has a checkpoint that is not in the ledger; start in a new folder")
        begin = self._taken[name, part] = charged if self.mode == "release" else begin
        steps = range(begin, release.steps)
        for step in progress(steps, tag) if self._team.first else steps:
            yield step
            if self._taken[name, part] != step + 1:
                raise PlanError(f"release {name!r}: the body of a loop asks `{verb}` exactly once per step")
            self._journal.store.keep_checkpoint(tag, step + 1, state, last=step + 1 == release.steps)

    def inspect(self, purpose: str) -> Images:
        """The raw records, for exact measures and attacks. Research mode only; logged, and stamps what derives from it.

        Raises:
            ModeError: in release mode.
        """
        if self._closed:
            raise PlanError("inspect: the gate is closed; fit again under a new plan")
        if self.mode == "release":
            raise ModeError("inspect: raw records cannot be read in release mode; give a seed to work in research mode")
        self._journal.log("inspect", purpose=purpose)
        everyone = self._reader.units.sample(1.0, self._keys.stream("inspect"))
        pairs = [
            ((c.x * 255).round().to(torch.uint8)[: len(c.unit)].cpu(), c.y[: len(c.unit)].cpu())
            for c in self._reader.chunks(everyone, MANY)
        ]
        x = torch.cat([p[0] for p in pairs]) if pairs else torch.zeros(0, *self.info.shape, dtype=torch.uint8)
        y = torch.cat([p[1] for p in pairs]) if pairs else torch.zeros(0, dtype=torch.int64)
        return Images(x, y, self.info.classes, reads_private=True, label="NOT A RELEASE: raw private records")

    def close(self) -> Ledger:
        """End the run: nothing can be asked any more. Checks what was spent against the budget.

        Raises:
            BudgetExceeded: the ledger's epsilon passes the budget.
        """
        if not self._closed:
            self._closed = True
            del self._reader, self._keys, self._clipped, self._rows, self._enclaves
        if self.plan.privacy and self.plan.privacy.private:
            check_within(self.ledger.spent(), self.plan)
        if not any(self.ledger.bodies("close")):
            self._journal.log("close")
        return self.ledger

    # ------------------------------------------------------------------ paying

    def _planned(self, name: str, verb: str, part: int | None) -> Release:
        if self._closed:
            raise PlanError(f"release {name!r}: the gate is closed; fit again under a new plan")
        release = self.plan[name]
        if release.verb != verb:
            raise PlanError(f"release {name!r} was planned as {release.verb!r} but asked as {verb!r}")
        if (release.partition is None) != (part is None) or (part is not None and not 0 <= part < self.plan.parts):
            raise PlanError(
                f"release {name!r}: part = {part!r} does not fit its planned partition {release.partition!r}"
            )
        return release

    def _affordable(self, release: Release, part: int | None) -> int:
        """Steps already taken; refuses the next one if the plan does not hold it."""
        done = self._taken.get((release.name, part), 0)
        if self.mode == "release" and done < self._journal.before.steps(release.name, part):
            raise BudgetExceeded(
                f"release {release.name!r} was charged before this run was interrupted, and its answer is lost; "
                "start a new run in a new folder (what this one spent stays spent)"
            )
        if done >= release.steps:
            raise BudgetExceeded(
                f"release {release.name!r} was planned {release.steps} time(s); call {done + 1} was refused before any "
                "record was read. Plan more steps, or reuse the returned value"
            )
        return done

    def _charge(self, release: Release, part: int | None, steps: int) -> None:
        """Write to the ledger, unless research mode repeats a step that is there already."""
        done = self._taken.get((release.name, part), 0)
        if self.ledger.steps(release.name, part) <= done:
            self._journal.log("charge", **mechanisms.of(release).body(release, part, steps))
        self._taken[release.name, part] = done + 1

    def _charge_block(self, release: Release, part: int | None, done: int) -> None:
        """Reserve the next block of a loop when the last one is used up."""
        whole = mechanisms.of(release).block(release)
        block = math.ceil(release.steps / RESERVE / whole) * whole
        self._charge(release, part, min(block, release.steps - done))

    def _enclave(self, release: Release) -> Enclave:
        """The shards of a release; only the first process asks them."""
        if release.name not in self._enclaves:
            begun = self._team.first and self._journal.before.steps(release.name, None) > 0
            keep, store = mechanisms.of(release).state, self._journal.store
            made = Poll if release.verb == "vote" else Enclave
            self._enclaves[release.name] = made(release, self._reader, self._keys, store, self.info, keep, begun)
        return self._enclaves[release.name]

    def _noised(self, exact: Bounded, release: Release, purpose: str) -> torch.Tensor:
        """The one place where noise enters: its deviation is noise multiplier x the sensitivity that was enforced.

        That is the bound, times what the mechanism says one unit may move beyond it. All are in units of the grid:
        integers plus integers.
        """
        std = release.noise_multiplier * exact.sensitivity * mechanisms.of(release).factor(release)
        std = math.nextafter(std, math.inf) if std else 0.0  # the product may have been rounded down
        self._deviations[release.name] = std
        noise = torch.from_numpy(self._keys.noise(f"noise/{purpose}", exact.value.numel(), std))
        return noise.reshape(exact.value.shape).add_(exact.value.to(torch.int64)).to(torch.float64)

    def _step(self, release: Release) -> float:
        """The grid on which this release's sums and noise lie."""
        noise = release.noise_multiplier * release.bound * mechanisms.of(release).factor(release)
        return grid(release.bound, noise, self.info.units)

    # ------------------------------------------------------------------ reading

    def _chosen(self, release: Release, part: int | None, done: int) -> np.ndarray[Any, Any]:
        """The units of this step that this process reads; it throws the coins of its own shard."""

        def coins(which: str) -> Stream:
            return self._keys.stream(f"sample/{release.name}/{part}/{which}")

        return self._team.shard(mechanisms.of(release).chosen(release, self._reader.units, part, done, coins))

    def _own(self, how: Any, rows: int, purpose: str) -> torch.Tensor:
        """Random numbers of the records of one chunk: from a stream that nothing else has, which is kept nowhere."""
        return drawn(how, rows, self._keys.stream(purpose)).to(self._device)

    def _steady(self, release: Release, what: Any, look: Any, like: Any, most: int, known: Any = None) -> int:
        """Rows of this release's chunks; decided when it is first asked `what`."""
        key = release.name, what
        if key not in self._rows:
            parts = self.plan.parts if release.partition else 1
            rows = self._reader.rows(self.info.units / (parts * self._team.size), release.sample_rate, most)
            self._rows[key] = steady_rows(release.name, look, like, len(self.info.classes), rows, known)
        return self._rows[key]

    def _whole_chunks(self, release: Release, part: Any, clipped: Clipped, loss: Loss, params: Parameters) -> int:
        """Rows of a gradient's chunks, which are looked at first; gradients that are wrong take the general path."""
        several = self.info.max_images_per_unit > 1

        def steady() -> int:
            what, most = (part, clipped, clipped.fast), clipped.most(GRADIENT_BYTES)
            look = clipped.look(loss, params, several)
            return self._steady(release, what, look, clipped.like, most, clipped.known(several))

        rows = steady()
        return rows if clipped.confirmed(loss, params, rows, len(self.info.classes), several) else steady()

    def _whole(self, part: Bounded) -> Bounded:
        """The sum over all processes, on the first of them. A unit is in one shard, so the sensitivity stays."""
        return Bounded(self._team.sum(part.value), part.sensitivity)

    # ------------------------------------------------------------------ a run's folder

    def _saved(self, release: Release, part: int | None) -> torch.Tensor | None:
        """The next answer, if an interrupted run has paid for it and kept it."""
        done = self._taken.get((release.name, part), 0)
        if done >= release.steps:
            return None
        answer = self._team.share(lambda: self._journal.store.answer(_tag(release.name, part, done)))
        if answer is None:
            return None
        if self.ledger.steps(release.name, part) <= done:
            raise RunError(f"release {release.name!r} has an answer that is not in the ledger; start in a new folder")
        self._taken[release.name, part] = done + 1
        return answer


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, torch.Tensor):
        raise ConfigError(f"release {name!r}: the map returned a {type(value).__name__}: must return a tensor")
    return tuple(value.shape)


def _tag(name: str, part: int | None, done: int | None = None) -> str:
    return ".".join([name, *([] if part is None else [f"class{part}"]), *([] if done is None else [str(done)])])
