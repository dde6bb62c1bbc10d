"""Shards of units, and hidden models made from one shard each. Nothing of a model leaves but its answers, to the gate.

Each unit lies in one shard, by a draw of its own, which is made once per run. A shard's records stand in arrays whose
size follows from declared facts, so neither a shape nor a number of draws tells how many units a shard has. All that a
hidden model draws comes from generators that are seeded by a secret stream of its shard and step, and are put back
afterwards: neither another shard's draws nor public ones depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from veilset.core.errors import ConfigError, RunError
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.privacy.alone import equal
from veilset.privacy.draws import shared
from veilset.privacy.noise import Keys
from veilset.privacy.plan import Release
from veilset.privacy.reading import Reader
from veilset.privacy.run.run_store import RunStore

TOGETHER = 32  # hidden models that are trained in one vectorised pass
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Hidden:
    """One shard, and its model.

    Attributes:
        x: its images, [room, C, H, W] float32 in [0, 1], blank from `count` on; the room follows from declared facts.
        y: [room] labels, 0 from `count` on.
        count: how many images there are, an int64 scalar, maybe 0.
        state: name -> tensor of the model, as `Gate.train_hidden` left it, or under "round-robin" as the last call did.
    """

    x: torch.Tensor
    y: torch.Tensor
    count: torch.Tensor
    state: State

    def batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """n of its images, drawn with replacement: [n, C, H, W], labels [n], and their weight, a scalar.

        The weight is 1, or 0 for the blanks of an empty shard; n and the number of draws are the same for all shards.
        """
        place = (torch.rand(n, device=self.x.device) * self.count).long().clamp(max=self.x.shape[0] - 1)
        return self.x[place], self.y[place], (self.count > 0).to(self.x.dtype)


Answer = Callable[[Hidden], torch.Tensor]
Train = Callable[[Hidden], Mapping[str, torch.Tensor]]


def room(info: PublicInfo, shards: int) -> int:
    """Images that a shard has place for: six deviations above the mean. Units beyond are not read."""
    mean = info.units / shards
    return info.max_images_per_unit * math.ceil(mean + 6 * math.sqrt(mean) + 1)


class Enclave:
    """The shards of one release, and their models.

    Args:
        release: planned with verb "pull".
        reader: of the private records.
        keys: secret streams.
        store: keeps table and models for a run that goes on.
        info: declared facts.
        keep: models keep what they learn when they answer, and answer in turn; else a secret coin draws one.
        begun: an interrupted run has charged steps.

    Raises:
        RunError: an interrupted run's table is gone.
    """

    def __init__(
        self, release: Release, reader: Reader, keys: Keys, store: RunStore, info: PublicInfo, keep: bool, begun: bool
    ):
        facts = dict(release.facts)
        self.shards, self._shape = facts["shards"], (facts["rows"], facts["columns"])
        self._name, self._reader, self._keys, self._store = release.name, reader, keys, store
        self._room, self._classes, self._keep = room(info, self.shards), len(info.classes), keep
        self._models: dict[int, State] = {}
        self._steady = False
        known = store.hidden(f"{release.name}.shards")
        if known is None and begun and not keys.research:
            raise RunError(
                f"release {release.name!r}: the table of its shards is gone from private/, so this run cannot go on; "
                "start a new one in a new folder"
            )
        if known is None:
            drawn = keys.stream(f"shards/{release.name}").uint64(reader.units.count) % self.shards
            known = {"table": torch.from_numpy(drawn.astype("int64"))}
            store.keep_hidden(f"{release.name}.shards", known)
        self._table = known["table"].numpy()

    # ------------------------------------------------------------------ training, all shards alike

    def train(self, train: Train, together: int) -> None:
        """Make every shard's model by `train`, under vmap; those of an interrupted run are taken up again."""
        if self._models or self._steady:
            raise ConfigError(f"release {self._name!r}: its hidden models are trained once, before the first answer")
        whole = self._store.hidden(f"{self._name}.models")
        if whole is None:
            first = range(0, self.shards, together)
            parts = [self._trained(train, k, min(k + together, self.shards)) for k in progress(first, self._name)]
            whole = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
            self._store.keep_hidden(f"{self._name}.models", whole)
        self._models = {k: {name: v[k] for name, v in whole.items()} for k in range(self.shards)}

    def _trained(self, train: Train, first: int, end: int) -> State:
        """The models of shards first to end, in one pass.

        One that diverges may spoil what libraries compute beside it (0 x NaN): whatever is not finite is made once
        more, in its place, among blanks. So a shard's model is what it is alone, whoever the others are.
        """
        blank = self._blank()
        each = [self._read(k) for k in range(first, end)]

        def made(kept: range) -> State:
            rows = [h if first + i in kept else blank for i, h in enumerate(each)]
            inputs = [torch.stack([getattr(h, what) for h in rows]) for what in ("x", "y", "count")]
            with shared(self._seed(f"train/{first}"), blank.x.device), torch.no_grad():
                mapped = torch.func.vmap(lambda x, y, n: dict(train(Hidden(x, y, n, {}))), randomness="different")
                return {name: v.detach().clone() for name, v in mapped(*inputs).items()}

        out = made(range(first, end))
        for i in range(end - first):
            if not all(bool(torch.isfinite(v[i]).all()) for v in out.values()):
                alone = made(range(first + i, first + i + 1))
                for name, v in out.items():
                    v[i] = alone[name][i]
        return out

    # ------------------------------------------------------------------ one answer

    def answer(self, step: int, f: Answer) -> torch.Tensor:
        """The rows with which a shard's model answers, [rows, columns] float64 on the processor: neither clipped nor
        noised, so for the gate only.

        Raises:
            ConfigError: they are of another shape than planned, or f keeps a state of its own.
        """
        if not self._steady:
            self._check(f)
        k = step % self.shards if self._keep else self._keys.stream(f"draw/{self._name}/{step}").below(self.shards)
        hidden = self._read(k)
        rows = self._asked(f, hidden, self._seed(f"{step}/{k}"))
        if self._keep:
            self._models[k] = {name: v.detach().clone() for name, v in hidden.state.items()}
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The models, for the checkpoints of models that keep what they learn."""
        return {"models": self._models}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._models = state["models"]

    def _asked(self, f: Answer, hidden: Hidden, seed: int) -> torch.Tensor:
        with shared(seed, hidden.x.device), torch.no_grad():  # a `backward` would reach public networks
            rows = f(hidden)
        if not isinstance(rows, torch.Tensor) or tuple(rows.shape) != self._shape or not rows.is_floating_point():
            said = list(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ConfigError(
                f"release {self._name!r}: its answer is {said}, planned were {self._shape[0]} rows of "
                f"{self._shape[1]} floating-point numbers; return what was planned, or plan what is returned"
            )
        return rows.detach().to("cpu", torch.float64)

    def _check(self, f: Answer) -> None:
        """Ask f about made-up shards: of the planned shape, and the same again after another shard was asked about."""
        one, other = self._made_up(0, self._room), self._made_up(1, self._room // 2)
        once = self._asked(f, self._copy(one), 0)
        self._asked(f, self._copy(other), 1)
        again = self._asked(f, self._copy(one), 0)
        if not equal(once, again):
            raise ConfigError(
                f"release {self._name!r}: asked twice about one shard, f gives two answers; it keeps a state, or a "
                "generator, of its own. Keep nothing between calls but what stands in `hidden.state`"
            )
        self._steady = True

    # ------------------------------------------------------------------ records

    def _read(self, shard: int) -> Hidden:
        """A shard's records, and a copy of its model."""
        chosen = (self._table == shard).nonzero()[0]
        for c in self._reader.chunks(chosen, self._room):  # the first is all that there is room for
            return Hidden(c.x.nan_to_num_(0.0), c.y, torch.tensor(len(c.unit), device=c.x.device), self._state(shard))
        return self._blank(shard)

    def _blank(self, shard: int = 0) -> Hidden:
        x, y = self._reader.blank()
        many = x.expand(self._room, *x.shape).clone(), y.expand(self._room).clone()
        return Hidden(*many, torch.zeros((), dtype=torch.int64, device=x.device), self._state(shard))

    def _made_up(self, seed: int, count: int) -> Hidden:
        """A shard of noise, of which `count` images are said to be there, with a copy of the first model."""
        like, g = self._blank(), torch.Generator().manual_seed(seed)
        x = torch.rand(like.x.shape, generator=g).to(like.x)
        y = torch.randint(self._classes, like.y.shape, generator=g).to(like.y)
        return Hidden(x, y, like.count + count, like.state)

    def _state(self, shard: int) -> State:
        return {name: v.clone() for name, v in self._models.get(shard, {}).items()}

    def _copy(self, hidden: Hidden) -> Hidden:
        return Hidden(hidden.x.clone(), hidden.y.clone(), hidden.count.clone(), self._state(0))

    def _seed(self, purpose: str) -> int:
        """Of all generators, for one shard's work in one step: from a secret stream."""
        return int(self._keys.stream(f"hidden/{self._name}/{purpose}").uint64(1)[0] >> 2)
